//go:build race

package leaktest

// RaceEnabled tells whether the race detector is on: everything is then ten times slower.
const RaceEnabled = true
