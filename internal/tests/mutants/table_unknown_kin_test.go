package mutants

// kinMutants are mistakes that users' situations beside the known ones have shown.
var kinMutants = []mutant{
	{
		"a publisher without OnFailure keeps refusals from the Manager", "publisher_ephemeral.go",
		"\treturn p.cfg.OnFailure != nil\n", "\treturn true\n",
		testsProbe("TestManager_HearsOfWhatAnEphemeralPublisherDoesNotAnswerFor"),
	},
	{
		"the Manager does not hear of what nothing answers for", "internal/acked/sender/conn.go",
		"\tif !answered && s.cfg.Refused != nil {\n", "\tif len(owners) == 0 && s.cfg.Refused != nil {\n",
		testsProbe("TestManager_HearsOfWhatAnEphemeralPublisherDoesNotAnswerFor"),
	},
	{
		"a PubSub dials plaintext where it listens with TLS", "pubsub.go",
		"formatAddress(boundAt(target, listener.Addr().String()))", "listener.Addr().String()",
		testsProbe("TestPubSub_OverTLS"),
	},
	{
		"a PubSub dials an IP address that its certificate does not name", "pubsub.go",
		"\tif t.TLS && !isIP(t.Address) {\n", "\tif false {\n",
		testsProbe("TestPubSub_OverTLS"),
	},
	{
		"a listener removes the socket that has replaced its own", "internal/netio/listen.go",
		"err == nil && os.SameFile(now, l.made)", "err == nil && now != nil",
		probe{"internal/netio", "^TestListen_ClosesNoSocketButItsOwn$", ""},
	},
	{
		"a plain Subscriber gets an acked listener", "plain_receiver.go",
		"\tcase !plain:\n", "\tcase !plain && p != nil:\n",
		testsProbe("TestSubscriber_WiresDoNotShareAnAddress"),
	},
	{
		"an acked Subscriber gets a plain listener", "manager.go",
		"err == nil && plain {\n", "err != nil && plain {\n",
		testsProbe("TestSubscriber_WiresDoNotShareAnAddress"),
	},
	{
		"a plain Subscriber gets a listener with another limit", "plain_receiver.go",
		"\tcase p.limit != maxMessageSize:\n", "\tcase p.limit < 0:\n",
		testsProbe("TestSubscriber_WiresDoNotShareAnAddress"),
	},
	{
		"an ephemeral subscription makes a group's topic ephemeral", "internal/dispatch/ephemeral.go",
		"\tif t.ephemeral || len(t.groups) > 0 || t.lasting {\n", "\tif t.ephemeral {\n",
		testsProbe("TestEphemeral_AGroupOutlastsItsMembers"),
	},
	{
		"a group's subscription leaves its topic ephemeral", "subscription.go",
		"!s.cfg.Ephemeral && t.Outlast() || !t.IsEphemeral()", "!t.IsEphemeral()",
		testsProbe("TestEphemeral_AGroupOutlastsItsMembers"),
	},
	{
		"a group that is initialized leaves its topic ephemeral", "subscriber.go",
		"&& (s.cfg.Ephemeral || t.Outlast())", "",
		testsProbe("TestEphemeral_AGroupOutlastsItsMembers"),
	},
	{
		"an OnFailure that ends its goroutine is called no more", "failures.go",
		"\t\tif !empty {\n\t\t\tgo q.run(ended) // as this one\n\t\t\treturn\n\t\t}\n", "\t\t_ = empty\n",
		testsProbe("TestPublisher_ACallbackThatEndsItsGoroutine"),
	},
	{
		"an outbox knows the routes of one publisher only", "outbox_place.go",
		"bad == nil {\n", "bad == nil && p == r.publisher {\n",
		testsProbe("TestOutbox_RouteOfAnotherOfItsPublishers"),
	},
	{
		"a silent plain peer is waited for beside another", "publisher_plain.go",
		"for patience := time.Duration(0); ; patience = freshFor {", "for patience := wholeCall; ; patience = freshFor {",
		testsProbe("TestPlainPublisher_PassesAPeerThatIsSilent"),
	},
	{
		"a plain peer that is silent costs each call as much", "publisher_plain.go",
		"patience = max(0, freshFor-time.Since(d.began))", "patience = freshFor",
		testsProbe("TestPlainPublisher_PassesAPeerThatIsSilent"),
	},
	{
		"plain publishers with two limits share a writer", "plain_uses.go",
		"\tcase u.limit != limit:\n", "\tcase u.limit < 0:\n",
		testsProbe("TestPlainPublisher_LimitsAtOnePeer"),
	},
	{
		"plain writers that nothing uses stay", "plain_uses.go",
		"\tif m.closed || !slices.Contains(m.writers, key) {\n", "\tif m.closed || key != \"\" {\n",
		testsProbe("TestManager_PlainPeersComeAndGo"),
	},
	{
		"a plain writer ends with its first publisher", "plain_uses.go",
		"\tif u.publishers--; u.publishers > 0 {\n", "\tif u.publishers--; u.publishers < 0 {\n",
		testsProbe("TestManager_PlainPeersComeAndGo"),
	},
	{
		"a plain writer is used while it closes", "plain_uses.go",
		"[formatAddress(t)]; closing != nil; closing", "[formatAddress(t)]; closing == nil && limit < 0; closing",
		testsProbe("TestManager_PlainPeersComeAndGo"),
	},
	{
		"a plain writer ends with what it has not written", "plain_uses.go",
		"case errors.Is(err, context.Canceled):\n\t\treturn\n", "case errors.Is(err, context.Canceled):\n",
		rootProbe("TestPlainPublisher_KeepsAnAddressThatHasNotTakenAll"),
	},
	{
		"Flush says nil for what a closed Manager has left", "publisher.go",
		"\tif p.closed.Load() || p.manager.isClosed() {\n\t\treturn p.closedError()\n\t}\n\treturn p.awaitAll(ctx, stream.Flush)", "\treturn p.awaitAll(ctx, stream.Flush)",
		testsProbe("TestPublisher_FlushIsNotNilForWhatItsManagerLeft"),
	},
	{
		"a PubSub has two wires", "pubsub.go",
		"config.Publisher.Wire != config.Subscriber.Wire", "config.Publisher.Wire < config.Subscriber.Wire",
		testsProbe("TestPubSub_HasOneWire"),
	},
	{
		"an address of a plain peer is given up twice", "plain_uses.go",
		"topics > 0 || !there {", "topics > 0 || false && !there {",
		probe{".", "^TestPlainPublisher_GivesUpAnAddressOnce$", ""},
	},
}
