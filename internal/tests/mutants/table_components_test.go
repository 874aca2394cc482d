package mutants

func componentProbe(run string) probe { return probe{"internal/tests/components", "^" + run + "$", ""} }

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
}
