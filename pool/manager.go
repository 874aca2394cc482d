package pool

import (
	"context"
	"errors"
	"net"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// A Manager holds writers and listeners by their address. All methods are safe
// for concurrent use, and a slow address delays no other.
type Manager struct {
	cfg       ManagerConfig
	writers   registry[*Writer]
	listeners registry[*Listener]
}

// NewManager returns a Manager that holds nothing yet.
func NewManager(cfg ManagerConfig) (*Manager, error) {
	if err := (*netio.DialAllow)(cfg.DialAllow).Validate(); err != nil {
		return nil, configError("ManagerConfig.DialAllow", "%w", err)
	}
	cfg.setDefaults()
	return &Manager{cfg: cfg}, nil
}

// Dial opens a Writer for cfg.Address, as DialTCP does; Write then finds it by
// that very string. It returns ErrAlreadyOpened if there is one, also one that
// is being opened or closed, and ErrClosed if the address or the Manager was
// closed meanwhile.
func (m *Manager) Dial(cfg WriterConfig) error {
	switch {
	case cfg.Dial == nil:
		cfg.Dial = m.cfg.Dial
	case m.cfg.DialAllow != nil:
		cfg.Dial = (*netio.DialAllow)(m.cfg.DialAllow).Guard(cfg.Dial)
	}
	if cfg.Logger == nil {
		cfg.Logger = m.cfg.Logger
	}
	key := cfg.Key
	if key == "" {
		key = cfg.Address
	}
	return m.writers.open(key, func(ctx context.Context) (*Writer, error) {
		return dialWriter(ctx, cfg)
	})
}

// Write is Writer.Write for the Writer of address, or ErrNotOpened.
func (m *Manager) Write(address string, data []byte) (int, error) {
	w, err := m.writers.get(address)
	if err != nil {
		return 0, err
	}
	return w.Write(data)
}

// Flush is Writer.Flush for the Writer of address, or ErrNotOpened.
func (m *Manager) Flush(ctx context.Context, address string) error {
	w, err := m.writers.get(address)
	if err != nil {
		return err
	}
	return w.Flush(ctx)
}

// CloseWriter closes the Writer of address, as Writer.Close does, and forgets
// it, so that Dial can be called again. A Dial that is under way ends.
func (m *Manager) CloseWriter(address string) error { return m.writers.close(address) }

// StartListening opens a Listener on cfg.Address and accepts in the background.
// It returns ErrAlreadyOpened as Dial does.
func (m *Manager) StartListening(cfg ListenerConfig) error {
	if cfg.Listen == nil {
		cfg.Listen = m.cfg.Listen
	}
	if cfg.Logger == nil {
		cfg.Logger = m.cfg.Logger
	}
	return m.listeners.open(cfg.Address, func(context.Context) (*Listener, error) {
		l, err := ListenTCP(cfg)
		if err != nil {
			return nil, err
		}
		return l, l.StartListeningAsync()
	})
}

// CloseListener closes the Listener of address, as Listener.Close does, and
// forgets it, so that StartListening can be called again.
func (m *Manager) CloseListener(address string) error { return m.listeners.close(address) }

// ListenAddress is the address of the Listener's socket, with the port that the
// system chose where address ends in ":0", or nil if it is not open.
func (m *Manager) ListenAddress(address string) net.Addr {
	l, err := m.listeners.get(address)
	if err != nil {
		return nil
	}
	return l.Addr()
}

// Close closes first all listeners, as their callbacks may write, then all
// writers. It refuses whatever is opened later with ErrClosed. Later and
// concurrent calls wait for the same end and return nil, or the same errors.
func (m *Manager) Close() error {
	return errors.Join(m.listeners.closeAll(), m.writers.closeAll())
}
