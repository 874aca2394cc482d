package mutants

func seamProbe(run string) probe     { return probe{"internal/tests", "^" + run + "$", ""} }
func dispatchProbe(run string) probe { return probe{"internal/dispatch", "^" + run + "$", ""} }

// userCodeMutants are mistakes in how the user's code is called, and in what is left of it.
var userCodeMutants = []mutant{
	{
		"all of a call is unknown when one message is refused", "internal/session/waiter.go",
		"reached := o.settled.Clone()", "reached := Watermark{}",
		probe{"internal/tests", "^TestPublishError_AccountsForEachMessage$", ""},
	},
	{
		"a handler's failure fails Publish if it is quick", "internal/session/waiter.go",
		"(w.Level == Handled || CodeOf(err) != wire.Code_CODE_FAILED)", "true",
		probe{"internal/tests", "^TestPublishError_AccountsForEachMessage$", ""},
	},
	{
		"what was refused is in neither list", "internal/session/waiter.go",
		"w.refused = append(w.refused, seq)", "",
		probe{"internal/tests", "^TestPublishError_AccountsForEachMessage$", ""},
	},
	{
		"a handler writes into the message that is kept", "internal/dispatch/delivery.go",
		"return bytes.Clone(d.arrived())", "return d.arrived()",
		seamProbe("TestSubscriber_RedeliveryHasTheBytesThatArrived"),
	},
	{
		"messages that wait for their answer together have a watcher each", "pump_slow.go",
		"p.watchFirst(p.overtaken(handled))", "p.watchFirst(handled)",
		probe{".", "^TestLateAcks_CostNoWatchers$", ""},
	},
	{
		"a message that younger ones have overtaken holds them up", "pump_slow.go",
		"last, p.timeout = i+1, slowAfter", "last, p.timeout = 0, slowAfter",
		probe{".", "^TestLateAcks_OvertakenMessagesHoldUpNone$", ""},
	},
	{
		"a slow message keeps its whole run", "internal/dispatch/delivery.go",
		"\t\td.run.release()\n\t}\n}\n\n// Origin", "\t}\n}\n\n// Origin",
		dispatchProbe("TestRun_SlowMessageKeepsOnlyItself"),
	},
	{
		"a key is claimed before that of an earlier message", "internal/dispatch/key.go",
		"if g.keyUnknownBefore(d.pos()) {", "if false {",
		dispatchProbe("TestKey_EarlyClaimsWait"),
	},
	{
		"a message without a key holds up all keys", "pump.go",
		"p.member.Forgo(&d)", "_ = p.member.Forgo",
		seamProbe("TestSubscriber_SenselessAnswersFailTheirMessage"),
	},
	{
		"a literal is emitted as it is", "pump.go",
		"emitted || msg.Acked() == nil || msg.Nacked() == nil ||", "emitted ||",
		seamProbe("TestSubscriber_TakesWhatAnUnmarshalerReturns"),
	},
	{
		"undecodable messages take no turn", "pump.go",
		"\td.Detach()\n\tp.watched.Add(1)\n", "\td.Detach()\n\tdefer p.watched.Add(-1)\n\tp.watched.Add(1)\n",
		seamProbe("TestSubscriber_UndecodableMessagesTakeTheirTurn"),
	},
	{
		"Close is a failed attempt", "watcher.go",
		"return outcomeClosed", "return outcomeFailed",
		seamProbe("TestSubscriber_CloseIsNoFailedAttempt"),
	},
	{
		"a decorator takes of the handler's time", "handling.go",
		"running := max(h.sideBySide+1, len(h.slow)-maxHeld)", "running := len(h.slow)",
		probe{".", "^TestSubscriber_AckWaitBeginsWithTheHandler$", ""},
	},
	{
		"handlers side by side are not seen", "handling.go",
		"h.sideBySide = max(h.sideBySide, older)", "h.sideBySide = 0",
		probe{".", "^TestSubscriber_AckWaitIsSideBySide$", ""},
	},
	{
		"an answer that comes later than those before shows another handler", "handling.go",
		"if !s.answered() {\n\t\t\tolder++", "if s != nil {\n\t\t\tolder++",
		probe{"", "^TestHandling_", ""},
	},
	{
		"what a stuck callback has is not given back", "drain.go",
		"if p.decoding.busy { // the pump was taken over", "if false {",
		seamProbe("TestSubscriber_CloseLeavesStuckCallbacksBehind"),
	},
	{
		"Close waits for dead letters", "failure.go",
		"\t\tif returned && err == nil {", "\t\tfor !returned {\n\t\t\treturned, err = s.call(nameDeadLetter, func() error { select {} })\n\t\t}\n\t\tif returned && err == nil {",
		seamProbe("TestSubscriber_CloseLeavesStuckCallbacksBehind"),
	},
	{
		"a subscription's end waits for the DedupeStore", "subscription.go",
		"p.inStore(p.member.Leave)", "p.member.Leave()",
		seamProbe("TestSubscriber_EndsThoughItsGroupCannotBeSettled"),
	},
	{
		"Close takes its time-out twice", "subscriber.go",
		"\t\tsub.beginClose(deadline)\n", "\t\tsub.beginClose(time.Now().Add(s.cfg.CloseTimeout))\n",
		seamProbe("TestSubscriber_CloseTakesItsTimeoutOnce"),
	},
	{
		"a connection that comes too late stays open", "internal/netio/usercode.go",
		"address) }, closeConn)", "address) }, nil)",
		seamProbe("TestCallback_DialingThatBlocksIsBounded"),
	},
}
