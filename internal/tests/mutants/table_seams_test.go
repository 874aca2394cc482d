package mutants

func rootProbe(run string) probe { return probe{".", "^" + run + "$", ""} }

// seamMutants are mistakes that an outsider would make, of which no test told.
var seamMutants = []mutant{
	{
		"a PubSub at a Unix socket publishes to TCP", "pubsub.go",
		"formatAddress(boundAt(target, ", "formatAddress(boundAt(netio.Target{Network: \"tcp\", TLS: target.TLS}, ",
		testsProbe("TestPubSub_OverAUnixSocket"),
	},
	{
		"dead letters are tried again without a pause", "failure.go",
		"s.sleep(max(s.delay(attempt), deadLetterRetry), &d)", "s.sleep(s.delay(attempt), &d)",
		rootProbe("TestDeadLetter_IsTriedAgainAfterAPause"),
	},
	{
		"attempts to publish a dead letter share their bytes", "failure.go",
		"letter.Payload = bytes.Clone(msg.Payload)", "letter.Payload = bytes.TrimSuffix(msg.Payload, nil)",
		rootProbe("TestDeadLetter_IsTriedAgainAfterAPause"),
	},
	{
		"MaxAge does not count the first delivery", "failure.go",
		"cfg.MaxAge > 0 && age >= cfg.MaxAge {", "cfg.MaxAge > 0 && d.Attempt > 1 && age >= cfg.MaxAge {",
		rootProbe("TestMaxAge_CountsTheFirstDelivery"),
	},
	{
		"what OnFailure was told of counts in the bound for good", "failures.go",
		"\t\tq.bytes -= len(f.encoded)\n", "",
		rootProbe("TestFailureQueue_BoundsWhatWaits"),
	},
	{
		"an OnFailure that panics keeps its stored message", "failures.go",
		"if f.told != nil {", "if f.told != nil && err == nil {",
		rootProbe("TestFailureQueue_StoredMessageIsKeptUntilItWasTold"),
	},
	{
		"a stream that was absent once has no second more", "internal/session/ephemeral.go",
		"\tcase !o.absent():\n\t\to.absentSince = time.Time{}\n", "\tcase !o.absent():\n",
		sessionProbe("TestEphemeral_CountsEachAbsenceByItself"),
	},
	{
		"the first failure is dropped if it is large", "failures.go",
		"if len(q.queue) > 0 && q.bytes+len(encoded) > maxQueuedFailures {", "if q.bytes+len(encoded) > maxQueuedFailures {",
		rootProbe("TestFailureQueue_BoundsWhatWaits"),
	},
	{
		"a subscription that ended stays with the user's context", "subscription.go",
		"\tstop()\n\ttimer :=", "\ttimer :=",
		rootProbe("TestSubscription_LeavesNothingBehind"),
	},
	{
		"a Manager keeps subscriptions that ended", "subscription.go",
		"\tp.subscriber.manager.subscriptions.remove(p.subscription)\n", "",
		rootProbe("TestSubscription_LeavesNothingBehind"),
	},
	{
		"a subscription that has yielded takes nothing more", "pump.go",
		"\tcase <-p.wake:\n\t\tp.yielded = false\n", "\tcase <-p.wake:\n",
		rootProbe("TestSubscription_TakesAgainWhatItGaveAway"),
	},
	{
		"a subscription that drains emits what its sender keeps for its key", "pump.go",
		"case p.draining && !d.Unkept(): // it was taken for its key", "case p.draining && !d.Unkept() && d.HasKey() && d.Again(): // it was taken for its key",
		rootProbe("TestDrain_EmitsNothingOfAKeyThatASenderKeeps"),
	},
	{
		"a member offers all that its siblings could have", "pump.go",
		"(len(p.out) < maxShared || p.member.Exclusive())", "(len(p.out) <= cap(p.out) || p.member.Exclusive())",
		rootProbe("TestSubscription_OffersFewBesideSiblings"),
	},
	{
		"what waits to be redelivered is dropped at the end", "drain.go",
		"back := append(p.takeBack(), p.endRedeliveries()...)", "back := p.takeBack()\n\t_ = p.endRedeliveries()",
		rootProbe("TestDrain_GivesRedeliveriesBack"),
	},
	{
		"a drain waits for redeliveries that it gave back", "drain.go",
		"\tp.watched.Add(-int32(len(kept)))\n", "",
		rootProbe("TestDrain_GivesRedeliveriesBack"),
	},
	{
		"a callback that heeds the end is left behind", "usercode.go",
		"case <-time.After(closeGrace): // it may heed", "case <-time.After(0): // it may heed",
		rootProbe("TestUserCode_HasAMomentAfterTheEnd"),
	},
	{
		"Manager.Close does not flush plain writers", "plain_uses.go",
		"\tm.writers = append(slices.Clip(m.writers), cfg.Key)\n", "\t_ = m.writers\n",
		rootProbe("TestManager_CloseSendsWhatPlainWritersHave"),
	},
	{
		"a ServerName of a route is ignored", "manager.go",
		"if t.ServerName != \"\" {", "if t.ServerName == t.Address {",
		rootProbe("TestManager_ExpectsTheServerNameOfTheRoute"),
	},
	{
		"a listener that could not be opened never can", "manager.go",
		"\t\tm.forget(t, o)\n\t}\n\treturn o.listener, o.err", "\t}\n\treturn o.listener, o.err",
		rootProbe("TestManager_ListensAgainAfterAFailure"),
	},
	{
		"a refused listener keeps its port", "manager.go",
		"return nil, errors.Join(&InsecureAddressError{Address: t.Address}, ln.Close())", "return nil, &InsecureAddressError{Address: t.Address}",
		rootProbe("TestManager_ListensAgainAfterAFailure"),
	},
	{
		"plain listeners know no declared groups", "plain_receiver.go",
		"session.EncodedSize, acked.Groups[\"\"]...)", "session.EncodedSize)",
		rootProbe("TestPlainReceiver_WaitsForDeclaredGroups"),
	},
	{
		"a change of an address wakes only its first waiter", "manager_addresses.go",
		"\t\tclose(c.next)\n\t\tc.next = nil\n", "\t\tselect {\n\t\tcase c.next <- struct{}{}:\n\t\tdefault:\n\t\t}\n",
		rootProbe("TestChanges_WakeAllThatWait"),
	},
	{
		"Close does not wait for what retires", "manager_close.go",
		"\tm.wg.Wait()\n\tm.workers.Close()\n", "\tm.workers.Close()\n",
		rootProbe("TestManager_CloseWaitsForItsGoroutines"),
	},
	{
		"an outbox goes on with a publisher that has closed", "publisher.go",
		"\t\tp.users.leave(p)\n", "",
		testsProbe("TestOutbox_TellsNoPublisherThatHasClosed"),
	},
	{
		"Drain says nil when its Manager was closed", "publisher.go",
		"if p.closed.Load() || p.manager.isClosed() { // what is left", "if p.closed.Load() { // what is left",
		rootProbe("TestPublisher_DrainIsNotNilAfterItsManagersClose"),
	},
	{
		"every refusal to an ephemeral publisher is a drop", "publisher_ephemeral.go",
		"if r.Ephemeral && errors.Is(r.Err, ErrTopicGone) {", "if r.Ephemeral || errors.Is(r.Err, ErrTopicGone) {",
		rootProbe("TestPublisher_DropsOnlyWhatItsTopicTookAlong"),
	},
	{
		"the trace confirms what is unknown", "publisher_log.go",
		"confirmed(messages, failed.NotSent, failed.Unknown)", "confirmed(messages, failed.NotSent)",
		rootProbe("TestLog_TracesWhatBecameOfEachMessage"),
	},
	{
		"a plain message of the limit's size is refused", "publisher_plain.go",
		"len(buf) > limit {", "len(buf) >= limit {",
		rootProbe("TestPlainPublisher_TakesAMessageOfTheLimit"),
	},
	{
		"a plain lookup and write have a time-out each", "publisher_plain.go",
		"\t\twait.timeout = w.left()\n", "",
		rootProbe("TestPlainPublisher_LookupAndDialShareTheTimeout"),
	},
	{
		"plain routes try the last priority first", "publisher_plain.go",
		"return a.Priority - b.Priority })", "return b.Priority - a.Priority })",
		rootProbe("TestPlainPublisher_TriesTheLowestPriorityFirst"),
	},
	{
		"a topic is forgotten while it is looked up", "publisher_topics.go",
		"if s.busyLocked() || s.lookup != nil {", "if s.busyLocked() {",
		rootProbe("TestTopicState_IsKeptWhileItIsLookedUp"),
	},
	{
		"topics that are forgotten stay among the routed", "publisher_topics.go",
		"\t\t\tdelete(p.routed, s)\n", "",
		rootProbe("TestTopicState_LeavesNothingBehind"),
	},
	{
		"room that is too little for a plain message is kept", "plain_receiver.go",
		"\t} else if got != (flow.Amount{}) {\n\t\tw.Release(got)\n\t}", "\t}",
		rootProbe("TestPlainReceiver_GivesRoomBack"),
	},
	{
		"what a plain listener refused counts as held", "plain_receiver.go",
		"\tp.held.Add(-1)\n\tp.rejected.Add(1)\n", "\tp.rejected.Add(1)\n",
		rootProbe("TestPlainReceiver_GivesRoomBack"),
	},
	{
		"plain peers that failed are remembered for good", "plain_watch.go",
		"if len(p.by) >= maxFailedPeers {", "if len(p.by) < 0 {",
		rootProbe("TestPlainPeers_AreBounded"),
	},
	{
		"the Subscriber's OnFailure replaces its Manager's", "subscriber.go",
		"if config.OnFailure != nil && config.ManagerConfig.OnFailure == nil {", "if config.OnFailure != nil {",
		rootProbe("TestSubscriber_OnFailureStandsInForItsManagers"),
	},
	{
		"what is undelivered and undecodable has no bytes", "subscriber.go",
		"msg = message.NewMessage(\"\", encoded)", "msg = message.NewMessage(\"\", nil)",
		rootProbe("TestSubscriber_OnFailureStandsInForItsManagers"),
	},
	{
		"an append to the payload writes over the metadata", "marshaler.go",
		"msg.Payload = value[:len(value):len(value)]", "msg.Payload = value",
		rootProbe("TestEnvelope_PayloadEndsWhereItEnds"),
	},
	{
		"RedeliverAfter's longest delay is at once", "context.go",
		"int64(min(delay, math.MaxInt64-1))+1))", "int64(min(delay, math.MaxInt64))+1))",
		rootProbe("TestRedeliverAfter_TheLongestDelay"),
	},
	{
		"Authorize is not told where a peer comes from", "auth.go",
		"Topic: a.Topic, Address: a.Address})", "Topic: a.Topic})",
		rootProbe("TestAuthorize_IsToldWhoWantsWhat"),
	},
	{
		"room for refused messages wakes no one", "outbox_refused.go",
		"\tif m.room != nil {\n\t\tclose(m.room)\n\t\tm.room = nil\n\t}\n", "",
		testsProbe("TestOutbox_ManyRefusedMessagesWaitForOnFailure"),
	},
	{
		"a publisher without OnFailure takes another's failures", "outbox_users.go",
		"\tif p.cfg.OnFailure == nil {\n\t\treturn\n\t}\n\tu.mu.Lock()", "\tu.mu.Lock()",
		rootProbe("TestOutboxUsers_TellTheLastThatWantsToKnow"),
	},
	{
		"more reasons than are named are not counted", "stats_ready.go",
		"if more := len(r) - maxReasons; more > 0 {", "if more := len(r) - maxReasons; more > maxReasons {",
		rootProbe("TestReasons_AreBounded"),
	},
	{
		"a wait that has given up is kept", "internal/acked/sender/custody.go",
		"\ts.conditions = slices.DeleteFunc(s.conditions, func(other *condition) bool { return other == c })\n\tif s.unreachable", "\tif s.unreachable",
		senderProbe("TestSender_ACallThatGivesUpLeavesNothing"),
	},
	{
		"a call that gives up stays in the line", "internal/acked/sender/publish.go",
		"\t\terr = s.timeoutErrorLocked(p.stream)\n\t}\n\tp.stream.Leave(p.turn)\n", "\t\terr = s.timeoutErrorLocked(p.stream)\n\t}\n",
		senderProbe("TestSender_ACallThatGivesUpLeavesNothing"),
	},
	{
		"a peer that forbids is asked for ever", "internal/acked/sender/unreachable.go",
		"wire.Code_CODE_UNAUTHENTICATED, wire.Code_CODE_FORBIDDEN, wire.Code_CODE_VERSION:", "wire.Code_CODE_UNAUTHENTICATED, wire.Code_CODE_VERSION:",
		senderProbe("TestDefinite"),
	},
	{
		"the ticker sleeps through a wake-up", "internal/acked/sender/ticker.go",
		"\t\tcase <-t.wakes:\n\t\t\ttimer.Reset(busyInterval)", "\t\tcase <-t.wakes:\n\t\t\ttimer.Reset(t.idleInterval)",
		senderProbe("TestTicker_WakesFromAPause"),
	},
	{
		"an address that got nowhere is avoided after a welcome", "internal/acked/sender/dial.go",
		"\tif welcomed {\n\t\ts.avoid = nil\n\t\treturn", "\tif welcomed {\n\t\treturn",
		senderProbe("TestSender_AvoidsWhatGotNowhere"),
	},
	{
		"a stream that is away shares the idle room", "internal/acked/receiver/attach.go",
		"\tif s.conn != nil {\n\t\ts.topic.Window().Share(-1)\n\t}\n", "",
		receiverProbe("TestStream_SharesTheWindowWhileItIsAttached"),
	},
	{
		"pings are counted for the life of a connection", "internal/acked/receiver/control.go",
		"b.since, b.count = now, 0", "b.since = now",
		receiverProbe("TestPingBudget_IsForEachSpan"),
	},
	{
		"bytes of unheard rejections are not given back", "internal/acked/receiver/unheard.go",
		"\tfor _, u := range s.unheard {\n\t\ts.receiver.unheardBytes.Add(-int64(u.bytes))\n", "\tfor _, u := range s.unheard {\n",
		receiverProbe("TestStream_CountsWhatIsUnheard"),
	},
	{
		"a topic whose members left counts as read", "internal/dispatch/member.go",
		"\tif first {\n\t\tt.window.Consumers(-1)\n\t}\n", "\t_ = first\n",
		dispatchProbe("TestMember_LeaveMakesTheTopicAbsent"),
	},
}
