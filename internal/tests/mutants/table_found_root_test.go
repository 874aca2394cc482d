package mutants

// foundRootMutants are mistakes in the Manager and in the relay of an outbox that no test had noticed.
var foundRootMutants = []mutant{
	{
		"an address that has failed already is asked for no sooner", "publisher_resolve.go",
		"\t\t\tif t.addr != nil && t.addr.isLost() {\n\t\t\t\ts.lostLocked()\n\t\t\t}\n", "\t\t\t_ = t\n",
		rootProbe("TestLookup_IsAskedAgainForAnAddressThatHadFailed"),
	},
	{
		"a move that an outbox cannot note leaves a use behind", "outbox_place.go",
		"at.placer.SetPlace(ctx, at.key, place); err != nil {\n\t\tat.manager.release(next)\n", "at.placer.SetPlace(ctx, at.key, place); err != nil {\n",
		rootProbe("TestPlacement_HasOneUseOfWhereItIs"),
	},
	{
		"a stream that moved gives up where it is", "outbox_place.go",
		"\tat.addr = next\n", "",
		rootProbe("TestPlacement_HasOneUseOfWhereItIs"),
	},
	{
		"a stream is delivered anew while it moves", "outbox_place.go",
		"\t<-moved\n", "",
		rootProbe("TestPlacement_EndsWithItsDelivery"),
	},
	{
		"a move goes on though the delivery has ended", "outbox_place.go",
		"\tstop()\n", "\t_ = stop\n",
		rootProbe("TestPlacement_EndsWithItsDelivery"),
	},
	{
		"others are told of earlier places with each attempt", "outbox_place.go",
		"\tat.voided = true\n", "",
		rootProbe("TestPlacement_TellsOthersOnce"),
	},
	{
		"a stream that holds nothing stays with its receiver", "outbox_stream.go",
		"if r.forget(r.closing) {\n\t\t\tfetched.Release()", "if r.forget(r.closing) {",
		rootProbe("TestOutboxRelay_StreamsThatHoldNothingEndAtBothEnds"),
	},
	{
		"a delivery leaves a use of its address", "outbox_stream.go",
		"\tdefer r.manager.release(used)\n", "",
		rootProbe("TestOutboxRelay_StreamsThatHoldNothingEndAtBothEnds"),
	},
	{
		"an outbox is known by another identity after an upgrade", "outbox_relay.go",
		"\tmac.Write(publisher[:])\n", "\t_ = publisher\n",
		rootProbe("TestOutboxRelay_IdentityIsThatOfEarlierVersions"),
	},
	{
		"the stream of a topic that is gone never ends", "outbox_refused.go",
		"case <-time.After(retryPause):\n\t\tr.forget(r.ctx)", "case <-time.After(retryPause):",
		rootProbe("TestRefuseAll_WaitsForMore"),
	},
	{
		"an outbox that cannot be read is asked without a pause", "outbox_refused.go",
		"\t\t\tr.pause(err, retryPause)\n", "",
		rootProbe("TestRefuseAll_WaitsForMore"),
	},
	{
		"a closed publisher's streams of slots lose their addresses", "manager_left.go",
		"for _, f := range s.slotFlowsLocked() {", "for _, f := range []*routedStream(nil) {",
		rootProbe("TestLeftBehind_KeepsItsAddressesInUse"),
	},
	{
		"what a closed publisher left has no address to move to", "manager_left.go",
		"\t\tl.addresses = append(l.addresses, t.addr)\n", "",
		rootProbe("TestLeftBehind_KeepsItsAddressesInUse"),
	},
	{
		"a wait with a grace stays with its context", "manager_close.go",
		"func() { stop(); cancel() }", "func() { _ = stop; cancel() }",
		rootProbe("TestContext_NothingWaitsForItsEnd"),
	},
	{
		"a context that its delivery outran stays with the subscription", "context.go",
		"\t\tstd.cancel()\n\t}\n\treturn c.std", "\t}\n\treturn c.std",
		rootProbe("TestMessageContext_LeavesNothingAtItsSubscription"),
	},
	{
		"metadata is in the order of a map", "marshaler.go",
		"\tslices.SortFunc(dst, func(a, b entry) int { return strings.Compare(a.key, b.key) })\n", "\t_, _ = slices.Sort[[]string], strings.Compare\n",
		rootProbe("TestEnvelope_EqualMessagesHaveEqualBytes"),
	},
	{
		"a stream whose move failed waits where it is", "outbox_place.go",
		"case fetched.MayMove():\n", "case fetched.MayMove():\n\t\t\tleaving = false\n",
		seamProbe("TestOutboxPlace_GoesOnWhereTheRouteComesBack"),
	},
	{
		"a stream that was to move waits where it is", "outbox_place.go",
		"\t\t\t\tfetched.Stay()\n", "",
		seamProbe("TestOutboxPlace_GoesOnWhereTheRouteComesBack"),
	},
	{
		"an outbox is asked for a damaged message without a pause", "outbox_stream.go",
		"\t\t\tr.pause(err, retryPause)\n", "",
		rootProbe("TestDeliver_ADamagedMessageIsReadAgainAfterAPause"),
	},
	{
		"a stream of a copied outbox is tried again without a pause", "outbox_relay.go",
		"if !r.renounce(stream, err) {\n\t\t\t\tstream.pause(err, fencedPause)\n\t\t\t}", "r.renounce(stream, err)",
		rootProbe("TestDeliver_PausesBeforeTheNextAttempt"),
	},
	{
		"failures that were told of stay in memory", "failures.go",
		"\t\tq.queue[0] = failure{}\n", "",
		rootProbe("TestFailureQueue_KeepsNothingThatWasTold"),
	},
	{
		"a slow message's timer outlives its answer", "handling.go",
		"\tif s.timer != nil {\n\t\ts.timer.Stop()\n\t}\n", "",
		rootProbe("TestHandling_KeepsNothingOfWhatWasAnswered"),
	},
	{
		"a Manager keeps publishers that have closed", "manager_addresses.go",
		"\tm.routing = slices.DeleteFunc(slices.Clone(m.routing), func(o *Publisher) bool { return o == p })\n", "",
		rootProbe("TestManager_ForgetsAPublisherThatHasClosed"),
	},
	{
		"senders share a secret", "manager.go",
		"\t_, _ = rand.Read(id.Secret[:])\n", "",
		rootProbe("TestIdentity_IsOfOneSender"),
	},
	{
		"what comes while a listener drains is waited for by none", "manager_close.go",
		"\tl.AwaitAnswers(ctx) // until then more can arrive, of publishers that are gone by the time they would answer\n", "",
		seamProbe("TestCloseListener_HandlesWhatComesWhileItDrains"),
	},
	{
		"Manager.Close waits for CloseListener's time", "manager_close.go",
		"\tdefer context.AfterFunc(ctx, func() {\n\t\tfor c := range closing {\n\t\t\tc.expire()\n\t\t}\n\t})()\n", "",
		rootProbe("TestManager_CloseEndsWhatClosesAListener"),
	},
	{
		"a listener closes while a handler has what its publisher keeps", "manager_close.go",
		"\tdefer context.AfterFunc(ctx, func() { m.subscriptions.expire(l) })()\n", "",
		rootProbe("TestCloseListener_TakesBackWhatAHandlerHas"),
	},
	{
		"an outbox's messages of other slots go with the first", "outbox_place.go",
		"\t\t\tn = len(parts)\n", "",
		rootProbe("TestOutbox_MessagesOfASlotGoTogether"),
	},
	{
		"a stream that ended for long silence stays with its receiver", "outbox_stream.go",
		"\t\tif r.forget(r.ctx) {\n\t\t\tfetched.Release()\n", "\t\tif r.forget(r.ctx) {\n",
		rootProbe("TestOutboxRelay_StreamsThatHoldNothingEndAtBothEnds"),
	},
	{
		"no hook is told of a dead letter", "failure.go",
		"\t\t\ts.noteDead(cfg.DeadLetterTopic, reason)\n", "",
		rootProbe("TestDeadLetter_IsAsWatermillsToolsKnowIt"),
	},
}
