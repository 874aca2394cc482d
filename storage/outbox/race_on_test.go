//go:build race

package outbox

// sparse says that tests which try everything leave most of it to runs without the race detector.
const sparse = true
