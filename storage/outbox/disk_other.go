//go:build !linux

package outbox

import "os"

// preallocate does nothing: it is worthwhile only where it makes an fsync cheaper.
func preallocate(*os.File, int64) error { return nil }

func syncData(f *os.File) error { return f.Sync() }
