package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// gauge is a metric that is read from Stats.
type gauge int

const (
	addressState gauge = iota
	addressPending
	addressUnreceived
	addressOldest
	listenerPeers
	listenerPublishers
	topicHeld
	topicWindow
	topicShort
	groupLag
	groupInFlight
	groupMembers
	groupOldest
	groupWaiting
	memoryUsed
	memoryLimit
	notReady
	outboxPending
	outboxBytes
	outboxQuota
	outboxOldest
	outboxFailed
	outboxWriting
	gaugeCount
)

// kinds are the gauges: their names, what they mean, their labels, and whether "other" shows the largest rather than
// the sum.
var kinds = [gaugeCount]struct {
	name, help, labels string
	largest            bool
}{
	addressState:       {"address_state", "1 for the state in which an address is; in \"other\" the number of addresses.", "address state", false},
	addressPending:     {"address_pending_messages", "Messages to an address that are not settled.", "address", false},
	addressUnreceived:  {"address_unreceived_messages", "Messages to an address that it is not known to have.", "address", false},
	addressOldest:      {"address_oldest_unsettled_seconds", "Age of the oldest message to an address that is not settled.", "address", true},
	listenerPeers:      {"listener_peers", "Connections that a listener has.", "listener", false},
	listenerPublishers: {"listener_publishers", "Publishers that a listener remembers.", "listener", false},
	topicHeld:          {"topic_held_messages", "Messages that the window of a topic has given out.", "listener topic", false},
	topicWindow:        {"topic_window_messages", "The size of that window.", "listener topic", false},
	topicShort:         {"topic_short", "1 if publishers of a topic wait for room.", "listener topic", false},
	groupLag:           {"group_lag_messages", "Messages that a consumer group has not settled.", "listener topic group", false},
	groupInFlight:      {"group_in_flight_messages", "Messages of these that its members have.", "listener topic group", false},
	groupMembers:       {"group_members", "Subscriptions of a consumer group.", "listener topic group", false},
	groupOldest:        {"group_oldest_unsettled_seconds", "Age of the oldest message that a group has not settled.", "listener topic group", true},
	groupWaiting:       {"group_waiting_for_key_messages", "Messages that wait for another one with their key.", "listener topic group", false},
	memoryUsed:         {"memory_bytes", "What messages take of AckedConfig.MemoryLimit.", "side", false},
	memoryLimit:        {"memory_limit_bytes", "AckedConfig.MemoryLimit.", "side", false},
	notReady:           {"not_ready", "The number of reasons why Manager.Ready would not return nil.", "", false},
	outboxPending:      {"outbox_pending_messages", "Messages of an outbox that are not settled.", "outbox destination", false},
	outboxBytes:        {"outbox_pending_bytes", "What these count against the quota.", "outbox destination", true},
	outboxQuota:        {"outbox_quota_bytes", "The most that one destination may have pending.", "outbox", true},
	outboxOldest:       {"outbox_oldest_unsettled_seconds", "Age of the oldest message that is not settled.", "outbox destination", true},
	outboxFailed:       {"outbox_failed", "1 if an outbox takes nothing any more.", "outbox", false},
	outboxWriting:      {"outbox_writing_seconds", "Age of the write to the disk that is under way; 0: there is none.", "outbox", true},
}

// descs are the descriptions of the gauges.
type descs struct {
	all [gaugeCount]*prometheus.Desc
}

func newDescs(o Options) *descs {
	d := &descs{}
	for i := range kinds {
		k := &kinds[i]
		d.all[i] = prometheus.NewDesc(prometheus.BuildFQName(o.Namespace, "", k.name), k.help, strings.Fields(k.labels), o.ConstLabels)
	}
	return d
}

func (d *descs) describe(ch chan<- *prometheus.Desc) {
	for _, desc := range d.all {
		ch <- desc
	}
}

// series is the labels of a gauge.
type series struct {
	gauge  gauge
	labels [3]string
}

// gauges are the values of one scrape.
type gauges struct {
	descs  *descs
	labels *labels
	now    time.Time
	values map[series]float64
	counts map[gauge]int
}

func newGauges(d *descs, l *labels) *gauges {
	return &gauges{descs: d, labels: l, now: time.Now(), values: map[series]float64{}, counts: map[gauge]int{}}
}

// add adds a value to a series, which is "other" in each of its labels if the gauge has too many.
func (g *gauges) add(kind gauge, v float64, labels ...string) {
	s := series{gauge: kind}
	copy(s.labels[:], labels)
	old, there := g.values[s]
	if !there && len(labels) > 1 {
		if g.counts[kind]++; g.counts[kind] > 2*g.labels.most {
			for i := range labels {
				s.labels[i] = Other
			}
			old = g.values[s]
		}
	}
	if kinds[kind].largest {
		g.values[s] = max(old, v)
	} else {
		g.values[s] = old + v
	}
}

func (g *gauges) send(ch chan<- prometheus.Metric) {
	for s, v := range g.values {
		n := len(strings.Fields(kinds[s.gauge].labels))
		ch <- prometheus.MustNewConstMetric(g.descs.all[s.gauge], prometheus.GaugeValue, v, s.labels[:n]...)
	}
}

// age is the time since at in seconds, 0 for none.
func (g *gauges) age(at time.Time) float64 {
	if at.IsZero() {
		return 0
	}
	return max(0, g.now.Sub(at).Seconds())
}

func (g *gauges) addManager(s buffstreams.ManagerStats) {
	g.add(notReady, float64(len(s.NotReady)))
	for side, used := range map[string]int{"sending": s.Memory.Sending, "receiving": s.Memory.Receiving} {
		g.add(memoryUsed, float64(used), side)
		g.add(memoryLimit, float64(s.Memory.Limit), side)
	}
	for i := range s.Addresses {
		a := &s.Addresses[i]
		address := g.labels.addresses.value(a.Address)
		g.add(addressState, 1, address, a.State)
		g.add(addressPending, float64(a.Pending), address)
		g.add(addressUnreceived, float64(a.Unreceived), address)
		g.add(addressOldest, g.age(a.OldestUnsettled), address)
	}
	for i := range s.Listeners {
		g.addListener(&s.Listeners[i])
	}
}

func (g *gauges) addListener(l *buffstreams.ListenerStats) {
	listener := g.labels.listeners.value(l.Address)
	g.add(listenerPeers, float64(len(l.Peers)), listener)
	g.add(listenerPublishers, float64(l.Publishers), listener)
	for i := range l.Topics {
		t := &l.Topics[i]
		topic := g.labels.topics.value(t.Topic)
		g.add(topicHeld, float64(t.Held), listener, topic)
		g.add(topicWindow, float64(t.Window), listener, topic)
		g.add(topicShort, flag(t.Shortage != ""), listener, topic)
		for _, group := range t.Groups {
			name := g.labels.groups.value(group.Group)
			g.add(groupLag, float64(group.Lag), listener, topic, name)
			g.add(groupInFlight, float64(group.InFlight), listener, topic, name)
			g.add(groupMembers, float64(group.Members), listener, topic, name)
			g.add(groupOldest, g.age(group.OldestUnsettled), listener, topic, name)
			g.add(groupWaiting, float64(group.WaitForKey), listener, topic, name)
		}
	}
}

func (g *gauges) addOutbox(s store.OutboxStats) {
	name := g.labels.outboxes.value(s.Name)
	g.add(outboxQuota, float64(s.QuotaBytes), name)
	g.add(outboxFailed, flag(s.Err != ""), name)
	g.add(outboxWriting, g.age(s.WritingSince), name)
	for _, d := range s.Destinations {
		destination := g.labels.addresses.value(d.Name)
		g.add(outboxPending, float64(d.Pending), name, destination)
		g.add(outboxBytes, float64(d.Bytes), name, destination)
		g.add(outboxOldest, g.age(d.OldestUnsettled), name, destination)
	}
}

func flag(set bool) float64 {
	if set {
		return 1
	}
	return 0
}
