package mutants

func sessionProbe(run string) probe { return probe{"internal/session", "^" + run + "$", ""} }

// wireMutants are mistakes in what an end does about a peer's claims and limits.
var wireMutants = []mutant{
	{
		"a claim is compared with what is queued", "internal/session/outbound.go",
		"limit := max(o.base, o.maxSent)", "limit := max(o.base, o.end())",
		sessionProbe("TestClient_ClaimOfWhatWasNeverSentRefusesItsStreamAlone"),
	},
	{
		"what came in this life is taken for sent", "internal/session/outbound.go",
		"limit = max(limit, o.fetched.sentBefore)", "limit = max(limit, o.end())",
		sessionProbe("TestFetched_ClaimOfWhatWasNeverSent"),
	},
	{
		"settled claims are believed", "internal/session/receive.go",
		"f.Next > limit || highest >= limit {", "f.Next > limit {",
		sessionProbe("TestClient_ClaimOfWhatWasNeverSentRefusesItsStreamAlone"),
	},
	{
		"credit for a stream that was refused here is kept", "internal/session/receive.go",
		"c.handles[o.handle] = o // the peer has it open", "// the peer has it open",
		sessionProbe("TestClient_ClaimOfWhatWasNeverSentRefusesItsStreamAlone"),
	},
	{
		"max_message is not obeyed within a chunk", "internal/session/output.go",
		"|| uint64(size) > bytes || c.largest > most {", "|| uint64(size) > bytes {",
		sessionProbe("TestClient_MessagesOverThePeersLimitAreRefusedAlone"),
	},
	{
		"a stored message is passed over before its owner knows", "internal/session/refusal.go",
		"\tif o.fetched == nil {\n\t\t\tc.refuse(o, seq, err)", "\tif true {\n\t\tc.refuse(o, seq, err)",
		sessionProbe("TestFetched_MessageOverThePeersLimitWaitsForItsOwner"),
	},
	{
		"a stored message's rejection is confirmed before its owner knows", "internal/session/receive.go",
		"if o.fetched == nil || !o.fetched.holds(f.Sequence) {", "if true {",
		sessionProbe("TestFetched_RejectionIsConfirmedByTheOwner"),
	},
	{
		"an open that was refused is tried with each message", "internal/session/output.go",
		"if o.unsettled() > 0 && o.openAfter.IsZero() && !o.leaving && !o.revoking {", "if o.unsettled() > 0 && !o.leaving && !o.revoking {",
		sessionProbe("TestClient_OpenRefusedForAWhileIsTriedAgainWithPauses"),
	},
	{
		"the last of two bodies wins", "internal/session/decode.go",
		"m < 0 || n+m != len(payload) {\n\t\treturn nil, violation(\"a frame must", "m < 0 {\n\t\treturn nil, violation(\"a frame must",
		sessionProbe("TestDecode_FrameHasOneBodyAndNothingBesideIt"),
	},
	{
		"an end releases what the receiver lacks", "internal/session/client.go",
		" || c.Undelivered(o) > 0 {", " {",
		sessionProbe("TestClient_ReleasesWhatTheReceiverHas"),
	},
	{
		"a clean end releases nothing", "internal/acked/sender/sender.go",
		"released && s.conn != nil, true", "false, true",
		senderProbe("TestSender_CloseReleasesWhatIsSettled"),
	},
	{
		"what the sender refuses is told with the next frame", "internal/acked/sender/conn.go",
		"\t\t\ts.reporter.Kick()\n", "",
		probe{"internal/tests", "^TestLimit_MessageOverThePeersLimitIsToldAtOnce$", ""},
	},
	{
		"an owner that leaves is not told", "internal/acked/sender/sender.go",
		"\tif f == nil {\n\t\ts.ReportRefused()\n\t}\n", "",
		probe{"internal/tests", "^TestLimit_OwnerThatLeavesIsToldFirst$", ""},
	},
	{
		"a refused Open leaves its publisher", "internal/acked/receiver/registry.go",
		"\t\t\tr.publishers[id] = p // its other streams", "\t\t}\n\t\tif r.publishers[id] = p; false { // its other streams",
		receiverProbe("TestReceiver_WhatComesAndGoesLeavesNothing"),
	},
	{
		"Release leaves the publisher", "internal/acked/receiver/evict.go",
		"\tr.forgetPublisher(s)\n\tif s.committer", "\tif s.committer",
		receiverProbe("TestReceiver_WhatComesAndGoesLeavesNothing"),
	},
	{
		"the outbox lets go before OnFailure", "outbox_refused.go",
		"\tfailures.addStored(failure{", "\tr.settle(store.Range{First: seq, Last: seq})\n\tfailures.addStored(failure{",
		probe{"internal/tests", "^TestOutbox_RejectionIsConfirmedWhenOnFailureHasIt$", ""},
	},
	{
		"a fenced stream is tried again", "outbox_relay.go",
		"case errors.Is(err, ErrFenced):", "case false:",
		probe{"internal/tests", "^TestIdentity_FencedStreamIsGivenUp$", ""},
	},
	{
		"only the next message is held to the peer's limit", "internal/session/retransmit.go",
		"from := max(o.checked, o.sent)\n\tfor i := o.chunkOf(from); i < len(o.chunks); i++ {", "from := max(o.checked, o.sent)\n\tfor i := o.chunkOf(from); i <= o.sentChunk; i++ {",
		sessionProbe("TestClient_MessagesOverThePeersLimitNeedNoCredit"),
	},
	{
		"a stream of an outbox passes over what is too large", "internal/session/refusal.go",
		"len(o.fetched.tooLarge) == 0 || !o.nextIsOversized(c.peerMaxEntry)", "true",
		sessionProbe("TestFetched_MessageOverThePeersLimitWaitsForItsOwner"),
	},
}
