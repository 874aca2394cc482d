package dispatch

import "github.com/buffstreams/watermill-buffstreams/internal/flow"

// MakeEphemeral makes the topic end with its last member. The messages that are pending then are dropped, and onEnd is
// called with their number and with no lock held.
func (t *Topic) MakeEphemeral(onEnd func(dropped int)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ephemeral, t.onEnd = true, onEnd
}

// IsEphemeral reports whether the topic ends with its last member.
func (t *Topic) IsEphemeral() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ephemeral
}

// expireLocked ends an ephemeral topic without members. If it does, the caller has to call end.
func (t *Topic) expireLocked() (dropped []settledRange, ended bool) {
	if !t.ephemeral || t.ended {
		return nil, false
	}
	for _, g := range t.groups {
		if len(g.members) > 0 {
			return nil, false
		}
	}
	t.ended = true
	t.beside.clear()
	t.union.clear()
	for len(t.groups) > 0 {
		dropped = append(dropped, t.removeLocked(t.groups[0])...)
	}
	return dropped, true
}

// end gives back the room of the messages that an ephemeral topic dropped, whose sources hear of the end from onEnd.
func (t *Topic) end(dropped []settledRange) {
	n := 0
	for _, s := range dropped {
		n += s.count
		t.window.Release(flow.Amount{Messages: s.count, Bytes: s.bytes})
	}
	t.onEnd(n)
	t.window.Close()
}

// releaseRoom gives back the room of messages that arrived after the end.
func (t *Topic) releaseRoom(msgs [][]byte) {
	for _, m := range msgs {
		t.window.Release(flow.Amount{Messages: 1, Bytes: t.size(len(m))})
	}
}
