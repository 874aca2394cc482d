package mutants

var journeyProbe = probe{"internal/session", "^TestJourney$", ""}

// unknownSessionMutants are mistakes in conditions, bounds and orders of the state machines and of the topics' logs that no test of
// their own package told of.
var unknownSessionMutants = []mutant{
	{
		"a receiver that says goodbye holds what it has", "internal/session/custody.go",
		"c.phase == established && !o.revoking", "c.phase >= established && !o.revoking", journeyProbe,
	},
	{
		"what is left over begins where sending stopped", "internal/session/custody.go",
		"from = o.received\n", "from = o.sent\n", journeyProbe,
	},
	{
		"an answer to pings of the last connection is one of this", "internal/session/client.go",
		"c.control, c.sendQueue, c.replies = nil, nil, 0\n\tc.sendControl", "c.control, c.sendQueue = nil, nil\n\tc.sendControl", journeyProbe,
	},
	{
		"what a call is about to get back is divided too", "internal/session/divide.go",
		"if w.Withdrawable && w.Last >= first {", "if w.Withdrawable && w.Last > first+1 {", journeyProbe,
	},
	{
		"an end by name is one of all", "internal/session/client.go",
		"if o.Ended() && !o.unnamed {", "if o.Ended() {", journeyProbe,
	},
	{
		"a frame that cannot be encoded is passed over", "internal/session/tick.go",
		"return c.unsendable\n", "return nil\n", journeyProbe,
	},
	{
		"a repeated message is not marked", "internal/session/encode.go",
		"flags |= flagAgain\n", "flags |= flagAgain & flagGap\n",
		probe{"internal/session", "^TestSegment_ArrivesWithItsFlags$", ""},
	},
	{
		"all streams are asked about at once", "internal/session/explain.go",
		"\tc.asks++\n", "", probe{"internal/session", "^TestExplain_AsksAboutAFewStreamsInATick$", ""},
	},
	{
		"a run has one refusal", "internal/dispatch/run.go",
		"if r.refusals == nil {", "if len(r.refusals) < 3 {", dispatchProbe("TestTopic_RefusalsOfARunAreKept"),
	},
	{
		"one that takes nothing is a successor", "internal/dispatch/drain.go",
		"!other.stopped && !other.draining })", "!other.left && !other.draining })",
		dispatchProbe("TestDrain_AMemberThatTakesNothingIsNoSuccessor"),
	},
	{
		"a small payload takes the buffer along", "framing/reader.go",
		"len(payload) < minHandOver || len(payload) <", "len(payload) < minHandOver && len(payload) <",
		probe{"framing", "^TestReader_TakeHandsOverWhatFillsTheBuffer$", ""},
	},
}
