package session

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

var errLate = errors.New("late")

// late is the time-out of every wait.
func late(*Outbound) error { return errLate }

// pair is a Client and a remote with a wire between them, on which whole frames travel when the test says so.
type pair struct {
	t      testing.TB
	client *Client
	remote *remote
	enc    Encoder
	now    time.Time

	up, down  [][]byte // payloads on their way to the remote, and to the client
	published []Segment
	refused   []Refused
	limit     int // of one Output, in bytes
}

func newPair(t testing.TB, window Window, room Amount) *pair {
	t.Helper()
	enc := encoder(t, true)
	return &pair{
		t: t, enc: enc, now: time.Unix(1000, 0), limit: 128 << 10,
		remote: newRemote(t, enc, room),
		client: NewClient(ClientConfig{
			Identity: Identity{Publisher: [16]byte{1}, Epoch: 1, Secret: [16]byte{2}}, Window: window,
			MaxFrame: MaxFrame(1 << 20), PingAfter: 10 * time.Second, DeadAfter: 30 * time.Second,
			IdleCredit: 250 * time.Millisecond, Agent: "test",
		}),
	}
}

// roomy is a window that does not matter.
var (
	roomy     = Window{Messages: 1 << 20, Bytes: 1 << 30}
	muchRoom  = Amount{Messages: 1 << 20, Bytes: 1 << 30}
	smallRoom = Amount{Messages: 4, Bytes: 1 << 20}
)

// enqueue hands messages of the given sizes to a stream and returns how many were taken.
func (p *pair) enqueue(topic string, sizes ...int) int {
	o := p.client.Stream(topic)
	var b Batch
	for i, size := range sizes {
		add(p.t, &b, content(o.Topic, o.next+uint64(i), size))
	}
	before := o.next
	n, first, err := p.client.Enqueue(o, &b, 0, nil)
	if err != nil || n > 0 && first != before {
		p.t.Fatalf("enqueued %d at %d, expected at %d: %v", n, first, before, err)
	}
	return n
}

// many is n sizes of small messages.
func many(n int) []int { return make([]int, n) }

func (p *pair) connect() { p.client.Connect(p.enc, p.now) }

// cut loses what is on the wire.
func (p *pair) cut() {
	p.client.Disconnect()
	p.remote.disconnect()
	p.up, p.down = nil, nil
}

// reopen begins a new connection and stops when the client has sent an Open for each of its streams.
func (p *pair) reopen() {
	p.cut()
	p.connect()
	p.output()
	require.NoError(p.t, p.deliverUp(1))
	require.NoError(p.t, p.deliverDown(1)) // the welcome
	p.output()
}

// output puts on the wire what the client has to send, in the order in which the pool writes it.
func (p *pair) output() (more bool) {
	var control []byte
	var segments []Segment
	control, segments, more = p.client.Output(nil, p.limit)
	p.up = append(p.up, payloads(p.t, p.enc, control)...)
	for _, s := range segments {
		frame, err := p.enc.AppendPublish(nil, s)
		require.NoError(p.t, err)
		p.up = append(p.up, payload(p.t, p.enc, frame))
		p.published = append(p.published, s)
	}
	return more
}

// deliverUp moves up to n frames to the remote.
func (p *pair) deliverUp(n int) error {
	for ; n > 0 && len(p.up) > 0; n-- {
		frame := p.up[0]
		p.up = p.up[1:]
		if err := p.remote.receive(frame); err != nil {
			return err
		}
	}
	return nil
}

// deliverDown moves up to n frames to the client.
func (p *pair) deliverDown(n int) error {
	p.down = append(p.down, p.remote.out...)
	p.remote.out = nil
	for ; n > 0 && len(p.down) > 0; n-- {
		frame, err := p.enc.Verify(p.down[0])
		require.NoError(p.t, err)
		p.down = p.down[1:]
		err = p.client.Receive(frame, p.now)
		p.refused = append(p.refused, p.client.Refused()...)
		if err != nil {
			return err
		}
	}
	return nil
}

// flow moves frames both ways until nothing is left to move.
func (p *pair) flow() {
	for range 100000 {
		for p.output() {
		}
		p.refused = append(p.refused, p.client.Refused()...)
		require.NoError(p.t, p.deliverUp(1<<30))
		p.remote.ack()
		quiet := len(p.remote.out) == 0 && len(p.down) == 0
		require.NoError(p.t, p.deliverDown(1<<30))
		if quiet && !p.pending() {
			return
		}
	}
	p.t.Fatal("frames go on for ever")
}

// pending tells whether the client has something to send at once.
func (p *pair) pending() bool { return len(p.client.control) > 0 || len(p.client.sendQueue) > 0 }

// say sends the client a frame that the remote would not.
func (p *pair) say(f *wire.Frame) error {
	frame, err := p.enc.Verify(control(p.t, p.enc, f))
	require.NoError(p.t, err)
	return p.client.Receive(frame, p.now)
}

func (p *pair) sayAck(a AckFrame) error {
	frame, err := p.enc.AppendAck(nil, a)
	require.NoError(p.t, err)
	opened, err := p.enc.Verify(payload(p.t, p.enc, frame))
	require.NoError(p.t, err)
	return p.client.Receive(opened, p.now)
}

// frames returns the frames of one type that the remote has got.
func frames[T any](p *pair) (out []T) {
	for _, f := range p.remote.seen {
		if f, ok := f.(T); ok {
			out = append(out, f)
		}
	}
	return out
}

// wait registers a waiter.
func (p *pair) wait(topic string, level Level, first, last uint64) *Waiter {
	w := &Waiter{Level: level, First: first, Last: last, Done: make(chan struct{}, 1)}
	p.client.Await(p.client.Stream(topic), w)
	return w
}

// done tells whether a waiter has been finished, once.
func done(w *Waiter) bool {
	select {
	case <-w.Done:
		return true
	default:
		return false
	}
}
