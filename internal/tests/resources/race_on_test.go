//go:build race

package resources

// raceEnabled: everything is ten times slower.
const raceEnabled = true
