package mutants

// hostMutants are mistakes in what a call, a stream and an address know of each other where a route has several addresses.
var hostMutants = []mutant{
	{
		"a route with another name is the same", "route/route.go",
		"return r.Name == o.Name && r.Policy", "return r.Policy",
		routeProbe("TestRoute_EqualAsASet"),
	},
	{
		"Failover forgets where it was", "publisher_choose.go",
		"\tg.current = policy.PickFailover(g.current, candidates)\n\treturn g.current", "\treturn policy.PickFailover(g.current, candidates)",
		rootProbe("TestFailover_IsWhereItWas"),
	},
	{
		"a call does not count its own messages", "publisher_choose.go",
		"\t\tl.loads[i].Pending++\n", "",
		rootProbe("TestLeastPending_ACallCountsItsOwnMessages"),
	},
	{
		"a slot's stream goes to any address", "publisher_choose.go",
		"if owner, ok := g.ownerOf(f, candidates); ok {", "if owner, ok := g.ownerOf(f, candidates); ok && false {",
		rootProbe("TestHash_AStreamGoesToTheOwnerOfItsSlot"),
	},
	{
		"messages of a key go side by side", "publisher_slots.go",
		"\t\t\tbySlot[slot] = at\n", "",
		rootProbe("TestHash_MessagesOfAKeyStayInOnePart"),
	},
	{
		"an address that took shares is kept", "publisher_divide.go",
		"\t\tt.end()\n", "",
		testsProbe("TestRoute_AnAddressThatTookSharesIsForgotten"),
	},
	{
		"an address is kept to which a call went directly", "publisher_send.go",
		"\tdefer t.end()\n\treturn true,", "\treturn true,",
		testsProbe("TestRoute_AnAddressThatLeftIsForgotten"),
	},
	{
		"a Watch that has ended goes on", "publisher_lookup.go",
		"\t\tp.watchEnded(s)\n", "",
		testsProbe("TestRoute_IsAskedWhereItIsWatchedNoMore"),
	},
	{
		"another set leaves its slots to nothing", "publisher_resolve.go",
		"g.slots, g.groupsSaid = last.slots, last.groupsSaid", "g.groupsSaid = last.groupsSaid",
		rootProbe("TestRoute_AnotherSetHasWhatTheLastOneHolds"),
	},
	{
		"another set has Failover begin anew", "publisher_resolve.go",
		"\t\t\t\tg.current = i\n", "\t\t\t\t_ = i\n",
		rootProbe("TestRoute_AnotherSetHasWhatTheLastOneHolds"),
	},
	{
		"calls that wait do not hear of another route", "publisher_resolve.go",
		"\t\tp.manager.changes.signal() // calls", "\t\t// calls",
		testsProbe("TestRoute_ACallThatWaitsSeesAnotherRoute"),
	},
	{
		"a call does not see that a first attempt had its time", "publisher_route.go",
		"\tg.known.Store(nil) // time counts too\n", "",
		rootProbe("TestRoute_ACallLooksAgainWhenAFirstAttemptHadItsTime"),
	},
	{
		"one address that refuses stands for all", "publisher_route.go",
		"!definite {\n\t\t\treturn false\n\t\t}\n\t}\n\treturn true", "definite {\n\t\t\treturn true\n\t\t}\n\t}\n\treturn false",
		testsProbe("TestRoute_OneAddressThatRefusesForGood"),
	},
	{
		"a slot's stream is used for ever", "publisher_route.go",
		"\t\tp.slotFlow.calls.Add(-1)\n", "",
		rootProbe("TestPart_GivesBackWhatItUses"),
	},
	{
		"a call that cannot begin keeps what it has begun with", "publisher_route.go",
		"\t\t\t\tmore[k].detach()\n", "\t\t\t\t_ = k\n",
		rootProbe("TestPart_GivesBackWhatItUses"),
	},
	{
		"no time is no bound", "publisher_spread.go",
		"return max(time.Nanosecond, time.Until(w.deadline))", "return max(0, time.Until(w.deadline))",
		rootProbe("TestCallWait_HasNoTimeLeft"),
	},
	{
		"the first message that was not sent is forgotten", "publisher_spread.go",
		"for i := sent.enqueued; i < len(part.messages); i++ {", "for i := sent.enqueued + 1; i < len(part.messages); i++ {",
		rootProbe("TestVerdict_AccountsForEachMessageOfAPart"),
	},
	{
		"what goes elsewhere has a time of its own", "publisher_again.go",
		"\t\t\tw.deadline = back.Deadline\n", "",
		rootProbe("TestSendAgain_HasTheTimeOfTheCall"),
	},
	{
		"what is unknown elsewhere is in no list", "publisher_again.go",
		"\t\t\tsent.lacking = append(sent.lacking, one)\n", "",
		rootProbe("TestSendAgain_HasTheTimeOfTheCall"),
	},
	{
		"a stream that has moved away is looked after no more", "publisher_targets.go",
		"\t\tt.others = append(t.others, main)\n\t}\n\tmain = p.newFlow", "\t}\n\tmain = p.newFlow",
		rootProbe("TestRoutedStream_HasOneUseOfOneAddress"),
	},
	{
		"a stream that moves keeps its last address", "publisher_targets.go",
		"\tp.manager.release(unused)\n}\n\n// moveTo", "\t_ = unused\n}\n\n// moveTo",
		rootProbe("TestRoutedStream_HasOneUseOfOneAddress"),
	},
	{
		"an address has no use by what moves there", "manager_addresses.go",
		"\t\tif a.sender == s {\n\t\t\ta.uses++\n", "\t\tif a.sender == s {\n",
		rootProbe("TestRoutedStream_HasOneUseOfOneAddress"),
	},
	{
		"an address that failed is as stable as before", "manager_addresses.go",
		"a.ready.Swap(0)", "a.ready.Load()",
		rootProbe("TestAddress_IsNotStableAfterItFailed"),
	},
	{
		"a topic whose slots hold messages is forgotten", "publisher_topics.go",
		"return len(s.slotFlowsLocked()) > 0", "return false",
		rootProbe("TestTopicState_StaysWhileASlotHoldsMessages"),
	},
	{
		"an outbox moves from TLS to plaintext", "outbox_place.go",
		", at.addr.target.TLS && !to.at.TLS:", ":",
		testsProbe("TestOutboxPlace_NeverFromTLSToPlaintext"),
	},
	{
		"who waits for room at an address that goes is not woken", "internal/session/withdraw.go",
		"\to.signalLine()\n", "",
		sessionProbe("TestWithdraw_WakesWhoWaitsForRoom"),
	},
	{
		"what came back waits for the rest of its call", "internal/session/withdraw.go",
		"\t\t\t\twoken = append(woken, w.Woken)\n", "",
		sessionProbe("TestWithdraw_WakesACallOfWhichTheRestWasSent"),
	},
	{
		"a share has a message that its caller has", "internal/session/divide.go",
		"last = min(last, w.First-1)", "last = min(last, w.First)",
		sessionProbe("TestDivide_LeavesWhatACallerHas"),
	},
	{
		"what the last receiver had counts as received", "internal/session/tenure.go",
		"o.sentTo, o.received = false, false, 0, o.settled.Next()", "o.sentTo = false, false, 0",
		sessionProbe("TestMove_WhatTheLastReceiverHadCountsNoMore"),
	},
	{
		"the wrong messages of a call come back", "internal/acked/sender/publish.go",
		"first := uint64(w.At) + w.Back.First - w.First", "first := w.Back.First - w.First",
		senderProbe("TestPublication_TakesBackByTheOrderOfTheCall"),
	},
	{
		"a later epoch voids nothing of an earlier one", "internal/acked/receiver/revoke.go",
		"return s.epoch < epoch || s", "return s",
		receiverProbe("TestReceiver_RevokeNeedsTheSecret"),
	},
	{
		"a stream that comes back forgets what a group has handled", "internal/acked/receiver/registry.go",
		"stored.Settled, stored.Groups, known, voided = s.settled(), s.state().Groups, true, s", "stored.Settled, known, voided = s.settled(), true, s",
		receiverProbe("TestReceiver_HigherTenureKnowsWhatAGroupHandled"),
	},
}
