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
}
