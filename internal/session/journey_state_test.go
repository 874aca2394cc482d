package session

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
)

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// fact is something that is known of a state, under a name.
type fact struct{ name, text string }

// facts are the facts of a state that are not zero.
type facts []fact

func (f *facts) add(name string, value any) {
	text := name
	switch v := reflect.ValueOf(value); {
	case v.IsZero():
		return
	case v.Kind() != reflect.Bool:
		text = fmt.Sprint(name, " ", value)
	}
	if n := len(*f); n > 0 && (*f)[n-1].name == name {
		(*f)[n-1].text += "; " + text
		return
	}
	*f = append(*f, fact{name, text})
}

func (f facts) String() string {
	var texts []string
	for _, one := range f {
		texts = append(texts, one.text)
	}
	return strings.Join(texts, ", ")
}

// since tells what has changed since an earlier state: what is new or has another value, and, with a minus, what is zero now.
func (f facts) since(before facts) facts {
	var news facts
	for _, one := range f {
		if !slices.Contains(before, one) {
			news = append(news, one)
		}
	}
	for _, one := range before {
		if !slices.ContainsFunc(f, func(now fact) bool { return now.name == one.name }) {
			news = append(news, fact{one.name, "-" + one.name})
		}
	}
	return news
}

// sinceBegin is a moment as the time since the journey began.
func sinceBegin(at time.Time) any {
	if at.IsZero() {
		return ""
	}
	return at.Sub(time.Unix(1000, 0)).String() + "."
}

func pairsOf(w *Watermark) string {
	var out []string
	if n := w.Next(); n > 1 {
		out = append(out, fmt.Sprint("<", n))
	}
	for _, r := range w.above {
		out = append(out, fmt.Sprint(r.First, "-", r.Last))
	}
	return strings.Join(out, " ")
}

func (j *journey) label(o *Outbound) string {
	for _, label := range j.labels {
		if j.streams[label] == o {
			return label
		}
	}
	return "?"
}

func (j *journey) labelsOf(streams []*Outbound) string {
	var out []string
	for _, o := range streams {
		out = append(out, j.label(o))
	}
	return strings.Join(out, " ")
}

var (
	phases = []string{"disconnected", "greeting", "established", "draining"}
	states = []string{"unopened", "opening", "open", "broken"}
)

func (j *journey) describeClient(c *Client) facts {
	f := facts{{"phase", phases[c.phase]}}
	var handles, names []string
	for _, handle := range sortedKeys(c.handles) {
		handles = append(handles, fmt.Sprint(handle, "=", j.label(c.handles[handle])))
	}
	for _, name := range sortedKeys(c.streams) {
		names = append(names, fmt.Sprintf("%q", name))
	}
	f.add("handles", strings.Join(handles, " "))
	f.add("names", strings.Join(names, " "))
	f.add("released", strings.Trim(fmt.Sprint(sortedKeys(c.released)), "[]"))
	f.add("last handle", c.lastHandle)
	f.add("to send", j.labelsOf(c.sendQueue))
	f.add("control", len(c.control) > 0)
	f.add("replies", c.replies)
	f.add("largest entry", c.peerMaxEntry)
	f.add("presence", int(c.presence))
	f.add("busy", c.busy)
	f.add("sent since tick", c.sentSinceTick)
	f.add("to free", len(c.freeLater.buffers))
	f.add("events of", j.labelsOf(c.withEvents))
	f.add("unsendable", c.unsendable != nil)
	f.add("asks", c.asks)
	p := c.peer
	f.add("met", p.met)
	f.add("able", p.able)
	f.add("instance", strings.Trim(string(p.instance[:]), "\x000"))
	f.add("gone", p.gone)
	f.add("quiet", p.quiet)
	f.add("probed", p.probed)
	f.add("silent", p.silent)
	f.add("heard", p.heard)
	f.add("moves may go on", p.changed)
	for _, l := range p.left {
		f.add("left", fmt.Sprintf("%d/%s tenure %d handle %d", l.stream, l.topic, l.tenure, l.handle))
	}
	f.add("groups", strings.TrimPrefix(fmt.Sprint(c.groups), "map[]"))
	f.add("counts", strings.TrimPrefix(fmt.Sprint(c.counting.Totals), "{0 0 0 0}"))
	return f
}

// describe is all that is known of a stream.
func describe(o *Outbound) facts {
	f := facts{{"state", states[o.state]}}
	f.add("cause", fmt.Sprint(o.cause) != "<nil>")
	f.add("next", o.next)
	f.add("settled", pairsOf(&o.settled))
	f.add("pending", o.pending)
	f.add("bytes", o.bytes)
	f.add("sent", o.sent)
	f.add("at", strings.TrimPrefix(fmt.Sprint(o.sentChunk, "+", o.sentOffset), "0+0"))
	f.add("received", o.received)
	f.add("base", o.base)
	f.add("checked", o.checked)
	f.add("gap", o.gap)
	f.add("credit", strings.TrimPrefix(fmt.Sprint(o.credit), "{0 0 0 0}"))
	f.add("wants", o.wantSent)
	f.add("why", o.why)
	f.add("asked at", sinceBegin(o.askedAt))
	f.add("queued", o.queued)
	f.add("sent since tick", o.sentSinceTick)
	f.add("deferred", o.deferred != nil)
	f.add("deferrals", o.deferrals)
	f.add("open after", sinceBegin(o.openAfter))
	f.add("absent since", sinceBegin(o.absentSince))
	f.add("idle since", sinceBegin(o.idleSince))
	f.add("never sent from", o.maxSent)
	for _, c := range o.chunks {
		var marks facts
		marks.add("live", c.live)
		marks.add("largest", c.largest)
		marks.add("size", len(c.buf))
		marks.add("lent", c.lent)
		marks.add("adopted", c.adopted)
		f.add("chunk", fmt.Sprintf("(%d to %d, %v)", c.first, c.end()-1, marks))
	}
	f.add("hint", o.chunkHint)
	f.add("recycles", o.freeLater != nil)
	describeMoves(&f, o)
	describeCallers(&f, o)
	describeFetched(&f, o.fetched)
	return f
}

func describeMoves(f *facts, o *Outbound) {
	if o.tenure > 1 {
		f.add("tenure", o.tenure)
	}
	f.add("open sent", o.openSent)
	f.add("sent to", o.sentTo)
	if o.again != nil {
		f.add("again", "{"+pairsOf(o.again)+"}")
	}
	f.add("lapsed", o.lapsed)
	f.add("leaving", o.leaving)
	if o.leaving || o.revoking {
		f.add("since", sinceBegin(o.since))
	}
	f.add("revoking", o.revoking)
	f.add("asked", o.asked)
	f.add("at once", o.atOnce)
	f.add("in hand", o.inHand)
}

func describeCallers(f *facts, o *Outbound) {
	for i, waiting := range [...][]*Waiter{o.waitReceived, o.waitHandled} {
		for _, w := range waiting {
			f.add([...]string{"waits for receipt", "waits for handler"}[i], fmt.Sprint(w.First, "-", w.Last))
		}
	}
	var line []string
	for _, t := range o.line.turns {
		word := fmt.Sprint(t.need)
		if t.called {
			word += " called"
		}
		if t == o.line.short {
			word += " short"
		}
		line = append(line, word)
	}
	f.add("line", strings.Join(line, "; "))
	f.add("called", o.line.called)
	f.add("aside", strings.TrimPrefix(fmt.Sprint(o.line.aside), "{0 0}"))
	f.add("room watched", o.room != nil)
	for _, m := range o.ages.marks {
		f.add("age", fmt.Sprint(m.seq, "@", sinceBegin(time.Unix(0, m.at))))
	}
}

func describeFetched(f *facts, s *fetched) {
	if s == nil {
		return
	}
	f.add("tail", s.tail)
	f.add("generation", s.generation)
	f.add("sent before", s.sentBefore)
	f.add("rejected", strings.Trim(fmt.Sprint(sortedKeys(s.rejected)), "[]"))
	f.add("too large", strings.Trim(fmt.Sprint(sortedKeys(s.tooLarge)), "[]"))
	f.add("events", len(s.events))
}

func describeInbound(in *Inbound) facts {
	f := facts{}
	f.add("handle", in.handle)
	f.add("next", in.next)
	f.add("settled", pairsOf(&in.settled))
	f.add("rejected", strings.Trim(fmt.Sprint(sortedKeys(in.rejected)), "[]"))
	f.add("credit", strings.TrimPrefix(fmt.Sprint(in.credit), "{0 0 0 0}"))
	f.add("to tell", strings.Trim(fmt.Sprint(in.newlySettled), "[]"))
	f.add("told", in.ackedNext)
	f.add("grant to tell", in.grantPending)
	f.add("unsettled", in.Unsettled())
	f.add("idle", in.Idle())
	return f
}

// describeFrame is a frame with the fields that are set, in the order of their numbers.
func describeFrame(m protoreflect.Message) string {
	f := facts{}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if !m.Has(field) {
			continue
		}
		switch value := m.Get(field); {
		case field.Kind() == protoreflect.BytesKind && !field.IsList():
			f.add(string(field.Name()), fmt.Sprintf("%x", strings.TrimRight(string(value.Bytes()), "\x00")))
		case field.IsList():
			var all []string
			for k := range value.List().Len() {
				all = append(all, value.List().Get(k).String())
			}
			f.add(string(field.Name()), strings.Join(all, " "))
		case field.Kind() == protoreflect.EnumKind:
			f.add(string(field.Name()), field.Enum().Values().ByNumber(value.Enum()).Name())
		default:
			f.add(string(field.Name()), value.Interface())
		}
	}
	return fmt.Sprintf("%s{%s}", m.Descriptor().Name(), f.String())
}
