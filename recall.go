package buffstreams

import (
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
)

// recall gives back the messages that no handler has of streams that were revoked, as their publishers send them
// elsewhere, and all of a group that was dropped. Those in the channel that stay keep their order.
func (p *pump) recall() {
	p.recalls.signal()
	var unread []flight
	kept := p.inFlight[:0]
	i := 0
	for len(p.out) > 0 || i < len(p.inFlight) {
		select {
		case msg := <-p.out:
			for ; p.inFlight[i].msg != msg; i++ { // the channel is in the same order: handlers have these
				kept = append(kept, p.inFlight[i])
			}
			unread = append(unread, p.inFlight[i])
			i++
		default:
			kept = append(kept, p.inFlight[i:]...)
			i = len(p.inFlight)
		}
	}
	var back []dispatch.Delivery
	for _, f := range unread {
		if p.member.MustReturn(&f.ctx.delivery) {
			back = append(back, *f.ctx.end())
			continue
		}
		p.out <- f.msg // only this goroutine sends, and there is room for all in flight
		kept = append(kept, f)
	}
	clear(p.inFlight[len(kept):])
	p.inFlight = kept
	if len(back) > 0 {
		p.giveBack(back...) // at once: each call may wait for a DedupeStore
	}
}

// takeBack takes the messages that no handler has received out of the channel and of inFlight.
func (p *pump) takeBack() (back []dispatch.Delivery) {
	kept := p.inFlight[:0]
	var received *message.Message
	for _, f := range p.inFlight {
		if received == nil {
			select {
			case received = <-p.out:
			default:
			}
		}
		if f.msg != received { // the channel is in the same order: a handler has it
			kept = append(kept, f)
			continue
		}
		received = nil
		if p.traces {
			p.traceEnded(f, "given back")
		}
		back = append(back, *f.ctx.end())
	}
	clear(p.inFlight[len(kept):])
	p.inFlight = kept
	p.noteFirst()
	return back
}
