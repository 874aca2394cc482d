//go:build race

package pool

// raceEnabled: everything is ten times slower.
const raceEnabled = true
