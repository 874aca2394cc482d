package mutants

func outboxProbe(run string) probe { return probe{"storage/outbox", "^" + run + "$", ""} }

// unknownStorageMutants are mistakes in storage/ that no test noticed until it was asked about each.
var unknownStorageMutants = []mutant{
	// Relocation.
	{
		"copies that a crash left are dropped, but not from the disk", "storage/outbox/index.go",
		"changed = append(changed, f)", "_ = f",
		outboxProbe("TestRelocation_CopiesOfACrashDoNotComeBack"),
	},
	{
		"a relocation stops until the next append", "storage/outbox/reclaim.go",
		"o.poke() // there may be more to copy", "",
		outboxProbe("TestRelocation_GoesOnByItself"),
	},
	{
		"damage that is met when a summary is removed ends the process", "storage/outbox/meta.go",
		"func (m metaStore) remove(key string) (err error) {\n\tdefer recoverDamage(&err)\n",
		"func (m metaStore) remove(key string) (err error) {\n",
		outboxProbe("TestMetaStore_ReturnsPanicsAsErrors"),
	},

	// Bounds.
	{
		"an append that is larger than a group waits for good", "storage/outbox/append.go",
		"max(groupLimit, size+entryHeader)", "groupLimit",
		outboxProbe("TestAppend_TakesAllUpToTheLimits"),
	},
	{
		"a group has no bound", "storage/outbox/append.go",
		"max(groupLimit, size+entryHeader)", "groupLimit+size",
		outboxProbe("TestAppend_BoundsAGroup"),
	},
	{
		"a destination does not get the last byte of its quota", "storage/outbox/append.go",
		"if pending+wanted > o.cfg.QuotaBytes {", "if pending+wanted >= o.cfg.QuotaBytes {",
		outboxProbe("TestQuota_IsExact"),
	},

	// What shares a group, a call or a destination.
	{
		"a stream is forgotten with what is being appended", "storage/outbox/settle.go",
		"if s.settled.through+1 != s.next {", "if s.settled.through+1 != s.durable {",
		outboxProbe("TestForget_WhileAnAppendIsUnderWay"),
	},
	{
		"messages run into the record behind them", "storage/outbox/append.go",
		" || g.sections[n-1].end != len(g.entry)", "",
		outboxProbe("TestForget_BetweenAppendsOfOneStream"),
	},
	{
		"only the last range of a Settle frees segments", "storage/outbox/settle.go",
		"emptied = s.deduct(r) || emptied", "emptied = s.deduct(r)",
		outboxProbe("TestSettle_FreesSegmentsWhateverComesWithThem"),
	},
	{
		"the second of two Renounce calls hangs", "storage/outbox/lineage.go",
		"if o.renunciation == nil {\n\t\tfresh", "if true {\n\t\tfresh",
		outboxProbe("TestRenounce_CallsShareAnIdentity"),
	},
	{
		"a destination without streams is kept", "storage/outbox/index.go",
		"\td.streams++\n", "",
		outboxProbe("TestStreams_BelongToTheirDestination"),
	},

	// What is told.
	{
		"damage is said to go on in the next segment", "storage/outbox/read.go",
		"damage.Through = min(p.last, b.end-1)", "damage.Through = b.end - 1",
		outboxProbe("TestDamage_AtTheEndOfASegment"),
	},
	{
		"a hook is not told that an append has failed", "storage/outbox/append.go",
		"Took: since(began), Err: err,", "Took: since(began),",
		outboxProbe("TestHooks_AreToldOfAppendsAndWrites"),
	},
}
