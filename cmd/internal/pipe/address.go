// Package pipe connects a topic with standard input and output: what the commands pub and sub do.
package pipe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Target is where to dial or listen.
type Target struct {
	Network string // "tcp" or "unix"
	Address string // host:port or path
	TLS     bool
}

// Address is where an address topic leads. The library reads topics itself; this one is for what a command has to say
// before its first message.
type Address struct {
	Target Target
	Name   string // travels on the wire
}

// ParseTopic reads [tcp|tls://]host:port[/name] or unix:///path.sock#name.
func ParseTopic(topic string) (Address, error) {
	scheme, rest, explicit := strings.Cut(topic, "://")
	if !explicit {
		scheme, rest = "tcp", topic
	}
	switch scheme {
	case "tcp", "tls":
		hostPort, name, _ := strings.Cut(rest, "/")
		if err := checkHostPort(hostPort); err != nil {
			return Address{}, fmt.Errorf("bad address %.200q: %w; use host:port/name", topic, err)
		}
		return Address{Target{Network: "tcp", Address: hostPort, TLS: scheme == "tls"}, name}, nil
	case "unix":
		path, name, _ := strings.Cut(rest, "#")
		if !strings.HasPrefix(path, "/") {
			return Address{}, fmt.Errorf("bad address %.200q: the path must be absolute; use unix:///path.sock#name", topic)
		}
		return Address{Target{Network: "unix", Address: path}, name}, nil
	}
	return Address{}, fmt.Errorf("bad address %.200q: unknown scheme; use tcp://, tls:// or unix://", topic)
}

// WithPort is a topic whose port is that of the address at which it is listened for: it can have been 0.
func WithPort(topic string, at net.Addr) string {
	address, err := ParseTopic(topic)
	if err != nil || address.Target.Network != "tcp" {
		return topic
	}
	_, port, err := net.SplitHostPort(at.String()[strings.LastIndex(at.String(), "/")+1:])
	host, _, hostErr := net.SplitHostPort(address.Target.Address)
	if err != nil || hostErr != nil {
		return topic
	}
	return strings.Replace(topic, address.Target.Address, net.JoinHostPort(host, port), 1)
}

// Loopback tells whether only this machine can reach host:port.
func Loopback(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Peer is the address as the library writes it.
func (a Address) Peer() string {
	switch {
	case a.Target.Network == "unix":
		return "unix://" + a.Target.Address
	case a.Target.TLS:
		return "tls://" + a.Target.Address
	}
	return a.Target.Address
}

func checkHostPort(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		var bad *net.AddrError
		if errors.As(err, &bad) {
			return errors.New(bad.Err)
		}
		return err
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %q is not a number from 0 to 65535", port)
	}
	return nil
}

// redialPause is the wait between two looks whether somebody listens.
const redialPause = 100 * time.Millisecond

// AwaitListener connects to a target as soon as somebody listens there, for at most patience: a publisher may be
// started before its subscriber. What waiting cannot mend, such as an unknown host, is an error at once.
func AwaitListener(ctx context.Context, t Target, patience time.Duration) (net.Conn, error) {
	end := time.Now().Add(patience)
	dialer := net.Dialer{Deadline: end.Add(time.Second)} // without patience there is one attempt nevertheless
	for {
		conn, err := dialer.DialContext(ctx, t.Network, t.Address)
		switch {
		case err == nil:
			return conn, nil
		case ctx.Err() != nil:
			return nil, ErrInterrupted
		case !nobodyListens(err):
			return nil, fmt.Errorf("cannot reach %s: %w", t.Address, cause(err))
		case !time.Now().Before(end):
			return nil, fmt.Errorf("nothing listens at %s (waited %v): %w; start the subscriber, or raise --wait", t.Address, patience, cause(err))
		}
		select {
		case <-time.After(redialPause):
		case <-ctx.Done():
			return nil, ErrInterrupted
		}
	}
}

// nobodyListens tells a listener that may still come from an address that is wrong.
func nobodyListens(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
}

// cause leaves out what the caller has said already: operation and address.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
