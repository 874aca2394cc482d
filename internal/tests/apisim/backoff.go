package apisim

import (
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const firstBackOff, lastBackOff = 50 * time.Millisecond, time.Second

// jitter is the library's own BackOff with random numbers of the program: when a process connects again is the same in
// a replay.
type jitter struct {
	random *rand.Rand
	bound  time.Duration
}

func (j *jitter) NextBackOff() time.Duration {
	d := time.Duration(j.random.Float64() * float64(j.bound))
	j.bound = min(2*j.bound, lastBackOff)
	return d
}

func (j *jitter) Reset() { j.bound = firstBackOff }

// backOffs returns what makes the BackOffs of one Manager.
func (w *world) backOffs(proc *process) func() backoff.BackOff {
	made := 0
	return func() backoff.BackOff {
		w.mu.Lock()
		made++
		n := made
		w.mu.Unlock()
		parts := []int{88, n}
		for _, c := range proc.name {
			parts = append(parts, int(c))
		}
		return &jitter{w.random(parts...), firstBackOff}
	}
}
