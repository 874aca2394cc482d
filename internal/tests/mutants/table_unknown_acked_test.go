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
}
