package mutants

import "slices"

// mutant is a mistake put into the code on purpose, and the tests that have to notice.
type mutant struct {
	name     string
	file     string // from the root of the repository
	old, new string // old occurs once in file
	probe    probe
}

// probe is what runs: it passes with the code as it is, and fails with the mutant.
type probe struct {
	pkg string // from the root of the repository
	run string // as for -run
	env string // name=value, or empty
}

// simulation finds most in its first seeds; the seeds bound how long it looks.
var simulation = probe{"internal/acked/receiver", "^TestSimulation$", "SEEDS=300"}

// Short texts that say what the line does fit longest: one that fits no more fails TestMutants_Fit.
var mutants = slices.Concat(ackedMutants, storageMutants, callMutants, custodyMutants, wireMutants, userCodeMutants, groupMutants, identityMutants, fairnessMutants, componentMutants, routeMutants, moveMutants, hostMutants, hookMutants, monitorMutants, engineMutants, seamMutants, freshMutants, foundPublisherMutants, foundSubscriberMutants, foundPeerMutants, foundRootMutants, foundStateMutants, unknownRouteMutants, kinMutants, unknownAckedMutants, unknownSubscriberMutants, unknownStorageMutants, unknownSessionMutants, unknownEdgeMutants, []mutant{
	// What the receiver says of a message.
	{
		"ack before the handler", "internal/acked/receiver/stream.go",
		"tooLarge := s.appendLocked(fresh, first, f)\n",
		"tooLarge := s.appendLocked(fresh, first, f)\nif len(fresh) > 0 {\ns.in.Settle(first, first+uint64(len(fresh))-1)\n}\n",
		simulation,
	},
	{
		"a group's ack counts for all", "internal/dispatch/run.go",
		"r.left[i]&^(handled|returned) > 0 {", "r.left[i]&^handled > 99 {",
		probe{"internal/dispatch", "^TestTopic_EveryGroupGetsEveryMessage$", ""},
	},
	{
		"ack what was not received", "internal/session/inbound.go",
		"a.Next, in.ackedNext = in.next, in.next", "a.Next, in.ackedNext = in.next+1, in.next",
		simulation,
	},
	{
		"Publish returns when it was sent", "internal/session/outbound.go",
		"first, _ := o.settled.Hole(o.received)\n\treturn first", "first, _ := o.settled.Hole(o.sent)\n\treturn first",
		simulation,
	},
	{
		"handled means received", "internal/session/waiter.go",
		"if o.settled.Covers(w.First, w.Last) {\n\t\t\to.finish", "if w.Last < o.firstUnreceived() {\n\t\t\to.finish",
		simulation,
	},
	{
		"a rejection is told once", "internal/session/inbound.go",
		"slices.Sorted(maps.Keys(in.rejected)) {", "slices.Sorted(maps.Keys(in.rejected))[:0] {",
		probe{"internal/session", "^TestInbound_RepeatsRejectionsUntilSeen$", ""},
	},

	{
		"acks wait for the next handler", "pump_slow.go",
		"if p.timerOn || len(p.acked) == 0 && p.nothingToDo() {", "if p.timerOn || p.nothingToDo() {",
		probe{"internal/tests", "^TestAck_IsSentThoughTheNextMessageIsStuck$", ""},
	},

	// Memory that is used again.
	{
		"the log's memory is used again while a group needs it", "internal/dispatch/run.go",
		"if r.views.Add(-1) == 0 {", "if r.views.Add(-1) <= int64(r.count()) {",
		probe{"internal/dispatch", "^TestRun_SlowMessageKeepsOnlyItself$", ""},
	},
	{
		"a chunk's memory is used again while it is written", "internal/session/retransmit.go",
		"o.freeLater.buffers = append(o.freeLater.buffers, c.buf)", "buffers.Put(c.buf)",
		probe{"internal/session", "^TestDeferredFree_MemoryThatIsBeingWrittenIsNotReused$", ""},
	},
	{
		"what a connection took of a frame is sent once more", "pool/send_loop.go",
		"sent := w.unsent + w.partial", "sent := w.unsent",
		probe{"pool", "^TestWriter_RestOfAChunkFollows$", ""},
	},
	{
		"the next connection goes on in the middle of a frame", "pool/reconnect.go",
		"w.openedAt, w.partial = time.Now(), 0", "w.openedAt = time.Now()",
		probe{"pool", "^TestWriter_WritesThatSendBeginEachConnectionWithAFrame$", ""},
	},
	{
		"what a Write could not send waits for the next one", "pool/write_owner.go",
		"if w.unsent < len(w.batch) || w.hurriedLocked() {", "if w.hurriedLocked() {",
		probe{"pool", "^TestWriter_RestOfAChunkFollows$", ""},
	},

	// The plain wire.
	{
		"progress does not reset the backoff", "pool/reconnect.go",
		"w.attempts = 0\n\tw.backoff.Reset()", "w.attempts = 0",
		probe{"pool", "^TestRetry_ProgressResetsTheBackOff$", ""},
	},
	{
		"progress does not give the attempts back", "pool/send_loop.go",
		"if whole > 0 {\n\t\tw.restartAttempts()", "if false {\n\t\tw.restartAttempts()",
		probe{"pool", "^TestRetry_ProgressGivesAllAttemptsBack$", ""},
	},
	{
		"a Reopen waits until the pause is over", "pool/reconnect.go",
		"case <-w.wake:\n\t\t\tif w.reopenWaits() {", "case <-w.wake:\n\t\t\tif false {",
		probe{"pool", "^TestRetry_ReopenEndsThePause$", ""},
	},
	{
		"a Reopen is answered twice", "pool/reconnect.go",
		"\tw.reopens = nil\n", "",
		probe{"pool", "^TestWriter_Reopen$", ""},
	},
	{
		"a frame that was interrupted is not sent again", "pool/send_loop.go",
		"w.unsent += whole\n\tw.partial = sent - w.unsent", "w.unsent = sent",
		probe{"pool", "^TestWriter_InterruptedFrameIsSentAgainFromItsStart$", ""},
	},
	{
		"a Flush counts parts of a frame", "pool/send_loop.go",
		"w.countSent(whole)", "w.countSent(whole + w.partial)",
		probe{"pool", "^TestWriter_FlushWaitsForTheLastByte$", ""},
	},
	{
		"WriteTimeout bounds the whole buffer", "pool/send_loop.go",
		"if w.cfg.WriteTimeout > 0 {", "if w.cfg.WriteTimeout > 0 && sent == 0 {",
		probe{"pool", "^TestWriter_SlowPeerIsNoWriteTimeoutWhileThereIsProgress$", ""},
	},
	{
		"failed messages come out of order", "pool/failure.go",
		"w.failures.push(batch, cause)\n\t\tw.failures.push(pending, cause)",
		"w.failures.push(pending, cause)\n\t\tw.failures.push(batch, cause)",
		probe{"pool", "^TestFailure_OnFailureCanWriteToTheSameManager$", ""},
	},
	{
		"failed messages pile up without a bound", "pool/reconnect.go",
		"w.attempts >= limit && w.failures.empty()", "w.attempts >= limit",
		probe{"pool", "^TestFailure_ChannelGetsMessagesInOrder$", ""},
	},
	{
		"a Dial after CloseWriter leaks its connection", "pool/registry.go",
		"return errors.Join(ErrClosed, value.Close())", "return ErrClosed",
		probe{"pool", "^TestManager_DialThatSucceedsAfterCloseWriterIsUndone$", ""},
	},
	{
		"a Writer's own Dial goes past DialAllow", "pool/manager.go",
		"cfg.Dial = m.cfg.DialAllow.guard(cfg.Dial)", "_ = cfg.Dial",
		probe{"pool", "^TestManager_DialAllowBindsEveryDial$", ""},
	},
	{
		"a Writer speaks old TLS", "pool/reconnect.go",
		"secured := tls.Client(conn, config)",
		"config = cfg.TLSConfig.Clone()\n\tconfig.ServerName = \"127.0.0.1\"\n\tsecured := tls.Client(conn, config)",
		probe{"pool", "^TestWriter_LessThanTLS13IsNotSpoken$", ""},
	},
	{
		"a Listener speaks old TLS", "pool/listener.go",
		"secured = netio.ServerTLS(cfg.TLSConfig)", "secured = cfg.TLSConfig",
		probe{"pool", "^TestListener_LessThanTLS13IsNotSpoken$", ""},
	},
	{
		"a Listener does not ask Admit", "pool/inbound.go",
		"return struct{}{}, in.l.cfg.Admit(ctx, in.conn)", "return struct{}{}, nil",
		probe{"pool", "^TestListener_AdmitDecidesBeforeTheFirstMessage$", ""},
	},
	{
		"one connection too many of a host", "pool/listener.go",
		"l.perHost[in.host] >= perHost:", "l.perHost[in.host] > perHost:",
		probe{"pool", "^TestListener_MaxConnections$", ""},
	},
	{
		"a host's connections are counted for good", "pool/listener.go",
		"if l.perHost[in.host]--; l.perHost[in.host] == 0 {", "if l.perHost[in.host] == 0 {",
		probe{"pool", "^TestListener_MaxConnections$", ""},
	},
	{
		"FrameTimeout is one for all frames", "pool/inbound_deadline.go",
		"if in.frameEnd.IsZero() || in.frameStart != in.consumed || moved {", "if in.frameEnd.IsZero() {",
		probe{"pool", "^TestListener_SlowButSteadyPeerIsNotEnded$", ""},
	},
	{
		"a trickle prolongs FrameTimeout", "pool/inbound_deadline.go",
		"if in.frameEnd.IsZero() || in.frameStart != in.consumed || moved {", "if true {",
		probe{"pool", "^TestListener_FrameThatHasBegunMustEndInTime$", ""},
	},
	{
		"Close drops what the kernel holds", "pool/inbound_deadline.go",
		"if in.drainReads > drainReads ||", "if in.drainReads > 0 ||",
		probe{"pool", "^TestListener_CloseHandsOverWhatWasReceivedAndFreesThePort$", ""},
	},
	{
		"messages are handed over after Close", "pool/inbound.go",
		"if in.l.aborted.Load() || (callback", "if (callback",
		probe{"pool", "^TestListener_CloseIsBoundedWhenACallbackHangs$", ""},
	},
	{
		"a connection accepted during Close stays open", "pool/listener.go",
		"case l.closed:\n\t\treturn \"closed\", false\n", "",
		probe{"pool", "^TestListener_ConnectionAcceptedWhileClosingIsRefused$", ""},
	},

	// No message twice, none left out, all in order.
	{
		"forget the dedupe", "internal/session/inbound.go",
		"skip := min(in.next-f.First, count)", "skip := min(0, count)",
		probe{"internal/session", "^TestInbound_DropsDuplicates$", ""},
	},
	{
		"forget the dedupe: a stream that reconnects is new", "internal/session/inbound.go",
		"in.handle, in.ackedNext = handle, in.next\n",
		"in.next, in.settled = max(base, 1), NewWatermark(base)\nin.handle, in.ackedNext = handle, in.next\n",
		simulation,
	},
	{
		"forget the dedupe: what was stored is not read", "internal/acked/receiver/registry.go",
		"session.RestoreInbound(stored.Settled, f.Base)", "session.RestoreInbound(nil, f.Base)",
		simulation,
	},
	{
		"skip the resume", "internal/session/receive.go",
		"o.seekTo(o.received)\n\to.finishReached()", "o.seekTo(max(o.received, o.maxSent))\n\to.finishReached()",
		simulation,
	},
	{
		"a gap is let through", "internal/session/inbound.go",
		"if !f.Gap {", "if f.First > in.next+99999 {",
		probe{"internal/session", "^TestInbound_ClosesWhatTheSenderClosed$", ""},
	},
	{
		"reset a sequence: one stream number for all", "internal/session/client.go",
		"newOutbound(c.cfg.Identity, c.cfg.NextStream(), c.last", "newOutbound(c.cfg.Identity, min(1, c.cfg.NextStream()), c.last",
		simulation,
	},
	{
		"reset a sequence: an outbox begins at 1", "internal/session/fetched.go",
		"max(base, 1)) // fetchWindow", "max(1, 1)) // fetchWindow",
		simulation,
	},
	{
		"ignore keys", "internal/dispatch/key.go",
		"if q.holder != d.pos() {", "if q.holder != d.pos() && q.holder == 1<<62 {",
		probe{"internal/dispatch", "^TestKey_MessagesComeOneAtATimeInOrder$", ""},
	},
	{
		"what is given back goes to the end", "internal/dispatch/key.go",
		"cmp.Compare(a.pos(), b.pos())", "cmp.Compare(b.pos(), a.pos())",
		probe{"internal/dispatch", "^TestTopic_ReturnedMessagesComeAgainInTheirPlace$", ""},
	},

	// What was promised is on the disk.
	{
		"ack without the dedupe store", "internal/acked/receiver/dedupe.go",
		"\treturn s.committer.commit(s)\n}\n\n// persistedLocked", "\t_ = s.committer.commit\n\treturn nil\n}\n\n// persistedLocked",
		simulation,
	},
	{
		"ack before the dedupe store's fsync", "internal/acked/receiver/stream.go",
		"if s.committer != nil && !s.isReleased() && s.persist", "s.settle(r)\nif s.committer != nil && !s.isReleased() && s.persist",
		simulation,
	},

	// Nobody is flooded, and nobody waits for good.
	{
		"the sender ignores credit", "internal/session/output.go",
		"messages, bytes := o.credit.available()\n\tif run", "messages, bytes := o.credit.available()\nmessages, bytes = messages+1, bytes+300\nif run",
		simulation,
	},
	{
		"the receiver ignores credit", "internal/session/inbound.go",
		"if messages, bytes := in.credit.available(); count > messages || uint64(f.Bytes) > bytes {", "if count < 0 {",
		probe{"internal/session", "^TestInbound_RefusesMoreThanItsCredit$", ""},
	},
	{
		"the receiver grants more than it has", "internal/flow/window.go",
		"w.free.Messages -= a.Messages\n", "w.free.Messages -= a.Messages / 2\n",
		probe{"internal/flow", "^TestWindow_TakeGivesUpToWhatIsFree$", ""},
	},
	{
		"a wake-up is lost", "internal/dispatch/group.go",
		"g.removeUnclaimed(d.pos())\n\tg.wake(1)", "g.removeUnclaimed(d.pos())",
		simulation,
	},
	{
		"what nobody took is not given back", "pump_slow.go",
		"p.inStore(func() { p.member.Yield(back...) })", "_ = back",
		probe{"internal/tests", "^TestSubscription_ReadingNothingGivesItsMessageToAnIdleOne$", ""},
	},

	// Strangers and predecessors stay outside.
	{
		"let an old epoch through", "internal/acked/receiver/registry.go",
		"if f.Epoch < p.epoch {", "if f.Epoch+99 < p.epoch {",
		simulation,
	},
	{
		"a predecessor that is connected stays", "internal/acked/receiver/attach.go",
		"if c == nil || s.epoch >= epoch {", "if c == nil || s.epoch+99 >= epoch {",
		probe{"internal/acked/receiver", "^TestReceiver_FencesByWhatTheStoreKnows$", ""},
	},
	{
		"let a stranger through", "internal/acked/receiver/registry.go",
		"return subtle.ConstantTimeCompare(p.secret[:], f.Secret) == 1 &&", "return subtle.ConstantTimeCompare(p.secret[:], f.Secret) != 7 &&",
		simulation,
	},
	{
		"no checksum on frames", "internal/session/decode.go",
		"if crc32.Checksum(payload[:n], castagnoli) !=", "if false && crc32.Checksum(payload[:n], castagnoli) !=",
		probe{"internal/session", "^TestEncoder_VerifyNoticesEveryFlippedBit$", ""},
	},
	{
		"a silent peer is ended at once", "internal/acked/receiver/conn.go",
		"if c.receiver.cfg.TLS != nil || c.idle ||", "if c.receiver.cfg.TLS == nil || c.idle ||",
		probe{"internal/acked/receiver", "^TestConn_IdleKeepsASmallStack$", ""},
	},
	{
		"Close does not wait for Publish", "publisher.go",
		"err := p.awaitCalls(ctx)", "err := error(nil)",
		probe{".", "^TestPublisher_CloseWaitsForRunningPublishCalls$", ""},
	},
	{
		"no handshake deadline", "internal/acked/receiver/handshake.go",
		"if err := c.nc.SetDeadline(deadline); err != nil {", "if err := error(nil); err != nil {",
		probe{"internal/acked/receiver", "^TestConn_EndsASlowPeer$", ""},
	},
	{
		"accept without authentication", "internal/acked/receiver/guard.go",
		"if g.authenticate == nil {", "if true {",
		probe{"internal/tests", "^TestToken_MissingIsRefused$", ""},
	},
})
