package mutants

// storageMutants are mistakes in the outbox, in the dedupe store, and in how both open the files of bbolt.
var storageMutants = []mutant{
	// What Append confirms is on the disk, and stays there.
	{
		"skip the outbox's fsync", "storage/outbox/disk.go",
		"if err := f.SyncData(); err != nil {", "if err := error(nil); err != nil {",
		probe{"storage/outbox", "^TestCrashes_AtRandom$", ""},
	},
	{
		"a new segment's name is not synced", "storage/outbox/disk.go",
		"if f.named.Load() {", "if !f.named.Load() {",
		probe{"storage/outbox", "^TestCrashes_AtRandom$", ""},
	},
	{
		"an append is confirmed before its fsync", "storage/outbox/append.go",
		"select {\n\tcase <-g.done:\n\t\tif g.err != nil {", "select {\n\tdefault:\n\t\treturn first, nil\n\tcase <-g.done:\n\t\tif g.err != nil {",
		probe{"storage/outbox", "^TestFsync_AFailureIsFinal$", ""},
	},
	{
		"a failed fsync is tried again", "storage/outbox/commit.go",
		"full, err = o.log.append(entry)\n", "full, err = o.log.append(entry)\nif err != nil {\nfull, err = o.log.append(entry)\n}\n",
		probe{"storage/outbox", "^TestFsync_AFailureIsFinal$", ""},
	},
	{
		"an outbox that failed goes on", "storage/outbox/outbox.go",
		"if o.failure != nil {\n\t\treturn o.failure\n\t}\n\tif o.closed", "if o.closed",
		probe{"storage/outbox", "^TestFsync_AFailureIsFinal$", ""},
	},
	{
		"messages can be read before their fsync", "storage/outbox/append.go",
		"s.next += uint64(len(messages))", "s.next += uint64(len(messages))\ns.durable = s.next",
		probe{"storage/outbox", "^TestRead_ReturnsNothingBeforeItsFsync$", ""},
	},
	{
		"Append whose context ends says that nothing was stored", "storage/outbox/append.go",
		"return first, &store.UnconfirmedError{First: first, Count: len(messages), Err: ctx.Err()}", "return 0, ctx.Err()",
		probe{"storage/outbox", "^TestRead_ReturnsNothingBeforeItsFsync$", ""},
	},
	{
		"the last entry of a killed process stays only shown", "storage/outbox/replay.go",
		"if f.last > saved {", "if false {",
		probe{"storage/outbox", "^TestFaults_AtEveryOperation$", ""},
	},
	{
		"a segment is removed while a message in it is pending", "storage/outbox/reclaim.go",
		"if f.pendingExtents == 0 && f != o.log.tail {", "if f.pendingExtents <= 1 && f != o.log.tail {",
		probe{"storage/outbox", "^TestReclaim_AStuckDestinationHoldsNoSpaceOfOthers$", ""},
	},
	{
		"a segment is removed before what is settled was saved", "storage/outbox/reclaim.go",
		"if err := o.saveStreams(); err != nil {", "if err := error(nil); err != nil {",
		probe{"storage/outbox", "^TestReclaim_SavesWhatIsSettledFirst$", ""},
	},
	{
		"a segment leaves the manifest with the one before", "storage/outbox/log.go",
		"if !removed[s.ID] {", "if !removed[s.ID] && !removed[s.ID-1] {",
		probe{"storage/outbox", "^TestReclaim_AStuckDestinationHoldsNoSpaceOfOthers$", ""},
	},

	// A relocation neither loses messages nor has them twice.
	{
		"a relocation copies only up to the first gap", "storage/outbox/relocate.go",
		"seq = s.settled.next(end)\n", "break\n",
		probe{"storage/outbox", "^TestRelocation_KeepsGapsAndSequences$", ""},
	},
	{
		"a relocation copies what is settled", "storage/outbox/relocate.go",
		"end := s.settled.limit(seq, rec.last()+1)", "end := rec.last() + 1",
		probe{"storage/outbox", "^TestRelocation_KeepsGapsAndSequences$", ""},
	},
	{
		"copies count while their originals do", "storage/outbox/index.go",
		"return unfinished || ix.byID", "_ = unfinished\nreturn ix.byID",
		probe{"storage/outbox", "^TestFaults_AtEveryOperation$", ""},
	},
	{
		"copies are lost when the tail is full", "storage/outbox/relocate.go",
		"created {\n\t\t\to.relocation.copies =", "created && len(o.relocation.copies) == 0 {\n\t\t\to.relocation.copies =",
		probe{"storage/outbox", "^TestReclaim_AStuckDestinationHoldsNoSpaceOfOthers$", ""},
	},
	{
		"a damaged segment is relocated without what cannot be read", "storage/outbox/relocate.go",
		"if !o.copyPending(&step) {", "if !o.copyPending(&step) && n < 0 {",
		probe{"storage/outbox", "^TestRelocation_LeavesADamagedSegment$", ""},
	},

	// No sequence, number or epoch is used twice.
	{
		"an outbox keeps its epoch", "storage/outbox/recover.go",
		"o.identity.epoch++", "",
		probe{"storage/outbox", "^TestOpen_KeepsTheIdentityAndRaisesTheEpoch$", ""},
	},
	{
		"the epoch is used before it is durable", "storage/outbox/recover.go",
		"o.identity.epoch++\n\to.lineage.begin(o.identity.epoch)\n", "o.lineage.begin(o.identity.epoch + 1)\n\tdefer func() { o.identity.epoch++ }()\n",
		probe{"storage/outbox", "^TestOpen_KeepsTheIdentityAndRaisesTheEpoch$", ""},
	},
	{
		"a restart uses the sequences of pending messages again", "storage/outbox/meta.go",
		"s.next = s.durable\n", "s.next = s.settled.through + 1\n",
		probe{"storage/outbox", "^TestRead_ReturnsMessagesInOrder$", ""},
	},
	{
		"a crash uses the last sequences again", "storage/outbox/replay.go",
		"s.next = s.durable\n", "",
		probe{"storage/outbox", "^TestCrashes_AtRandom$", ""},
	},
	{
		"the table of streams has messages that are not durable", "storage/outbox/meta.go",
		"b = binary.AppendUvarint(b, s.durable)", "b = binary.AppendUvarint(b, s.next)",
		probe{"storage/outbox", "^TestIndex_SavesOnlyWhatIsDurable$", ""},
	},
	{
		"the number of a forgotten stream is used again", "storage/outbox/meta.go",
		"ix.nextStream = max(ix.nextStream, next)", "_ = next",
		probe{"storage/outbox", "^TestForget_RemovesAStreamForGood$", ""},
	},
	{
		"Forget is not durable", "storage/outbox/settle.go",
		"g.entry = appendForgetRecord(g.entry, s.id)\n", "g.entry = appendSettledRecord(g.entry, s.id, 0)\n",
		probe{"storage/outbox", "^TestForget_IsDurableWhenItReturns$", ""},
	},
	{
		"Forget returns before it is durable", "storage/outbox/settle.go",
		"case <-g.done:\n\t\treturn g.err", "default:\n\t\treturn g.err",
		probe{"storage/outbox", "^TestForget_IsDurableWhenItReturns$", ""},
	},
	{
		"Forget drops pending messages", "storage/outbox/settle.go",
		"if s.settled.through+1 != s.next {", "if s.settled.through+1 < s.settled.through {",
		probe{"storage/outbox", "^TestForget_RemovesAStreamForGood$", ""},
	},

	// Read skips nothing, and Settle takes nothing that is not its own.
	{
		"Settle with a gap moves First", "storage/outbox/seqset.go",
		"if r.First == s.through+1 {", "if r.First <= s.through+2 {",
		probe{"storage/outbox", "^TestSettle_HidesMessagesAndFreesNoSequence$", ""},
	},
	{
		"Settle takes messages that are not durable", "storage/outbox/settle.go",
		"last := s.durable - 1", "last := s.next - 1",
		probe{"storage/outbox", "^TestRead_ReturnsNothingBeforeItsFsync$", ""},
	},
	{
		"an append does not save what was settled", "storage/outbox/commit.go",
		"if s.unsaved {", "if s.unsaved && !s.defined {",
		probe{"storage/outbox", "^TestSettle_IsSavedWithTheNextAppend$", ""},
	},
	{
		"what was settled is not saved without an append", "storage/outbox/reclaim.go",
		"if save {", "if false && save {",
		probe{"storage/outbox", "^TestSettle_IsSavedWithoutAnAppend$", ""},
	},
	{
		"Close does not save what was settled", "storage/outbox/commit.go",
		"if err == nil && closing {", "if false && closing {",
		probe{"storage/outbox", "^TestSettle_HidesMessagesAndFreesNoSequence$", ""},
	},
	{
		"Read skips messages that are missing", "storage/outbox/read.go",
		"return r.first, nil\n", "b.next = r.first\nif len(b.batch.Messages) == 0 {\nb.batch.First = r.first\n}\n",
		probe{"storage/outbox", "^TestDamage_InASealedSegmentIsReportedByRead$", ""},
	},
	{
		"Read skips what is damaged", "storage/outbox/read.go",
		"if err != nil && len(b.batch.Messages) == 0 {", "if err != nil && len(b.batch.Messages) > 0 {",
		probe{"storage/outbox", "^TestDamage_InASealedSegmentIsReportedByRead$", ""},
	},
	{
		"the cache of a stream has a gap", "storage/outbox/cache.go",
		"c.shrink(0)\n\t\treturn", "return",
		probe{"storage/outbox", "^TestCache_HasNoGapBehindALargeGroup$", ""},
	},

	// A torn tail is no data, and damage is no torn tail.
	{
		"no checksum on an outbox's entries", "storage/outbox/record.go",
		"if crc32.Update(seed, castagnoli, data[8:size]) !=", "if false && crc32.Update(seed, castagnoli, data[8:size]) !=",
		probe{"storage/outbox", "^TestDamage_InTheTailIsReportedByOpen$", ""},
	},
	{
		"damage before intact entries passes for a torn tail", "storage/outbox/tail.go",
		"if found != 0 {", "if false && found != 0 {",
		probe{"storage/outbox", "^TestDamage_InTheTailIsReportedByOpen$", ""},
	},
	{
		"a log that ends too early is opened", "storage/outbox/recover.go",
		"if last < saved {", "if last+1 < last {",
		probe{"storage/outbox", "^TestDamage_LostPartsAreReportedByOpen$", ""},
	},
	{
		"an entry of another outbox is taken for one's own", "storage/outbox/outbox.go",
		"return crc32.Checksum(id[:], castagnoli)", "return crc32.Checksum(id[:0], castagnoli)",
		probe{"storage/outbox", "^TestRecovery_IgnoresForeignEntries$", ""},
	},

	// One caller at a time, and none waits for good.
	{
		"the outbox's lock is not taken", "storage/outbox/lock_unix.go",
		"err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)\n", "",
		probe{"storage/outbox", "^TestLock_KeepsASecondProcessOut$", ""},
	},
	{
		"two publishers deliver an outbox", "storage/outbox/outbox.go",
		"delivery: make(chan struct{}, 1),", "delivery: make(chan struct{}, 2),",
		probe{"storage/outbox", "^TestAcquire_GivesTheDutyToOneAtATime$", ""},
	},
	{
		"the outbox's directory is open to all", "storage/outbox/disk.go",
		"os.Chmod(dir, 0o700)", "os.Chmod(dir, 0o755)",
		probe{"storage/outbox", "^TestOpen_KeepsTheIdentityAndRaisesTheEpoch$", ""},
	},
	{
		"the quota counts all destinations together", "storage/outbox/append.go",
		"pending = d.bytes", "pending = max(d.bytes, o.index.bytes)",
		probe{"storage/outbox", "^TestQuota_CountsEachDestination$", ""},
	},
	{
		"the quota counts each stream by itself", "storage/outbox/append.go",
		"pending = d.bytes", "pending = min(d.bytes, 0)\nif s := o.index.streams[k]; s != nil {\npending = s.bytes\n}",
		probe{"storage/outbox", "^TestQuota_CountsEachDestination$", ""},
	},
	{
		"a failure leaves the calls that wait", "storage/outbox/outbox.go",
		"o.endWaitsLocked()\n\treturn o.failure", "return o.failure",
		probe{"storage/outbox", "^TestFailure_EndsEveryWait$", ""},
	},
	{
		"Ready waits on after a failure", "storage/outbox/wait.go",
		"\t\t\tclose(w.ch)\n\t\t}\n\t\ts.waiters = nil", "\t\t\t_ = w\n\t\t}\n\t\ts.waiters = nil",
		probe{"storage/outbox", "^TestFailure_EndsEveryWait$", ""},
	},
	{
		"NewStreams waits on after a failure", "storage/outbox/wait.go",
		"default:\n\t\tclose(o.newStreams)", "default:",
		probe{"storage/outbox", "^TestFailure_EndsEveryWait$", ""},
	},
	{
		"a failure leaves the appends that wait for the next fsync", "storage/outbox/outbox.go",
		"g.err = o.failure\n\t\tclose(g.done)", "g.err = o.failure",
		probe{"storage/outbox", "^TestFailure_EndsEveryWait$", ""},
	},
	{
		"Readable forgets one of two that wait", "storage/outbox/wait.go",
		"if w.seq < s.durable {\n\t\t\tclose(w.ch)", "if w.seq+1 < s.durable {\n\t\t\tclose(w.ch)",
		probe{"storage/outbox", "^TestReadable_ClosesAtItsSequence$", ""},
	},
	{
		"Drain returns while another stream has messages", "storage/outbox/settle.go",
		"if o.index.bytes == 0 {\n\t\to.notifyDrainedLocked()", "if s.bytes == 0 {\n\t\to.index.bytes = 0\n\t\to.notifyDrainedLocked()",
		probe{"storage/outbox", "^TestDrain_WaitsForTheLastMessage$", ""},
	},
	{
		"an outbox is ready while its disk hangs", "storage/outbox/ready.go",
		"time.Since(since) > slowWrite {", "time.Since(since) < 0 {",
		probe{"storage/outbox", "^TestOutboxReady_DiskThatHangs$", ""},
	},
	{
		"what could never be taken makes a full outbox ready", "storage/outbox/append.go",
		"	if pending+wanted > o.cfg.QuotaBytes {\n", "	if d != nil {\n\t\td.refused = 0\n\t}\n\tif pending+wanted > o.cfg.QuotaBytes {\n",
		probe{"storage/outbox", "^TestOutboxReady_NamesFullDestinations$", ""},
	},
	{
		"a publisher asks only whether its outbox has failed", "stats_ready.go",
		"user.(store.Readier); ok {", "user.(store.Readier); ok && err != nil {",
		probe{"internal/tests", "^TestOutboxReady_OfAPublisherAndItsPage$", ""},
	},

	// The dedupe store.
	{
		"skip the dedupe store's fsync", "storage/internal/boltfile/open.go",
		"options := &bolt.Options{Timeout", "options := &bolt.Options{NoSync: true, Timeout",
		probe{"storage/dedupe", "^TestFaults_AtEveryWrite$", ""},
	},
	{
		"a dedupe record that cannot be read is an unknown stream", "storage/dedupe/dedupe.go",
		"return damaged(\"the record of stream %d to %.100q\", id.Stream, id.Topic)", "return nil",
		probe{"storage/dedupe", "^TestStore_LoadReportsARecordThatRottedSinceOpen$", ""},
	},
	{
		"lost dedupe records are not missed", "storage/dedupe/record.go",
		"if err == nil && got != want {", "if err == nil && got.count > want.count {",
		probe{"storage/dedupe", "^TestStore_OpenReportsARecordThatIsMissing$", ""},
	},
	{
		"a dedupe store writes on after a failed fsync", "storage/dedupe/dedupe.go",
		"return s.fail(err)", "return fmt.Errorf(\"%w: %w\", ErrFailed, err)",
		probe{"storage/dedupe", "^TestFaults_AtEveryWrite$", ""},
	},
	{
		"Save leaves streams out", "storage/dedupe/dedupe.go",
		"t.add(k, v)\n\t\t}\n", "t.add(k, v)\nbreak\n\t\t}\n",
		probe{"storage/dedupe", "^TestStore_KeepsItsState$", ""},
	},
	{
		"Forget keeps the dedupe record", "storage/dedupe/dedupe.go",
		"key(id)\n\t\tt.remove(k, b.Get(k))\n\t\tif err := b.Delete(k); err != nil {\n\t\t\treturn err\n\t\t}\n", "key(id)\n_ = b\n_ = k\n",
		probe{"storage/dedupe", "^TestStore_KeepsItsState$", ""},
	},
	{
		"dedupe records are not told apart by their topic", "storage/dedupe/record.go",
		"return append(k, id.Topic...)", "return k",
		probe{"storage/dedupe", "^TestStore_KeepsItsState$", ""},
	},
	{
		"a dedupe record of another stream passes", "storage/dedupe/record.go",
		"crc32.Update(crc32.Checksum(k, castagnoli), castagnoli, v)", "crc32.Update(crc32.Checksum(k[:0], castagnoli), castagnoli, v)",
		probe{"storage/dedupe", "^TestRecord_ReportsTruncation$", ""},
	},

	// The files of bbolt.
	{
		"two processes open a file of bbolt that does not exist", "storage/internal/boltfile/open.go",
		"if err := os.Link(f.Name(), path); err != nil", "if err := os.ErrInvalid; err != nil",
		probe{"storage/internal/boltfile", "^TestOpen_OneProcessAtATime$", ""},
	},
	{
		"a commit that is only shown is built upon", "storage/internal/boltfile/open.go",
		"if _, err := f.WriteAt(page, m.offset); err != nil {", "if err != nil {",
		probe{"storage/internal/boltfile", "^TestOpen_MakesACommitDurableThatIsOnlyShown$", ""},
	},
	{
		"a page that is both free and in use is let through", "storage/internal/boltfile/verify.go",
		"if id >= t.m.pages || t.used[id] {", "if id >= t.m.pages {",
		probe{"storage/internal/boltfile", "^TestVerify_RefusesAPageThatIsFreeAndInUse$", ""},
	},
	{
		"a file of bbolt is not named durably", "storage/internal/boltfile/open.go",
		"return o.syncDir(dir)", "return nil",
		probe{"storage/internal/boltfile", "^TestOpen_SyncsNames$", ""},
	},
}
