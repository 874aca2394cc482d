package sender

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// leastWait is between two attempts to connect, whatever the BackOff says.
const leastWait = 5 * time.Millisecond

func nextDelay(b backoff.BackOff) time.Duration {
	delay := b.NextBackOff()
	if delay < 0 { // a Sender goes on as long as it has messages
		return longestWait
	}
	return max(delay, leastWait)
}

// maxAvoided bounds the addresses that are remembered as those that got nowhere.
const maxAvoided = 16

// noteAddress remembers the address of a connection that got nowhere: the next attempt begins with another one. Only
// run calls it.
func (s *Sender) noteAddress(conn net.Conn, welcomed bool) {
	if welcomed {
		s.avoid = nil
		return
	}
	var address string
	err := hook.Call("RemoteAddr", func() error { // the connection can be the user's
		address = conn.RemoteAddr().String()
		return nil
	})
	if err != nil {
		return
	}
	s.avoid = append(slices.DeleteFunc(s.avoid, func(a string) bool { return a == address }), address)
	s.avoid = s.avoid[max(0, len(s.avoid)-maxAvoided):]
}

// setStage notes what is done to connect, for the error of a time-out.
func (s *Sender) setStage(stage string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stage = stage
}

// dial fetches the token to show, and connects.
func (s *Sender) dial() (net.Conn, []byte, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.HandshakeTimeout)
	defer cancel()
	s.setStage("waiting for AckedConfig.Token")
	token, err := s.cfg.token(ctx)
	if err != nil {
		return nil, nil, err
	}
	s.setStage("connecting to " + s.cfg.Target.Address)
	ctx = netio.WithDialHint(ctx, netio.DialHint{Avoid: s.avoid, Stage: s.setStage})
	conn, err := netio.GuardedDial(s.cfg.Dial)(ctx, s.cfg.Target.Network, s.cfg.Target.Address)
	if err != nil || s.cfg.TLS == nil {
		return conn, token, err
	}
	s.setStage("making the TLS handshake with " + s.cfg.Target.Address)
	secured := tls.Client(netio.Patient(conn, s.cfg.WriteTimeout), s.cfg.TLS)
	if err := netio.Handshake(ctx, secured); err != nil {
		s.noteAddress(conn, false)
		return nil, nil, errors.Join(ended(err), conn.Close())
	}
	return secured, token, nil
}
