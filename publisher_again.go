package buffstreams

import (
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// sendAgain sends elsewhere, within the time of the call, what came back from a stream that leaves its address. It
// returns what became of all messages of the part.
func (p *Publisher) sendAgain(w *callWait, g *group, part *part, sent sendResult, back *sender.WithdrawnError) sendResult {
	if w.began.IsZero() { // the call has this part alone
		if w.begin(); !back.Deadline.IsZero() {
			w.deadline = back.Deadline
		}
	}
	var rest []*message.Message
	var index []uint64 // in the part
	for _, r := range back.Messages {
		for i := r.First; i <= r.Last; i++ {
			rest, index = append(rest, part.messages[i]), append(index, i)
		}
	}
	v := p.sendGroup(w, g, rest)
	lacking, err := back.Wait()
	if err != nil && (p.ctx.Err() != nil || errors.Is(err, sender.ErrClosed)) {
		err = p.closedError()
	}
	sent.lacking = append(sent.lacking, lacking...)
	for i, f := range v.fates {
		one := session.Range{First: index[i], Last: index[i]}
		switch f {
		case notSent:
			sent.missing = append(sent.missing, one)
		case unknown:
			sent.lacking = append(sent.lacking, one)
		case arrived:
		}
	}
	sent.err = errors.Join(append(v.errs, back.Err, err)...)
	return sent
}

// sendAllAgain is sendAgain for a call of one part.
func (p *Publisher) sendAllAgain(g *group, t *target, messages []*message.Message, sent sendResult, back *sender.WithdrawnError) error {
	s := p.state(t.topic) // the call keeps it
	w := p.newCallWait(s, messages[0])
	defer w.end()
	one := part{target: t, slot: -1, messages: messages}
	var v verdict
	v.note(len(messages), &one, p.sendAgain(w, g, &one, sent, back))
	if v.errs == nil {
		return nil
	}
	return s.resolved.Load().publishError(messages, []verdict{v})
}
