//go:build !race

package testkit

// RaceEnabled tells whether the race detector is on. Everything is then about ten times slower.
const RaceEnabled = false
