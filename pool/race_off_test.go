//go:build !race

package pool

const RaceEnabled = false
