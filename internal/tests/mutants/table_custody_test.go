package mutants

// custodyMutants are mistakes about who answers for a message when something closes.
var custodyMutants = []mutant{
	{
		"a listener that closes has nothing more handled", "manager_close.go",
		"\tpoll(ctx, func() bool { return l.OnlyCopies() == 0 })\n", "",
		probe{"internal/tests", "^TestManager_CloseLetsSubscriptionsHandle$", ""},
	},
	{
		"what nobody handled is dropped", "manager_close.go",
		"left.add(topic, \"\", messages...)", "_, _ = topic, messages",
		probe{"internal/tests", "^TestManager_CloseSaysWhatItsSubscribersLeft$", ""},
	},
	{
		"senders to the Manager's own listeners do not end first", "manager_close.go",
		"\tcloseSenders(ctx, own, &left)\n", "",
		probe{"internal/tests", "^TestPubSub_CloseHandlesWhatWasPublished$", ""},
	},
	{
		"a second Subscriber.Close says nil", "subscriber.go",
		"\t\t<-s.done\n\t\treturn s.closeErr", "\t\treturn nil",
		probe{"internal/tests", "^TestSubscriber_CloseSaysWhatAStuckHandlerKept$", ""},
	},
	{
		"a stuck handler has a Close's time-out twice", "subscriber.go",
		"\t\t\tsub.cancelBase()\n", "\t\t\t_ = sub\n",
		probe{"internal/tests", "^TestSubscriber_CloseSaysWhatAStuckHandlerKept$", ""},
	},
	{
		"a Close does not wait to hear who keeps what", "manager_close.go",
		"\tl.AwaitAnswers(ctx)\n", "",
		probe{"internal/tests", "^TestSubscriber_CloseIsNilWhilePublishersLive$", ""},
	},
	{
		"what a Sender's receiver holds counts as left", "internal/acked/sender/sender.go",
		"\t*left = s.client.Leftovers()\n", "\ts.client.Disconnect()\n\t*left = s.client.Leftovers()\n",
		probe{"internal/tests", "^TestSubscription_ToATopicThatEndsMeanwhile$", ""},
	},
	{
		"what is refused when its publisher has left is only logged", "internal/acked/sender/conn.go",
		"\t\ts.cfg.Refused(r)\n", "",
		probe{"internal/tests", "^TestManager_HearsOfWhatIsRefusedWhenItsPublisherHasLeft$", ""},
	},
}
