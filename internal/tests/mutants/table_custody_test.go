package mutants

// custodyMutants are mistakes about who answers for a message when something closes.
var custodyMutants = []mutant{
	{
		"a listener that closes has nothing more handled", "manager_close.go",
		"\tpoll(ctx, func() bool { return l.OnlyCopies() == 0 })\n", "",
		probe{"internal/tests", "^TestManager_CloseLetsSubscriptionsHandle$", ""},
	},
	{
		"what nobody handled is dropped", "manager_close.go",
		"left.add(topic, \"\", messages...)", "_, _ = topic, messages",
		probe{"internal/tests", "^TestManager_CloseSaysWhatItsSubscribersLeft$", ""},
	},
	{
		"senders to the Manager's own listeners do not end first", "manager_close.go",
		"\tcloseSenders(ctx, own, &left)\n", "",
		probe{"internal/tests", "^TestPubSub_CloseHandlesWhatWasPublished$", ""},
	},
	{
		"what is revoked counts as received", "internal/session/custody.go",
		"return o.state == open && c.phase == established && !o.revoking", "return o.state == open && c.phase == established",
		probe{"internal/session", "^TestMove_ReceivedLapsesWithTheRevoke$", ""},
	},
	{
		"a second Subscriber.Close says nil", "subscriber.go",
		"\t\t<-s.done\n\t\treturn s.closeErr", "\t\treturn nil",
		probe{"internal/tests", "^TestSubscriber_CloseSaysWhatAStuckHandlerKept$", ""},
	},
	{
		"a stuck handler has a Close's time-out twice", "manager_close.go",
		"\t\t\t\tm.subscriptions.expire(o.listener)\n", "",
		probe{"internal/tests", "^TestSubscriber_CloseThatOutlastsItsTimeIsNoLoop$", ""},
	},
	{
		"the contexts of messages end before their subscription does", "subscription.go",
		"\ts.close(time.Now())\n\ts.cancelBase()\n", "\ts.cancelBase()\n",
		probe{"internal/tests", "^TestSubscriber_CloseThatOutlastsItsTimeIsNoLoop$", ""},
	},
	{
		"a Close does not wait to hear who keeps what", "internal/acked/receiver/receiver.go",
		"\t\tselect {\n\t\tcase <-c.answered:\n", "\t\tselect {\n\t\tdefault:\n\t\tcase <-c.answered:\n",
		probe{"internal/tests", "^TestSubscriber_CloseIsNilWhilePublishersLive$", ""},
	},
	{
		"an answer that takes longer than CloseTimeout is not waited for", "manager_close.go",
		"answering, stop := withGrace(ctx, closeGrace)", "answering, stop := withGrace(ctx, 0)",
		probe{"internal/tests", "^TestSubscriber_CloseHearsPublishersThatAnswerLate$", ""},
	},
	{
		"what a Sender's receiver holds counts as left", "internal/acked/sender/sender.go",
		"\t*left = s.client.Leftovers()\n", "\ts.client.Disconnect()\n\t*left = s.client.Leftovers()\n",
		probe{"internal/tests", "^TestSubscription_ToATopicThatEndsMeanwhile$", ""},
	},
	{
		"what is refused when its publisher has left is only logged", "internal/acked/sender/conn.go",
		"\t\ts.cfg.Refused(r)\n", "",
		probe{"internal/tests", "^TestManager_HearsOfWhatIsRefusedWhenItsPublisherHasLeft$", ""},
	},

	// The drain of subscriptions that were cancelled.
	{
		"a cancelled subscription drains nothing", "drain.go",
		"if !p.drains {", "if p.drains || !p.drains {",
		probe{"internal/tests", "^TestDrain_UnderARouter$", ""},
	},
	{
		"a channel closes while others drain", "drain.go",
		"if sub.isCancelled() && !sub.drained.Load() {", "if sub.isCancelled() && false {",
		probe{"internal/tests", "^TestDrain_PoisonQueueOnTheSameManager$", ""},
	},
	{
		"a channel closes before its acks were written", "subscription.go",
		"\tp.syncAcks()\n", "",
		probe{"internal/tests", "^TestSubscription_AcksAreWrittenBeforeItsChannelCloses$", ""},
	},
	{
		"what is nacked is not redelivered while it drains", "watcher.go",
		"if !s.outlastsClose(d) {", "if true {",
		probe{"internal/tests", "^TestDrain_NacksAreRedelivered$", ""},
	},
	{
		"a stuck handler keeps what it has", "manager_close.go",
		"\tdefer context.AfterFunc(ctx, func() { m.subscriptions.expire(l) })()\n", "",
		probe{"internal/tests", "^TestManager_CloseCountsWhatAStuckHandlerHas$", ""},
	},
	{
		"a rejection to a publisher that is gone goes nowhere", "failure.go",
		", Unheard: unheard,", ",",
		probe{"internal/tests", "^TestManager_HearsOfWhatIsRejectedWhenItsPublisherIsGone$", ""},
	},
	{
		"a member leaves all to one that drains too", "internal/dispatch/drain.go",
		"other != m && !other.stopped && !other.draining", "other != m && !other.stopped",
		dispatchProbe("TestDrain_LeavesEverythingToASuccessor"),
	},
	{
		"a member that drains takes what a sender keeps", "internal/dispatch/drain.go",
		"return d.Unkept() || toClaim && d.key == nil && !d.keyless && !d.Again()", "return !d.Again()",
		dispatchProbe("TestDrain_TakesOnlyWhatNoSenderKeeps"),
	},
	{
		"the order of keys ends with the drain", "internal/dispatch/drain.go",
		"return d.Unkept() || toClaim && d.key == nil && !d.keyless && !d.Again()", "return d.Unkept()",
		dispatchProbe("TestDrain_KeepsTheOrderOfKeys"),
	},
	{
		"a member that drains is notified", "internal/dispatch/member.go",
		"if !m.stopped && !m.draining {", "if !m.stopped {",
		dispatchProbe("TestDrain_IsNotNotified"),
	},
	{
		"the last ping overtakes the acks", "internal/acked/receiver/farewell.go",
		"\tc.flusher.Sync(ctx)\n\tc.appendFarewell()\n", "\tc.appendFarewell()\n",
		receiverProbe("TestReceiver_CloseWaitsUntilAcksAreRead"),
	},
	{
		"a connection is closed before its peer has read the acks", "internal/acked/receiver/farewell.go",
		"case <-time.After(farewellTime):", "case <-time.After(0):",
		receiverProbe("TestReceiver_CloseWaitsUntilAcksAreRead"),
	},
	{
		"a flush that has begun counts for those that wait", "internal/flush/flusher.go",
		"\t\tsyncs := f.takeSyncs()\n\t\tf.flush()\n", "\t\tf.flush()\n\t\tsyncs := f.takeSyncs()\n",
		probe{"internal/flush", "^TestFlusher_SyncWaitsForAFlushThatBeganAfterIt$", ""},
	},
	{
		"a rejection that crosses the end of its publisher goes nowhere", "internal/session/receive.go",
		"if o := c.released[f.Handle]; o != nil && 0 <", "if o := c.released[f.Handle]; o != nil && false && 0 <",
		probe{"internal/session", "^TestClient_ReleasesWhatTheReceiverHas$", ""},
	},
	{
		"a stream is read from the store while it is saved", "internal/acked/receiver/held.go",
		" || len(s.uncommitted) > 0)", ")",
		receiverProbe("TestStream_StaysWhileItIsSaved"),
	},
	{
		"a rejection that its sender did not read goes nowhere", "internal/acked/receiver/unheard.go",
		"\ts.unheard[seq] = unheard{r.Unheard, r.Bytes}\n", "",
		seamProbe("TestUnheard_OfAPublisherThatCloses"),
	},
	{
		"a sender that stays away has time for ever", "internal/acked/receiver/attach.go",
		"\ts.awaitReturnLocked()\n", "",
		seamProbe("TestUnheard_OfAPublisherThatIsKilled"),
	},
	{
		"a Close forgets what was not read", "internal/acked/receiver/receiver.go",
		"\tr.settleUnheard()\n", "",
		seamProbe("TestUnheard_OfAPublisherThatIsKilled"),
	},
	{
		"a rejection that was read is answered for all the same", "internal/acked/receiver/stream.go",
		"\ts.heardLocked(seq)\n", "",
		seamProbe("TestUnheard_OfAPublisherThatComesBack"),
	},
	{
		"a subscription that ends beside one that ends too leaves it all", "internal/dispatch/groups.go",
		" && other.stays()", "",
		dispatchProbe("TestRemainder_OfSubscriptionsThatEndTogetherIsNotSettled"),
	},
	{
		"copies stand for messages", "internal/dispatch/remainder.go",
		"has[d.pos()] = has[d.pos()] || !d.run.repeats()", "has[d.pos()] = true",
		dispatchProbe("TestRemainder_CopiesSettleNothingWhereSubscriptionsEndTogether"),
	},
	{
		"subscriptions do not end with their listener", "subscription.go",
		"return s.isCancelled() || isClosed(s.listener.Done())", "return s.isCancelled()",
		seamProbe("TestSubscriber_CloseOfTwoUnnamedSubscriptionsLosesNothing"),
	},
	{
		"one Publisher counts what another has published", "internal/acked/sender/named.go",
		"return p.awaitReceived(ctx, last)", "return p.awaitReceived(ctx, max(last, out.Last()))",
		probe{"internal/tests", "^TestPublisher_CloseAccountsForItsOwn$", ""},
	},
	{
		"a second spelling of a topic hides later messages", "publisher_topics.go",
		"\t\tcase shared && named.LaterThan(", "\t\tcase shared && !named.LaterThan(",
		probe{"internal/tests", "^TestPublisher_CloseAccountsForItsOwn$", ""},
	},
	{
		"OnFailure gets 16 MiB of what Close leaves", "manager_close.go",
		"l.failures.addHeld(topic, m, ErrUndelivered)", "l.failures.add(topic, m, ErrUndelivered)",
		probe{"internal/tests", "^TestPublisher_CloseTellsOnFailureOfAllThatIsLeft$", ""},
	},
	{
		"what a slow OnFailure did not get is only logged", "failures.go",
		"\t\tq.dropped.add(topic, \"\", 1)\n", "",
		probe{"internal/tests", "^TestPublisher_DrainSaysWhatASlowOnFailureDidNotGet$", ""},
	},
	{
		"Manager.Close does not wait for CloseListener", "manager_close.go",
		"\tclosing.Go(func() { m.awaitClosing(ctx) })\n", "",
		probe{"internal/tests", "^TestManager_CloseListenerSideBySide$", ""},
	},
	{
		"CloseListener has more time than Manager.Close", "manager_close.go",
		"\t\t\tc.expire()\n\t\t}\n\t})()\n", "\t\t\t_ = c.expire\n\t\t}\n\t})()\n",
		probe{"internal/tests", "^TestManager_CloseListenerSideBySide$", ""},
	},
	{
		"a Drain of an outbox outlives what delivers it", "publisher.go",
		"\tdefer context.AfterFunc(p.manager.ended, cancel)()\n", "",
		probe{"internal/tests", "^TestOutbox_DrainEndsWithItsPublisher$", ""},
	},
	{
		"a Publish waits for an address of a Manager that is closed", "publisher_spread.go",
		"case <-w.publisher.manager.ended.Done():", "case <-w.publisher.ctx.Done():",
		probe{"internal/tests", "^TestPublisher_OnAClosedManager$", ""},
	},
	{
		"a Marshaler of the plain wire may panic", "publisher_plain.go",
		"p.publisher.marshalOne(", "p.publisher.marshal(",
		probe{"internal/tests", "^TestPublisher_NothingToPublish$", ""},
	},
	{
		"a Publisher does not flush what another has dialed", "publisher_plain.go",
		"slices.Collect(maps.Keys(p.used)), p.lost", "[]netio.Target(nil), p.lost",
		probe{"internal/tests", "^TestPlainPublisher_FlushesWhatAnotherConnected$", ""},
	},
	{
		"an outbox takes what may never be dialed", "publisher_targets.go",
		"return t, p.manager.mayDial(d.target)", "return t, nil",
		probe{"internal/tests", "^TestDialAllow_DeniesWhatAnOutboxWouldKeepForEver$", ""},
	},
	{
		"a Unix path of any length is tried", "topic.go",
		"if len(path) > maxSocketPath {", "if len(path) > 9999 {",
		probe{"internal/tests", "^TestUnix_SaysWhatIsWrongWithAPath$", ""},
	},
}
