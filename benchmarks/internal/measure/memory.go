package measure

import (
	"bytes"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
)

// Memory is what a process holds, in bytes.
type Memory struct {
	Heap     int64 `json:"heap"`     // live objects, after a collection
	Stacks   int64 `json:"stacks"`   // of goroutines
	Resident int64 `json:"resident"` // as the system sees it; 0 where it does not tell
}

// Measured collects garbage until stacks have shrunk, and looks.
func Measured() Memory {
	for range 4 {
		runtime.GC()
	}
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(samples)
	return Memory{
		Heap: int64(samples[0].Value.Uint64()), Stacks: int64(samples[1].Value.Uint64()), Resident: resident(),
	}
}

// resident reads the second field of statm, which counts pages.
func resident() int64 {
	content, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(content)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
