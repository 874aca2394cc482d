package mutants

func bridgeProbe(test string) probe { return probe{"engines/bridge", "^" + test + "$", ""} }

func consumeProbe(test string) probe { return probe{"engines/internal/consume", "^" + test + "$", ""} }

// unknownEdgeMutants are mistakes at the edges that no test noticed before: in the bridge, an engine's subscriptions, the monitor,
// metrics, tracing and the command.
var unknownEdgeMutants = []mutant{
	{
		"a call of the bridge is larger than its bound", "engines/bridge/lane.go",
		"size > l.b.cfg.BatchBytes || l.tooLarge(own)", "own > l.b.cfg.BatchBytes || l.tooLarge(own)",
		bridgeProbe("TestRun_BoundsACall"),
	},
	{
		"a message that is too large goes with those before it", "engines/bridge/lane.go",
		"size > l.b.cfg.BatchBytes || l.tooLarge(own)", "size > l.b.cfg.BatchBytes",
		bridgeProbe("TestRun_MaxMessageSize"),
	},
	{
		"a dead letter that cannot be published holds up the acks of others", "engines/bridge/lane.go",
		"\tl.acks.leave(refused...)\n", "",
		bridgeProbe("TestRun_EachMessageHasItsOwnEnd"),
	},
	{
		"what is behind a message that is not settled comes first", "engines/bridge/lane.go",
		`if !errors.As(errs[i], &refused) || l.b.cfg.DeadLetterTopic == "" {`, `if l.b.cfg.DeadLetterTopic == "" {`,
		bridgeProbe("TestRun_DividesARefusedCall"),
	},
	{
		"the bridge tries again and again without a pause that grows", "engines/bridge/lane.go",
		"pause = min(2*pause, 2*time.Second)\n\t\tif left", "pause = min(pause, 2*time.Second)\n\t\tif left",
		bridgeProbe("TestRun_TriesAgainInOrder"),
	},
	{
		"messages of two streams have one name in the bridge", "engines/bridge/pipe.go",
		"at.Publisher != p.stream.Publisher || at.Stream != p.stream.Stream", "at.Publisher != p.stream.Publisher",
		bridgeProbe("TestIdentify_NamesAreOfTheirStreams"),
	},
	{
		"the oldest names at the destination are forgotten at once", "engines/bridge/pipe.go",
		"newSeen(b.cfg.LookBack + len(ids))", "newSeen(b.cfg.LookBack)",
		bridgeProbe("TestRun_SkipsWhatIsThere"),
	},
	{
		"a bridge drains for longer than it may", "engines/bridge/bridge.go",
		"time.AfterFunc(b.cfg.DrainTimeout, giveUp)", "time.AfterFunc(2*b.cfg.DrainTimeout, giveUp)",
		bridgeProbe("TestRun_DrainsAtItsEnd"),
	},
	{
		"the source stays open where the destination cannot be opened", "engines/bridge/bridge.go",
		`errors.Join(fmt.Errorf("bridge: destination: %w", err), b.Close())`, `fmt.Errorf("bridge: destination: %w", err)`,
		bridgeProbe("TestClose_EnginesOfItsOwn"),
	},
	{
		"an engine's message that comes twice is settled once", "engines/internal/consume/subscription.go",
		"\t\t\tit.repeat = &d\n", "",
		consumeProbe("TestRepeat_IsSettledToo"),
	},
	{
		"an engine is asked for more than there is room for", "engines/internal/consume/subscription.go",
		"room <- s.window() - len(s.held):", "room <- s.window():",
		consumeProbe("TestFetch_AsksForWhatThereIsRoomFor"),
	},
	{
		"the wait after a Nack has no most", "engines/internal/consume/delivery.go",
		"time.AfterFunc(min(delay, set.NackDelayMax)", "time.AfterFunc(max(delay, set.NackDelayMax)",
		consumeProbe("TestNack_WaitsThenBuries"),
	},
	{
		"a limit of a check is reached one later", "cmd/internal/check/check.go",
		"case critical > 0 && value >= critical:", "case critical > 0 && value > critical:",
		probe{"cmd/internal/check", "^TestLimits$", ""},
	},
	{
		"the last group decides instead of the worst", "cmd/internal/check/lag.go",
		"if g.Lag >= most {", "if g.Lag >= 0 {",
		probe{"cmd/internal/check", "^TestLag_TheWorstDecides$", ""},
	},
	{
		"pub is one message late at a rate", "cmd/internal/pipe/compose.go",
		"float64(i)/rate*float64(time.Second)", "float64(i+1)/rate*float64(time.Second)",
		probe{"cmd/internal/pipe", "^TestPaced$", ""},
	},
	{
		"sub acks what could not be written", "cmd/internal/pipe/sub.go",
		"if err := r.printer.flush(); err != nil {\n\t\treturn nack(batch, err)", "if err := r.printer.flush(); err != nil && r.o.Nack {\n\t\treturn nack(batch, err)",
		probe{"cmd/internal/pipe", "^TestTake_AcksWhatWasFlushed$", ""},
	},
	{
		"bytes are counted as messages", "metrics/events.go",
		"\tc := m.events.received.get(e.Listener, e.Topic)\n\tc.messages.Add(float64(e.Messages))",
		"\tc := m.events.received.get(e.Listener, e.Topic)\n\tc.messages.Add(float64(e.Bytes))",
		probe{"metrics", "^TestMetrics_EventsHaveTheirSeries$", ""},
	},
	{
		"a gauge shows its neighbour", "metrics/gauges.go",
		"g.add(topicHeld, float64(t.Held)", "g.add(topicHeld, float64(t.Window)",
		probe{"metrics", "^TestMetrics_StatesHaveTheirSeries$", ""},
	},
	{
		"rates of two Managers are mixed up", "monitor/collect.go",
		`key := "to " + a.Source + " " + a.Address`, `key := "to " + a.Address`,
		monitorProbe("TestCounters_AreOfTheirSources"),
	},
	{
		"a list of the monitor takes the rows of the next one", "monitor/limit.go",
		"b.rows-min(share, has), b.lists-1", "b.rows-share, b.lists-1",
		monitorProbe("TestBudget_SharesRows"),
	},
	{
		"a batch that fails is a span that has succeeded", "tracing/process.go",
		"\t\tfail(span, err)\n\t\tspan.End()\n\t}()\n\treturn f(ctx)", "\t\tspan.End()\n\t}()\n\treturn f(ctx)",
		probe{"tracing", "^TestMetrics_HaveTheirFigures$", ""},
	},
	{
		"Close of a traced subscriber leaves its goroutines", "tracing/subscriber.go",
		"\ts.wg.Wait()\n", "",
		probe{"tracing", "^TestSubscriber_SpansOfSettling$", ""},
	},
}
