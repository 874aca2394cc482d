package mutants

// unknownSubscriberMutants are mistakes in the receiving half and in the ends of things that an adversary could put in unnoticed.
var unknownSubscriberMutants = []mutant{
	{
		"two calls close one listener", "manager_close.go",
		"\tdelete(m.listeners, t)\n\tc = ", "\tc = ",
		rootProbe("TestCloseListener_OneCallHasTheListener"),
	},
	{
		"a failure to listen forgets the listener that came after", "manager.go",
		"if m.listeners[t] == o {", "if o != nil {",
		rootProbe("TestManager_FailureToListenForgetsNoOther"),
	},
	{
		"a plain listener is open while it is held", "plain_receiver.go",
		"Held: p.holds.Load(), ", "",
		rootProbe("TestPlainReceiver_ShowsThatItDrains"),
	},
	{
		"a Requester listens elsewhere than its replies go", "cqrsx/requester.go",
		"q.replies.Addr(replyTopic(listen, \"\"))", "q.replies.Addr(listen + \"/reply\")",
		componentProbe("TestRequester_OverAUnixSocket"),
	},
	{
		"what a group has not offered is in flight", "stats_manager.go",
		"InFlight: g.Unsettled - g.Backlog", "InFlight: g.Backlog",
		rootProbe("TestStats_OfAListener"),
	},
	{
		"a sender's writes have the time of a greeting", "manager.go",
		"WriteTimeout: acked.WriteTimeout,\n\t\tPingAfter", "WriteTimeout: acked.HandshakeTimeout,\n\t\tPingAfter",
		rootProbe("TestConfig_GoesWhereItIsUsed"),
	},
	{
		"a hook hears of what is not settled yet", "watcher.go",
		"\ts.inStore(func() { s.member.Settle(d) })\n\ts.tell(func(set *hook.Set) { set.Handled(handled) })\n",
		"\ts.tell(func(set *hook.Set) { set.Handled(handled) })\n\ts.inStore(func() { s.member.Settle(d) })\n",
		rootProbe("TestHooks_HearOfWhatIsSettled"),
	},
	{
		"messages that were handled together are as old as the last", "subscription_watch.go",
		"oldest = earlier(oldest, ds[i].Received())", "oldest = ds[i].Received()",
		rootProbe("TestHooks_SayWhatWasHandledTogether"),
	},
	{
		"a later Close of a Subscriber returns at once", "subscriber.go",
		"\t\t<-s.done\n\t\treturn s.closeErr", "\t\treturn s.closeErr",
		rootProbe("TestSubscriber_CloseSideBySide"),
	},
	{
		"a plain peer that is back never failed", "plain_watch.go",
		"\tif err != nil {\n\t\tp.lastError", "\tif p.lastError = \"\"; err != nil {\n\t\tp.lastError",
		rootProbe("TestPlainPeer_TellsOfEachChangeOnce"),
	},
	{
		"a drain offers anew what it has offered", "drain.go",
		"func(f flight) bool { return !f.ctx.delivery.Unkept() })", "func(flight) bool { return true })",
		rootProbe("TestDrain_LeavesInPlaceWhatIsKeptByNone"),
	},
	{
		"a batch that its end interrupts has failed", "batch/run.go",
		"own && p.msg.Context().Err() == nil && ctx.Err() == nil", "own",
		batchProbe("TestRun_EndIsNoFailedAttempt"),
	},
	{
		"a Manager that was closed listens", "manager.go",
		"\tif m.closed {\n\t\tm.mu.Unlock()\n\t\treturn nil, ErrManagerClosed\n\t}\n\tif o := m.listeners[t]", "\tif o := m.listeners[t]",
		rootProbe("TestManager_OpensNothingOnceItIsClosed"),
	},
	{
		"a reply of a Replier that closes is dropped", "cqrsx/replier.go",
		"errors.Is(err, buffstreams.ErrPublisherClosed) || ", "",
		componentProbe("TestReplier_ThatClosesLeavesTheCommand"),
	},
	{
		"a field of another type is taken for one's own", "marshaler.go",
		"\treturn 0, nil, data[n+m:], nil", "\treturn num, nil, data[n+m:], nil",
		rootProbe("TestEnvelope_PassesOverWhatItDoesNotKnow"),
	},
}
