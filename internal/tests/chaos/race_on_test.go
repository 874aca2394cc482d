//go:build race

package chaos

// raceEnabled: everything is ten times slower.
const raceEnabled = true
