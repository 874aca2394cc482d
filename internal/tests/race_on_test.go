//go:build race

package tests

// raceEnabled: everything is ten times slower.
const raceEnabled = true
