package session

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// brief is what content says of a message, and its size.
func brief(message []byte) string {
	name, _, _ := strings.Cut(string(message), "|")
	return fmt.Sprintf("%s of %d bytes", name, len(message))
}

// clientCommands are the commands about a Client.
var clientCommands = map[string]func(j *journey, c *Client, args []string){
	"connect": func(j *journey, c *Client, args []string) { // the largest frame, if it is small
		enc := j.enc
		if len(args) > 0 {
			codec, err := framing.NewFixed(4, binary.BigEndian, j.number(args[0]))
			require.NoError(j.t, err)
			enc.Codec = codec
		}
		c.Connect(enc, j.now)
	},
	"cut":         func(_ *journey, c *Client, _ []string) { c.Disconnect() },
	"gone":        func(_ *journey, c *Client, _ []string) { c.Refuse() },
	"unreachable": func(_ *journey, c *Client, _ []string) { c.Unreachable() },
	"interrupt":   func(_ *journey, c *Client, _ []string) { c.Interrupt(errLate) },
	"abort":       func(_ *journey, c *Client, _ []string) { c.Abort(errLate) },
	"give-up":     func(j *journey, c *Client, _ []string) { j.say("%v", c.ReleaseDelivered(errLate)) },
	"may-go":      func(j *journey, c *Client, _ []string) { j.say("%v", c.TookMoves()) },

	"receive": func(j *journey, c *Client, args []string) {
		var f wire.Frame
		require.NoError(j.t, prototext.Unmarshal([]byte(strings.Join(args, " ")), &f), args)
		payload, err := proto.Marshal(&f)
		require.NoError(j.t, err)
		j.tell(c.Receive(payload, j.now))
	},
	"output": func(j *journey, c *Client, args []string) {
		limit := 1 << 20
		if len(args) > 0 {
			limit = j.number(args[0])
		}
		control, segments, more := c.Output(nil, limit)
		for _, payload := range payloads(j.t, j.enc, control) {
			frame, err := Decode(payload)
			require.NoError(j.t, err)
			j.say("sends %s", describeFrame(frame.(proto.Message).ProtoReflect()))
		}
		for _, s := range segments {
			n, err := entriesOf(s.Body)
			require.NoError(j.t, err)
			require.EqualValues(j.t, s.Count, n)
			f := facts{}
			f.add("gap", s.Gap)
			f.add("ack now", s.AckNow)
			f.add("again", s.Again)
			j.say("sends %d to %d on %d, %d bytes %v", s.First, s.First+s.Count-1, s.Handle, len(s.Body), f)
		}
		if more {
			j.say("there is more")
		}
	},
	"tick": func(j *journey, c *Client, args []string) {
		j.now = j.now.Add(j.duration(args[0]))
		j.tell(c.Tick(j.now, late))
		if o, at, calls := c.LongestWait(); calls > 0 {
			j.say("%s waits since %v, of %d calls", j.label(o), sinceBegin(at), calls)
		}
	},
	"stream": func(j *journey, c *Client, args []string) { // label, name
		j.know(args[0], c.Stream(args[1]))
	},
	"start": func(j *journey, c *Client, args []string) { // label, number, topic
		j.know(args[0], c.StartStream(c.cfg.Identity, uint64(j.number(args[1])), args[2], strings.HasPrefix(args[0], "~")))
	},
	"fetched": func(j *journey, c *Client, args []string) { // label, number, topic, base, sent
		n := j.numbers([]string{args[1], args[3], args[4]})
		j.know(args[0], c.StartFetched(c.cfg.Identity, n[0], args[2], n[1], n[2]))
	},
	"left-behind": func(j *journey, c *Client, args []string) { // number, topic, tenure
		c.LeftBehind(c.cfg.Identity, uint64(j.number(args[0])), args[1], uint64(j.number(args[2])))
	},
	"token": func(_ *journey, c *Client, args []string) { c.SetToken([]byte(args[0])) },
	"refused": func(j *journey, c *Client, _ []string) {
		for _, r := range c.Refused() {
			j.say("%s/%d is %s, ephemeral %v: %v", r.Topic, r.Sequence, brief(r.Message), r.Ephemeral, r.Err)
		}
	},
	"stats": func(j *journey, c *Client, _ []string) {
		for _, s := range c.Stats() {
			oldest := sinceBegin(s.Oldest)
			s.Oldest = time.Time{}
			j.say("%+v oldest %v", s, oldest)
		}
		for _, r := range c.SettledRuns() {
			j.say("%s: %d settled, %d bytes, of %v", r.Topic, r.Messages, r.Bytes, sinceBegin(r.Oldest))
		}
		j.say("pending %d, unreceived %d, all delivered %v", c.Pending(), c.Unreceived(), c.AllDelivered())
	},
	"leftovers": func(j *journey, c *Client, _ []string) {
		for _, l := range c.Leftovers() {
			j.say("%s: %s", l.Topic, brief(l.Message))
		}
	},
}

// streamCommands are the commands about a stream, whose label comes first.
var streamCommands = map[string]func(j *journey, c *Client, o *Outbound, args []string){
	"enqueue": func(j *journey, c *Client, o *Outbound, args []string) {
		taken, first, err := c.Enqueue(o, j.batch(o, args), 0, nil)
		j.tell(err)
		j.say("takes %d from %d", taken, first)
	},
	"call": func(j *journey, c *Client, o *Outbound, args []string) { // turn, and sizes if it is a new one
		turn, b := j.turns[args[0]], j.calls[args[0]]
		if turn == nil {
			turn, b = NewTurn(), j.batch(o, args[1:])
			j.turns[args[0]], j.calls[args[0]] = turn, b
		}
		taken, first, err := c.Enqueue(o, b, 0, turn)
		b.entries = b.entries[taken:]
		j.tell(err)
		j.say("takes %d from %d, waits: %v", taken, first, turn.stream != nil)
	},
	"give-up-call": func(j *journey, _ *Client, o *Outbound, args []string) { o.Leave(j.turns[args[0]]) },
	"wait": func(j *journey, c *Client, o *Outbound, args []string) { // name, level, first, last, and what else
		w := &Waiter{Level: Received, First: uint64(j.number(args[2])), Last: uint64(j.number(args[3])), Done: make(chan struct{}, 1)}
		if args[1] == "handled" {
			w.Level = Handled
		}
		for _, more := range args[4:] {
			if more == "withdrawable" {
				w.Withdrawable = true
			} else {
				w.Deadline = j.now.Add(j.duration(more))
			}
		}
		j.waiters[args[0]] = w
		c.Await(o, w)
	},
	"cancel": func(j *journey, _ *Client, o *Outbound, args []string) { o.Cancel(j.waiters[args[0]]) },
	"leave":  func(j *journey, c *Client, o *Outbound, _ []string) { j.say("%v", c.Leave(o, j.now)) },
	"stay":   func(_ *journey, c *Client, o *Outbound, _ []string) { c.Stay(o) },
	"detach": func(j *journey, c *Client, o *Outbound, _ []string) {
		j.say("%v, %d repeats", c.MayMove(o), c.Detach(o))
	},
	"adopt":    func(_ *journey, c *Client, o *Outbound, _ []string) { c.Adopt(o) },
	"withdraw": func(_ *journey, c *Client, o *Outbound, _ []string) { c.Withdraw(o) },
	"divide": func(j *journey, c *Client, o *Outbound, args []string) { // to the other Client's stream
		j.say("%v, %d", c.Divisible(o), c.Divide(o, j.clients["B"], j.stream(j.clients["B"], args[0])))
	},
	"end": func(_ *journey, c *Client, o *Outbound, _ []string) {
		if o.fetched != nil {
			c.EndFetched(o)
		} else {
			c.EndStream(o)
		}
	},
	"release":  func(_ *journey, c *Client, o *Outbound, _ []string) { c.ReleaseFetched(o) },
	"resume":   func(j *journey, _ *Client, o *Outbound, args []string) { o.Resume(uint64(j.number(args[0]))) },
	"announce": func(j *journey, c *Client, o *Outbound, args []string) { c.Announce(o, uint64(j.number(args[0]))) },
	"confirm": func(j *journey, c *Client, o *Outbound, args []string) {
		c.ConfirmRefused(o, uint64(j.number(args[0])))
	},
	"openings": func(j *journey, _ *Client, o *Outbound, args []string) { // epoch and next, each
		var all []store.Opening
		for n := j.numbers(args); len(n) > 0; n = n[2:] {
			all = append(all, store.Opening{Epoch: n[0], Next: n[1]})
		}
		o.KnowOpenings(all)
	},
	"feed": func(j *journey, c *Client, o *Outbound, args []string) { // generation, first, sizes
		n := j.numbers(args)
		var messages [][]byte
		for _, size := range n[2:] {
			messages = append(messages, make([]byte, size))
		}
		c.Feed(o, n[0], n[1], messages)
	},
	"fetch": func(j *journey, _ *Client, o *Outbound, _ []string) {
		from, generation, ok := o.NextFetch()
		next, idle := o.Idle()
		j.say("from %d, generation %d, %v; idle at %d: %v", from, generation, ok, next, idle)
	},
	"events": func(j *journey, c *Client, o *Outbound, _ []string) {
		for _, e := range o.Events() {
			j.say("%d to %d: %v", e.First, e.Last, fmt.Sprint(e.Err))
		}
		c.WithEvents()
	},
	"explain": func(j *journey, c *Client, o *Outbound, _ []string) { j.say("%v", c.Explain(o)) },
	"custody": func(j *journey, c *Client, o *Outbound, _ []string) {
		last := o.Last()
		j.say("undelivered %d, unreceived %d, of the first %d, head %d, delivered %v, settled %v, room %v, may move %v, repeats %d, next tenure %d",
			c.Undelivered(o), o.UnreceivedUpTo(last), o.UnreceivedUpTo(1), o.Head(), c.Delivered(o, last), c.Settled(o, last), o.HasRoom(), c.MayMove(o),
			o.Repeats(), o.NextTenure())
	},
	"current": func(j *journey, c *Client, o *Outbound, args []string) { j.know(args[0], c.Current(o)) },
	"watch":   func(_ *journey, _ *Client, o *Outbound, _ []string) { o.Room() },
}

// inboundCommands are the commands about the Inbound.
var inboundCommands = map[string]func(j *journey, args []string){
	"inbound": func(j *journey, args []string) { j.in = NewInbound(uint64(j.number(args[0]))) },
	"restore": func(j *journey, args []string) { // base, and pairs
		n, ranges := j.numbers(args), []Range(nil)
		for pairs := n[1:]; len(pairs) > 0; pairs = pairs[2:] {
			ranges = append(ranges, Range{First: pairs[0], Last: pairs[1]})
		}
		j.in = RestoreInbound(ranges, n[0])
	},
	"attach": func(j *journey, args []string) { // handle, base
		opened, rejects := j.in.Attach(uint64(j.number(args[0])), uint64(j.number(args[1])))
		j.say("%s", describeFrame(opened.ProtoReflect()))
		for _, r := range rejects {
			j.say("%s", describeFrame(r.ProtoReflect()))
		}
	},
	"publish": func(j *journey, args []string) { // first, "gap" or "-", sizes
		f := &PublishFrame{Handle: 1, First: uint64(j.number(args[0])), Gap: args[1] == "gap"}
		for i, n := range j.numbers(args[2:]) {
			f.Messages = append(f.Messages, []byte(strings.Repeat(string(rune('a'+i)), int(n))))
			f.Bytes += EncodedSize(int(n))
		}
		fresh, first, dup, err := j.in.Accept(f)
		j.tell(err)
		if err == nil {
			j.say("fresh from %d: %q, again %v", first, fresh, dup)
		}
	},
	"grant": func(j *journey, args []string) { // messages, bytes
		j.in.Grant(Amount{Messages: j.number(args[0]), Bytes: j.number(args[1])})
	},
	"settle": func(j *journey, args []string) { j.in.Settle(uint64(j.number(args[0])), uint64(j.number(args[1]))) },
	"reject": func(j *journey, args []string) {
		f := j.in.Reject(uint64(j.number(args[0])), NewPeerError(wire.Code_CODE_FAILED, "nacked"))
		j.say("%s", describeFrame(f.ProtoReflect()))
	},
	"seen":        func(j *journey, args []string) { j.in.RejectSeen(uint64(j.number(args[0]))) },
	"detach-in":   func(j *journey, _ []string) { j.in.Detach() },
	"drop-credit": func(j *journey, _ []string) { j.in.DropCredit() },
	"end-in":      func(j *journey, _ []string) { j.in.End() },
	"refuse-in": func(j *journey, _ []string) {
		j.say("%s", describeFrame(j.in.Refuse(NewPeerError(wire.Code_CODE_FORBIDDEN, "no")).ProtoReflect()))
	},
	"return-in": func(j *journey, args []string) {
		a, ok := j.in.Return(uint64(j.number(args[0])))
		j.say("%v %v, outstanding %v", a, ok, j.in.Outstanding())
	},
	"ack": func(j *journey, _ []string) {
		for {
			a, ok := j.in.Ack()
			if !ok {
				break
			}
			j.say("%+v", a)
		}
		j.say("settled %v, with more %v", j.in.SettledPairs(), j.in.Settled([]Range{{First: 50, Last: 51}}))
	},
}
