package mutants

func outboxProbe(run string) probe { return probe{"storage/outbox", "^" + run + "$", ""} }

// unknownStorageMutants are mistakes in storage/ that no test noticed until it was asked about each.
var unknownStorageMutants = []mutant{
	// Relocation.
	{
		"copies that a crash left are dropped but not from the disk", "storage/outbox/index.go",
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
	{
		"a place that could not be saved counts as saved", "storage/outbox/places.go",
		"saving.err = o.fail(err)", "_ = o.fail(err)",
		outboxProbe("TestSetPlace_EndsWithItsWrite"),
	},
	{
		"the oldest message is one of the first destination", "storage/outbox/stats.go",
		"a.IsZero() || !b.IsZero() && b.Before(a)", "a.IsZero()",
		outboxProbe("TestStats_SumUp"),
	},

	// What Open, Close and readers find.
	{
		"a reader searches the segment for each message", "storage/outbox/read.go",
		"p.entry = s.hint.entry", "_ = s.hint.entry",
		outboxProbe("TestRead_GoesOnWhereItStopped"),
	},
	{
		"Open goes on with what it could read of an entry", "storage/outbox/tail.go",
		"+4*entries+engineFrame))\n\tif err != nil {", "+4*entries+engineFrame))\n\tif false {",
		outboxProbe("TestOpen_ReportsEveryFailedRead"),
	},
	{
		"the identity of a later version is a new outbox's", "storage/outbox/recover.go",
		"decodeIdentity(b); !ok {", "decodeIdentity(b); !ok && false {",
		outboxProbe("TestOpen_RefusesStateThatItDoesNotKnow"),
	},
	{
		"a Move of several batches settles what it has not copied", "storage/outbox/move.go",
		"o.Settle(from, next-1)", "o.Settle(from, next)",
		outboxProbe("TestMove_InSeveralBatches"),
	},
	{
		"a key of the next page is accepted in the page before", "storage/internal/boltfile/verify.go",
		"bytes.Compare(key, high) >= 0", "bytes.Compare(key, high) > 0",
		probe{"storage/internal/boltfile", "^TestVerify_RefusesEachPartOutOfPlace$", ""},
	},
}
