package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

const (
	acceptDelayMin = 5 * time.Millisecond
	acceptDelayMax = time.Second
)

// A Listener receives messages on one address. All methods are safe for concurrent use.
type Listener struct {
	cfg         ListenerConfig
	tls         *tls.Config // nil: plaintext
	codec       framing.Codec
	headerWidth int // of every frame, in bytes; 0: it depends on the length
	socket      net.Listener
	hooks       *hook.Set       // nil: there are none
	ctx         context.Context // of hooks; done when CloseTimeout is over
	giveUp      context.CancelFunc
	closing     chan struct{} // closed when Close begins
	abort       chan struct{} // closed when CloseTimeout is over
	idle        chan struct{} // closed when Close has begun and active is 0
	aborted     atomic.Bool   // abort is closed
	dropped     atomic.Int64  // messages received and not handed over

	mu       sync.Mutex // guards the fields below; never held across I/O or user code
	started  bool
	closed   bool // Close has begun
	refusing bool // the last connection was refused
	active   int  // goroutines: the accept loop and the connections
	conns    map[*inbound]struct{}
	perHost  map[string]int

	ending ending
}

// ListenTCP opens the socket. Connections wait in the kernel until StartListening or StartListeningAsync. It returns an
// *InsecureAddressError for plaintext on an address that is not loopback, unless Insecure is set.
func ListenTCP(cfg ListenerConfig) (*Listener, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	codec, err := resolveCodec("ListenerConfig", cfg.Codec, cfg.MaxMessageSize)
	if err != nil {
		return nil, err
	}
	width, err := constantWidth(codec)
	if err != nil {
		return nil, configError("ListenerConfig.Codec", "%w", err)
	}
	socket, err := netio.GuardedListen(cfg.Listen, cfg.Network, cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("pool: listen on %s: %w", netio.Quote(cfg.Address), err)
	}
	// Only now it is known where a host name, or the Listen of the configuration, has led.
	if cfg.TLSConfig == nil && !cfg.Insecure && netio.BoundBeyondLoopback(socket.Addr()) {
		_ = socket.Close() // the refusal is the error
		return nil, &netio.InsecureAddressError{Address: socket.Addr().String()}
	}
	var secured *tls.Config
	if cfg.TLSConfig != nil {
		secured = netio.ServerTLS(cfg.TLSConfig)
	}
	ctx, giveUp := context.WithCancel(context.Background())
	return &Listener{
		ctx: ctx, giveUp: giveUp, hooks: hook.NewSet(cfg.Hooks, cfg.Logger),
		cfg: cfg, tls: secured, codec: codec, headerWidth: width, socket: socket,
		closing: make(chan struct{}), abort: make(chan struct{}), idle: make(chan struct{}),
		conns: make(map[*inbound]struct{}), perHost: make(map[string]int),
	}, nil
}

// Addr is the address of the socket, with the port that the system chose for ":0".
func (l *Listener) Addr() net.Addr { return l.socket.Addr() }

// StartListening accepts connections until Close, then returns nil. It returns ErrAlreadyOpened if the Listener was
// started before, ErrClosed after Close, and an error if the socket was closed by another way than Close.
func (l *Listener) StartListening() error {
	if err := l.start(); err != nil {
		return err
	}
	defer l.acceptEnded()
	return l.acceptLoop()
}

// StartListeningAsync is StartListening in the background. It returns at once; an error that ends it later is logged.
func (l *Listener) StartListeningAsync() error {
	if err := l.start(); err != nil {
		return err
	}
	go func() { // ends when Close closes the socket; counted in active, for which Close waits
		defer l.acceptEnded()
		if err := l.acceptLoop(); err != nil {
			l.cfg.Logger.Error("Listener stopped", err, l.fields())
		}
	}()
	return nil
}

func (l *Listener) start() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return ErrClosed
	case l.started:
		return ErrAlreadyOpened
	}
	l.started = true
	l.active++
	return nil
}

func (l *Listener) acceptEnded() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active--
	l.checkIdleLocked()
}

func (l *Listener) checkIdleLocked() {
	if l.closed && l.active == 0 {
		close(l.idle)
	}
}

func (l *Listener) acceptLoop() error {
	delay := acceptDelayMin
	for {
		conn, err := l.socket.Accept()
		if err == nil {
			delay = acceptDelayMin
			l.handle(conn)
			continue
		}
		select {
		case <-l.closing:
			return nil
		default:
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("pool: the socket of %s was closed, but not by Close: %w", netio.Quote(l.cfg.Address), err)
		}
		l.cfg.Logger.Error("Accept failed, retrying", err, l.fields().Add(watermill.LogFields{"delay": delay}))
		if !l.sleep(delay) {
			return nil
		}
		delay = min(2*delay, acceptDelayMax)
	}
}

// sleep returns false when Close has begun.
func (l *Listener) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.closing:
		return false
	}
}

// handle serves a connection or refuses it.
func (l *Listener) handle(raw net.Conn) {
	in := &inbound{l: l, raw: raw, conn: raw, host: netio.HostOf(raw.RemoteAddr())}
	if l.tls != nil {
		in.conn = tls.Server(raw, l.tls)
	}
	refusal, first := l.register(in)
	if refusal == "" {
		go in.serve() // ends with its connection, which Close ends; counted in active, for which Close waits
		return
	}
	_ = raw.Close() // refused
	if first {
		l.tellRefused(raw, refusal)
		l.cfg.Logger.Info("Refusing connections", in.fields().Add(watermill.LogFields{"reason": refusal}))
	}
}

// register counts a connection. It returns the reason for a refusal, and whether that is the first refusal in a row: a
// flood must not fill the log.
func (l *Listener) register(in *inbound) (refusal string, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch limit, perHost := l.cfg.MaxConnections, l.cfg.MaxConnectionsPerHost; {
	case l.closed:
		return "closed", false
	case limit >= 0 && len(l.conns) >= limit:
		refusal = "MaxConnections"
	case perHost >= 0 && l.perHost[in.host] >= perHost:
		refusal = "MaxConnectionsPerHost"
	default:
		l.refusing = false
		l.active++
		l.conns[in] = struct{}{}
		l.perHost[in.host]++
		return "", false
	}
	first, l.refusing = !l.refusing, true
	return refusal, first
}

func (l *Listener) unregister(in *inbound) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, in)
	if l.perHost[in.host]--; l.perHost[in.host] == 0 {
		delete(l.perHost, in.host)
	}
	l.active--
	l.checkIdleLocked()
}

func (l *Listener) fields() watermill.LogFields {
	return watermill.LogFields{"provider": netio.Provider, "address": netio.Quote(l.cfg.Address)}
}
