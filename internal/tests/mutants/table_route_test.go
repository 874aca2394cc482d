package mutants

func routeProbe(run string) probe { return probe{"route", "^" + run + "$", ""} }

func policyProbe(run string) probe { return probe{"internal/policy", "^" + run + "$", ""} }

// routeMutants are mistakes in finding an address, and in choosing among those that there are.
var routeMutants = []mutant{
	{
		"addresses that are not ready are usable", "internal/policy/pick.go",
		"case c.State != Ready:\n\t\treturn 0", "case c.State == Idle:\n\t\treturn 0",
		policyProbe("TestUsable_PrefersReadyAndPrompt"),
	},
	{
		"a slow address is as good as a prompt one", "internal/policy/pick.go",
		"case c.Slow:\n\t\treturn 1", "case c.Slow && false:\n\t\treturn 1",
		policyProbe("TestUsable_PrefersReadyAndPrompt"),
	},
	{
		"round robin stops at a full address", "internal/policy/pick.go",
		"if i := usable[(at+k)%len(usable)]; !load(i).Full {", "if i := usable[(at+k)%len(usable)]; true {",
		policyProbe("TestRoundRobin_PassesTheFullOnes"),
	},
	{
		"the full one of two is as good", "internal/policy/pick.go",
		"case loadA.Full != loadB.Full:", "case false:",
		policyProbe("TestLeastPending_PassesTheFullOnes"),
	},
	{
		"the highest priority is used", "internal/policy/pick.go",
		"if !ready || c.Priority < priority {", "if !ready || c.Priority > priority {",
		policyProbe("TestUsable_LowestPriorityFirst"),
	},
	{
		"failover goes back at once", "internal/policy/pick.go",
		"candidates[current].Priority && candidates[best].Stable:", "candidates[current].Priority:",
		policyProbe("TestFailover_GoesBackAfterAStableWhile"),
	},
	{
		"failover never goes back", "internal/policy/pick.go",
		"candidates[current].Priority && candidates[best].Stable:", "candidates[current].Priority && false:",
		policyProbe("TestFailover_GoesBackAfterAStableWhile"),
	},
	{
		"failover does not wait for an attempt that may succeed", "internal/policy/pick.go",
		"if c.State != Ready && !(c.Fresh && current == None) {", "if c.State != Ready {",
		policyProbe("TestFailover_WaitsForAnAttemptThatMaySucceed"),
	},
	{
		"failover among equals depends on their order", "internal/policy/pick.go",
		"return c.Address < o.Address", "return false",
		policyProbe("TestFailover_StaysAmongEquals"),
	},
	{
		"round robin knows no weights", "internal/policy/pick.go",
		"if equal {", "if true {",
		policyProbe("TestRoundRobin_SharesByWeight"),
	},
	{
		"round robin sends runs to one address", "internal/policy/pick.go",
		"rest := turn % total * stride(total) % total", "rest := turn % total",
		policyProbe("TestRoundRobin_SharesByWeight"),
	},
	{
		"the one of two with more pending is chosen", "internal/policy/pick.go",
		"if loadB.Pending*candidates[a].Weight < loadA.Pending*candidates[b].Weight {", "if loadB.Pending*candidates[a].Weight > loadA.Pending*candidates[b].Weight {",
		policyProbe("TestLeastPending_.*"),
	},
	{
		"both choices can be the same address", "internal/policy/pick.go",
		"b := usable[(at+1+second%(n-1))%n]", "b := usable[second%n]",
		policyProbe("TestLeastPending_LooksAtTwoOfMany"),
	},
	{
		"the slot's address is its index in the set", "internal/policy/hash.go",
		"if score := score(seeds[i], slot, m.Weight); room[i] > 0 && score > bestScore {",
		"if score := float64((slot+i)%len(members)) + score(seeds[i], slot, m.Weight)*0; room[i] > 0 && score > bestScore {",
		policyProbe("TestHash_OneOfNComesOrGoes"),
	},
	{
		"an address can get any share of the slots", "internal/policy/hash.go",
		"room[best]--", "room[best]++",
		probe{"route", "^TestHash_", ""},
	},
	{
		"slots do not depend on all of the key", "internal/policy/hash.go",
		"_, _ = h.Write([]byte(key))", "_, _ = h.Write([]byte(key[:min(len(key), 6)]))",
		policyProbe("TestHash_KeysSpreadOverTheSlots"),
	},
	{
		"weights mean nothing to slots", "internal/policy/hash.go",
		"return -float64(weight) / math.Log(u)", "return -1 / math.Log(u)",
		policyProbe("TestHash_SharesByWeight"),
	},
	{
		"all addresses but one can be set aside", "internal/policy/state.go",
		"for range len(ages) / 2 {", "for range len(ages) {",
		policyProbe("TestSlow_FarBeyondItsSiblings"),
	},
	{
		"an address is slow beside one that is a little faster", "internal/policy/state.go",
		"ages[slowest] < slowFactor*rest", "ages[slowest] < rest",
		policyProbe("TestSlow_FarBeyondItsSiblings"),
	},
	{
		"the age of a stream is that of its last message", "internal/policy/state.go",
		"return now.Sub(a.samples[0].at)", "return now.Sub(a.samples[len(a.samples)-1].at)",
		probe{"route", "^TestAges_", ""},
	},
	{
		"the shortest prefix wins", "route/resolver.go",
		"len(prefix) > longest && strings", "(longest < 0 || len(prefix) < longest) && strings",
		routeProbe("TestStatic_LongestPrefixWins"),
	},
	{
		"the order of a list is no priority of failover", "route/route.go",
		"m.Priority = i", "m.Priority = 0 * i",
		probe{"internal/tests", "^TestFailover_FirstAddressIsUsed$", ""},
	},
	{
		"the order of addresses makes another route", "route/route.go",
		"return strings.Compare(a.Address, b.Address) })", "return 0 * strings.Compare(a.Address, b.Address) })",
		routeProbe("TestRoute_EqualAsASet"),
	},
	{
		"IPv6 addresses are left out", "route/dns.go",
		"LookupNetIP(ctx, \"ip\", host)", "LookupNetIP(ctx, \"ip4\", host)",
		probe{"internal/tests", "^TestDNS_EveryRecordIsAnAddress$", ""},
	},
	{
		"each topic looks a name up for itself", "route/shared.go",
		"s.call = c\n\t\tgo", "go",
		probe{"internal/tests", "^TestDNS_TopicsShareALookup$", ""},
	},
	{
		"a topic is looked up at every Publish", "publisher_resolve.go",
		"if r := s.resolved.Load(); r != nil {\n\t\treturn r, nil", "if r := s.resolved.Load(); r != nil && !r.dynamic {\n\t\treturn r, nil",
		probe{"internal/tests", "^TestPublisher_LooksATopicUpOnce$", ""},
	},
	{
		"an address that nothing uses is kept", "manager_addresses.go",
		"if a.uses == 0 && now.Sub(a.unused) >= lingerFor {", "if a.uses < 0 && now.Sub(a.unused) >= lingerFor {",
		probe{"internal/tests", "^TestManager_ForgetsAnAddressThatNothingUses$", ""},
	},
	{
		"a route has no more to do with addresses that left it", "publisher_tick.go",
		"\t\tt.moveAway()\n\t}\n\tif len(left)", "\t}\n\tif len(left)",
		probe{"internal/tests", "^TestRoute_AnAddressThatLeavesGivesBack$", ""},
	},
	{
		"a stream stays at an address that left the route after it came there", "publisher_tick.go",
		"if p.reap(t) {", "if p.reap(t) && false {",
		probe{"internal/tests", "^TestRoute_AStreamLeavesAnAddressThatItMovedTo$", ""},
	},
	{
		"groups follow one another by their order", "publisher_resolve.go",
		"match((*group).shares)", "",
		probe{"internal/tests", "^TestAll_", ""},
	},
	{
		"what an address lacks that got everything itself goes to another", "publisher_resolve.go",
		"return !old.pinned && !g.pinned", "return true",
		probe{"internal/tests", "^TestAll_WhatAnAddressLacksGoesToNoOther$", ""},
	},
	{
		"what a draining address was not sent waits for its handlers", "internal/acked/sender/stream.go",
		"from.client.Withdraw(st.out)", "",
		probe{"internal/tests", "^TestRoute_WhatADrainingAddressWasNotSentGoesElsewhereAtOnce$", ""},
	},
	{
		"what was never sent waits for the greeting of a peer", "internal/acked/sender/state.go",
		"now.Sub(s.status.since) >= patientFor", "false",
		probe{"internal/tests", "^TestRoute_WhatWasNeverSentLeavesAPeerThatDoesNotGreet$", ""},
	},
	{
		"slots of a group that left the route are not counted", "publisher_topics.go",
		"groups := s.retired", "groups := []*group(nil)",
		probe{"internal/tests", "^TestAll_CountsWhatAGroupHoldsThatLeft$", ""},
	},
	{
		"what waits for TLS moves to plaintext", "publisher_choose.go",
		"return !f.addr.Load().target.TLS || to", "return true || to",
		probe{".", "^TestRoutedStream_NeverFromTLSToPlaintext$", ""},
	},
	{
		"a call does not wait for all groups", "publisher_spread.go",
		"\tsending.Wait()\n\tif !slices.ContainsFunc(verdicts,", "\tif !slices.ContainsFunc(verdicts,",
		probe{"internal/tests", "^TestAll_WaitsForEveryGroup$", ""},
	},
	{
		"what some groups have is not sent", "publisher_spread.go",
		"sent = sent || v.of(i) != notSent", "sent = sent || v.of(i) == unknown",
		probe{"internal/tests", "^TestAll_WhatAGroupLacksIsUnknown$", ""},
	},
	{
		"the first address to connect gets all", "publisher_route.go",
		"if !g.started.Load() {", "if false {",
		probe{"internal/tests", "^TestRoute_FirstMessagesAreShared$", ""},
	},
	{
		"a failed lookup is not tried again", "publisher_lookup.go",
		"if !errors.As(l.err, &failed) {", "if true || !errors.As(l.err, &failed) {",
		probe{"internal/tests", "^TestPublisher_WaitsForTheDNS$", ""},
	},
	{
		"a few calls go together", "publisher_choose.go",
		"shared := l.calls >= together*len(v.usable)", "shared := true",
		probe{".", "^TestRoundRobin_AFewCallsTakeTurns$", ""},
	},
	{
		"calls that go together leave no turn to the others", "publisher_choose.go",
		"(g.turn.Add(n) - n) / together", "(g.turn.Add(n) - n) / (8 * together)",
		probe{".", "^TestRoundRobin_ManyCallsGoTogether$", ""},
	},
	{
		"LeastPending stays where it was", "publisher_choose.go",
		"c.view == v && c.turn == turn &&", "c.turn == turn &&",
		probe{".", "^TestLeastPending_ManyCallsGoTogether$", ""},
	},
	{
		"calls under way are not counted", "publisher_choose.go",
		"&loads{group: g, calls: calls}", "&loads{group: g}",
		probe{".", "_ManyCallsGoTogether$", ""},
	},
	{
		"a slot's stream ends under a call", "publisher_slots.go",
		"idle := f.calls.Load() == 0 && f.stream", "idle := f.stream",
		probe{".", "^TestHash_AStreamStaysWhileACallUsesIt$", ""},
	},
	{
		"slots belong to addresses that are not there", "publisher_slots.go",
		"if c.State == policy.Ready && c.Priority == lowest {", "if c.Priority == lowest {",
		probe{".", "^TestHash_SlotsBelongToAddressesThatAreReady$", ""},
	},
	{
		"a route that changes waits for first attempts again", "publisher_resolve.go",
		"	g.started.Store(last.started.Load())\n", "",
		probe{".", "^TestRoute_AnotherSetGoesOnWhereTheLastOneWas$", ""},
	},
	{
		"streams move from TLS to plaintext", "internal/acked/sender/stream.go",
		"from.closed || from.cfg.TLS != nil && to.cfg.TLS == nil", "from.closed",
		probe{"internal/acked/sender", "^TestStream_MovesNothingFromTLSToPlaintext$", ""},
	},
	{
		"what was never sent waits at a failed address", "internal/acked/sender/state.go",
		"return state >= Failed ||", "return state > Failed ||",
		probe{"internal/acked/sender", "^TestStream_LeavesAnAddressThatCannotBeReached$", ""},
	},
	{
		"a stream that has ended takes messages", "internal/session/client.go",
		"\t\tc.latest = nil\n", "",
		probe{"internal/session", "", ""},
	},
	{
		"two spellings are two addresses of a route", "publisher_members.go",
		"if address := canonical(m.Address); !seen", "if address := m.Address; !seen",
		seamProbe("TestRoute_AnAddressSpelledTwiceIsOne"),
	},
	{
		"Hash goes by the spelling of addresses", "publisher_resolve.go",
		"\t\tm.Address = canonical(m.Address)", "\t\t_ = canonical(m.Address)",
		seamProbe("TestHash_PublishersThatSpellAddressesDifferentlyAgree"),
	},
	{
		"two spellings are two addresses of a Manager", "internal/netio/conn.go",
		"\thost = strings.ToLower(host)\n", "",
		seamProbe("TestManager_AnAddressSpelledTwiceHasOneConnection"),
	},
}
