package mutants

func engineProbe(run, engine string) probe {
	return probe{"engines/tests", "^" + run + "$", "ENGINES=" + engine}
}

// engineMutants are mistakes in what runs the subscriptions of engines.
var engineMutants = []mutant{
	{
		"Kafka's Open says only that time is over", "engines/kafka/kafka.go",
		"return cmp.Or(b.connected, err)", "return cmp.Or(err, b.connected)",
		engineProbe("TestOpenFaults_KafkaSaysWhyAConnectionFailed", "kafka"),
	},
	{
		"a bridge finds a missing topic at its first message", "engines/bridge/pipe.go",
		"b.to.Declare(ctx, topic.To); err != nil {", "b.to.Declare(ctx, topic.To); err == ctx.Err() && err != nil {",
		engineProbe("TestBridge_EndsAtItsStartWhereATopicIsMissing", "nats"),
	},
	{
		"the bridge acks a message before those that came before it", "engines/bridge/acks.go",
		"\t\tif h.state == outOfLine {\n", "\t\tif true {\n",
		probe{"engines/bridge", "^TestAcks_ComeInOrderButForThoseThatAreTriedAgain$", ""},
	},
	{
		"one that is published again holds up the acks of all", "engines/bridge/acks.go",
		"\t\th.state = outOfLine\n", "\t\t_ = h\n",
		probe{"engines/bridge", "^TestAcks_ComeInOrderButForThoseThatAreTriedAgain$", ""},
	},
	{
		"a nacked message lets the next of its key go first", "engines/internal/consume/delivery.go",
		"\t\ts.running--\n\t\ts.refuse(it)\n", "\t\ts.running--\n\t\ts.refuse(it)\n\t\ts.release(it.key)\n",
		engineProbe("TestNack_KeepsTheOrderOfItsKeyAndHoldsUpNoOther", "gochannel"),
	},
	{
		"a message without an answer holds up those that have overtaken it", "engines/internal/consume/delivery.go",
		"range s.emissions[:last] {", "range s.emissions[:0] {",
		probe{"engines/internal/consume", "^TestAnswers_OvertakenMessagesHoldUpNone$", ""},
	},
	{
		"a handler writes into the message that comes again", "engines/internal/consume/delivery.go",
		"e.msg = copyOf(it.delivery.Message)", "e.msg = it.delivery.Message",
		probe{"engines/internal/consume", "^TestCopies_UnlessNothingIsChanged$", ""},
	},
	{
		"a topic of Kafka that was made anew is the old one", "engines/kafka/source.go",
		"if err != nil || t.id == s.topic.id {", "if err != nil || s.topic.id != \"\" {",
		engineProbe("TestGone_AKafkaTopicThatOthersMakeAnewIsReadFromItsStart", ""),
	},
	{
		"attempts have no end", "engines/internal/consume/delivery.go",
		"if set.Attempts > 0 && it.attempts >= set.Attempts {", "if false {",
		engineProbe("TestAttempts_EndInTheDeadLetterTopic", "gochannel"),
	},
	{
		"Close waits for no handler", "engines/internal/consume/end.go",
		"for s.running > 0 || len(s.handled) > 0 || s.busy {", "for len(s.handled) > 0 || s.busy {",
		engineProbe("TestClose_LetsHandlersEndAndGivesBackTheRest", "kafka"),
	},
	{
		"a parameter that the engine cannot do is ignored", "engines/open.go",
		"if why, cannot := spec.Cannot[what]; cannot {", "if why, cannot := spec.Cannot[what]; cannot && false {",
		engineProbe("TestOpen_RefusesWhatTheEngineCannotDo", "kafka"),
	},
	{
		"messages without a UUID are taken for one another", "engines/bridge/pipe.go",
		"\tcase !ok && msg.UUID == \"\":\n", "\tcase false:\n",
		engineProbe("TestBridge_MessagesWithoutAUUIDAreNotTakenForOneAnother", "nats"),
	},
	{
		"a batch that is refused is refused for ever", "engines/nats/publish.go",
		"\t\tif refusesBatch(err) {\n", "\t\tif false {\n",
		engineProbe("TestRefusal_OfOneInAHundred", "nats"),
	},
	{
		"a refused message takes the others of its request with it", "engines/internal/parts/parts.go",
		"\t\treturn Halves(part, errs, Whole(request))\n", "\t\treturn Fail(errs, err)\n",
		probe{"engines/internal/parts", "^TestPublish_SaysOfEachMessageWhatBecameOfIt$", ""},
	},
	{
		"what was stored before an engine was lost is not confirmed", "engines/internal/parts/parts.go",
		"Fail(errs[to:], err)", "Fail(errs, err)",
		probe{"engines/internal/parts", "^TestPublish_SaysOfEachMessageWhatBecameOfIt$", ""},
	},
	{
		"a bridge copies a topic to itself", "engines/bridge/bridge.go",
		"place(c.From) == place(c.To)", "c.From == c.To",
		engineProbe("TestBridge_SaysWhatIsMissing", "nats"),
	},
	{
		"a node that is not there yet is a refusal", "engines/nats/publish.go",
		" && api.ErrorCode != codeNoPeers && !full(err)\n", " && !full(err)\n",
		engineProbe("TestOutage_ANodeIsAwayWhenATopicIsMade", "nats"),
	},
	{
		"a missing permission is waited for", "engines/nats/cause.go",
		"\t\t\tr.refuse(err)\n", "",
		engineProbe("TestOpenFaults_MissingPermissionsAreErrors", "nats"),
	},
}
