// Package tap relays connections and prints the frames that cross it, in both directions.
package tap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
	"github.com/buffstreams/watermill-buffstreams/framing"
)

// Options say where to listen, and where connections go.
type Options struct {
	Listen, Target string
	// Codec cuts the stream into frames; Plain means that their payloads are messages of the BuffStreams wire.
	Codec framing.Codec
	Plain bool
	JSON  bool
	// Payloads prints what messages have in them.
	Payloads  bool
	Insecure  bool
	Out       io.Writer
	Listening func(address string)
	Warn      func(text string)
}

// Run relays until ctx is done, and returns nil then, or until the output takes no more.
func Run(ctx context.Context, o Options) error {
	listen, err := target(o.Listen)
	if err != nil {
		return err
	}
	to, err := target(o.Target)
	if err != nil {
		return err
	}
	if !o.Insecure && listen.Network == "tcp" && !pipe.Loopback(listen.Address) {
		return fmt.Errorf("refusing to listen in plaintext at %s, which other machines can reach; use a loopback address, or --insecure", listen.Address)
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, listen.Network, listen.Address)
	if err != nil {
		return err
	}
	o.Listening(ln.Addr().String())
	asked := ctx
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	r := &relay{o: o, to: to, printer: printer{o: &o, failed: fail}}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := ln.Accept()
		switch {
		case asked.Err() != nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		}
		wg.Go(func() { r.serve(ctx, conn) }) // ends with its connection, or ctx
	}
}

func target(topic string) (pipe.Target, error) {
	a, err := pipe.ParseTopic(topic)
	switch {
	case err != nil:
		return pipe.Target{}, err
	case a.Target.TLS:
		return pipe.Target{}, fmt.Errorf("%s: frames under TLS cannot be seen; tap the plaintext on one of its ends", topic)
	case a.Name != "":
		return pipe.Target{}, fmt.Errorf("%s: all topics of an address share a connection; leave %q out", topic, a.Name)
	}
	return a.Target, nil
}

// relay has what its connections share.
type relay struct {
	o       Options
	to      pipe.Target
	printer printer
	count   atomic.Int64
}

// serve relays one connection to its end. Each half ends on its own: a peer that has said all may still listen.
func (r *relay) serve(ctx context.Context, near net.Conn) {
	id := r.count.Add(1)
	defer func() { _ = near.Close() }()
	far, err := (&net.Dialer{}).DialContext(ctx, r.to.Network, r.to.Address)
	if err != nil {
		r.o.Warn(fmt.Sprintf("connection %d: %v", id, err))
		return
	}
	defer func() { _ = far.Close() }()
	stop := context.AfterFunc(ctx, func() { _, _ = near.Close(), far.Close() })
	defer stop()
	r.printer.event(id, "open", near.RemoteAddr().String())
	var wg sync.WaitGroup
	wg.Go(func() { r.half(id, ">", near, far) })
	wg.Go(func() { r.half(id, "<", far, near) })
	wg.Wait()
	r.printer.event(id, "close", "")
}

// half copies bytes as they come, and prints the frames in them. What is no frame is copied all the same.
func (r *relay) half(id int64, direction string, from, to net.Conn) {
	reader := framing.NewReader(io.TeeReader(from, to), r.o.Codec)
	for {
		payload, err := reader.Next()
		if err == nil {
			if err = r.printer.frame(id, direction, payload); err == nil {
				continue
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		var op *net.OpError
		if !errors.As(err, &op) {
			r.printer.event(id, "undecodable "+direction, err.Error())
			_, _ = io.Copy(to, from) // its end is that of the connection
		}
		break
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // the other half shows what is wrong
	}
}
