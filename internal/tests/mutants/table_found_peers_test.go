package mutants

// foundPeerMutants are mistakes in the two halves of the acked protocol and in what they stand on, of which a tool has
// found that no test saw them.
var foundPeerMutants = []mutant{
	{
		"names of topics that ended pile up", "internal/acked/receiver/tombstones.go",
		"\tt.purge(now, limit)\n", "",
		receiverProbe("TestTombstones_KeepTheYoungestUpToTheLimit"),
	},
	{
		"a stream that is opened anew keeps its old handle", "internal/acked/receiver/control.go",
		"if s.attachedTo(c) {", "if false {",
		receiverProbe("TestConn_AStreamThatIsOpenedAnewHasOneHandle"),
	},
	{
		"rejections that are not confirmed pile up", "internal/acked/receiver/stream.go",
		"s.conn.closeNow() // rej", "// rej",
		receiverProbe("TestStream_CutsOffAPeerThatConfirmsNoRejection"),
	},
	{
		"a frame that cannot be encoded is left out", "internal/acked/receiver/write.go",
		"\t\t_ = c.nc.Close()\n\t\treturn\n\t}\n\tc.pend", "\t\treturn\n\t}\n\tc.pend",
		receiverProbe("TestConn_EndsWithAFrameThatCannotBeEncoded"),
	},
	{
		"a topic that has just ended is given out", "internal/acked/receiver/receiver.go",
		"t != nil && t.Ended()", "t != nil && false",
		receiverProbe("TestReceiver_ATopicThatHasJustEndedIsNotGivenOut"),
	},
	{
		"what no write takes any more waits for good", "internal/acked/receiver/dedupe.go",
		"\t\tclose(c.next.done)\n", "",
		receiverProbe("TestCommitter_CloseReleasesWhatIsWrittenNoMore"),
	},
	{
		"what no write takes any more counts as saved", "internal/acked/receiver/dedupe.go",
		"c.next.err = c.failed", "c.next.err = nil",
		receiverProbe("TestCommitter_CloseReleasesWhatIsWrittenNoMore"),
	},
	{
		"a line does not say how often a connection ended", "internal/acked/receiver/log.go",
		"if count > 1 {", "if false {",
		receiverProbe("TestLog_CountsWhatAHostRepeats"),
	},
	{
		"the bytes of duplicates count as received", "internal/acked/receiver/watch.go",
		"f.Messages[:duplicates]", "f.Messages[:0]",
		receiverProbe("TestWatch_CountsWhatIsNewAndWhatCameBefore"),
	},
	{
		"a refusal is told of as the end of the network", "internal/acked/receiver/watch.go",
		"if c.refusal != nil {", "if false {",
		receiverProbe("TestWatch_TellsOfEachConnection"),
	},
	{
		"hosts that connected once are kept for good", "internal/acked/receiver/admit.go",
		"\t\tdelete(r.counts.perHost, c.host)\n", "",
		receiverProbe("TestReceiver_IsEmptyAfterEachWayToEnd"),
	},
	{
		"a stream that has left still waits in line", "internal/acked/receiver/credit.go",
		"\t\ts.topic.Window().Cancel(claim)\n", "",
		receiverProbe("TestStream_LeavesTheLineWithItsConnection"),
	},
	{
		"a stream that was taken back takes a grant", "internal/acked/receiver/revoke.go",
		"\ts.claim = nil\n", "",
		receiverProbe("TestStream_TakesNoGrantWhenItWasTakenBack"),
	},
	{
		"a buffer that was given out stays in the list", "internal/buffers/buffers.go",
		"\tat.buffers = at.buffers[:n-1]\n", "",
		probe{"internal/buffers", "^TestGet_GivesOutEachBufferOnce$", ""},
	},
	{
		"a goroutine that serves counts as idle", "internal/flush/workers.go",
		"\t\tcase f = <-w.jobs:\n\t\t\tw.idle.Add(-1)\n", "\t\tcase f = <-w.jobs:\n",
		probe{"internal/flush", "^TestWorkers_OneThatIsIdleServesAgain$", ""},
	},
	{
		"a Write sends with the deadline of the write before", "pool/send_loop.go",
		"_ = conn.conn.SetWriteDeadline(time.Now().Add(w.cfg.WriteTimeout)) // a", "_ = time.Now() // a",
		probe{"pool", "^TestWriter_WriteThatSendsHasADeadlineOfItsOwn$", ""},
	},
	{
		"a BackOff that has stopped makes a tight loop", "pool/reconnect.go",
		"\t\tdelay = w.cfg.Retry.MaxInterval\n", "",
		probe{"pool", "^TestWriter_AStoppedBackOffIsNoTightLoop$", ""},
	},
	{
		"a write under TLS that times out does not go on", "pool/reconnect.go",
		"conn = netio.Patient(", "_ = netio.Patient(",
		probe{"pool", "^TestWriter_WritesGoOnUnderTLS$", ""},
	},
	{
		"a Flush that was given up is kept", "pool/flush.go",
		"\t\t\tw.removeFlush(wait)\n", "",
		probe{"pool", "^TestWriter_AFlushThatIsGivenUpIsForgotten$", ""},
	},
	{
		"the end of a connection that is read no more is not told", "pool/send_loop.go",
		"\t\tw.tellLost(conn, net.ErrClosed)\n", "\t\t_ = net.ErrClosed\n",
		probe{"pool", "^TestHooks_TellOfAConnectionThatIsReadNoMore$", ""},
	},
	{
		"a plain listener keeps hosts that connected once", "pool/listener.go",
		"\t\tdelete(l.perHost, in.host)\n", "",
		probe{"pool", "^TestListener_CountsNothingWhenConnectionsAreGone$", ""},
	},
	{
		"a plain listener complains of a socket that is closed", "pool/listener_close.go",
		"err = nil // it", "// it",
		probe{"pool", "^TestListener_CloseOfASocketThatIsClosed$", ""},
	},
	{
		"a message that was refused was the last and the revoke is not answered", "internal/acked/receiver/stream.go",
		"\tunheard = s.keepUnheardLocked(seq, r)\n\ts.answerLastLocked()\n", "\tunheard = s.keepUnheardLocked(seq, r)\n",
		receiverProbe("TestStream_AnswersARevokeWhenTheLastMessageEnds"),
	},
	{
		"the connection that had a voided stream goes on", "internal/acked/receiver/revoke.go",
		"\t\told.closeNow()\n", "",
		receiverProbe("TestStream_AHigherTenureClosesTheConnectionThatHadIt"),
	},
	{
		"a publisher belongs to the stranger who came first", "internal/acked/receiver/registry.go",
		"\t\tp.secret = stored.Secret\n", "",
		receiverProbe("TestReceiver_TheStoreKnowsWhomAPublisherBelongsTo"),
	},
	{
		"messages over the limit keep their room", "internal/acked/receiver/stream.go",
		"\tdropped.Bytes += tooLarge.Bytes\n", "",
		receiverProbe("TestStream_MessagesOverTheLimitTakeNoRoom"),
	},
	{
		"acks follow a failure", "internal/acked/receiver/write.go",
		"\tc.failureSent = true\n", "",
		receiverProbe("TestConn_NothingFollowsAFailure"),
	},
	{
		"a closed receiver writes to its store", "internal/acked/receiver/receiver.go",
		"\t\tr.committer.close()\n", "",
		receiverProbe("TestReceiver_CloseEndsItsCommitter"),
	},
	{
		"an ended stream's publisher is not forgotten", "internal/acked/receiver/control.go",
		"\t\tc.receiver.forgetPublisher(s)\n", "",
		receiverProbe("TestStream_AcksGoBeforeItsEnd"),
	},
	{
		"events are told again and again", "internal/acked/sender/watch.go",
		"\ts.events = nil\n", "",
		senderProbe("TestSender_TellsEachEventOnce"),
	},
	{
		"a message that came back is lacking as well", "internal/acked/sender/publish.go",
		"\t\t\tw.Lacking = nil\n", "",
		senderProbe("TestPublication_WhatCameBackIsNotLacking"),
	},
	{
		"a silent connection goes on", "internal/acked/sender/sender.go",
		"_ = conn.Close() // serve returns", "// serve returns",
		senderProbe("TestSender_EndsAConnectionThatIsSilent"),
	},
	{
		"an address that greets counts as one that failed", "internal/acked/sender/conn.go",
		"\ts.failing = false\n", "",
		senderProbe("TestSender_StateFollowsTheConnection"),
	},
	{
		"each welcome is logged as the end of an outage", "internal/acked/sender/log.go",
		"\tl.down = false\n", "",
		senderProbe("TestSender_LogsAConnectionThatFlapsOnceAMinute"),
	},
}
