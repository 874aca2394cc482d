package pool

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// tell calls hooks in their turn, and waits for them until ctx is done: they hold up their connection, and no Close.
func tell(ctx context.Context, set *hook.Set, name string, call func(*hook.Set)) {
	if set == nil {
		return
	}
	_, _ = hook.CallWithin(ctx, name, func() (struct{}, error) { call(set); return struct{}{}, nil }, nil) // a panic is logged by set
}

// tellDialed tells of an attempt to connect. There is no greeting: a connection is one that can be sent to.
func (w *Writer) tellDialed(ctx context.Context, took time.Duration, err error) {
	tell(ctx, w.hooks, "WriterConfig.Hooks", func(set *hook.Set) {
		set.Dialed(hooks.Dialed{Address: w.cfg.Address, Took: took, Err: err})
		if err == nil {
			set.Connected(hooks.Connected{Address: w.cfg.Address, Took: took})
		}
	})
}

// tellLost tells of the end of a connection, once. It must be called without mu.
func (w *Writer) tellLost(out *outbound, err error) {
	if w.hooks == nil || !out.told.CompareAndSwap(false, true) {
		return
	}
	if errors.Is(err, errPeerClosed) {
		err = io.EOF
	}
	tell(w.ctx, w.hooks, "WriterConfig.Hooks", func(set *hook.Set) {
		set.Lost(hooks.Lost{Address: w.cfg.Address, Welcomed: true, Lasted: time.Since(out.since), Err: err})
	})
}

// tellAccepted tells of a connection that was admitted.
func (in *inbound) tellAccepted() {
	in.admitted, in.since = true, time.Now()
	tell(in.l.ctx, in.l.hooks, "ListenerConfig.Hooks", func(set *hook.Set) {
		set.Accepted(hooks.Accepted{Listener: in.l.cfg.Address, Peer: netio.PeerText(in.raw.RemoteAddr())})
	})
}

// tellEnd tells of the end of a connection: one that was never admitted was refused.
func (in *inbound) tellEnd(err error) {
	if in.l.hooks == nil {
		return
	}
	peer, listener := netio.PeerText(in.raw.RemoteAddr()), in.l.cfg.Address
	tell(in.l.ctx, in.l.hooks, "ListenerConfig.Hooks", func(set *hook.Set) {
		if in.admitted {
			set.Lost(hooks.Lost{Address: peer, Listener: listener, Welcomed: true, Lasted: time.Since(in.since), Err: err})
			return
		}
		set.Refused(hooks.Refused{Listener: listener, Peer: peer, Err: netio.Sanitize(err)})
	})
}

// tellRefused tells of a connection over a limit.
func (l *Listener) tellRefused(conn net.Conn, limit string) {
	tell(l.ctx, l.hooks, "ListenerConfig.Hooks", func(set *hook.Set) {
		set.Refused(hooks.Refused{
			Listener: l.cfg.Address, Peer: netio.PeerText(conn.RemoteAddr()), Err: errors.New("pool: too many connections: " + limit),
		})
	})
}
