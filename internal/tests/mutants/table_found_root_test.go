package mutants

// foundRootMutants are mistakes in the Manager and in the relay of an outbox that no test had noticed.
var foundRootMutants = []mutant{
	{
		"a move that an outbox cannot note leaves a use behind", "outbox_place.go",
		"at.placer.SetPlace(ctx, at.key, place); err != nil {\n\t\tat.manager.release(next)\n", "at.placer.SetPlace(ctx, at.key, place); err != nil {\n",
		rootProbe("TestPlacement_HasOneUseOfWhereItIs"),
	},
	{
		"a stream that moved gives up where it is", "outbox_place.go",
		"\tat.addr = next\n", "",
		rootProbe("TestPlacement_HasOneUseOfWhereItIs"),
	},
	{
		"a stream is delivered anew while it moves", "outbox_place.go",
		"\t<-moved\n", "",
		rootProbe("TestPlacement_EndsWithItsDelivery"),
	},
	{
		"a move goes on though the delivery has ended", "outbox_place.go",
		"\tstop()\n", "\t_ = stop\n",
		rootProbe("TestPlacement_EndsWithItsDelivery"),
	},
	{
		"others are told of earlier places with each attempt", "outbox_place.go",
		"\tat.voided = true\n", "",
		rootProbe("TestPlacement_TellsOthersOnce"),
	},
	{
		"a stream that holds nothing stays with its receiver", "outbox_stream.go",
		"if r.forget(r.closing) {\n\t\t\tfetched.Release()", "if r.forget(r.closing) {",
		rootProbe("TestOutboxRelay_StreamsThatHoldNothingEndAtBothEnds"),
	},
	{
		"a delivery leaves a use of its address", "outbox_stream.go",
		"\tdefer r.manager.release(used)\n", "",
		rootProbe("TestOutboxRelay_StreamsThatHoldNothingEndAtBothEnds"),
	},
	{
		"an outbox is known by another identity after an upgrade", "outbox_relay.go",
		"\tmac.Write(publisher[:])\n", "\t_ = publisher\n",
		rootProbe("TestOutboxRelay_IdentityIsThatOfEarlierVersions"),
	},
	{
		"the stream of a topic that is gone never ends", "outbox_refused.go",
		"case <-time.After(retryPause):\n\t\tr.forget(r.ctx)", "case <-time.After(retryPause):",
		rootProbe("TestRefuseAll_WaitsForMore"),
	},
	{
		"an outbox that cannot be read is asked without a pause", "outbox_refused.go",
		"\t\t\tr.pause(err, retryPause)\n", "",
		rootProbe("TestRefuseAll_WaitsForMore"),
	},
	{
		"a closed publisher's streams of slots lose their addresses", "manager_left.go",
		"for _, f := range s.slotFlowsLocked() {", "for _, f := range []*routedStream(nil) {",
		rootProbe("TestLeftBehind_KeepsItsAddressesInUse"),
	},
	{
		"what a closed publisher left has no address to move to", "manager_left.go",
		"\t\tl.addresses = append(l.addresses, t.addr)\n", "",
		rootProbe("TestLeftBehind_KeepsItsAddressesInUse"),
	},
	{
		"a wait with a grace stays with its context", "manager_close.go",
		"func() { stop(); cancel() }", "func() { _ = stop; cancel() }",
		rootProbe("TestContext_NothingWaitsForItsEnd"),
	},
	{
		"a context that its delivery outran stays with the subscription", "context.go",
		"\t\tstd.cancel()\n\t}\n\treturn c.std", "\t}\n\treturn c.std",
		rootProbe("TestMessageContext_LeavesNothingAtItsSubscription"),
	},
	{
		"metadata is in the order of a map", "marshaler.go",
		"\tslices.SortFunc(dst, func(a, b entry) int { return strings.Compare(a.key, b.key) })\n", "\t_, _ = slices.Sort[[]string], strings.Compare\n",
		rootProbe("TestEnvelope_EqualMessagesHaveEqualBytes"),
	},
}
