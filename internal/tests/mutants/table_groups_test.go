package mutants

// groupMutants are mistakes in how topics and groups end, and in what members leave to others.
var groupMutants = []mutant{
	// Ends of topics.
	{
		"the end of a stream overtakes its acks", "internal/acked/receiver/ended.go",
		"\t\tack, ok := s.in.Ack()\n\t\tif !ok {\n", "\t\tack, ok := s.in.Ack()\n\t\tif ok || !ok {\n",
		receiverProbe("TestStream_AcksGoBeforeItsEnd"),
	},
	{
		"a stream is forgotten with its topic", "internal/acked/receiver/evict.go",
		"\"the topic's last subscription ended\"))\n\t}\n", "\"the topic's last subscription ended\"))\n\t\tr.removeUnused(s)\n\t}\n",
		receiverProbe("TestStream_ThatEndedAnswersItsSenderThatWasAway"),
	},
	{
		"a stream that ended is kept for good", "internal/acked/receiver/tombstones.go",
		"if t.forgotten != nil {", "if false {",
		receiverProbe("TestReceiver_ForgetsStreamsThatEnded"),
	},
	{
		"a stream that ended begins anew with its topic", "internal/acked/receiver/registry.go",
		"stored.Settled, known = s.settled(), true", "known = true",
		receiverProbe("TestStream_ThatEndedGoesOnWithATopicThatExistsAgain"),
	},
	{
		"what was received counts as received at the end", "internal/session/inbound.go",
		"in.next = min(in.next, told)\n", "",
		probe{"internal/session", "^TestInbound_EndTellsWhatIsSettled$", ""},
	},
	{
		"a subscription joins a topic that has ended", "internal/dispatch/groups.go",
		"\tif t.ended {\n\t\tt.mu.Unlock()\n\t\treturn nil\n\t}\n", "",
		dispatchProbe("TestTopic_NobodyJoinsOneThatHasEnded"),
	},
	{
		"a topic is forgotten with what it keeps", "internal/dispatch/topic.go",
		"g != t.vacant || g.initialized || g.unsettled.Load() > 0", "g != t.vacant || g.initialized",
		dispatchProbe("TestTopic_RetiresWhenUnused"),
	},
	{
		"a declared group that was dropped is declared anew", "internal/dispatch/topic.go",
		"return !t.ended && !t.lasting &&", "return !t.ended &&",
		receiverProbe("TestReceiver_RetiresTopicsThatNobodyUses"),
	},

	{
		"what one group has handled is dropped with the others", "internal/dispatch/ephemeral.go",
		"|| s.run.isHandled(one.index) {", "{",
		dispatchProbe("TestEphemeral_WhatOneGroupHandledIsNotDropped"),
	},
	{
		"what one group has refused is gone with the topic", "internal/dispatch/ephemeral.go",
		"if s.refusal != nil || s.handled ||", "if s.handled ||",
		dispatchProbe("TestEphemeral_WhatOneGroupRefusedIsNotDropped"),
	},
	{
		"a topic ends although a member of a dropped group has a message", "internal/dispatch/ephemeral.go",
		"|| t.members > 0 {", "|| len(t.groups) > 0 && len(t.groups[0].members) > 0 {",
		dispatchProbe("TestEphemeral_EndsAfterTheMembersOfADroppedGroup"),
	},
	{
		"what a group had handled before a restart is gone with the topic", "internal/dispatch/known.go",
		"\t\ts.handled = true\n", "",
		dispatchProbe("TestEphemeral_WhatAGroupHadHandledIsNotDropped"),
	},
	{
		"a stream that ends has not received what it rejects", "internal/session/inbound.go",
		"\t\ttold = max(told, seq+1)\n", "\t\t_ = seq\n",
		probe{"internal/session", "^TestInbound_EndKeepsWhatItRejects$", ""},
	},
	{
		"keys that no member has hold up what is given out once more", "internal/dispatch/remainder.go",
		"\tg.forgetKeys()", "\t_ = g.forgetKeys",
		dispatchProbe("TestRemainder_KeepsTheOrderOfAKey"),
	},

	// Replies.
	{
		"an ephemeral stream waits for ever", "internal/session/tick.go",
		"if o.ephemeral {", "if false {",
		probe{"internal/session", "^TestEphemeral_RefusesWhatFindsNoTopic$", ""},
	},
	{
		"a full topic counts as absent", "internal/session/ephemeral.go",
		"(o.state != open || o.credit.messages == 0)", "(o.state != open || o.hasUnsent())",
		probe{"internal/session", "^TestEphemeral_WaitsForATopicThatIsThere$", ""},
	},
	{
		"replies share a stream with other messages", "publisher_targets.go",
		"name = session.Ephemeral(name)", "name = d.name",
		probe{"internal/tests", "^TestReply_LateOneIsDroppedWithAShortTimeout$", ""},
	},
	{
		"what was not enqueued is dropped without a word", "publisher_send.go",
		"p.drop(t.peer, t.name, bytes.Clone(encoded), err)", "_ = bytes.Clone(encoded)",
		probe{"internal/tests", "^TestReply_LateOneIsDropped$", ""},
	},

	// Groups that end.
	{
		"a named group waits for a subscription that ended", "internal/dispatch/groups.go",
		"\tif g == nil {\n\t\tg = t.newGroupLocked(name)", "\tif g == nil || name != \"\" {\n\t\tg = t.newGroupLocked(name)",
		dispatchProbe("TestRemainder_HoldsUpNoNamedGroup"),
	},
	{
		"a subscription that ends beside a group stays", "internal/dispatch/groups.go",
		"named = named || !unnamed(other)", "_ = unnamed(other)",
		dispatchProbe("TestRemainder_HoldsUpNoNamedGroup"),
	},
	{
		"only the first to come gets what was left", "internal/dispatch/groups.go",
		"\t\tg.giveAgain(t.union.live())\n", "",
		dispatchProbe("TestRemainder_IsGivenToAllThatComeBack"),
	},
	{
		"what one left beside another is lost", "internal/dispatch/groups.go",
		"\tg.giveAgain(t.beside.live())\n", "",
		dispatchProbe("TestRemainder_IsGivenToAllThatComeBack"),
	},
	{
		"what is left is kept for ever", "internal/dispatch/remainder.go",
		"if now.Before(d.run.until) {", "if now.Before(d.run.until.Add(time.Hour)) {",
		dispatchProbe("TestRemainder_EachMessageHasItsTime"),
	},
	{
		"what is left grows", "internal/dispatch/remainder.go",
		"if held.Messages > size.Messages || held.Bytes > size.Bytes {", "if held.Messages > 9*size.Messages {",
		dispatchProbe("TestRemainder_HoldsAtMostAWindow"),
	},
	{
		"a message is settled once more", "internal/dispatch/run.go",
		"case r.repeats():\n\t\treturn nil, false\n", "",
		dispatchProbe("TestRemainder_IsGivenToAllThatComeBack"),
	},
	{
		"a dropped declared group is waited for", "internal/dispatch/groups.go",
		"\tdelete(t.declared, group)\n\tg := t.vacant", "\tg := t.vacant",
		dispatchProbe("TestTopic_DroppedDeclaredGroupIsNotWaitedFor"),
	},

	{
		"a message that comes again has another key", "internal/dispatch/key.go",
		"if g.dropped || d.key != nil {", "if g.dropped {",
		dispatchProbe("TestKey_StaysTheFirstOne"),
	},

	// What members leave to others.
	{
		"the quickest member takes a nacked message", "internal/dispatch/group.go",
		"\tm.handed = append(m.handed, d)\n", "\tg.returned = insertOrdered(g.returned, d)\n",
		dispatchProbe("TestMember_HandOverGoesToAWaitingMemberOnly"),
	},
	{
		"a member is handed its own message", "internal/dispatch/group.go",
		"func(m *Member) bool { return m != except }", "func(m *Member) bool { return m != nil || except == nil }",
		dispatchProbe("TestMember_HandOverGoesToAWaitingMemberOnly"),
	},
	{
		"a member that closes keeps what it was handed", "internal/dispatch/group.go",
		"for _, d := range m.takeHanded() {\n\t\tdone", "for _, d := range m.handed[len(m.handed):] {\n\t\tdone",
		dispatchProbe("TestMember_StopTakingLeavesAllToTheOthers"),
	},
	{
		"what comes back is not marked", "internal/dispatch/group.go",
		"[]settledRange {\n\td.Redelivered = true\n", "[]settledRange {\n",
		dispatchProbe("TestMember_FirstDeliveriesAscendWhileMembersLeave"),
	},
	{
		"a nacked message stays where it is", "watcher.go",
		"case s.member.HandOver(d):", "case false:",
		probe{"internal/tests", "^TestGroup_NackedMessageGoesToAnIdleMember$", ""},
	},

	// What holds up a topic.
	{
		"nothing is said of a group that holds up its topic", "internal/acked/receiver/stream.go",
		"\tif full {\n\t\ts.topic.CheckBehind()\n\t}\n", "\t_ = full\n",
		probe{"internal/tests", "^TestGroup_ThatHoldsUpItsTopicIsLogged$", ""},
	},
	{
		"nothing is said of a key that holds up its topic", "pump.go",
		"p.member.CheckKey(key)", "_ = key",
		probe{"internal/tests", "^TestGroup_ThatHoldsUpItsTopicIsLogged$", ""},
	},

	// Ready.
	{
		"credit comes before Ready", "internal/dispatch/groups.go",
		"len(t.declared) == 0 && !t.held && !t.ended", "len(t.declared) == 0 && !t.ended",
		receiverProbe("TestReceiver_HoldsNewTopicsClosed"),
	},
	{
		"a topic that is made later is not held", "internal/acked/receiver/receiver.go",
		"\t\tt.Hold(r.held)\n", "",
		receiverProbe("TestReceiver_HoldsNewTopicsClosed"),
	},
	{
		"one Ready is enough", "ready.go",
		"held, all := m.holds > 0,", "held, all := m.holds > 1,",
		probe{"internal/tests", "^TestReady_", ""},
	},
	{
		"a closed Subscriber is waited for", "ready.go",
		"\t\tcase <-ended:\n", "",
		probe{"internal/tests", "^TestReady_EndsWithItsOwner$", ""},
	},

	// Custody.
	{
		"copies that nobody settles count as lost", "internal/dispatch/unkept.go",
		"if !d.run.source.Kept() && !d.Again() {", "if !d.run.source.Kept() {",
		dispatchProbe("TestUnkept_HasNothingThatIsGivenAgain"),
	},
	{
		"what waits for its key is given as a copy alone", "internal/dispatch/key.go",
		"\tg.requeueKeyed()\n\tfor i", "\tfor i",
		dispatchProbe("TestRemainder_WhatWaitsForItsKeyIsGivenOnce"),
	},
	{
		"a Manager does not know its own senders", "manager_close.go",
		"if dialed == bound || o.listener.Knows(s.Publisher()) {", "if dialed == bound {",
		probe{"internal/tests", "^TestManager_CloseKnowsItsOwnSenders$", ""},
	},
	{
		"members of a dropped group keep what no handler has", "internal/dispatch/group.go",
		"\t\tm.recall()\n", "",
		dispatchProbe("TestTopic_DropRecallsWhatMembersHave"),
	},
	{
		"a dropped group's message waits for its next attempt", "recall.go",
		"\tp.recalls.signal()\n", "",
		seamProbe("TestGroup_DroppedGivesBackWhatItsMembersHave"),
	},
}
