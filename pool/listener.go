package pool

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// ListenCallback is called with each message, without its header. The bytes are
// valid until it returns. An error is logged and the connection goes on; a panic
// is logged and ends the connection that brought the message. It must not close
// its own Listener, as Close waits for it.
type ListenCallback func([]byte) error

const (
	acceptDelayMin = 5 * time.Millisecond
	acceptDelayMax = time.Second

	// abortGrace is how long Close waits for connections that it has cut.
	abortGrace = 100 * time.Millisecond
)

// A Listener receives messages on one address. All methods are safe for
// concurrent use.
type Listener struct {
	cfg         ListenerConfig
	tls         *tls.Config // nil: plaintext
	codec       framing.Codec
	headerWidth int // 0: depends on the length
	socket      net.Listener
	closing     chan struct{} // closed when Close begins
	abort       chan struct{} // closed when Close stops being patient
	idle        chan struct{} // closed when Close has begun and nothing is active
	aborted     atomic.Bool   // abort is closed
	dropped     atomic.Int64  // messages received and not handed over

	// mu guards the fields below; it is never held across I/O or user code.
	mu      sync.Mutex
	started bool
	closed  bool // Close has begun
	full    bool // the last connection was one too many
	active  int  // the accept loop and the connections
	conns   map[*inbound]struct{}
	perHost map[string]int

	closeOnce sync.Once
	closeErr  error
}

// ListenTCP opens the socket. Connections wait in the kernel until
// StartListening or StartListeningAsync.
func ListenTCP(cfg ListenerConfig) (*Listener, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	codec, err := codecOf("ListenerConfig", cfg.Codec, cfg.MaxMessageSize)
	if err != nil {
		return nil, err
	}
	width, err := constantWidth(codec)
	if err != nil {
		return nil, configError("ListenerConfig.Codec", "%w", err)
	}
	socket, err := cfg.Listen(cfg.Network, cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("pool: listen on %s: %w", netio.Quote(cfg.Address), err)
	}
	// A host name, or a Listen of the user's, decides only here where it is.
	if cfg.TLSConfig == nil && !cfg.Insecure && netio.BoundBeyondLoopback(socket.Addr()) {
		_ = socket.Close() // the refusal is the error
		return nil, &netio.InsecureAddressError{Address: socket.Addr().String()}
	}
	var secured *tls.Config
	if cfg.TLSConfig != nil {
		secured = netio.ServerTLS(cfg.TLSConfig)
	}
	return &Listener{
		tls: secured,
		cfg: cfg, codec: codec, headerWidth: width, socket: socket,
		closing: make(chan struct{}), abort: make(chan struct{}), idle: make(chan struct{}),
		conns: make(map[*inbound]struct{}), perHost: make(map[string]int),
	}, nil
}

// Addr is the address of the socket, with the port that the system chose for ":0".
func (l *Listener) Addr() net.Addr { return l.socket.Addr() }

// StartListening accepts connections and blocks until Close, then returns nil.
// It returns ErrAlreadyOpened if the Listener was started before, ErrClosed
// after Close, and the error of a socket that somebody else closed.
func (l *Listener) StartListening() error {
	if err := l.start(); err != nil {
		return err
	}
	defer l.leave()
	return l.accept()
}

// StartListeningAsync is StartListening in a goroutine. An error that ends it
// later is logged.
func (l *Listener) StartListeningAsync() error {
	if err := l.start(); err != nil {
		return err
	}
	go func() { // ends when Close closes the socket; counted in active
		defer l.leave()
		if err := l.accept(); err != nil {
			l.cfg.Logger.Error("listener stopped", err, l.fields())
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

func (l *Listener) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active--
	l.checkIdle()
}

// checkIdle wants mu.
func (l *Listener) checkIdle() {
	if l.closed && l.active == 0 {
		close(l.idle)
	}
}

func (l *Listener) accept() error {
	delay := acceptDelayMin
	for {
		conn, err := l.socket.Accept()
		if err == nil {
			delay = acceptDelayMin
			l.admit(conn)
			continue
		}
		select {
		case <-l.closing:
			return nil
		default:
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("pool: the socket of %s was closed under its listener: %w", netio.Quote(l.cfg.Address), err)
		}
		l.cfg.Logger.Error("accept failed; trying again", err, l.fields().Add(watermill.LogFields{"delay": delay}))
		if !l.sleep(delay) {
			return nil
		}
		delay = min(2*delay, acceptDelayMax)
	}
}

// sleep returns false when Close began.
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

// admit starts a connection or refuses it.
func (l *Listener) admit(raw net.Conn) {
	in := &inbound{l: l, raw: raw, conn: raw, host: netio.HostOf(raw.RemoteAddr())}
	if l.cfg.TLSConfig != nil {
		in.conn = tls.Server(raw, l.tls)
	}
	refusal, first := l.enter(in)
	if refusal == "" {
		go in.serve() // ends with its connection, which Close ends; counted in active
		return
	}
	_ = raw.Close() // refused
	if first {
		l.cfg.Logger.Info("refusing connections", in.fields().Add(watermill.LogFields{"reason": refusal}))
	}
}

// enter counts a connection in. It returns the reason for a refusal, and
// whether it is the first after an admission, as a flood must not fill the log.
func (l *Listener) enter(in *inbound) (refusal string, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch most, perHost := l.cfg.MaxConnections, l.cfg.MaxConnectionsPerHost; {
	case l.closed:
		return "closed", false
	case most >= 0 && len(l.conns) >= most:
		refusal = "MaxConnections"
	case perHost >= 0 && l.perHost[in.host] >= perHost:
		refusal = "MaxConnectionsPerHost"
	default:
		l.full = false
		l.active++
		l.conns[in] = struct{}{}
		l.perHost[in.host]++
		return "", false
	}
	first, l.full = !l.full, true
	return refusal, first
}

// exit is the end of what enter began.
func (l *Listener) exit(in *inbound) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, in)
	if l.perHost[in.host]--; l.perHost[in.host] == 0 {
		delete(l.perHost, in.host)
	}
	l.active--
	l.checkIdle()
}

func (l *Listener) fields() watermill.LogFields {
	return watermill.LogFields{"provider": netio.Provider, "address": netio.Quote(l.cfg.Address)}
}
