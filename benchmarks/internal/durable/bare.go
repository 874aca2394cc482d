package durable

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
)

// Bare is the limit of group commit: one growing file, a write and an fdatasync for all messages that have gathered
// meanwhile, and senders that wait for theirs. It has no streams, no cursor and no recovery; a store can only beat it
// by preallocating.
var Bare = Kind{Open: openBare, Replay: replayBare}

type bare struct {
	file *os.File
	wake chan struct{} // a group waits
	quit chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	group *group // that gathers, nil if none does
}

type group struct {
	bytes    []byte
	messages int
	done     chan struct{} // closed when err is set
	err      error
}

func openBare(dir string, _ int) (Store, error) {
	file, err := os.Create(dir)
	if err != nil {
		return nil, err
	}
	b := &bare{file: file, wake: make(chan struct{}, 1), quit: make(chan struct{})}
	b.wg.Go(b.run) // ends with Close
	return b, nil
}

func (b *bare) Append(_ context.Context, message []byte) error {
	b.mu.Lock()
	if b.group == nil {
		b.group = &group{done: make(chan struct{})}
	}
	g := b.group
	g.bytes = append(binary.BigEndian.AppendUint32(g.bytes, uint32(len(message))), message...)
	g.messages++
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
	<-g.done
	return g.err
}

// Close must not be called while messages are appended.
func (b *bare) Close() error {
	close(b.quit)
	b.wg.Wait()
	return b.file.Close()
}

func (b *bare) run() {
	for {
		select {
		case <-b.wake:
		case <-b.quit:
			return
		}
		b.gather()
		b.mu.Lock()
		g := b.group
		b.group = nil
		b.mu.Unlock()
		if g == nil {
			continue
		}
		if _, g.err = b.file.Write(g.bytes); g.err == nil {
			g.err = syncData(b.file)
		}
		close(g.done)
	}
}

// gather lets those whom the last fsync woke append again, for as long as the group grows: without it the limit would
// be lower.
func (b *bare) gather() {
	for seen, tries := 0, 0; tries < 4; tries++ {
		b.mu.Lock()
		n := 0
		if b.group != nil {
			n = b.group.messages
		}
		b.mu.Unlock()
		if n == seen {
			return
		}
		seen = n
		runtime.Gosched()
	}
}

func replayBare(_ context.Context, dir string, arrive func([]byte)) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	var length [4]byte
	for r := bufio.NewReader(file); ; {
		if _, err := io.ReadFull(r, length[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("bare log: %w", err)
		}
		message := make([]byte, min(binary.BigEndian.Uint32(length[:]), 1<<20))
		if _, err := io.ReadFull(r, message); err != nil {
			return fmt.Errorf("bare log: %w", err)
		}
		arrive(message)
	}
}
