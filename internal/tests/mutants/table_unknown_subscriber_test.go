package mutants

// unknownSubscriberMutants are mistakes in the receiving half and in the ends of things that an adversary could put in unnoticed.
var unknownSubscriberMutants = []mutant{
	{
		"two calls close one listener", "manager_close.go",
		"\tdelete(m.listeners, t)\n\tc = ", "\tc = ",
		rootProbe("TestCloseListener_OneCallHasTheListener"),
	},
	{
		"a failure to listen forgets the listener that came after", "manager.go",
		"if m.listeners[t] == o {", "if o != nil {",
		rootProbe("TestManager_FailureToListenForgetsNoOther"),
	},
}
