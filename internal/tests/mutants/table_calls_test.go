package mutants

// callMutants are mistakes about how long calls take, and what comes of them.
var callMutants = []mutant{
	{
		"a second Publisher.Close returns at once", "publisher.go",
		"\t\t<-p.done\n\t\treturn p.closeErr", "\t\treturn nil",
		probe{"internal/tests", "^TestPublisher_CloseSideBySide$", ""},
	},
	{
		"a second Manager.Close returns at once", "manager_close.go",
		"\t\t<-m.done\n\t\treturn m.closeErr", "\t\treturn nil",
		probe{"internal/tests", "^TestManager_CloseSideBySide$", ""},
	},
	{
		"a second call returns before the first has ended", "pool/ending.go",
		"\t<-e.done // does not change any more\n", "",
		probe{"pool", "CloseSideBySide$", ""},
	},
	{
		"a plain Publish waits for room for ever", "publisher_plain.go",
		"\tif _, err = m.WriteContext(ctx, key, data); err != nil {", "\tif _, err = m.Write(key, data); ctx == nil || err != nil {",
		probe{"internal/tests", "^TestPlainPublisher_EndsInItsTime$", ""},
	},
	{
		"a plain writer closes in a time of its own", "publisher_plain.go",
		"CloseTimeout: plainCloseGrace,", "CloseTimeout: p.publisher.cfg.CloseTimeout,",
		probe{"internal/tests", "^TestManager_CloseOfPlainWritersEndsInItsTime$", ""},
	},
	{
		"each call dials a plain peer", "publisher_plain.go",
		"\tif d == nil {\n\t\td = &dialing", "\tif true {\n\t\td = &dialing",
		probe{"internal/tests", "^TestPlainPublisher_SharesOneDial$", ""},
	},
	{
		"a message without room is queued after its time", "pool/writer.go",
		"\t\tif ctx.Err() != nil {\n\t\t\tw.room.Signal() // this Write may have been the one that was woken\n\t\t\treturn nil, context.Cause(ctx)", "\t\tif ctx.Err() != nil {\n\t\t\tbreak",
		probe{"pool", "^TestWriter_WriteContextEndsTheWaitForRoomAlone$", ""},
	},
	{
		"an address that is gone is dialed for ever", "internal/acked/sender/conn.go",
		"if !s.closed && s.neededLocked() {", "if !s.closed {",
		probe{"internal/tests", "^TestManager_AddressesThatAreGoneLeaveNoGoroutine$", ""},
	},
	{
		"an address that is away keeps a goroutine", "internal/acked/sender/conn.go",
		"\ts.pauseFor(delay)\n", "\tselect {\n\tcase <-time.After(delay):\n\t\ts.resume()\n\tcase <-s.ctx.Done():\n\t}\n",
		probe{"internal/tests", "^TestManager_AddressesThatAreAwayWaitWithoutAGoroutine$", ""},
	},
}
