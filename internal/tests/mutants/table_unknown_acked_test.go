package mutants

// unknownAckedMutants are mistakes in the two halves of the acked protocol, and in what they stand on, that a stranger put
// there and that no test noticed.
var unknownAckedMutants = []mutant{
	{
		"what the store said before a stream lived and was forgotten counts", "internal/acked/receiver/recall.go",
		"stale = r.recalls[id] != m.recall", "stale = false",
		receiverProbe("TestReceiver_AsksTheStoreAgainForAStreamThatHasLivedMeanwhile"),
	},
	{
		"a refused Open makes others ask the store anew", "internal/acked/receiver/recall.go",
		"m.recall.asking == 0 && !stale {", "!stale {",
		receiverProbe("TestReceiver_ARefusedOpenMakesNoOtherStale"),
	},
	{
		"a stream that moves begins at its address with the next tick", "internal/acked/sender/fetched.go",
		"\tto.kick()\n", "",
		senderProbe("TestSender_ActsAtOnce"),
	},
	{
		"who waits for what moved learns of it with the next tick", "internal/acked/sender/stream.go",
		"\tfrom.checkLocked()\n\treturn m, true", "\treturn m, true",
		senderProbe("TestSender_ActsAtOnce"),
	},
	{
		"a move that failed is told", "internal/acked/sender/stream.go",
		"\tif !ok {\n\t\treturn\n\t}\n\tto.kick()\n", "\tto.kick()\n\t_ = ok\n",
		senderProbe("TestStream_TellsOfNoMoveThatFails"),
	},
	{
		"what leaves TLS is divided to plaintext", "internal/acked/sender/stream.go",
		"if from == heir || from.cfg.TLS != nil && heir.cfg.TLS == nil {", "if from == heir {",
		senderProbe("TestStream_DividesOnlyWhereItMayGo"),
	},
	{
		"what waits for memory is told when all that it wants is there", "internal/flow/budget.go",
		"a.notify, a.need, a.notified = notify, int64(least), false", "a.notify, a.need, a.notified = notify, int64(want), false",
		probe{"internal/flow", "^TestBudget_TellsWhenTheLeastIsThere$", ""},
	},
	{
		"what a holder has counts as absent when it is there", "internal/flow/budget.go",
		"case p == Present:", "case p == Present && a.presence == Absent:",
		probe{"internal/flow", "^TestBudget_CountsWhatAbsentHoldersHave$", ""},
	},
	{
		"an Open behind what was received counts as a change", "internal/acked/receiver/attach.go",
		"s.released, s.fresh = false, false", "s.released = false",
		receiverProbe("TestReceiver_SaysWhoHasSentLast"),
	},
	{
		"what a call has waited for is always its time", "internal/acked/sender/publish.go",
		"\tif err == nil {\n\t\terr = s.timeoutErrorLocked", "\tif true {\n\t\terr = s.timeoutErrorLocked",
		senderProbe("TestSender_ACallThatGivesUpLeavesNothing"),
	},
	{
		"a peer that is there again frees no memory for who waits", "internal/session/outbound.go",
		"\to.account.SetPresence(p)\n\to.account.Wake()\n", "\to.account.SetPresence(p)\n",
		senderProbe("TestSender_APeerThatIsThereGetsMoreMemory"),
	},
}
