package netio

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

// attemptDelay is the time after which the next address of a name is tried beside one that is silent: see RFC 8305.
const attemptDelay = 250 * time.Millisecond

// Dialer connects as net.Dialer does. Of a name with several addresses, it tries one after the other, and the next one
// too when one has not answered for a while: addresses that are silent cost a part of a second each, of whatever
// family. It is safe for concurrent use.
type Dialer struct {
	// Control is called with each address before it is connected to; an error refuses it. Nil allows all.
	Control func(network, address string) error
}

// DialHint goes with the context of a dial. A Dial that is not a Dialer's knows nothing of it.
type DialHint struct {
	Avoid []string     // addresses to try last, and in this order
	Stage func(string) // is called with what is done, in words, on the goroutine of the dial; may be nil
}

type dialHintKey struct{}

// WithDialHint returns a context for a dial.
func WithDialHint(ctx context.Context, hint DialHint) context.Context {
	return context.WithValue(ctx, dialHintKey{}, hint)
}

// DialContext connects to an address. It returns when ctx is done.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	hint, _ := ctx.Value(dialHintKey{}).(DialHint)
	if hint.Stage == nil {
		hint.Stage = func(string) {}
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || !strings.HasPrefix(network, "tcp") || host == "" || isLiteral(host) {
		hint.Stage("connecting to " + address)
		return d.dial(ctx, network, address)
	}
	hint.Stage("resolving " + host)
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip"+strings.TrimPrefix(network, "tcp"), host)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	addresses := make([]string, len(ips))
	for i, ip := range interleave(ips) {
		addresses[i] = net.JoinHostPort(ip.String(), port)
	}
	hint.Stage(fmt.Sprintf("connecting to %s, at %d addresses", host, len(addresses)))
	return d.dialAny(ctx, network, putLast(addresses, hint.Avoid))
}

func isLiteral(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

func (d *Dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{}
	if d.Control != nil {
		dialer.ControlContext = func(_ context.Context, network, address string, _ syscall.RawConn) error {
			return d.Control(network, address)
		}
	}
	return dialer.DialContext(ctx, network, address)
}

// interleave alternates the families, and begins with that of the first address.
func interleave(ips []netip.Addr) (out []netip.Addr) {
	var families [2][]netip.Addr
	for i, ip := range ips {
		ips[i] = ip.Unmap()
		family := 0
		if ips[i].Is4() != ips[0].Is4() {
			family = 1
		}
		families[family] = append(families[family], ips[i])
	}
	for i := range max(len(families[0]), len(families[1])) {
		for _, f := range families {
			if i < len(f) {
				out = append(out, f[i])
			}
		}
	}
	return out
}

// putLast moves those of the addresses that are in last to the end, in that order.
func putLast(addresses, last []string) []string {
	out := slices.DeleteFunc(slices.Clone(addresses), func(a string) bool { return slices.Contains(last, a) })
	for _, a := range last {
		if slices.Contains(addresses, a) {
			out = append(out, a)
		}
	}
	return out
}

// attempt is the result of a dial to one address.
type attempt struct {
	conn net.Conn
	err  error
}

// dialAny connects to whichever of the addresses answers first.
func (d *Dialer) dialAny(ctx context.Context, network string, addresses []string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan attempt)
	next := time.NewTimer(0)
	defer next.Stop()
	var failures []error
	for started := 0; len(failures) < len(addresses); {
		select {
		case <-next.C:
			if started < len(addresses) {
				address := addresses[started]
				go d.try(ctx, network, address, results) // ends when the address answers, or this call returns
				started++
				next.Reset(attemptDelay)
			}
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			failures = append(failures, r.err)
			next.Reset(0)
		case <-ctx.Done():
			silent := started - len(failures)
			return nil, explainFailures(append(failures, fmt.Errorf("dial %s: %d of the %d addresses %v have not answered: %w",
				network, silent, len(addresses), addresses[:min(started, 8)], ctx.Err())))
		}
	}
	return nil, explainFailures(failures)
}

// try dials one address. A connection that comes too late is closed.
func (d *Dialer) try(ctx context.Context, network, address string, results chan<- attempt) {
	conn, err := d.dial(ctx, network, address)
	select {
	case results <- attempt{conn, err}:
	case <-ctx.Done():
		if conn != nil {
			_ = conn.Close()
		}
	}
}

// explainFailures joins the errors of several addresses. That some are not allowed is the reason only if all are.
func explainFailures(failures []error) error {
	others := slices.DeleteFunc(slices.Clone(failures), func(err error) bool { return errors.Is(err, ErrDialDenied) })
	if len(others) == 0 {
		others = failures[:1]
	}
	return errors.Join(others...)
}
