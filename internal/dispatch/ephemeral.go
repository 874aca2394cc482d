package dispatch

import "github.com/buffstreams/watermill-buffstreams/internal/flow"

// MakeEphemeral makes the topic end with its last member, also one of a group that was dropped: it may have a message
// yet that other groups have handled. The messages that are pending then are dropped, and onEnd is called with their
// number and with no lock held. A topic that has groups already, or declared ones, does not change: they outlast their
// members.
func (t *Topic) MakeEphemeral(onEnd func(dropped int)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ephemeral || len(t.groups) > 0 || t.lasting {
		return
	}
	t.ephemeral, t.onEnd = true, onEnd
}

// Outlast undoes MakeEphemeral, for a group that is to outlast its members. It returns false if the topic has ended.
func (t *Topic) Outlast() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.ephemeral = false
	}
	return !t.ended
}

// IsEphemeral reports whether the topic ends with its last member.
func (t *Topic) IsEphemeral() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ephemeral
}

// expireLocked ends an ephemeral topic without members. If it does, the caller has to call end. What one group has
// handled is no less handled for the others that ended, and what one has refused was refused: the caller has to report
// both before.
func (t *Topic) expireLocked() (done, dropped []settledRange, ended bool) {
	if !t.ephemeral || t.ended || t.members > 0 {
		return nil, nil, false
	}
	t.ended = true
	t.union.clear() // beside is empty: it was for members
	for len(t.groups) > 0 {
		for _, s := range t.removeLocked(t.groups[0]) {
			for i := range s.count {
				one := settledRange{run: s.run, index: s.index + i, count: 1, bytes: s.bytes / s.count, refusal: s.refusal}
				if i == 0 {
					one.bytes += s.bytes % s.count
				}
				if s.refusal != nil || s.handled || s.run.isHandled(one.index) {
					done = appendSettled(done, one)
				} else {
					dropped = append(dropped, one)
				}
			}
		}
	}
	return done, dropped, true
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
