package mutants

// monitorMutants are mistakes in what is shown, and to whom.
var monitorMutants = []mutant{
	{
		"a proxy is this machine", "monitor/access.go",
		`if r.Header.Get(header) != "" {`, `if r.Header.Get(header) == "x" {`,
		monitorProbe("TestAccess"),
	},
	{
		"a name that leads to loopback is this machine", "monitor/access.go",
		"case !loopbackHost(r.Host):", "case false:",
		monitorProbe("TestAccess"),
	},
	{
		"a token is only asked of others", "monitor/access.go",
		`case m.cfg.Token != "":`, `case m.cfg.Token != "" && !local(r):`,
		monitorProbe("TestAccess"),
	},
	{
		"TLS alone lets in", "monitor/access.go",
		"return r.TLS != nil && len(r.TLS.VerifiedChains) > 0", "return r.TLS != nil",
		monitorProbe("TestAccess"),
	},
	{
		"everybody reads why it is not ready", "monitor/handler.go",
		"case m.admit(r).code != 0:", "case false:",
		monitorProbe("TestStats_NamesThePeerThatIsAway"),
	},
	{
		"a token may go over plaintext", "monitor/serve.go",
		"case tlsConfig == nil:", "case false:",
		monitorProbe("TestListenAndServe_RefusesWhatOthersCanReach"),
	},
	{
		"an address that was forgotten counts for all its messages again", "monitor/history.go",
		"\tif first || seconds <= 0 {", "\tif first && seconds < 0 || seconds <= 0 {",
		monitorProbe("TestHistory_Rates"),
	},
	{
		"the history grows", "monitor/history.go",
		"if len(h.points) == samples {", "if false {",
		monitorProbe("TestHistory_Rates"),
	},
	{
		"the first rows are kept and not the worst", "monitor/limit.go",
		"slices.SortStableFunc(positions,", "slices.SortStableFunc(positions[:0],",
		monitorProbe("TestStats_LimitKeepsTheWorst"),
	},
	{
		"what is stuck comes in any order", "monitor/stuck.go",
		"\t\t\tif a.Critical {\n\t\t\t\treturn -1\n", "\t\t\tif a.Critical {\n\t\t\t\treturn 1\n",
		monitorProbe("TestStuck_OrderAndBound"),
	},
	{
		"a token is read once", "cmd/internal/access/access.go",
		"cfg.Token = func(context.Context, string) (string, error) { return a.token() }",
		"once, _ := a.token()\n\tcfg.Token = func(context.Context, string) (string, error) { return once, nil }",
		probe{"cmd/internal/access", "^TestAccess_TokenFileIsReadAgain$", ""},
	},
}

func monitorProbe(test string) probe { return probe{"monitor", "^" + test + "$", ""} }
