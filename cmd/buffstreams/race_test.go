//go:build race

package main

import "os"

// init has the command built with the detector as well. Without the setting each of its processes would sleep for a
// second before it ends.
func init() {
	buildFlags = append(buildFlags, "-race")
	if os.Getenv("GORACE") == "" {
		_ = os.Setenv("GORACE", "atexit_sleep_ms=20") // at worst it is slow
	}
}
