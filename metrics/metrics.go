// Package metrics shows a buffstreams Manager, and outboxes, to Prometheus.
//
//	m := metrics.New(metrics.Options{})
//	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{Hooks: []hooks.Hook{m}})
//	m.Watch(manager)
//	prometheus.MustRegister(m)
//
// What flows is counted by hooks; what stands is read from Stats when Prometheus asks. The names of topics, groups,
// addresses and listeners are labels: of each, the first Options.MaxLabels have series of their own, and all others
// share one that is called "other".
package metrics

import (
	"cmp"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// DefaultMaxLabels is how many values of a label have series of their own.
const DefaultMaxLabels = 200

// Other is the value of a label that stands for all beyond Options.MaxLabels.
const Other = "other"

// Options configures a Metrics. The zero value is valid.
type Options struct {
	// Namespace begins the names of all metrics; empty means "buffstreams". The dashboard and the alerts are made for
	// that.
	Namespace string
	// MaxLabels is how many topics, groups, addresses, listeners and outboxes, of each, have series of their own; 0
	// means DefaultMaxLabels. The pairs of topic and group, and of topic and address, are bounded by twice as many.
	MaxLabels int
	// Buckets are those of the histograms of time, in seconds; nil means 1 ms to 1 min.
	Buckets []float64
	// ConstLabels are added to every series, such as the name of the Manager where there are several.
	ConstLabels prometheus.Labels
}

// Outbox is what metrics need of an outbox; that of the module storage is one.
type Outbox interface{ Stats() store.OutboxStats }

// Metrics counts what a Manager does. It is a hook for ManagerConfig.Hooks, and for the Hooks of an outbox, and a
// prometheus.Collector. One Metrics may serve several Managers, whose counts are added up. It is safe for concurrent
// use.
type Metrics struct {
	labels *labels
	events *events
	descs  *descs

	mu       sync.Mutex // guards the fields below
	managers []*buffstreams.Manager
	outboxes []Outbox
}

// New returns a Metrics that watches nothing yet.
func New(o Options) *Metrics {
	o.Namespace, o.MaxLabels = cmp.Or(o.Namespace, "buffstreams"), cmp.Or(o.MaxLabels, DefaultMaxLabels)
	if o.Buckets == nil {
		o.Buckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	}
	l := newLabels(o.MaxLabels)
	return &Metrics{labels: l, events: newEvents(o, l), descs: newDescs(o)}
}

// Watch has the states of Managers collected. Those that are closed are left out from then on.
func (m *Metrics) Watch(managers ...*buffstreams.Manager) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.managers = append(m.managers, managers...)
}

// WatchOutbox has the states of outboxes collected. Those that are closed are left out from then on.
func (m *Metrics) WatchOutbox(outboxes ...Outbox) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.outboxes = append(m.outboxes, outboxes...)
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.events.all {
		c.Describe(ch)
	}
	m.descs.describe(ch)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.events.all {
		c.Collect(ch)
	}
	g := newGauges(m.descs, m.labels)
	managers, outboxes := m.watched()
	for _, manager := range managers {
		if s := manager.Stats(); s.Closed {
			m.forget(func() { m.managers = without(m.managers, manager) })
		} else {
			g.addManager(s)
		}
	}
	for _, o := range outboxes {
		if s := o.Stats(); s.Closed {
			m.forget(func() { m.outboxes = without(m.outboxes, o) })
		} else {
			g.addOutbox(s)
		}
	}
	g.send(ch)
}

func (m *Metrics) watched() ([]*buffstreams.Manager, []Outbox) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.managers), slices.Clone(m.outboxes)
}

func (m *Metrics) forget(what func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	what()
}

func without[T comparable](all []T, gone T) []T {
	return slices.DeleteFunc(slices.Clone(all), func(t T) bool { return t == gone })
}
