//go:build race

package hostile

// raceEnabled: everything is ten times slower.
const raceEnabled = true
