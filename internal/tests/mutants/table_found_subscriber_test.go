package mutants

// foundSubscriberMutants are mistakes that no test caught until all statements of a subscription, of the plain wire and of the user's hooks
// were looked at.
var foundSubscriberMutants = []mutant{
	// What a subscription has.
	{
		"what handlers have is lost when messages are called back", "recall.go",
		"\t\t\t\tkept = append(kept, p.inFlight[i])\n\t\t\t}\n", "\t\t\t}\n",
		rootProbe("TestRecall_LeavesWithHandlersWhatTheyHave"),
	},
	{
		"what was called back is watched for ever", "watcher.go",
		"\t\t\tp.watched.Add(-1)\n\t\t\tback = append(back, d)\n", "\t\t\tback = append(back, d)\n",
		rootProbe("TestRedelivery_OfWhatWasCalledBackIsGivenBack"),
	},
	{
		"what was called back is lost", "watcher.go",
		"\tif len(back) > 0 {\n\t\tp.giveBack(back...)\n\t}\n\treturn f, ok", "\treturn f, ok",
		rootProbe("TestRedelivery_OfWhatWasCalledBackIsGivenBack"),
	},
	{
		"a message that cannot be decoded again is lost", "watcher.go",
		"\t\t\tp.startFailure(d, msg, &UndecodableError{err})\n", "\t\t\t_ = msg\n",
		rootProbe("TestRedelivery_OfWhatCannotBeDecodedFails"),
	},
	{
		"what waits to be emitted again is lost with its sender", "watcher.go",
		"\t\t\tunkept = append(unkept, d)\n", "",
		rootProbe("TestDrain_KeepsRedeliveriesOfASenderThatIsGone"),
	},
	{
		"a drain tries nothing again at once", "watcher.go",
		"return !isClosed(s.closing) || s.outlastsClose(d)", "return !isClosed(s.closing)",
		rootProbe("TestDrain_RetriesWhatASenderThatIsGoneHadSent"),
	},
	{
		"no hook hears of what took long", "watcher.go",
		"set.Handled(handled)", "_ = handled",
		rootProbe("TestHooks_HearOfWhatTookLong"),
	},
	{
		"what was settled stays in memory", "pump.go",
		"\tclear(acked)\n", "",
		rootProbe("TestPump_HoldsNothingThatHasEnded"),
	},
	{
		"a message that comes again has no metadata", "pump.go",
		"\t\tmaps.Copy(fresh.Metadata, msg.Metadata)\n", "\t\t_ = maps.Copy[message.Metadata, message.Metadata]\n",
		rootProbe("TestUsable_MakesAnAnswerOfItsOwn"),
	},
	{
		"a Key that fails hides why a message cannot be decoded", "pump.go",
		"if failed != nil && err == nil {", "if failed != nil {",
		rootProbe("TestDecode_TheFirstFailureIsTheReason"),
	},

	// The plain wire.
	{
		"a claim outlives the listener of plain peers", "plain_receiver.go",
		"\tw.Cancel(claim)\n", "",
		rootProbe("TestPlainReceiver_LeavesNoRoomTakenAtItsEnd"),
	},
	{
		"room that comes in the last moment is lost", "plain_receiver.go",
		"\t\tw.Release(room)\n\tdefault:", "\tdefault:",
		rootProbe("TestPlainReceiver_LeavesNoRoomTakenAtItsEnd"),
	},
	{
		"no line says which group holds up plain peers", "plain_receiver.go",
		"\tp.topic.CheckBehind()\n", "",
		rootProbe("TestPlainReceiver_LeavesNoRoomTakenAtItsEnd"),
	},
	{
		"a listener that drains is open", "stats_manager.go",
		"\t\tstats.State = \"draining\"\n", "",
		rootProbe("TestPlainReceiver_ShowsThatItDrains"),
	},
	{
		"a listener that drains is ready", "stats_ready.go",
		"\t\t\treasons.add(\"the listener at %s is draining\", formatAddress(t))\n", "",
		rootProbe("TestPlainReceiver_ShowsThatItDrains"),
	},
	{
		"nothing answers for what a plain peer cannot be told", "plain_receiver.go",
		"\t\tr.Unheard()\n", "",
		rootProbe("TestPlainReceiver_TellsOfRefusals"),
	},
	{
		"plain peers are shown in the order in which they came", "plain_watch.go",
		"\tslices.SortFunc(all, func(a, b receiver.PeerStats) int { return strings.Compare(a.Address, b.Address) })\n",
		"\t_ = strings.Compare\n",
		rootProbe("TestPlainGuests_AreInOrder"),
	},
	{
		"a refusal of a plain peer has no listener", "plain_watch.go",
		"func (g *plainGuests) OnRefused(e hooks.Refused) {\n\te.Listener = g.listener\n", "func (g *plainGuests) OnRefused(e hooks.Refused) {\n",
		rootProbe("TestPlainGuests_AreInOrder"),
	},
	{
		"a Manager shows no plain peers", "plain_watch.go",
		"if at == nil || at[t] {", "if at[t] {",
		rootProbe("TestPlainPeers_AreShownByTheirManager"),
	},
	{
		"a call to a plain peer leaves something with its message's context", "publisher_plain.go",
		"func() { cancel(); outer() }", "func() { _ = outer; cancel() }",
		rootProbe("TestPlainPublisher_LeavesNothingWithAContext"),
	},

	// The user's hooks and logger.
	{
		"no hook hears of what is forgotten", "internal/hook/set.go",
		"\t\teach(s, \"OnForgotten\", s.forgotten, hooks.ForgottenHook.OnForgotten, e)\n", "",
		hookProbe("TestSet_CallsTheHooksOfEachEvent"),
	},
	{
		"each window is watched", "internal/hook/set.go",
		"return s != nil && len(s.windowFull) > 0", "return s != nil",
		hookProbe("TestSet_OfNoHooksDoesNothing"),
	},
	{
		"a hook that has returned is still running", "internal/hook/set.go",
		"\t\ts.running.Add(-1)\n", "",
		hookProbe("TestSet_CallsTheHooksOfEachEvent"),
	},
	{
		"a logger that panics makes none", "internal/hook/logger.go",
		"\twith = l //nolint:wastedassign // what is returned after a panic\n", "",
		hookProbe("TestLogger_NeverPanics"),
	},
}

func hookProbe(run string) probe { return probe{"internal/hook", "^" + run + "$", ""} }
