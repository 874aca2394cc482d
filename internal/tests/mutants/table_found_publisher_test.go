package mutants

// foundPublisherMutants are mistakes that no test caught until all statements of a Publisher were looked at.
var foundPublisherMutants = []mutant{
	// What a tick leaves.
	{
		"no address is slow", "publisher_tick.go",
		"\t\t\tages[i] = max(ages[i], age)\n", "",
		rootProbe("TestTick_SetsASlowAddressAside"),
	},
	{
		"a slot's stream has a use of its address for ever", "publisher_slots.go",
		"\tfor _, f := range ended {\n\t\tp.endFlow(f)\n\t}\n", "",
		rootProbe("TestTick_EndsTheStreamOfASlotThatHoldsNothing"),
	},
	{
		"an address that left is forgotten with what it holds", "publisher_tick.go",
		"\t\t\tkept = append(kept, t)\n", "",
		rootProbe("TestTick_ForgetsAnAddressThatLeft"),
	},
	{
		"a group that left leads nowhere", "publisher_resolve.go",
		"old.place.Store(next.groups[heir])", "_ = heir",
		rootProbe("TestRoute_AGroupThatLeftLeadsToTheOneThatHasItsAddresses"),
	},
	{
		"what an address alone gets goes to its heir", "publisher_resolve.go",
		"heir >= 0 && !old.pinned", "heir >= 0",
		rootProbe("TestRoute_AGroupThatLeftLeadsToTheOneThatHasItsAddresses"),
	},
	{
		"a target takes no calls after a message came in the last moment", "publisher_targets.go",
		"\tif t.unsettled() > 0 { // enqueued in between\n\t\tt.calls.Add(-forgotten)\n", "\tif t.unsettled() > 0 { // enqueued in between\n",
		rootProbe("TestTarget_IsNotGivenUpWithAMessage"),
	},
	{
		"a call at a slot that was given up keeps its target", "publisher_route.go",
		"part.slotFlow == nil {\n\t\t\tpart.target.end()\n", "part.slotFlow == nil {\n",
		rootProbe("TestSlots_OfAGroupThatWasGivenUpTakeNoCall"),
	},
	{
		"a route that is refused takes the refusals of others", "publisher_resolve.go",
		"\t\t\tp.leaveNew(made)\n", "\t\t\tp.leave(made)\n",
		rootProbe("TestRoute_ThatIsNotAdoptedLeavesNothing"),
	},
	{
		"a route that is refused keeps its addresses", "publisher_resolve.go",
		"\t\t\tp.leaveNew(made)\n", "",
		rootProbe("TestRoute_ThatIsNotAdoptedLeavesNothing"),
	},
	{
		"an address of two calls is never forgotten", "publisher_resolve.go",
		"\t\tp.leaveNew(next.targets)\n", "",
		rootProbe("TestRoute_ThatIsNotAdoptedLeavesNothing"),
	},
	{
		"a stream that leaves enters a target that was given up", "publisher_divide.go",
		"|| !t.enter() {", "{",
		rootProbe("TestDivide_LeavesTargetsAsTheyWere"),
	},
	{
		"a stream of TLS begins one without", "publisher_divide.go",
		"if !f.mayMoveTo(t.addr) || ", "if ",
		rootProbe("TestDivide_LeavesTargetsAsTheyWere"),
	},
	{
		"nothing says since when lookups fail", "publisher_lookup.go",
		"\t\tr.failing = now\n", "",
		rootProbe("TestStats_SinceWhenLookupsFail"),
	},
	{
		"LeastPending stays at an address for good", "publisher_choose.go",
		"c.view == v && c.turn == turn &&", "c.view == v &&",
		rootProbe("TestLeastPending_ManyCallsGoTogether"),
	},
	{
		"a call of several messages knows no load", "publisher_choose.go",
		"l.known[i], l.loads[i] = true, l.group.load(i)", "l.known[i] = true",
		rootProbe("TestLeastPending_AFullAddressEndsATurn"),
	},
	{
		"calls go together to a full address", "publisher_choose.go",
		" && !g.load(c.at).Full {", " {",
		rootProbe("TestLeastPending_AFullAddressEndsATurn"),
	},

	// What the end of a call leaves, and says.
	{
		"a call is sent again though some of it was sent", "publisher_spread.go",
		"return f != notSent })\n}", "return f != notSent }) || true\n}",
		rootProbe("TestVerdict_OfGroupsThatHaveLeft"),
	},
	{
		"nothing is told of groups that have all left", "publisher_spread.go",
		"v.of(i) != arrived && !(v.left && some)", "v.of(i) != arrived && !v.left",
		rootProbe("TestVerdict_OfGroupsThatHaveLeft"),
	},
	{
		"Close waits for any topic of a stream", "publisher_topics.go",
		"case shared && named.LaterThan(busy[i].stream.(*sender.Named)):", "case shared && named == nil:",
		rootProbe("TestPublisher_BusyWithTheLastOfAStream"),
	},
	{
		"each call leaves something with the Publisher's context", "publisher_send.go",
		"func() { stop(); cancel() }", "func() { _ = stop; cancel() }",
		rootProbe("TestPublish_LeavesNothingWithAContext"),
	},
	{
		"a call that waits leaves something with its message's context", "publisher.go",
		"\tw := p.newCallWait(s, messages[0])\n\tdefer w.end()\n", "\tw := p.newCallWait(s, messages[0])\n",
		rootProbe("TestPublish_LeavesNothingWithAContext"),
	},
	{
		"what came back is never told as closed", "publisher_send.go",
		"\t\t\tback.Err = p.closedError()\n", "",
		rootProbe("TestSend_SaysThatItIsClosedOnlyIfItIs"),
	},
	{
		"what came back is told as closed", "publisher_send.go",
		"if back.Err != nil && closing {", "if back.Err != nil {",
		rootProbe("TestSend_SaysThatItIsClosedOnlyIfItIs"),
	},
	{
		"what was sent before is told as a context's end", "publisher_again.go",
		"(p.ctx.Err() != nil || errors.Is(err, sender.ErrClosed))", "errors.Is(err, sender.ErrClosed)",
		rootProbe("TestSendAgain_SaysWhatIsClosed"),
	},
	{
		"what came back is never accounted for", "publisher_again.go",
		"\tv.note(len(messages), &one, p.sendAgain(w, g, &one, sent, back))\n", "\tp.sendAgain(w, g, &one, sent, back)\n",
		rootProbe("TestSendAgain_IsTheWholeCall"),
	},
	{
		"the log follows no message of a Publisher that is closed", "publisher_log.go",
		"\t\tp.traceEach(topic, messages, \"not sent\", err)\n\tdefault", "\tdefault",
		rootProbe("TestLog_TracesWhatBecameOfEachMessage"),
	},

	// What is reported, and when.
	{
		"Drain does not wait for what is reported", "publisher.go",
		"\tp.reportRefused()\n\treturn p.failures", "\treturn p.failures",
		rootProbe("TestDrain_WaitsForWhatIsBeingReported"),
	},
	{
		"a Publisher that is not made leaves its Manager", "publisher.go",
		"err = errors.Join(err, p.manager.Close())", "_ = errors.Join(err)",
		rootProbe("TestPublisher_ThatIsNotMadeLeavesNothing"),
	},
	{
		"the end of a Publisher is a lookup that fails", "publisher_lookup.go",
		"if err == nil || p.ctx.Err() != nil {", "if err == nil {",
		rootProbe("TestRoute_LookupsThatFailAreLoggedUntilTheEnd"),
	},
	{
		"a route is watched once", "publisher_lookup.go",
		"\tgo p.refresh(s, l) // ends with the lookup\n\tp.watchLocked(s)\n", "\tgo p.refresh(s, l)\n",
		rootProbe("TestRoute_IsWatchedAgain"),
	},
	{
		"a stream begins at a target that was given up", "publisher_divide.go",
		"if t.left {", "if false {",
		rootProbe("TestDivide_GivesNothingToATargetThatLeft"),
	},
	{
		"a topic is not ready while its route cannot be looked up again", "stats_ready.go",
		"if s.failed != nil && s.resolved.Load() == nil {", "if s.failed != nil {",
		rootProbe("TestReady_AsLongAsThereIsARoute"),
	},
	{
		"a Subscriber is ready without a subscription", "stats_ready.go",
		"\t\treasons.add(\"the Subscriber has no subscription\")\n", "",
		rootProbe("TestReady_AsLongAsThereIsARoute"),
	},
	{
		"files that are no good are read at each handshake", "tls_files.go",
		"\tf.seen = stamps\n", "",
		rootProbe("TestTLSFiles_ComplainOnce"),
	},
	{
		"good files are a complaint", "tls_files.go",
		"if err != nil && f.OnError != nil {", "if f.OnError != nil {",
		rootProbe("TestTLSFiles_ComplainOnce"),
	},
	{
		"what came back has failed as the Publisher closes", "publisher_again.go",
		"if err != nil && (p.ctx", "if (p.ctx",
		rootProbe("TestSendAgain_IsTheWholeCall"),
	},
	{
		"slots of a Publisher that closed use their addresses", "publisher.go",
		"\t\tp.endFlow(f)\n\t}\n\tp.leave(targets)", "\t\t_ = f\n\t}\n\tp.leave(targets)",
		rootProbe("TestPublisher_ThatClosesUsesNoAddress"),
	},
	{
		"an address that stays in a route counts again", "publisher_resolve.go",
		"\t\t\t\tdelete(kept, t)\n", "\t\t\t\t_ = t\n",
		rootProbe("TestRoute_ThatChangesHasEachAddressOnce"),
	},
	{
		"groups that left a route are never forgotten", "publisher_tick.go",
		"\ts.retired = append(kept, s.retired[len(retired):]...)\n", "\t_ = kept\n",
		rootProbe("TestRoute_ThatChangesHasEachAddressOnce"),
	},
	{
		"each group of a call has its own time", "publisher_spread.go",
		"\tw.begin()\n\tverdicts := make(", "\tverdicts := make(",
		rootProbe("TestCallWait_BeginsBeforePartsGoSideBySide"),
	},
	{
		"each part of a call has its own time", "publisher_spread.go",
		"\t\tw.begin()\n\t\tresults := make(", "\t\tresults := make(",
		rootProbe("TestCallWait_BeginsBeforePartsGoSideBySide"),
	},
	{
		"groups that differ are logged in each order", "publisher_groups.go",
		"\tslices.Sort(said)\n", "",
		rootProbe("TestRoute_GroupsThatDifferAreLoggedOnce"),
	},
	{
		"an Outbox shows all addresses", "stats_publisher.go",
		"return !destinations[t] })", "return !destinations[t] && false })",
		rootProbe("TestStats_OfAnOutboxShowItsDestinations"),
	},
	{
		"an Outbox shows no address", "stats_publisher.go",
		"\t\t\t\tdestinations[t] = true\n", "\t\t\t\t_ = t\n",
		rootProbe("TestStats_OfAnOutboxShowItsDestinations"),
	},
	{
		"an Outbox that fails is closed", "publisher.go",
		"if err != nil && delivered.Err() != nil && ctx.Err() == nil {", "if err != nil && ctx.Err() == nil {",
		rootProbe("TestDrain_OfAnOutboxSaysWhyItEnds"),
	},
	{
		"an Outbox whose time is over is closed", "publisher.go",
		"if err != nil && delivered.Err() != nil && ctx.Err() == nil {", "if err != nil && delivered.Err() != nil {",
		rootProbe("TestDrain_OfAnOutboxSaysWhyItEnds"),
	},
	{
		"a call to a plain peer begins its time after the lookup", "publisher_plain.go",
		"\t\twait.timeout = w.left()\n", "",
		rootProbe("TestPlainPublisher_HasOneTimeAndSaysWhatItWaitsFor"),
	},
	{
		"a call that has ended still waits in the log", "publisher_plain.go",
		"func() { say.Stop(); outer() }", "func() { _ = say; outer() }",
		rootProbe("TestPlainPublisher_HasOneTimeAndSaysWhatItWaitsFor"),
	},
	{
		"the log has the first reason of a wait", "publisher_plain.go",
		"\tw.cause.Store(&cause)\n\treturn w.ctx", "\treturn w.ctx",
		rootProbe("TestPlainPublisher_HasOneTimeAndSaysWhatItWaitsFor"),
	},
	{
		"each call to a group of several leaves something", "publisher_spread.go",
		"\tdefer cancel()\n\tdefer context.AfterFunc(g.member, cancel)()", "\tdefer context.AfterFunc(g.member, cancel)()",
		rootProbe("TestPublish_LeavesNothingWithAContext"),
	},
	{
		"a slot of TLS moves to plaintext", "publisher_slots.go",
		"ok && f.addr.Load() != owner && f.mayMoveTo(owner) {", "ok && f.addr.Load() != owner {",
		rootProbe("TestHash_ASlotOfTLSStays"),
	},
	{
		"a server shows no certificate", "tls_files.go",
		"if f.Certificate == \"\" || f.Key == \"\" {", "if f.Key == \"\" {",
		rootProbe("TestTLSFiles_AreValidated"),
	},
	{
		"the later of two times is the earlier one", "stats_manager.go",
		"!b.IsZero() && b.Before(a) {", "!b.IsZero() {",
		rootProbe("TestStats_TheEarlierOfTwoTimes"),
	},
	{
		"a subscription that was cancelled does not end", "subscription.go",
		"return s.isCancelled() || isClosed(s.listener.Done())", "return isClosed(s.listener.Done())",
		rootProbe("TestSubscription_EndsInThreeWays"),
	},
	{
		"SRV records have any order", "route/dns.go",
		"\tslices.Sort(r.Addresses) // package net shuffles them\n", "\t_ = slices.Sort[[]string]\n",
		seamProbe("TestSRV_PrioritiesAndWeights"),
	},

	// Routes.
	{
		"groups of addresses have the topic's name", "publisher_members.go",
		"\t\t\tgroups[i].Name = r.Name\n", "",
		rootProbe("TestRoute_GroupsHaveItsName"),
	},
	{
		"the other one of two is not the one that has room", "internal/policy/pick.go",
		"case loadA.Full && loadB.Full:", "case loadA.Full:",
		policyProbe("TestLeastPending_PassesTheFullOnes"),
	},
	{
		"Ages keeps the oldest samples alone", "internal/policy/state.go",
		"\t\t\t\ta.samples[i] = a.samples[2*i+1]\n", "\t\t\t\t_ = i\n",
		policyProbe("TestAges_SlowQueueThatMoves"),
	},
	{
		"what the DNS says is told twice", "route/dns.go",
		"!errors.Is(err, context.DeadlineExceeded) || errors.As(err, &failed)", "!errors.Is(err, context.DeadlineExceeded) || failed != nil",
		routeProbe("TestUnanswered_SaysWhatWasLookedUp"),
	},
	{
		"SRV records are never for TLS", "route/dns.go",
		"\t\t\taddress = \"tls://\" + address\n", "",
		seamProbe("TestSRV_PrioritiesAndWeights"),
	},
	{
		"the log does not say which groups differ", "publisher_groups.go",
		"\t\tfields[\"digests\"] = said\n", "",
		seamProbe("TestRoute_AddressesWithDifferentGroups"),
	},
}
