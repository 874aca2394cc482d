package mutants

// unknownRouteMutants are mistakes in routes, policies, moves and outboxes of a list of 377, of which no test told before.
var unknownRouteMutants = []mutant{
	{
		"a record without a target ends the list", "route/dns.go",
		"is decidedly not available\n\t\t\tcontinue", "is decidedly not available\n\t\t\tbreak",
		routeProbe("TestSRV_GoesOnBehindWhatIsNoTarget"),
	},
	{
		"one bad SRV record spoils the others", "route/dns.go",
		"if err != nil && len(records) == 0 {", "if err != nil {",
		routeProbe("TestSRV_GoesOnBehindWhatIsNoTarget"),
	},
	{
		"an IPv4 address that is written as IPv6 is another", "route/dns.go",
		"ip.Unmap().String()", "ip.String()",
		routeProbe("TestDNS_AnIPAddressIsOne"),
	},
	{
		"callers share what they can change", "route/shared.go",
		"return s.last.Clone(), nil", "return s.last, nil",
		routeProbe("TestShared_NoCallerHasAnothersMemory"),
	},
	{
		"a lookup ends with the caller that began it", "route/shared.go",
		"context.WithoutCancel(ctx)", "ctx",
		routeProbe("TestShared_ALookupIsForThoseThatWaitForIt"),
	},
	{
		"a lookup that was left takes another's place", "route/shared.go",
		"\tif s.call == c {\n\t\ts.call = nil\n\t}\n\tif c.err", "\ts.call = nil\n\tif c.err",
		routeProbe("TestShared_ALookupThatWasLeftTakesNoOthersPlace"),
	},
	{
		"one slow address makes the prompt ones useless", "internal/policy/pick.go",
		"grade = max(grade, g)", "grade = g",
		policyProbe("TestUsable_PromptBeforeSlow"),
	},
	{
		"two of three are set aside", "internal/policy/state.go",
		"for range len(ages) / 2 {", "for range (len(ages) + len(ages)%2*len(ages)/3) / 2 {",
		policyProbe("TestSlow_FarBeyondItsSiblings"),
	},
	{
		"a long backlog makes ages coarse for good", "internal/policy/state.go",
		"\t\ta.apart = 0\n", "",
		policyProbe("TestAges_LongAndShortWaits"),
	},
	{
		"a Watch that has ended is thought to go on", "publisher_lookup.go",
		"if ctx.Err() == nil {\n\t\ts.watched", "if true {\n\t\ts.watched",
		rootProbe("TestRoute_WatchEndsWhileItTells"),
	},
	{
		"a route that is watched is looked up", "publisher_lookup.go",
		"|| s.watched || s.lookup", "|| s.lookup",
		rootProbe("TestRoute_IsNotLookedUpWhileItIsWatched"),
	},
	{
		"an address that fails has all topics looked up", "publisher_lookup.go",
		"if t.addr == a {\n\t\t\t\ts.lost", "if t != nil {\n\t\t\t\ts.lost",
		rootProbe("TestRoute_IsLookedUpAgain"),
	},
	{
		"what a target's other streams hold is not looked at", "publisher_targets.go",
		"for _, f := range t.flows() {\n\t\tn += f", "for _, f := range t.flows()[max(0, len(t.flows())-1):] {\n\t\tn += f",
		rootProbe("TestTarget_HoldsWhatAllOfItsStreamsHold"),
	},
	{
		"a stream is as old at its next address", "publisher_targets.go",
		"f.aged, f.ages = at, policy.Ages{}", "f.aged = at",
		rootProbe("TestRoutedStream_IsAsOldAsItsStayAtAnAddress"),
	},
	{
		"what lacked before is forgotten", "publisher_again.go",
		"sent.lacking = append(sent.lacking, lacking...)", "sent.lacking = lacking",
		rootProbe("TestSendAgain_AccountsForWhatWasSentBefore"),
	},
	{
		"a refused message is confirmed though the outbox keeps it", "outbox_refused.go",
		"if r.settle(store.Range{First: seq, Last: seq}) {", "if r.settle(store.Range{First: seq, Last: seq}) || true {",
		rootProbe("TestOutbox_ARefusedMessageIsKeptUntilItIsSettled"),
	},
	{
		"OnFailure gets another message", "outbox_refused.go",
		"if err != nil || batch.First != seq || len(", "if err != nil || len(",
		rootProbe("TestOutbox_TellsOfTheMessageThatWasRefused"),
	},
	{
		"two streams renounce an identity and the next one", "outbox_relay.go",
		"\tif s.attempt.Err() != nil { // another stream has found it out\n\t\treturn true\n\t}\n", "",
		rootProbe("TestOutboxRelay_RenouncesOnceForAllStreams"),
	},
	{
		"slots of another group go by the name of the first", "outbox_place.go",
		"store.TopicKey(topic, name, g.index, slot)", "store.TopicKey(topic, name, 0, slot)",
		rootProbe("TestOutbox_MessagesOfASlotGoTogether"),
	},
	{
		"what an earlier receiver may have comes back as not sent", "internal/session/withdraw.go",
		"from := max(o.sentTo, o.maxSent)", "from := o.sentTo",
		sessionProbe("TestWithdraw_GivesBackWhatWasNeverSent"),
	},
	{
		"each Leave gives consumers more time", "internal/session/move.go",
		"\tif o.leaving {\n\t\treturn true\n\t}\n\to.leaving", "\tif o.leaving {\n\t\to.since = now\n\t\treturn true\n\t}\n\to.leaving",
		sessionProbe("TestMove_WaitsForConsumersNoLonger"),
	},
	{
		"a receiver that was gone is not asked", "internal/session/peer.go",
		"c.peer.instance, c.peer.gone = true, able, instance, false", "c.peer.instance = true, able, instance",
		sessionProbe("TestMove_AReceiverThatGreetsIsThere"),
	},
	{
		"an answer that may be older than a loss is enough", "publisher_lookup.go",
		"if s.lost {", "if false && s.lost {",
		probe{".", "^TestLookup_IsAskedAgainForAnAddressThatIsLostMeanwhile$", ""},
	},
}
