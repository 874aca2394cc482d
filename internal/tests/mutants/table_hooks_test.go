package mutants

// hookMutants are mistakes about what is seen from outside: Stats, hooks, logs and what handlers are told.
var hookMutants = []mutant{
	{
		"a handler is not told of a possible duplicate", "context.go",
		"MaybeDuplicate: c.delivery.Elsewhere(),", "MaybeDuplicate: false,",
		probe{"internal/tests/components", "^TestRouter_AMessageOfAReceiverThatDiedIsMarked$", ""},
	},
	{
		"the number of a delivery begins anew", "context.go",
		"Attempt: c.delivery.Attempt + 1, Redelivered", "Attempt: 1, Redelivered",
		probe{"internal/tests/components", "^TestRouter_ADelayOutlivesATimeoutAPanicAndTheConnection$", ""},
	},
	{
		"a plain connection that ends is told twice", "pool/watch.go",
		"w.hooks == nil || !out.told.CompareAndSwap(false, true)", "w.hooks == nil",
		probe{"pool", "^TestHooks_TellEveryConnectionOfAWriterOnce$", ""},
	},
	{
		"a plain peer that is connected counts as failed", "plain_watch.go",
		"\tp.become(sender.Ready, nil)\n", "\tp.become(sender.Failed, nil)\n",
		probe{".", "^TestPlain_ConnectionsAreSeenFromOutside$", ""},
	},
	{
		"latency goes from when a message was sent", "cmd/internal/bench/latency.go",
		"stamp = int64(due.Sub(l.base))", "stamp = int64(time.Since(l.base))",
		probe{"cmd/internal/bench", "^TestMeter_AStallCountsForAllThatItHoldsUp$", ""},
	},
	{
		"the rate of bench leaves the slowest client's time out", "cmd/internal/bench/report.go",
		"if t.last.After(last) {", "if last.IsZero() {",
		probe{"cmd/internal/bench", "^TestSummarize_TakesTheWholeTime$", ""},
	},
	{
		"a lookup that fails is not seen in Stats", "publisher_lookup.go",
		"s.noteLocked(failed, s.last)", "s.noteLocked(errors.Join(nil), s.last)\n\t\t_ = failed",
		probe{"monitor", "^TestBroken_LookupsThatFailAreNamed$", ""},
	},
	{
		"a peer that is not welcomed has no reason", "metrics/events.go",
		"\tdefault:\n\t\tm.events.failures.get(", "\tcase false:\n\t\tm.events.failures.get(",
		probe{"metrics", "^TestMetrics_SayWhyThereIsNoConnection$", ""},
	},
	{
		"a Publish that waits for a Resolver says nothing", "publisher_spread.go",
		"says := !w.said.Load() && (", "says := false && (",
		probe{".", "^TestLog_APublishThatWaitsForItsRoute$", ""},
	},
	{
		"the trace of a message ends with a Nack", "watcher.go",
		"\tif s.traces {\n", "\tif s.traces && result == outcomeAcked {\n",
		probe{".", "^TestLog_TracesEachMessageOnRequest$", ""},
	},
	{
		"the panic of a hook is not logged", "internal/hook/set.go",
		"\t\tif p := recover(); p != nil {", "\t\tif p := recover(); p != nil && false {",
		probe{".", "^TestHooks_PanicsAreContained$", ""},
	},
	{
		"Close does not say that a hook blocks", "manager_close.go",
		"if n := m.hooks.Running(); n > 0 {", "if n := m.hooks.Running(); n > 0 {\n\t\t\treturn nil",
		probe{".", "^TestHooks_OneThatBlocksHoldsUpItsConnectionOnly$", ""},
	},
	{
		"Subscriber.Close does not say that a hook blocks", "usercode.go",
		"\tif u.left {\n\t\terrs = append", "\tif false {\n\t\terrs = append",
		probe{".", "^TestHooks_OneThatBlocksHoldsUpItsSubscriptionOnly$", ""},
	},
	{
		"only the first hook is called", "internal/hook/set.go",
		"\t\tone(s, name, h, method, e)\n", "\t\tone(s, name, h, method, e)\n\t\tbreak\n",
		probe{".", "^TestHooks_PanicsAreContained$", ""},
	},
	{
		"what is settled is told twice", "internal/session/stats.go",
		"c.counting.runs, c.spareRuns = c.spareRuns[:0], runs", "c.spareRuns = runs",
		probe{".", "^TestHooks_TellTheLifeOfMessages$", ""},
	},
	{
		"what a stream settles that has moved is not counted", "internal/session/client.go",
		"\to.counting = &c.counting\n", "\tif !o.unnamed {\n\t\to.counting = &c.counting\n\t}\n",
		probe{".", "^TestHooks_TellOfMoves$", ""},
	},
	{
		"Stats is collected for each caller", "stats.go",
		"c.at.IsZero() || now.Sub(c.at) >= statsKept", "true",
		probe{".", "^TestStats_AreKeptForASecond$", ""},
	},
	{
		"what a handler has in hand has no age", "internal/dispatch/stats.go",
		"\t\tolder(m.Oldest())\n", "",
		probe{".", "^TestStats_SayWhatIsStuck$", ""},
	},
	{
		"the age of what waits is forgotten with an ack", "internal/session/stats.go",
		"\tif o.pending == 0 {\n\t\to.ages.clear()", "\tif n > 0 {\n\t\to.ages.clear()",
		probe{".", "^TestStats_SayWhatIsStuck$", ""},
	},
	{
		"a nack with a delay waits as any other", "watcher.go",
		"\tdelay, ok := ctx.redeliverAfter()\n\tif !ok {", "\tdelay, ok := ctx.redeliverAfter()\n\tif ok || !ok {",
		probe{".", "^TestRedeliverAfter_IsForOneDelivery$", ""},
	},
	{
		"a nack with a delay outlives MaxAge", "watcher.go",
		"delay = min(delay, limit-time.Since(d.Received()))", "delay = max(delay, 0)",
		probe{".", "^TestRedeliverAfter_EndsWithMaxAgeAndClose$", ""},
	},
	{
		"each connection that is lost is a line", "internal/netio/quiet.go",
		"now.Sub(q.said) < quietFor {", "now.Sub(q.said) < 0 {",
		probe{".", "^TestLog_APeerThatFlapsIsLoggedOnce$", ""},
	},
	{
		"a Publish that waits says nothing", "internal/session/tick.go",
		"\t\tc.longest.add(o)\n", "",
		probe{".", "^TestLog_APublishThatWaits", ""},
	},
	{
		"every topic has a series of its own", "metrics/labels.go",
		"\tif len(seen) >= b.most {\n\t\treturn Other\n\t}\n\tb.mu.Lock()", "\tb.most++\n\tb.mu.Lock()",
		probe{"metrics", "^TestMetrics_SeriesAreBounded$", ""},
	},
	{
		"a trace ends at the Router", "tracing/process.go",
		"\t\t\t\tp.SetContext(trace.ContextWithSpan(p.Context(), span))\n", "",
		probe{"tracing", "^TestTracing_OneTraceThroughTheRouter$", ""},
	},
	{
		"a disk that hangs has no metric", "metrics/gauges.go",
		"	g.add(outboxWriting, g.age(s.WritingSince), name)\n", "",
		probe{"metrics", "^TestMetrics_ADiskThatHangs$", ""},
	},
	{
		"a disk that hangs holds Publish up for ever", "outbox_store.go",
		"	bound := now.ctx\n", "	bound := p.ctx\n",
		probe{"internal/tests", "^TestOutboxHang_PublishEndsInItsTimeAndSaysWhy$", ""},
	},
	{
		"a call that waits for the DNS has no trace of it", "tracing/resolve.go",
		"			one.span.RecordError(err)\n", "",
		probe{"tracing", "^TestResolve_", ""},
	},
}
