// Package monitor shows what a process does with the transport: health checks, statistics as JSON, and a live page,
// behind one http.Handler. It changes nothing, and needs nothing from the network but the browser that looks at it.
//
//	m, err := monitor.New(monitor.Config{Managers: map[string]*buffstreams.Manager{"main": manager}})
//	defer m.Close()
//	http.Handle("/buffstreams/", http.StripPrefix("/buffstreams", m))
//
// The paths are /livez, /readyz, /stats and / for the page. docs/monitoring.md describes them.
package monitor

import (
	"crypto/sha256"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// DefaultStuckAfter is how old the oldest unsettled message may be before it counts as stuck.
const DefaultStuckAfter = 30 * time.Second

// Outbox is what is shown of an outbox that belongs to no publisher here. storage/outbox has it.
type Outbox interface{ Stats() store.OutboxStats }

// Config says what to show. The names are for readers; what has none in a map is not shown. One of the maps must have
// something.
type Config struct {
	// Title is the page's; empty means "BuffStreams".
	Title string

	Managers    map[string]*buffstreams.Manager
	Publishers  map[string]*buffstreams.Publisher
	Subscribers map[string]*buffstreams.Subscriber
	Outboxes    map[string]Outbox

	// Token is what requests must show, as "Authorization: Bearer TOKEN" or as the password of Basic authentication,
	// which browsers ask for; the user name does not matter. Empty means that requests from other machines need a
	// verified client certificate, and those from this one nothing. Never log it.
	Token string
	// Insecure serves everything to every client, also from other machines. It is for a network that has protection of
	// its own.
	Insecure bool
	// Logger gets what ListenAndServe has to say of clients, such as TLS handshakes that failed, at its debug level.
	// Nil means watermill.NopLogger.
	Logger watermill.LoggerAdapter
	// StuckAfter is how old the oldest unsettled message of an address, group or outbox may be before it is shown as
	// stuck; 0 means DefaultStuckAfter.
	StuckAfter time.Duration
}

// Validate names the first field that cannot work.
func (c Config) Validate() error {
	if len(c.Managers)+len(c.Publishers)+len(c.Subscribers)+len(c.Outboxes) == 0 {
		return errors.New("monitor: Config has nothing to show: set Managers, Publishers, Subscribers or Outboxes")
	}
	for name, m := range c.Managers {
		if m == nil {
			return fieldError("Managers", name)
		}
	}
	for name, p := range c.Publishers {
		if p == nil {
			return fieldError("Publishers", name)
		}
	}
	for name, s := range c.Subscribers {
		if s == nil {
			return fieldError("Subscribers", name)
		}
	}
	for name, o := range c.Outboxes {
		if o == nil {
			return fieldError("Outboxes", name)
		}
	}
	if c.StuckAfter < 0 {
		return errors.New("monitor: Config.StuckAfter is negative")
	}
	return nil
}

func fieldError(field, name string) error {
	return errors.New("monitor: Config." + field + "[" + name + "] is nil")
}

// Monitor is the handler. It is safe for concurrent use. Paths are relative to where it is mounted: use
// http.StripPrefix.
type Monitor struct {
	cfg     Config
	token   [sha256.Size]byte // of Config.Token
	began   time.Time
	mux     *http.ServeMux
	history history
	quit    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
}

// New begins to sample the rates of the last ten minutes. Close the Monitor when it is not served any more.
func New(cfg Config) (*Monitor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Title == "" {
		cfg.Title = "BuffStreams"
	}
	if cfg.Logger == nil {
		cfg.Logger = watermill.NopLogger{}
	}
	if cfg.StuckAfter == 0 {
		cfg.StuckAfter = DefaultStuckAfter
	}
	m := &Monitor{cfg: cfg, token: sha256.Sum256([]byte(cfg.Token)), began: time.Now(), quit: make(chan struct{})}
	m.mux = m.routes()
	m.wg.Go(m.sample) // ends when Close closes quit
	return m, nil
}

// Close ends the sampling. It closes none of what is shown. Requests are still answered. Further calls do nothing.
func (m *Monitor) Close() error {
	m.once.Do(func() { close(m.quit) })
	m.wg.Wait()
	return nil
}
