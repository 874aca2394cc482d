package mutants

// foundStateMutants are statements of the state machines, of the topics' logs and of the outbox that could be left out,
// and no test told of it.
var foundStateMutants = []mutant{
	{
		"what was handed to a member that drains is lost to its sender", "internal/dispatch/drain.go",
		"\tdone := g.passOn(m)\n\tg.topic.mu.Unlock()\n\tg.topic.report(done)\n", "\tg.passOn(m)\n\tg.topic.mu.Unlock()\n",
		dispatchProbe("TestMember_WhatWasHandedToItIsReturnedWhenItEnds"),
	},
	{
		"a member that was handed a message is notified of the next too", "internal/dispatch/group.go",
		"\tm := g.waiters[i]\n\tg.removeWaiter(m)\n", "\tm := g.waiters[i]\n",
		dispatchProbe("TestMember_HandedOneIsNotedAsNotified"),
	},
	{
		"room of messages behind the end leaks", "internal/dispatch/topic.go",
		"\tif !t.append(r) {\n\t\tt.releaseRoom(msgs)\n\t}\n", "\tt.append(r)\n",
		dispatchProbe("TestTopic_GivesBackTheRoomOfWhatComesAfterItsEnd"),
	},
	{
		"the digest of groups is their number's", "internal/dispatch/withdraw.go",
		"\t\t_, _ = io.WriteString(h, name)\n", "\t\t_, _ = io.WriteString(h, name[:0])\n",
		dispatchProbe("TestGroupsDigest_TellsNamesApart"),
	},
	{
		"a subscription that was asked to end counts as one that stays", "internal/dispatch/member.go",
		"\tm.ending = ending\n", "",
		dispatchProbe("TestRemainder_OfOneThatEndsBesideOneThatWasAskedToIsNotSettled"),
	},
	{
		"a named group gets what holds the key of an ended one", "internal/dispatch/remainder.go",
		"\t\td.key = nil // it was the ended group's\n", "",
		dispatchProbe("TestRemainder_KeysOfTheSecondToEndAreClaimedAnew"),
	},
	{
		"a source that is revoked leaves copies", "internal/dispatch/withdraw.go",
		"\tt.union.remove(source)\n", "",
		dispatchProbe("TestWithdraw_LeavesNoCopies"),
	},
	{
		"an absent holder keeps what is set aside", "internal/flow/budget.go",
		"\ta.budget.changed.Store(true)\n\ta.budget.sortLocked(a)\n", "\ta.budget.changed.Store(true)\n",
		probe{"internal/flow", "^TestBudget_SetsNothingAsideForAbsentHolders$", ""},
	},
	{
		"a closed window keeps the budget's bytes", "internal/flow/window.go",
		"\t\tw.account.Release(w.heldLocked().Bytes)\n", "\t\tw.account.Release(0)\n",
		probe{"internal/flow", "^TestWindow_CloseGivesEverythingBack$", ""},
	},
	{
		"a stream with a new handle is there twice", "internal/session/move.go",
		"\tdelete(c.handles, o.handle)\n\tc.order = slices.DeleteFunc(c.order, func(other *Outbound) bool { return other == o })\n",
		"\tdelete(c.handles, o.handle)\n",
		sessionProbe("TestMove_ANewHandleMakesNoSecondStream"),
	},
	{
		"a Subscriber that is not ready holds no listener that is there", "ready.go",
		"\tm.mu.Unlock()\n\tm.hold()\n}\n", "\tm.mu.Unlock()\n}\n",
		probe{"internal/tests", "^TestReady_HoldsBackWhereOthersListenAlready$", ""},
	},
	{
		"a call asks for more memory than its window has room for", "internal/session/retransmit.go",
		"\t\tbytes += size\n", "",
		sessionProbe("TestOutbound_AsksForWhatFitsItsWindow"),
	},
	{
		"topics of an outbox have no order", "storage/outbox/stats.go",
		"cmp.Or(strings.Compare(a.key.Destination", "0*cmp.Or(strings.Compare(a.key.Destination",
		probe{"storage/outbox", "^TestStats_AreInOrder$", ""},
	},
	{
		"a receiver is told of a stream that left for ever", "internal/session/peer.go",
		"\tc.peer.left = slices.Delete(c.peer.left, i, i+1)\n", "",
		sessionProbe("TestLeft_IsToldUntilItIsAnswered"),
	},
	{
		"consumers hold up a move for ever", "internal/session/tick.go",
		"\t\t\tc.tickLeaving(o, now)\n", "",
		sessionProbe("TestMove_WaitsForConsumersNoLonger"),
	},
	{
		"a call that waited for the budget is not called again", "internal/session/retransmit.go",
		"\to.line.short = nil\n\treserved, room", "\treserved, room",
		sessionProbe("TestTurn_WaitsForTheWindowAfterTheBudget"),
	},
	{
		"a stream that ended stays in the budget's line", "internal/session/outbound.go",
		"\to.account.Leave()\n\to.account.Wake()\n\to.signalRoom()\n\to.signalLine()\n", "\to.signalRoom()\n\to.signalLine()\n",
		sessionProbe("TestTurn_EndedOneHoldsUpNoOther"),
	},
	{
		"a wait that was interrupted is finished again", "internal/session/waiter.go",
		"\to.waitReceived, o.waitHandled = nil, nil\n\to.signalRoom()\n", "\to.signalRoom()\n",
		sessionProbe("TestWaiter_IsFinishedOnce"),
	},
	{
		"what was withdrawn stays in the window", "internal/session/withdraw.go",
		"\to.settleElsewhere(taken...)\n", "",
		sessionProbe("TestDivide_SettlesElsewhere"),
	},
	{
		"a full cache stays nearly empty", "storage/outbox/cache.go",
		"\t\tc.size -= len(g.entry)\n", "",
		probe{"storage/outbox", "^TestCache_HoldsTheNewest$", ""},
	},
	{
		"a recovery says nothing of what is pending", "storage/outbox/watch.go",
		"\t\te.Messages, e.Bytes = s.Pending, s.Bytes\n", "\t\te.Messages = s.Pending\n",
		probe{"storage/outbox", "^TestHooks_AreToldOfEachOpen$", ""},
	},
}
