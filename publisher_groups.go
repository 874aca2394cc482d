package buffstreams

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// The addresses of a route share its messages. Where one has a consumer group that another lacks, that group misses
// what goes to the other. Each listener says a digest of a topic's groups when a stream is opened, and it is compared
// here.

// errGroupsDiffer is why messages of a route may miss a consumer group.
var errGroupsDiffer = errors.New("buffstreams: the addresses of a route have different consumer groups: each of them must have all, as " +
	"a message goes to one address")

// compareGroups logs once for each change whether the addresses of a group of a route have different consumer groups.
func (p *Publisher) compareGroups(g *group) {
	if len(g.targets) < 2 {
		return
	}
	said := make([]string, 0, len(g.targets))
	differ, first := false, ""
	for _, t := range g.targets {
		if t.addr == nil {
			return
		}
		digest, ok := t.addr.sender.Groups(t.name)
		if !ok {
			continue
		}
		hex := fmt.Sprintf("%016x", digest)
		if first == "" {
			first = hex
		}
		differ = differ || hex != first
		said = append(said, t.peer+" "+hex)
	}
	if !differ {
		said = nil
	}
	slices.Sort(said)
	s := g.groupsSaid
	s.mu.Lock()
	changed := !slices.Equal(s.differ, said)
	s.differ = said
	s.mu.Unlock()
	if !changed {
		return
	}
	fields := watermill.LogFields{"provider": netio.Provider, "topic": netio.Quote(g.targets[0].topic)}
	if differ {
		fields["digests"] = said
		p.logger.Error("Addresses of a route have different consumer groups", errGroupsDiffer, fields)
	} else {
		p.logger.Info("The addresses of a route have the same consumer groups again", fields)
	}
}
