package consume

import (
	"context"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// item is a message in hand.
type item struct {
	delivery driver.Delivery
	key      string
	attempts int              // deliveries so far
	repeat   *driver.Delivery // the engine has given it again, while it was in hand
	again    *time.Timer      // ends the wait after a Nack
}

// event is what became of items: of a delivery, of a wait, or of a request to the engine.
type event struct {
	kind  eventKind
	items []*item
}

type eventKind int

const (
	acked eventKind = iota
	nacked
	due     // the wait after a Nack is over
	buried  // the dead letter is published
	settled // the engine knows that they were handled
)

// subscription is one Subscribe call. What is below held belongs to the goroutine of run.
type subscription struct {
	cfg    *Config
	topic  string
	source driver.Source
	logger watermill.LoggerAdapter
	out    chan *message.Message
	// unchanged tells that what gets the messages promises to change none.
	unchanged bool

	fetched  chan []driver.Delivery // from the goroutine of fetch
	room     chan int               // to it: how many messages it may fetch
	events   chan event
	settling chan []*item  // to the goroutine of settle
	over     chan struct{} // closed when events is read no longer
	handling context.Context
	cancel   context.CancelFunc // of handling: the handlers' time is over
	tasks    sync.WaitGroup     // goroutines that send events

	held   map[*item]struct{} // not settled
	byID   map[string]*item   // those of held that have an ID
	ready  []*item            // to be emitted, in order
	behind map[string][]*item // by key: those that wait for an earlier one; an entry while there is an earlier one
	next   *emission          // of ready[0]
	// emissions are those that run waits for itself, in order; others have goroutines of their own: see look.
	emissions []*emission
	looking   *time.Timer       // for the next look
	lookSoon  bool              // it runs
	pause     time.Duration     // for which it runs
	inFlight  int               // emitted and not settled for good: with a handler, waiting after a Nack, becoming dead letters
	running   int               // of inFlight, those with a handler or becoming dead letters
	handled   []*item           // to be settled
	busy      bool              // settle has some
	asked     bool              // fetch has been given room, and has not answered
	late      []driver.Delivery // fetched when the subscription had ended already; of fetch, then of run
	unacked   []*item           // handled, and the engine was not told until the end; of settle, then of run

	fetching, settlement, extension driver.Trouble
}

func newSubscription(cfg *Config, topic string, source driver.Source) *subscription {
	s := &subscription{
		cfg: cfg, topic: topic, source: source,
		logger: cfg.Logger.With(watermill.LogFields{"engine": cfg.Engine, "topic": topic}),
		out:    make(chan *message.Message), fetched: make(chan []driver.Delivery), room: make(chan int),
		events: make(chan event, 64), settling: make(chan []*item), over: make(chan struct{}),
		held: map[*item]struct{}{}, byID: map[string]*item{}, behind: map[string][]*item{},
	}
	s.fetching = driver.Trouble{Logger: s.logger, What: "Cannot fetch messages; trying again", Over: "Messages are fetched again"}
	s.settlement = driver.Trouble{Logger: s.logger, What: "Cannot ack messages; trying again", Over: "Messages are acked again"}
	s.extension = driver.Trouble{
		Logger: s.logger, What: "Cannot extend the time of messages in hand: others can get them too", Over: "The time of messages in hand is extended again",
	}
	s.handling, s.cancel = context.WithCancel(context.Background())
	return s
}

// run is the life of the subscription, until ctx is done or closing is closed.
func (s *subscription) run(ctx context.Context, closing <-chan struct{}) {
	defer close(s.out)
	serving, stop := context.WithCancel(ctx)
	var workers sync.WaitGroup
	workers.Go(func() { s.fetch(serving) }) // ends with serving
	workers.Go(s.settle)                    // ends when settling is closed
	workers.Go(func() {                     // ends with serving
		select {
		case <-closing:
			stop()
		case <-serving.Done():
		}
	})
	s.looking = time.NewTimer(lookAfter)
	defer s.looking.Stop()
	s.serve(serving)
	stop()
	s.drain()
	s.cancel()
	close(s.over)
	s.tasks.Wait()
	close(s.settling)
	workers.Wait()
	s.handBack()
}

// window is how many messages may be in hand.
func (s *subscription) window() int { return max(s.cfg.Settings.MaxInFlight, s.cfg.Settings.Batch) }

// serve emits messages until ctx is done.
func (s *subscription) serve(ctx context.Context) {
	extend := time.NewTicker(s.cfg.Settings.RedeliverAfter / 3)
	defer extend.Stop()
	for ctx.Err() == nil {
		out, next := s.offer()
		acked, nacked := s.answers()
		var room chan int
		if !s.asked && len(s.held) < s.window() {
			room = s.room
		}
		select {
		case out <- next:
			s.emitted()
		case room <- s.window() - len(s.held):
			s.asked = true
		case deliveries := <-s.fetched:
			s.asked = false
			s.take(deliveries)
		case s.settler() <- s.handled:
			s.handled, s.busy = nil, true
		case <-acked:
			s.reap()
		case <-nacked:
			s.reap()
		case <-s.looking.C:
			s.look()
		case e := <-s.events:
			s.apply(e)
		case <-extend.C:
			s.extend()
		case <-ctx.Done():
		}
	}
}

// settler is nil while there is nothing to settle, or settle is busy.
func (s *subscription) settler() chan<- []*item {
	if len(s.handled) == 0 || s.busy {
		return nil
	}
	return s.settling
}

// take puts fetched messages in line.
func (s *subscription) take(deliveries []driver.Delivery) {
	for _, d := range deliveries {
		if it := s.byID[d.ID]; it != nil { // after a lost connection, or a time that was not extended
			it.repeat = &d
			continue
		}
		it := &item{delivery: d}
		s.held[it] = struct{}{}
		if d.ID != "" {
			s.byID[d.ID] = it
		}
		if s.cfg.Settings.Key != "" {
			it.key = d.Message.Metadata.Get(s.cfg.Settings.Key)
		}
		if it.key == "" {
			s.ready = append(s.ready, it)
			continue
		}
		if waiting, busy := s.behind[it.key]; busy {
			s.behind[it.key] = append(waiting, it)
			continue
		}
		s.behind[it.key] = nil
		s.ready = append(s.ready, it)
	}
}

// fetch fetches what there is room for until ctx is done.
func (s *subscription) fetch(ctx context.Context) {
	pause := backoff{}
	for {
		var room int
		select {
		case room = <-s.room:
		case <-ctx.Done():
			return
		}
		deliveries, err := s.source.Fetch(ctx, room)
		for err != nil && len(deliveries) == 0 && ctx.Err() == nil {
			s.fetching.Failed(s.cfg.Explain(err), nil)
			pause.wait(ctx)
			deliveries, err = s.source.Fetch(ctx, room)
		}
		pause = backoff{}
		if len(deliveries) > 0 {
			s.fetching.Worked()
		}
		select {
		case s.fetched <- deliveries:
		case <-ctx.Done():
			s.late = deliveries
			return
		}
	}
}

// settleTimeout bounds a request that settles messages.
const settleTimeout = 10 * time.Second

// settle tells the engine what was handled, a batch at a time, until it knows or the subscription ends: what it is not
// told comes again.
func (s *subscription) settle() {
	for items := range s.settling {
		pause := backoff{}
		err := s.settleOnce(items)
		for err != nil && s.handling.Err() == nil {
			s.settlement.Failed(s.cfg.Explain(err), watermill.LogFields{"messages": len(items)})
			pause.wait(s.handling)
			err = s.settleOnce(items)
		}
		if err != nil {
			s.unacked = append(s.unacked, items...)
			continue
		}
		s.settlement.Worked()
		s.report(event{settled, items})
	}
}

func (s *subscription) settleOnce(items []*item) error {
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	return s.source.Settle(ctx, deliveriesOf(items))
}

func deliveriesOf(items []*item) []driver.Delivery {
	deliveries := make([]driver.Delivery, len(items))
	for i, it := range items {
		deliveries[i] = it.delivery
	}
	return deliveries
}

// report sends an event to run.
func (s *subscription) report(e event) {
	select {
	case s.events <- e:
	case <-s.over:
	}
}
