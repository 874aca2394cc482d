package mutants

// fairnessMutants are mistakes in who gets room, in deadlines, and in dialing.
var fairnessMutants = []mutant{
	{
		"a claim waits for an eighth though nothing makes room", "internal/flow/window.go",
		"if w.hungry.Load() {\n\t\t\tleast = c.Least", "if false {\n\t\t\tleast = c.Least",
		probe{"internal/tests", "^TestRoom_AnEighthThatIsNeverFree$", ""},
	},
	{
		"small claims take what a large one waits for", "internal/flow/budget.go",
		"if last {\n\t\treturn 0", "if last && false {\n\t\treturn 0",
		probe{"internal/flow", "^TestBudget_SetsAsideForTheFirst$", ""},
	},
	{
		"a holder that is stuck holds up the others", "internal/flow/budget.go",
		"a.waits && a.held.Load() == 0 && b.holdsUpLocked(a)", "a.waits && b.holdsUpLocked(a)",
		probe{"internal/flow", "^TestBudget_AHolderHoldsUpNoOther$", ""},
	},
	{
		"holders that are stuck take the reserve", "internal/flow/budget.go",
		"n := min(want, free-b.reserve)", "n := min(want, free)",
		probe{"internal/flow", "^TestBudget_HasRoomBesideHoldersThatAreStuck$", ""},
	},
	{
		"the reserve is an eighth however large messages are", "internal/flow/budget.go",
		"b.reserve = max(b.reserve, min(int64(bytes), b.size/2))", "b.reserve = max(b.reserve, min(int64(bytes), b.reserve))",
		probe{"internal/flow", "^TestBudget_ReservesTheLargestMessage$", ""},
	},
	{
		"one that has given all back is not the first", "internal/flow/budget.go",
		"b.changed.Store(true)\n\tb.sortLocked(a)", "b.changed.Store(true)",
		probe{"internal/flow", "^TestBudget_SetsAsideForOneThatHasGivenBack$", ""},
	},
	{
		"only the first of those that can take is told", "internal/flow/budget.go",
		"b.changed.Store(true) // there may be others", "_ = b",
		probe{"internal/flow", "^TestBudget_TellsAllThatCanTake$", ""},
	},
	{
		"what is released wakes no one", "internal/flow/budget.go",
		"if b.queued.Load() {\n\t\t\tb.changed.Store(true)\n\t\t}", "",
		probe{"internal/flow", "^TestBudget_SetsAsideForTheFirst$", ""},
	},
	{
		"absent holders take all", "internal/flow/budget.go",
		"room := b.size/absentPart - b.absent", "room := b.size - b.absent",
		probe{"internal/flow", "^TestBudget_AbsentHoldersGetHalf$", ""},
	},
	{
		"a peer that may be back is taken for absent", "internal/session/client.go",
		"p := flow.Unknown\n\tif c.Pending() > 0 {", "p := flow.Unknown\n\tif true {",
		probe{"internal/session", "^TestWindow_TakesTheMessageThatShowsWhetherAPeerIsBack$", ""},
	},
	{
		"calls overtake one that waits for room", "internal/session/retransmit.go",
		"may := o.mayEnqueue(turn)", "may := true",
		probe{"internal/session", "^TestTurn_CallsAreServedInOrder$", ""},
	},
	{
		"calls are called one after the other", "internal/session/turn.go",
		"t.called || t == l.turns[0]", "t == l.turns[0]",
		probe{"internal/session", "^TestTurn_LineEmptiesWhereThereIsRoom$|^TestTurn_CallsAreServedInOrder$", ""},
	},
	{
		"what was set aside for a call that gives up is lost", "internal/session/turn.go",
		"\to.callLine()\n}", "}",
		probe{"internal/session", "^TestTurn_CallThatGivesUpLeavesItsRoom$", ""},
	},
	{
		"calls overtake one that waits for the budget", "internal/session/retransmit.go",
		"\t\t\t\to.line.short = turn\n", "",
		probe{"internal/session", "^TestTurn_CallWaitsForTheBudgetInItsTurn$", ""},
	},
	{
		"a backoff that stops makes the sender dial in a loop", "internal/acked/sender/dial.go",
		"return longestWait", "return leastWait",
		senderProbe("TestSender_PausesWhateverTheBackoffSays"),
	},
	{
		"an attempt begins where the last one got nowhere", "internal/acked/sender/dial.go",
		"Avoid: s.avoid, ", "",
		probe{".", "^TestManager_DialsElsewhereAfterAConnectionThatGotNowhere$", ""},
	},
	{
		"addresses are tried one after the other", "internal/netio/dial.go",
		"next.Reset(attemptDelay)", "",
		probe{"internal/netio", "^TestDialer_TriesTheNextAddressBesideASilentOne$", ""},
	},
	{
		"one address that is not allowed refuses the name", "internal/netio/dial.go",
		"if len(others) == 0 {\n\t\tothers = failures[:1]\n\t}", "others = failures",
		probe{"internal/netio", "^TestDialAllow_JudgesEachAddressOfAName$", ""},
	},
	{
		"a write of any size has one deadline", "internal/netio/progress.go",
		"if p.passed += n; p.passed >= Quota(p.timeout) {", "if false {",
		probe{"internal/netio", "^TestWrite_GoesOnWhileThePeerReads$", ""},
	},
	{
		"a frame has to arrive within DeadAfter", "internal/acked/receiver/conn.go",
		"err = c.noteHeard(now)\n", "_ = now\n",
		receiverProbe("TestConn_TakesALargeFrameOnASlowLink"),
	},
	{
		"a frame that drips keeps the connection", "internal/netio/progress.go",
		"return max(1, int(timeout.Seconds()*minRate))", "return 1",
		receiverProbe("TestConn_EndsASlowPeer"),
	},
	{
		"the receiver does not say why it gives no credit", "internal/acked/receiver/control.go",
		"pong.Handle, pong.Why = f.Handle, s.why()", "pong.Handle = f.Handle",
		probe{"internal/tests", "^TestTimeout_SaysWhy$", ""},
	},
}
