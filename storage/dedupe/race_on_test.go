//go:build race

package dedupe

// sparse says that tests which try everything leave most of it to runs without the race detector.
const sparse = true
