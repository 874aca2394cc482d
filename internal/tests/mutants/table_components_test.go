package mutants

func componentProbe(run string) probe { return probe{"internal/tests/components", "^" + run + "$", ""} }

func batchProbe(run string) probe { return probe{"batch", "^" + run + "$", ""} }

// componentMutants are mistakes in what stands between Watermill's components and this transport.
var componentMutants = []mutant{
	{
		"a reply that cannot be sent nacks its command", "cqrsx/replier.go",
		"p.logger.Error(\"Reply dropped", "if true {\n\t\treturn err\n\t}\n\tp.logger.Error(\"Reply dropped",
		componentProbe("TestReplier_HostileAddresses"),
	},
	{
		"a command that no Requester sent is never done", "cqrsx/replier.go",
		`if sent.Get(ReplyToKey) == "" || `, `if false && `,
		componentProbe("TestReplier_HostileAddresses"),
	},
	{
		"late replies are waited for", "cqrsx/replier.go",
		"Ephemeral: true, ", "",
		componentProbe("TestReplier_LateReply"),
	},
	{
		"handlers share one group", "cqrsx/cqrsx.go",
		"own.ConsumerGroup = group", `own.ConsumerGroup = "all"`,
		componentProbe("TestCQRS_JSON"),
	},

	// Batches.
	{
		"a batch whose handler panics is done", "batch/run.go",
		"err = &PanicError{", "_ = &PanicError{",
		batchProbe("TestRun_PanicIsContained"),
	},
	{
		"a failure of all is one of each", "batch/run.go",
		"return result, result != nil && n == 1", "return result, result != nil",
		batchProbe("TestRun_OneBadMessageFailsAlone"),
	},
	{
		"a batch after a failure is a full one", "batch/run.go",
		"\tr.limit = 1\n", "",
		batchProbe("TestRun_PanicIsContained"),
	},
	{
		"a batch that ends keeps what it has", "batch/run.go",
		"defer r.giveBack()", "_ = r.giveBack",
		batchProbe("TestRun_ContextEnds"),
	},
	{
		"what was given up is handled all the same", "batch/run.go",
		"if r.sweep(); len(r.pending) > 0 {", "if len(r.pending) > 0 {",
		batchProbe("TestRun_SubscriptionGivesUp"),
	},
	{
		"a handler is not told that its messages were given up", "batch/watch.go",
		"\tw.cancel()\n", "",
		batchProbe("TestRun_SubscriptionGivesUp"),
	},
	{
		"a handler's own ack ends its context", "batch/watch.go",
		"if settled(w.messages[i].msg) {", "if false {",
		batchProbe("TestRun_AcksOfTheHandlerEndNothing"),
	},
	{
		"what was settled late is handed again", "batch/run.go",
		"if p.done || settled(p.msg) {", "if p.done {",
		batchProbe("TestRun_SettledLater"),
	},
}
