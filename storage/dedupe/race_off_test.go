//go:build !race

package dedupe

const sparse = false
