package bench

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
)

// subscription is one member of the group.
type subscription struct {
	messages <-chan *message.Message
	measured tally
	way      *hdrhistogram.Histogram // nil where the publishers' clock is not this process's
}

// subscriptions are the clients that receive.
type subscriptions struct {
	o       *Options
	base    time.Time
	manager *buffstreams.Manager
	sub     *buffstreams.Subscriber
	all     []*subscription
	side    *side
	enough  chan struct{} // closed when Count messages have come, unless the publishers say when it is over
	once    sync.Once
	begun   chan struct{} // closed with the first message that counts
	first   sync.Once
	wg      sync.WaitGroup
}

// subscribe begins to receive, and sets the topic's port if that was 0.
func subscribe(o *Options, base time.Time, s *side) (r *subscriptions, err error) {
	r = &subscriptions{o: o, base: base, side: s, enough: make(chan struct{}), begun: make(chan struct{})}
	if r.manager, err = o.manager(); err != nil {
		return nil, err
	}
	r.sub, err = buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		Manager: r.manager, ConsumerGroup: o.Group, MaxInFlight: o.InFlight, CloseTimeout: o.Timeout,
	}, o.Logger)
	if err != nil {
		return nil, closeAfter(err, r.manager)
	}
	for range o.Clients {
		messages, err := r.sub.Subscribe(context.Background(), o.Topic)
		if err != nil {
			return nil, closeAfter(pipe.ExplainListen(o.Topic, err), r.sub, r.manager)
		}
		one := &subscription{messages: messages}
		if o.Mode == Both && o.Size >= stampSize {
			one.way = newHistogram()
		}
		r.all = append(r.all, one)
	}
	at, err := r.sub.Addr(o.Topic)
	if err != nil {
		return nil, closeAfter(err, r.sub, r.manager)
	}
	o.Topic = pipe.WithPort(o.Topic, at)
	for _, one := range r.all {
		r.wg.Go(func() { r.receive(one) }) // ends when close has closed its channel
	}
	return r, nil
}

func (r *subscriptions) receive(one *subscription) {
	for m := range one.messages {
		if m.Metadata.Get(WarmUpKey) == "" {
			r.count(one, m)
		}
		m.Ack()
	}
}

func (r *subscriptions) count(one *subscription, m *message.Message) {
	now := time.Now()
	t := &one.measured
	if t.messages == 0 {
		t.first = now
		r.first.Do(func() { close(r.begun) })
	}
	t.last = now
	t.messages++
	t.bytes += int64(len(m.Payload))
	if one.way != nil && len(m.Payload) >= stampSize {
		record(one.way, now.Sub(r.base)-time.Duration(binary.BigEndian.Uint64(m.Payload)))
	}
	r.side.bytes.Add(int64(len(m.Payload)))
	if n := r.side.total.Add(1); r.o.Count > 0 && n >= int64(r.o.Count) {
		r.once.Do(func() { close(r.enough) })
	}
}

// close ends the subscriptions and waits for their goroutines.
func (r *subscriptions) close() error {
	err := closeAfter(nil, r.sub, r.manager)
	r.wg.Wait()
	return err
}

// tallies must only be called after close.
func (r *subscriptions) tallies() (t []tally, way *hdrhistogram.Histogram) {
	way = newHistogram()
	for _, one := range r.all {
		t = append(t, one.measured)
		if one.way != nil {
			way.Merge(one.way)
		}
	}
	return t, way
}
