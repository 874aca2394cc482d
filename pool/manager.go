package pool

import (
	"context"
	"errors"
	"net"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// ManagerConfig configures a Manager. The zero value is valid.
type ManagerConfig struct {
	// Dial opens the connections of Writers, such as through a proxy. Nil means package net.
	Dial DialFunc
	// Listen opens the sockets of Listeners, such as one that was handed over. Nil means package net.
	Listen ListenFunc
	// DialAllow limits where Writers connect to, whatever their Dial. Set it where addresses come from elsewhere than
	// the configuration. Nil means no limit.
	DialAllow *DialAllow
	// Hooks are those of Writers and Listeners that have none. Nil means none.
	Hooks []hooks.Hook
	// Logger is the one of Writers and Listeners that have none. Nil means watermill.NopLogger.
	Logger watermill.LoggerAdapter
}

// A Manager holds Writers and Listeners by address. All methods are safe for concurrent use, and a slow address delays
// no other.
type Manager struct {
	cfg       ManagerConfig
	writers   registry[*Writer]
	listeners registry[*Listener]
}

// NewManager returns a Manager without Writers and Listeners. It opens nothing; an error names the field that is not
// valid.
func NewManager(cfg ManagerConfig) (*Manager, error) {
	if err := (*netio.DialAllow)(cfg.DialAllow).Validate(); err != nil {
		return nil, configError("ManagerConfig.DialAllow", "%w", err)
	}
	cfg.Dial = cfg.DialAllow.guard(cfg.Dial) // what else is nil has its default at each Writer and Listener
	return &Manager{cfg: cfg}, nil
}

// Dial opens a Writer for cfg.Address, as DialTCP does; the other methods find it by that very string, or by cfg.Key if
// set. It returns ErrAlreadyOpened if there is one, and ErrClosed if the address or the Manager was closed meanwhile.
func (m *Manager) Dial(cfg WriterConfig) error {
	if cfg.Dial == nil {
		cfg.Dial = m.cfg.Dial
	} else {
		cfg.Dial = m.cfg.DialAllow.guard(cfg.Dial)
	}
	if cfg.Logger == nil {
		cfg.Logger = m.cfg.Logger
	}
	if cfg.Hooks == nil {
		cfg.Hooks = m.cfg.Hooks
	}
	key := cfg.Key
	setDefault(&key, cfg.Address)
	return m.writers.open(key, func(ctx context.Context) (*Writer, error) {
		return dialWriter(ctx, cfg)
	})
}

// Write calls Writer.Write of the address. Without a Writer there it returns ErrNotOpened, or ErrClosed after Close.
func (m *Manager) Write(address string, data []byte) (int, error) {
	return m.WriteContext(context.Background(), address, data)
}

// WriteContext calls Writer.WriteContext of the address. Without a Writer there it returns an error as Write does.
func (m *Manager) WriteContext(ctx context.Context, address string, data []byte) (int, error) {
	w, err := m.writers.get(address)
	if err != nil {
		return 0, err
	}
	return w.WriteContext(ctx, data)
}

// Flush calls Writer.Flush of the address. Without a Writer there it returns an error as Write does.
func (m *Manager) Flush(ctx context.Context, address string) error {
	w, err := m.writers.get(address)
	if err != nil {
		return err
	}
	return w.Flush(ctx)
}

// CloseWriter calls Writer.Close of the address and forgets the Writer, so that Dial can be called again. It makes a
// Dial that is still running return ErrClosed.
func (m *Manager) CloseWriter(address string) error { return m.writers.close(address) }

// StartListening opens a Listener on cfg.Address and accepts connections in the background. It returns ErrAlreadyOpened
// if there is one, and ErrClosed if the address or the Manager was closed meanwhile.
func (m *Manager) StartListening(cfg ListenerConfig) error {
	if cfg.Listen == nil {
		cfg.Listen = m.cfg.Listen
	}
	if cfg.Logger == nil {
		cfg.Logger = m.cfg.Logger
	}
	if cfg.Hooks == nil {
		cfg.Hooks = m.cfg.Hooks
	}
	return m.listeners.open(cfg.Address, func(context.Context) (*Listener, error) {
		l, err := ListenTCP(cfg)
		if err != nil {
			return nil, err
		}
		return l, l.StartListeningAsync()
	})
}

// CloseListener calls Listener.Close of the address and forgets the Listener, so that StartListening can be called
// again. Without a Listener there it returns an error as Write does.
func (m *Manager) CloseListener(address string) error { return m.listeners.close(address) }

// ListenAddress returns Listener.Addr of the address, or nil if it is not open. It has the port that the system chose
// for ":0".
func (m *Manager) ListenAddress(address string) net.Addr {
	l, err := m.listeners.get(address)
	if err != nil {
		return nil
	}
	return l.Addr()
}

// Close closes first all Listeners, as their callbacks may write, then all Writers, and waits for them: each is bounded
// by its CloseTimeout. It returns their errors joined. Later calls of Dial and StartListening return ErrClosed. Later
// and concurrent calls of Close wait for the first and return the same.
func (m *Manager) Close() error {
	return errors.Join(m.listeners.closeAll(), m.writers.closeAll())
}
