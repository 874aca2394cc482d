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
}
