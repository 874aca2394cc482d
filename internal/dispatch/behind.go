package dispatch

import "time"

// sayBehindAfter is the least time between two reports of the same kind to OnBehind.
const sayBehindAfter = time.Minute

// Behind is a group that holds up its topic: its messages take the topic's window.
type Behind struct {
	Group      string // empty for a subscription without a group
	Members    int    // 0: no subscription is there
	Unsettled  int    // messages that it has not settled
	Key        string // that most of them wait for, if WaitForKey is not 0
	WaitForKey int
}

// OnBehind sets what CheckBehind and CheckKey report to, with no lock held. It is called before the first Join.
func (t *Topic) OnBehind(f func(Behind)) { t.onBehind = f }

// CheckBehind reports the groups that have taken the window. It is called when there was no room, and reports them only
// once in a while, so that they do not flood a log.
func (t *Topic) CheckBehind() {
	for _, b := range t.behind() {
		t.onBehind(b)
	}
}

func (t *Topic) behind() (all []Behind) {
	now := time.Now()
	if t.onBehind == nil || now.UnixNano()-t.saidBehind.Load() < int64(sayBehindAfter) || !t.window.Tight() {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var most int64
	for _, g := range t.groups {
		most = max(most, g.unsettled.Load())
	}
	if most == 0 || now.UnixNano()-t.saidBehind.Load() < int64(sayBehindAfter) {
		return nil
	}
	t.saidBehind.Store(now.UnixNano())
	for _, g := range t.groups {
		if n := g.unsettled.Load(); 2*n >= most {
			all = append(all, Behind{Group: g.name, Members: len(g.members), Unsettled: int(n)})
		}
	}
	return all
}

// CheckKey reports a key if half of the group's messages wait for it and have taken the window. It is called when Claim
// has returned false for the key, with no lock held, and reports one only once in a while.
func (m *Member) CheckKey(key string) {
	if b, ok := m.group.behindKey(key); ok {
		m.group.topic.onBehind(b)
	}
}

func (g *group) behindKey(key string) (b Behind, ok bool) {
	t := g.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	q, unsettled := g.keys[key], int(g.unsettled.Load())
	if q == nil || 2*len(q.waiting) < unsettled || t.onBehind == nil {
		return b, false
	}
	now := time.Now()
	if now.Sub(t.saidKey) < sayBehindAfter || !t.window.Tight() {
		return b, false
	}
	t.saidKey = now
	return Behind{
		Group: g.name, Members: len(g.members), Unsettled: unsettled, Key: key, WaitForKey: len(q.waiting),
	}, true
}
