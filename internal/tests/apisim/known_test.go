//go:build unix

package apisim

import (
	"os"
	"regexp"
)

// open is a kind of violation that is known and not mended yet. A campaign reports it and does not fail. An entry goes when its
// cause does, so that the kind is a failure from then on: the list is to shrink to nothing.
type open struct {
	kind string // a regular expression, for the whole kind
	seed uint64 // one that shows it
	why  string
}

// receiverEnds are the ends of receivers after which messages have no holder and no error says so.
const receiverEnds = `confirmed messages are gone: of .*, whose receiver \((shared|private|pubsub)( router)?\) (had closed|closed later) with (nil|an error)`

var opens = []open{
	// The end of the receiving side.
	{receiverEnds, 669, "a Subscriber or Manager that closes does not hand over, drain or report what it alone holds"},
	{`a message acked before its channel was closed comes again, though the connection stood until then`, 4249, "acks are not written before a channel closes"},
	{`.*: it was rejected to a publisher that had left`, 700, "a rejection goes nowhere when its publisher's whole process has ended"},

	// The wire.
	{`.* not handled when all is well again: its outbox was restored`, 1665, "a restored outbox is known by sequences that were used"},
}

// lookedFor are seeds beyond those of a short campaign that found kinds, most of which are mended.
var lookedFor = []uint64{2013, 2035, 2048, 2105, 2341, 2411, 2481, 2738, 2823, 2974, 3046, 3123, 4098, 4249, 4839, 7057, 14886}

// openKind returns the entry of a kind, or nil. APISIM_KNOWN is a regular expression of others.
func openKind(kind string) *open {
	for i := range opens {
		if regexp.MustCompile("^(?:" + opens[i].kind + ")$").MatchString(kind) {
			return &opens[i]
		}
	}
	if more := os.Getenv("APISIM_KNOWN"); more != "" && regexp.MustCompile(more).MatchString(kind) {
		return &open{kind: more, why: "APISIM_KNOWN"}
	}
	return nil
}
