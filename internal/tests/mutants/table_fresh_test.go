package mutants

// freshMutants are mistakes of a list that was written before any of them was tried, and that no test told of.
var freshMutants = []mutant{
	{
		"a PubSub that cannot be made goes on listening", "pubsub.go",
		"\t\treturn nil, errors.Join(err, sub.Close())\n", "\t\treturn nil, err\n",
		rootProbe("TestPubSub_ThatCannotBeMadeListensNoMore"),
	},
	{
		"what a stuck Unmarshaler has is lost", "failure.go",
		"\tif !returned {\n\t\ts.giveBack(d)\n\t\treturn\n\t}\n\ts.fail(d, msg, reason)\n",
		"\tif !returned {\n\t\treturn\n\t}\n\ts.fail(d, msg, reason)\n",
		rootProbe("TestFailure_WhatAStuckCallbackHasGoesBack"),
	},
	{
		"Close does not wait for what was divided meanwhile", "publisher.go",
		"\t\t\t\tasked[f.stream], more = true, true\n", "\t\t\t\tasked[f.stream] = true\n",
		rootProbe("TestPublisher_CloseWaitsForWhatGotAPartMeanwhile"),
	},
	{
		"Close blames a callback that has returned", "usercode.go",
		"\tleft := u.left\n\tu.left = false\n", "\tleft := u.left\n",
		rootProbe("TestUserCode_ReturnsAfterItWasLeftBehind"),
	},
	{
		"a topic that is forgotten is watched", "publisher_topics.go",
		"\t\t\ts.endWatchLocked()\n", "",
		rootProbe("TestTopicState_LeavesNothingBehind"),
	},
	{
		"what the outbox has stored counts as waiting", "outbox_store.go",
		"\tdefer now.end()\n", "",
		rootProbe("TestStoring_CountsTheCallsThatWait"),
	},
	{
		"a caller joins a lookup that was cancelled", "route/shared.go",
		"\tc.cancel()\n\tif s.call == c {\n\t\ts.call = nil\n\t}\n", "\tc.cancel()\n",
		routeProbe("TestShared_ALookupIsForThoseThatWaitForIt"),
	},
	{
		"a clone shares its groups", "route/route.go",
		"\tfor i := range r.Groups {\n\t\tr.Groups[i] = r.Groups[i].Clone()\n\t}\n", "",
		routeProbe("TestRoute_CloneSharesNothing"),
	},
	{
		"a stream that stays is revoked for ever", "internal/session/tenure.go",
		"\to.openSent, o.asked, o.sentTo, o.received = false, false, 0, o.settled.Next()\n",
		"\to.openSent, o.sentTo, o.received = false, 0, o.settled.Next()\n",
		sessionProbe("TestMove_AStreamThatStaysAfterAllBeginsOneTenure"),
	},
	{
		"that the last message came back is said with the next frame", "internal/acked/receiver/revoke.go",
		"\ts.revocation.answerTo = nil\n\tc.flusher.Kick()\n", "\ts.revocation.answerTo = nil\n",
		receiverProbe("TestReceiver_SaysAtOnceThatTheLastMessageCameBack"),
	},
	{
		"a call forgets what became of what was sent before it moved", "publisher_again.go",
		"append(v.errs, back.Err, err)...", "append(v.errs, back.Err)...",
		rootProbe("TestSendAgain_AccountsForWhatWasSentBefore"),
	},
	{
		"claims wait for a message that gets no key", "internal/dispatch/key.go",
		"\tg.removeUnclaimed(d.pos())\n\tg.claimEarly()\n}", "\tg.removeUnclaimed(d.pos())\n}",
		dispatchProbe("TestKey_EarlyClaimsWaitNoMoreForWhatHasNoKey"),
	},
	{
		"what a group had settled before is lag for ever", "internal/dispatch/known.go",
		"\tg.unsettled.Add(-1)\n\treturn true\n", "\treturn true\n",
		dispatchProbe("TestTopic_GroupsSkipWhatTheyHadSettled"),
	},
	{
		"a second flood of connections is not told of", "pool/listener.go",
		"\t\tl.refusing = false\n", "",
		probe{"pool", "^TestListener_MaxConnections$", ""},
	},
	{
		"claims wait for what came back to a receiver that gave it up", "internal/dispatch/group.go",
		"\t\tdone := g.giveUp(d)\n\t\tg.claimEarly()\n", "\t\tdone := g.giveUp(d)\n",
		dispatchProbe("TestWithdraw_EarlyClaimsGoOn"),
	},
	{
		"claims wait for what was withdrawn", "internal/dispatch/withdraw.go",
		"\tg.claimEarly()\n\treturn done\n}\n\n// giveUp", "\treturn done\n}\n\n// giveUp",
		dispatchProbe("TestWithdraw_EarlyClaimsGoOn"),
	},
	{
		"a message without a key is taken for its key again and again", "internal/dispatch/key.go",
		"\td.keyless = true\n", "",
		dispatchProbe("TestDrain_LooksOnceForAKey"),
	},
	{
		"a slice of stored calls leaves a context behind", "outbox_store.go",
		"\tnext := &storing{ctx: p.ctx, cancel: func() {}, began: now}\n",
		"\tnext := &storing{began: now}\n\tnext.ctx, next.cancel = context.WithCancel(p.ctx)\n",
		rootProbe("TestStoring_LeavesNothingBehind"),
	},
	{
		"a stream is forgotten while members of a dropped group have messages of it", "internal/acked/receiver/held.go",
		"s.opens > 0 || s.heldLocked() > 0 ||", "s.opens > 0 ||",
		receiverProbe("TestStream_StaysWhileADroppedGroupHasMessages"),
	},
	{
		"a stream whose topic lost its group outlives its last message", "internal/acked/receiver/stream.go",
		"\tcase c == nil && s.topic.Unused():", "\tcase s.committer != nil && c == nil && s.topic.Unused():",
		receiverProbe("TestStream_StaysWhileADroppedGroupHasMessages"),
	},
	{
		"a silent address that left its route is not told what moved", "internal/acked/sender/sender.go",
		" || !untold && s.client.Left() && !s.client.Gone() {", " {",
		testsProbe("TestRoute_ASilentAddressThatLeftIsTold"),
	},
	{
		"an address that never comes back is kept to be told", "manager_addresses.go",
		"!a.sender.Retire(late)", "late || !a.sender.Retire(false)",
		testsProbe("TestRoute_ASilentAddressThatLeftIsTold"),
	},
	{
		"a receiver that is gone is kept to be told", "internal/acked/sender/sender.go",
		"!untold && s.client.Left() && !s.client.Gone()", "!untold && s.client.Left()",
		movesProbe("TestMoves_RetiresWhatIsGone"),
	},
	{
		"what has left a receiver is told until no consumer has any", "internal/session/peer.go",
		"\tc.peer.left = slices.Delete(c.peer.left, i, i+1)\n", "\tif f.InHand == 0 {\n\t\tc.peer.left = slices.Delete(c.peer.left, i, i+1)\n\t}\n",
		sessionProbe("TestMove_AReceiverIsToldOnceWhatHasLeft"),
	},
	{
		"a receiver that knows no moves is to be told for ever", "internal/session/peer.go",
		"\t\tc.peer.left = nil\n\t\treturn\n", "\t\treturn\n",
		sessionProbe("TestMove_AReceiverIsToldOnceWhatHasLeft"),
	},
	{
		"a stream that was forgotten meanwhile is opened without the store", "internal/acked/receiver/recall.go",
		"return m.held && !r.knowsLocked(id)", "return false",
		receiverProbe("TestReceiver_AsksTheStoreForWhatIsForgottenMeanwhile"),
	},
}
