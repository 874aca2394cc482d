package mutants

func testsProbe(run string) probe { return probe{"internal/tests", "^" + run + "$", ""} }

// identityMutants are mistakes in who is who, and in what a dedupe store keeps.
var identityMutants = []mutant{
	{
		"a saved range is left out until its stream has taken it in", "internal/acked/receiver/dedupe.go",
		"	return s.committer.commit(s)\n}\n\n// persistedLocked", "	err := s.committer.commit(s)\n	s.mu.Lock()\n	s.persistedLocked(r)\n	s.mu.Unlock()\n	return err\n}\n\n// persistedLocked",
		receiverProbe("TestStream_SavesNoLessThanBefore"),
	},
	{
		"each listener calls the store by itself", "internal/acked/receiver/dedupe_guard.go",
		"	t := allTurns.stores[s]\n", "	var t *storeTurns\n",
		receiverProbe("TestCommitter_CallsAStoreOnceAtATime"),
	},
	{
		"a call of the store is made after it was left behind", "internal/acked/receiver/dedupe_guard.go",
		"		if err := g.ctx.Err(); err != nil {\n			return struct{}{}, err\n		}\n", "",
		receiverProbe("TestGuardedStore_MakesNoCallThatWasLeftBehind"),
	},
	{
		"a stream that has ended is saved once more", "internal/acked/receiver/dedupe.go",
		"		delete(b.streams, s) // it would come back\n", "",
		receiverProbe("TestCommitter_ForgetsWhatWasToBeSaved"),
	},
	{
		"a failed store still gives credit to those that ask", "internal/acked/receiver/credit.go",
		"	s.claim = nil\n	if !s.givesCredit() {\n		return false\n	}\n", "	s.claim = nil\n",
		receiverProbe("TestReceiver_GivesNoCreditAfterAFailedSave"),
	},
	{
		"a failed store still tops credit up", "internal/acked/receiver/credit.go",
		"	if !s.givesCredit() {\n		return false\n	}\n	left, idle", "	left, idle",
		receiverProbe("TestReceiver_GivesNoCreditAfterAFailedSave"),
	},
	{
		"an early Release is forgotten", "internal/acked/receiver/held.go",
		"	s.released = true\n", "",
		receiverProbe("TestReceiver_ForgetsAReleasedStreamWhenAllIsSettled"),
	},
	{
		"an early Release is final", "internal/acked/receiver/stream.go",
		"		s.released = false\n		s.kept", "		s.kept",
		receiverProbe("TestReceiver_IgnoresAnEarlyReleaseOfASenderThatGoesOn"),
	},
	{
		"an Open counts as sent", "internal/acked/receiver/attach.go",
		"	if changes {\n		s.noteSenderLocked()", "	if changes || true {\n		s.noteSenderLocked()",
		receiverProbe("TestReceiver_SaysWhoHasSentLast"),
	},
	{
		"a base that settles counts as nothing", "internal/acked/receiver/attach.go",
		"	if changes {\n		s.noteSenderLocked()", "	if changes && false {\n		s.noteSenderLocked()",
		receiverProbe("TestReceiver_SaysWhoHasSentLast"),
	},
	{
		"only the stream itself knows who has sent", "internal/acked/receiver/attach.go",
		"last = s.publisher.lastSender()", "_ = s.publisher.lastSender()",
		receiverProbe("TestReceiver_SaysWhoHasSentOnAnotherStream"),
	},
	{
		"every peer that asks learns who fences", "internal/acked/receiver/lineage.go",
		"!p.belongsTo(f, principal) || ", "",
		receiverProbe("TestReceiver_SaysWhoFences"),
	},
	{
		"who has sent last is not saved", "internal/acked/receiver/dedupe.go",
		"Incarnation: s.last.ID,", "Incarnation: s.sender.ID,",
		receiverProbe("TestReceiver_RestoresWhoHasSentLast"),
	},
	{
		"a publisher that is away for long is forgotten with what it has unsettled", "internal/acked/receiver/idle.go",
		"s.awaySince(before) && s.abandoned()", "s.awaySince(before)",
		receiverProbe("TestReceiver_ForgetsPublishersThatAreAwayForLong"),
	},
	{
		"a sender believes a receiver that has heard of a stranger", "internal/session/lineage.go",
		"last.Epoch == 0 || id.owns(last) {", "last.Epoch == 0 || f.Code == 0 || id.owns(last) {",
		sessionProbe("TestClient_RefusesAStreamOfAStranger"),
	},
	{
		"older code's epochs are a stranger's", "internal/session/lineage.go",
		"return last.Epoch <= id.Epoch && ", "return false && last.Epoch <= id.Epoch && ",
		sessionProbe("TestIdentity_OwnsItsIncarnations"),
	},
	{
		"an outbox renounces an identity that nobody else has", "storage/outbox/lineage.go",
		"err != nil || o.drawn {", "err != nil {",
		probe{"storage/outbox", "^TestRenounce_TakesANewIdentity$", ""},
	},
	{
		"older code goes on with the identity that was given up", "storage/outbox/lineage.go",
		"	o.identity.renounced = l.id != o.identity.id\n", "",
		probe{"storage/outbox", "^TestRenounce_TakesANewIdentity$", ""},
	},
	{
		"what was stored in this life may have been sent", "storage/outbox/read.go",
		"s.handed = max(s.handed, b.Next())", "s.handed = s.next",
		probe{"storage/outbox", "^TestStreams_SayWhatCannotHaveBeenSent$", ""},
	},
	{
		"an outbox that finds itself copied goes on", "outbox_relay.go",
		"	if err != nil || !renounced {\n", "	if err != nil || renounced || !renounced {\n",
		testsProbe("TestIdentity_CopiesWithOtherTopics"),
	},
	{
		"only the stream that found it out takes the new identity", "outbox_relay.go",
		"	r.invalidate()\n", "",
		testsProbe("TestIdentity_CopyIsFoundOutByOneStreamForAll"),
	},
	{
		"streams of an outbox do not end with a clean close", "outbox_stream.go",
		"		if r.forget(r.closing) {\n", "		if false {\n",
		testsProbe("TestOutbox_EndsStreamsThatHoldNothing"),
	},
	{
		"what is refused goes to the publisher that delivers", "outbox_users.go",
		"	if p := u.last[key]; p != nil {\n", "	if p := u.last[key]; p != nil && false {\n",
		testsProbe("TestOutbox_TellsThePublisherOfWhatItPublished"),
	},
	{
		"groups get again what they had settled", "internal/acked/receiver/registry.go",
		"	s.restoreGroups(stored.Groups)\n", "",
		testsProbe("TestDedupe_KeepsWhatEachGroupHasSettled"),
	},
	{
		"what one group has settled is not saved", "internal/dispatch/delivery.go",
		"	m.group.reportPart(part)\n", "	_ = part\n",
		testsProbe("TestDedupe_KeepsWhatEachGroupHasSettled"),
	},
	{
		"what all groups had settled is not reported", "internal/dispatch/member.go",
		"	m.group.topic.report(after.skipped)\n", "	_ = skipped\n",
		probe{"internal/dispatch", "^TestTopic_GroupsSkipWhatTheyHadSettled$", ""},
	},
	{
		"an old record stays for good", "storage/dedupe/dedupe.go",
		"		case ok && s.idle(r, now):\n", "		case ok && false && s.idle(r, now):\n",
		probe{"storage/dedupe", "^TestStore_ForgetsIdleStreams$", ""},
	},
	{
		"an earlier incarnation may have sent all", "internal/session/receive.go",
		"limit := o.sentBy(IncarnationOf(f.LastEpoch, f.LastIncarnation));", "limit := o.neverSent();",
		testsProbe("TestIdentity_RestoredOutboxOfALifeThatWentOn"),
	},
	{
		"an opening counts for the incarnation before the last", "internal/session/fetched.go",
		"if x.Epoch <= own[i+1].Epoch {", "if x.Epoch <= own[i].Epoch {",
		sessionProbe("TestClient_RefusesWhatAnEarlierIncarnationHadNot"),
	},
	{
		"openings of earlier code are taken for all", "storage/outbox/openings.go",
		"case !known:", "case !known && n > 99:",
		probe{"storage/outbox", "^TestOpenings_OlderCode$", ""},
	},
	{
		"a stream to a topic that is gone stays in its outbox", "outbox_refused.go",
		"\t\tr.forget(r.closing)\n", "",
		seamProbe("TestOutbox_TopicThatIsGoneNeedsNoOnFailure"),
	},
	{
		"an outbox does not know the name in a certificate", "outbox_place.go",
		"if t.addr != nil && t.Address == canonical(address) {\n\t\t\treturn t.at, nil", "if t.addr != nil && t.Address == canonical(address) {\n\t\t\treturn target, nil",
		seamProbe("TestOutbox_CertificatesNameTheHost"),
	},
}
