package dispatch

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// maxNamed is how many groups Shortage names.
const maxNamed = 5

// Shortage says why the topic has no room for more messages, in words for their publisher.
func (t *Topic) Shortage() string {
	switch t.window.Shortage() {
	case flow.NotReady:
		return t.missing()
	case flow.BudgetFull:
		return "the listener has reached its MemoryLimit, with messages of other topics or of topics without subscriptions"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var most int64
	for _, g := range t.groups {
		most = max(most, g.unsettled.Load())
	}
	var behind []string
	for _, g := range t.groups {
		if n := g.unsettled.Load(); n > 0 && 2*n >= most {
			behind = append(behind, g.describeBehind(n))
		}
	}
	held := t.window.Held()
	return fmt.Sprintf("its window holds %d messages, %d bytes, that are not handled or on their way: %s",
		held.Messages, held.Bytes, list(behind))
}

func (g *group) describeBehind(unsettled int64) string {
	if len(g.members) == 0 {
		return fmt.Sprintf("%s, which has no subscription now, has not handled %d", groupText(g.name), unsettled)
	}
	return fmt.Sprintf("%s has not handled %d", groupText(g.name), unsettled)
}

// missing says for what a topic waits before it gives credit.
func (t *Topic) missing() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case len(t.declared) > 0:
		var names []string
		for _, name := range slices.Sorted(maps.Keys(t.declared)) {
			names = append(names, groupText(name))
		}
		return "declared consumer groups have not subscribed yet: " + list(names)
	case len(t.groups) == 0:
		return "nobody has subscribed to it"
	}
	return "the listener is not ready yet"
}

func groupText(name string) string {
	if name == "" {
		return "a subscription without a group"
	}
	return fmt.Sprintf("group %.100q", name)
}

func list(names []string) string {
	if len(names) > maxNamed {
		names = append(names[:maxNamed:maxNamed], fmt.Sprintf("%d more", len(names)-maxNamed))
	}
	return strings.Join(names, ", ")
}
