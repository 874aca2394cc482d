//go:build !linux

package bench

import "time"

// sleepUntil is as exact as the runtime's timers are.
func sleepUntil(t time.Time) { time.Sleep(time.Until(t)) }
