//go:build !race

package monitor_test

// raced tells that the race detector is on, which makes what is large take minutes.
const raced = false
