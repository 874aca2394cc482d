package mutants

// moveSimulation finds most mistakes of moves in its first seeds.
var moveSimulation = probe{"internal/acked/sender", "^TestMoveSimulation$", "SEEDS=300"}

func movesProbe(run string) probe { return probe{"internal/acked/moves", "^" + run + "$", ""} }

// moveMutants are mistakes in how streams move between receivers.
var moveMutants = []mutant{
	{
		"a restarted outbox says nothing to the addresses that it may have left", "outbox_place.go",
		"if t.addr != nil && t.addr.target.Canonical() != at.addr.target.Canonical() {", "if false {",
		probe{"internal/tests", "^TestOutboxPlace_RestartVoidsWhatASilentAddressHas$", ""},
	},
	{
		"what moves when its publisher has closed gives up another's use of the address", "publisher_targets.go",
		"	if f.ended {\n		return from, to\n	}\n", "",
		probe{"internal/tests", "^TestManager_MovesWhatAClosedPublisherLeft$", ""},
	},
	{
		"a Manager forgets where what a closed publisher left can go", "publisher.go",
		"\tp.manager.keep(left)\n", "\t_ = left\n",
		probe{"internal/tests", "^TestManager_MovesWhatAClosedPublisherLeftToAnAddressThatNothingUses$", ""},
	},
	{
		"a Manager keeps addresses though all that was left is settled", "manager_left.go",
		"\t\t\tm.release(a)\n", "\t\t\t_ = a\n",
		probe{"internal/tests", "^TestManager_MovesWhatAClosedPublisherLeftToAnAddressThatNothingUses$", ""},
	},
	{
		"what is being taken back counts as received in statistics", "internal/session/stats.go",
		"		if o.revoking {\n			s.Unreceived = s.Pending\n		}\n", "",
		sessionProbe("TestMove_ReceivedLapsesWithTheRevoke"),
	},
	{
		"a receiver that is heard stays silent until the next tick", "internal/session/peer.go",
		"p.heard, p.silent = true, false", "p.heard = true",
		sessionProbe("TestMove_SilentUntilItIsHeard"),
	},
	{
		"with All a call waits for a group that has left", "publisher_spread.go",
		"	defer context.AfterFunc(g.member, cancel)()\n", "",
		testsProbe("TestAll_CallIsConfirmedByWhatRemains"),
	},
	{
		"with All a group that has left fails a call", "publisher_spread.go",
		"		if v.left && some {\n", "		if false {\n",
		testsProbe("TestAll_CallIsConfirmedByWhatRemains"),
	},
	{
		"a call does not follow a route that is replaced", "publisher_spread.go",
		"		if next == r ||", "		if next = r; next == r ||",
		testsProbe("TestAll_CallFollowsARouteThatIsReplaced"),
	},
	{
		"what a gone receiver had is not marked", "internal/session/tenure.go",
		"			o.repeats(lo, hi)\n", "",
		movesProbe("TestMoves_GoneReceiver"),
	},
	{
		"what was returned is marked too", "internal/session/tenure.go",
		"		given.Add(returned[0], returned[1])\n", "",
		movesProbe("TestMoves_RevokedStreamLosesAndRepeatsNothing"),
	},
	{
		"a call that cannot join a stream that leaves has nothing back", "internal/acked/sender/publish.go",
		"!more && !leaves && p.turn == nil", "!more && p.turn == nil",
		movesProbe("TestMoves_WhatCannotJoinAStreamThatLeavesIsGivenBack"),
	},
	{
		"the first messages are not among what is returned", "internal/acked/receiver/revoke.go",
		"s.revocation.returned.AppendPairs(nil, 1)", "s.revocation.returned.AppendPairs(nil, s.revocation.returned.Next())",
		movesProbe("TestMoves_RevokedStreamOfWhichNothingWasTaken"),
	},
	{
		"marks end where the stream has come to", "internal/session/tenure.go",
		"	if o.settled.Next() >= o.again.End() {", "	if seq >= o.again.End() {",
		moveSimulation,
	},
	{
		"a stream that stays goes on in its tenure though the answer was lost", "internal/session/move.go",
		"	if o.asked {\n		o.lapse(nil, 0)\n	}\n", "",
		moveSimulation,
	},
	{
		"a stream is sent on while it is revoked", "internal/session/output.go",
		"		return s, false\n	}\n	c := o.chunks[o.sentChunk]\n	_, holeEnd", "		if o.state != open || !o.skipSettled() {\n			return s, false\n		}\n	}\n	c := o.chunks[o.sentChunk]\n	_, holeEnd",
		sessionProbe("TestMove_SendsNothingWhileItIsRevoked"),
	},
	{
		"a receiver that was silent is not told", "internal/session/peer.go",
		"		c.revokeLeft(l)\n	}\n}\n\n// disconnectMoves", "	}\n}\n\n// disconnectMoves",
		movesProbe("TestMoves_SilentReceiverThatIsMetOnAnotherConnection"),
	},
	{
		"a receiver is silent without a ping", "internal/session/peer.go",
		"p.quiet >= c.cfg.MoveAfter && (p.probed || c.phase < established)", "false",
		movesProbe("TestMoves_SilentReceiver"),
	},
	{
		"another instance is the same receiver", "internal/session/peer.go",
		"		case another && o.sentTo > 0 && o.cause == nil:\n", "		case false:\n",
		movesProbe("TestMoves_AnotherInstanceAtTheSameAddress"),
	},
	{
		"a slow handler is waited for without end", "internal/session/move.go",
		"		o.atOnce = true\n		c.sendRevoke(o.handle, o.revocation(o.tenure+1), true)\n", "",
		movesProbe("TestMoves_RevokedStreamDoesNotWaitForASlowHandler"),
	},
	{
		"a stream that stays waits for a slow handler without end", "internal/session/tick.go",
		"		if o.leaving || o.revoking {", "		if o.leaving {",
		movesProbe("TestMoves_StaysThoughConsumersHaveSome"),
	},
	{
		"a stream is opened while it is revoked", "internal/session/output.go",
		"&& !o.leaving && !o.revoking {\n			c.open(o)", "&& !o.leaving {\n			c.open(o)",
		movesProbe("TestMoves_StaysThoughTheConnectionWasLost"),
	},
	{
		"a greeting that is refused is a sign of life", "internal/session/receive.go",
		"if c.phase >= established { // a greeting", "if true { // a greeting",
		movesProbe("TestMoves_LostAndRefusedSince"),
	},
	{
		"a stream moves to an address that is being closed", "internal/acked/sender/stream.go",
		"to.closed || to.retired ||", "to.closed ||",
		movesProbe("TestMoves_NotToWhatIsRetired"),
	},
	{
		"a stream waits for ever to leave a receiver that does not know how", "internal/session/peer.go",
		"			o.leaving = false\n			c.peer.changed = true\n", "",
		sessionProbe("TestMove_GoesOnWhereTheReceiverDoesNotKnowHow"),
	},
	{
		"a stream that cannot leave goes on leaving", "internal/session/move.go",
		"		c.Stay(o)\n		return false\n", "		return false\n",
		sessionProbe("TestMove_GoesOnWhereTheReceiverDoesNotKnowHow"),
	},
	{
		"addresses with different groups are not told apart", "publisher_groups.go",
		"differ = differ || hex != first", "differ = false",
		probe{"internal/tests", "^TestRoute_AddressesWithDifferentGroups$", ""},
	},
	{
		"what groups an address has is logged again and again", "publisher_groups.go",
		"changed := !slices.Equal(s.differ, said)", "changed := true",
		probe{"internal/tests", "^TestRoute_AddressesWithDifferentGroups$", ""},
	},
	{
		"memory that is written from is used again", "internal/session/retransmit.go",
		"if o.freeLater != nil && !c.lent {", "if o.freeLater != nil {",
		sessionProbe("TestMove_MemoryOfAMovedStreamIsNotUsedAgain"),
	},
	{
		"a higher tenure resumes", "internal/acked/receiver/revoke.go",
		"	return s.tenure > 0 && f.Tenure > s.tenure || s.revoked.Load()", "	return s.revoked.Load()",
		receiverProbe("TestReceiver_HigherTenureBeginsAnew"),
	},
	{
		"an older tenure is let in", "internal/acked/receiver/revoke.go",
		"	return f.Tenure > 0 && s.epoch == f.Epoch && s.tenure > f.Tenure", "	return false",
		receiverProbe("TestReceiver_HigherTenureBeginsAnew"),
	},
	{
		"a revoke needs no secret", "internal/acked/receiver/revoke.go",
		"p == nil || !p.belongsTo(&wire.Open{Secret: f.Secret}, principal)", "p == nil",
		receiverProbe("TestReceiver_RevokeNeedsTheSecret"),
	},
	{
		"what a member gives back is offered once more", "internal/dispatch/group.go",
		"	if !g.dropped && revoked(d.run.source) {", "	if false {",
		probe{"internal/dispatch", "^TestWithdraw_", ""},
	},
	{
		"what another group has handled counts as untouched", "internal/dispatch/delivery.go",
		"s.returned, s.handled, s.refusal = true, d.run.isHandled(int(d.index)), nil", "s.returned, s.refusal = true, nil",
		probe{"internal/dispatch", "^TestWithdraw_", ""},
	},
	{
		"withdrawn messages keep their key", "internal/dispatch/withdraw.go",
		"	g.releaseKey(d.key)\n	g.unsettled", "	g.unsettled",
		probe{"internal/dispatch", "^TestWithdraw_", ""},
	},
	{
		"an address from which all has moved is silent no more", "internal/session/peer.go",
		"!p.silent && !slices.ContainsFunc", "!slices.ContainsFunc",
		sessionProbe("TestMove_ASilentReceiverIsSilentUntilItIsHeard"),
	},
	{
		"a receiver that does not answer an Open is not silent", "internal/session/peer.go",
		"(o.sentTo > 0 || c.phase >= established)", "o.sentTo > 0",
		sessionProbe("TestMove_AReceiverIsSilentThatDoesNotAnswerAnOpen"),
	},
	{
		"a slow address keeps what it was not sent", "publisher_tick.go",
		"				unsent = append(unsent, f)\n", "				_ = unsent\n",
		testsProbe("TestRoute_WhatWasNeverSentLeavesAnAddressThatAnswersNoMore"),
	},
	{
		"an address that gives no credit is tried with every call", "publisher_tick.go",
		"				at.rests = now.Add(restFor)\n", "",
		testsProbe("TestRoute_WhatWasNeverSentLeavesAddressesWithoutSubscriptions"),
	},
	{
		"what went elsewhere stays too", "internal/session/divide.go",
		"	o.settleElsewhere(Range{First: first, Last: first + uint64(taken) - 1})\n", "",
		testsProbe("TestRoute_WhatADrainingAddressWasNotSentIsNotHeldUp"),
	},
	{
		"the unsent part of a call stays with what was sent", "internal/session/withdraw.go",
		"!w.Withdrawable || w.Last < from", "!w.Withdrawable || w.First < from",
		testsProbe("TestRoute_WhatADrainingAddressWasNotSentIsNotHeldUp"),
	},
	{
		"a call whose unsent part went elsewhere does not wait for the rest", "internal/acked/sender/publish.go",
		"	if len(left) > 0 {\n", "	if false {\n",
		testsProbe("TestRoute_WhatADrainingAddressWasNotSentIsNotHeldUp"),
	},
	{
		"Flush does not wait for what went elsewhere", "internal/acked/sender/stream.go",
		"err = errors.Join(err, heir.await(ctx, enough))", "_ = heir",
		testsProbe("TestRoute_FlushWaitsForWhatHasGoneElsewhere"),
	},
	{
		"a closing Manager closes the address that another one's messages move to", "manager_close.go",
		"for more := true; more && ctx.Err() == nil; {", "for more := true; more && false; {",
		testsProbe("TestRoute_FlushWaitsForWhatHasGoneElsewhere"),
	},
	{
		"a reconnect waits longer than the outage has taken", "internal/netio/backoff.go",
		"	if j.doubles {", "	if false {",
		probe{"internal/netio", "^TestReconnect_", ""},
	},
	{
		"an outbox begins anywhere after a restart", "outbox_place.go",
		"	place := at.placer.Place(at.key)\n", "	place := store.Place{}\n",
		testsProbe("TestOutboxPlace_RestartBeginsWhereItWas"),
	},
	{
		"places are not durable", "storage/outbox/places.go",
		"	err := o.meta.set(keyPlaces, b)\n", "	var err error\n	_ = b\n",
		probe{"storage/outbox", "^TestPlaces_SurviveAReopen$", ""},
	},
	{
		"each slot has a quota of its own", "store/place.go",
		"		return topicPrefix + topic\n", "		_ = topic\n		return k.Destination\n",
		probe{"storage/outbox", "^TestPlaces_QuotaIsPerTopic$", ""},
	},
}
