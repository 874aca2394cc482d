package mutants

func senderProbe(run string) probe   { return probe{"internal/acked/sender", "^" + run + "$", ""} }
func receiverProbe(run string) probe { return probe{"internal/acked/receiver", "^" + run + "$", ""} }

// ackedMutants are mistakes in the two halves of the acked protocol, and in what they stand on.
var ackedMutants = []mutant{
	// The sender's connection.
	{
		"the token is sent before TLS", "internal/acked/sender/dial.go",
		"if err != nil || s.cfg.TLS == nil {", "if true {",
		senderProbe("TestSender_WritesNothingBeforeTLS"),
	},
	{
		"the backoff goes on growing after a welcome", "internal/acked/sender/conn.go",
		"\t\t\twelcomed()\n", "",
		senderProbe("TestSender_ResetsTheBackoffAfterAWelcome"),
	},
	{
		"the backoff is reset by each connection", "internal/acked/sender/conn.go",
		"\ts.flusher.Kick()\n\n\terr = s.read(", "\ts.flusher.Kick()\n\twelcomed()\n\n\terr = s.read(",
		senderProbe("TestSender_ResetsTheBackoffAfterAWelcome"),
	},
	{
		"the sender goes on behind half a frame", "internal/acked/sender/conn.go",
		"\t\t_ = conn.Close()\n\t\treturn\n\t}\n\ts.mu.Lock()\n\tif s.conn == conn {", "\t\treturn\n\t}\n\ts.mu.Lock()\n\tif s.conn == conn {",
		senderProbe("TestSender_AHalfWrittenFrameEndsTheConnection"),
	},
	{
		"what came before a reset is not read", "internal/acked/sender/conn.go",
		"if !errors.Is(err, syscall.ECONNRESET) &&", "if err != syscall.ENOSYS || !errors.Is(err, syscall.ECONNRESET) &&",
		senderProbe("TestSender_ReadsWhatCameBeforeAReset"),
	},
	{
		"a caller that tries again piles up copies", "internal/acked/sender/publish.go",
		"if s.refusal != nil && s.client.Pending() > 0 {", "if s.refusal != nil && s.client.Pending() < 0 {",
		senderProbe("TestSender_ADefiniteRefusalEndsWaitsUntilAWelcome"),
	},
	{
		"a refusal outlives the welcome", "internal/acked/sender/conn.go",
		"s.unreachable, s.refusal = nil, nil", "s.unreachable = nil",
		senderProbe("TestSender_ADefiniteRefusalEndsWaitsUntilAWelcome"),
	},

	// Who is let in, and how many.
	{
		"a connection that ended still counts for its host", "internal/acked/receiver/admit.go",
		"if r.counts.perHost[c.host]--; r.counts.perHost", "if r.counts.perHost",
		receiverProbe("TestReceiver_RefusesOneConnectionTooMany"),
	},
	{
		"every connection over the limits gets an answer", "internal/acked/receiver/admit.go",
		"if r.counts.refused >= maxRefused {", "if r.counts.refused > 9*maxRefused {",
		receiverProbe("TestReceiver_ClosesAFloodOfConnections"),
	},
	{
		"a hook that panics lets in", "internal/hook/hook.go",
		"err = &PanicError{name, p}", "_ = p",
		receiverProbe("TestGuard_RefusesIfAHookFails"),
	},
	{
		"answers that are not read pile up", "internal/acked/receiver/control.go",
		"if waiting <= maxPendingControl {", "if waiting <= 2*maxPendingControl {",
		receiverProbe("TestConn_BoundsAnswersThatAreNotRead"),
	},
	{
		"the user's own dial may connect anywhere", "internal/netio/allow.go",
		"if err := d.Allows(remote.Network(), remote.String()); err != nil {", "if err := d.Allows(network, address); err != nil {",
		probe{"internal/netio", "^TestDialAllow_GuardsACustomDial$", ""},
	},

	// How a connection ends.
	{
		"the listener goes on behind half a frame", "internal/acked/receiver/write.go",
		"_ = c.nc.Close() // a frame may be half written", "// a frame may be half written",
		receiverProbe("TestConn_AHalfWrittenFrameEndsTheConnection"),
	},
	{
		"the peer has no time to read why", "internal/acked/receiver/write.go",
		"c.flusher.Close()\n\tc.linger()", "c.flusher.Close()",
		receiverProbe("TestConn_LingersSoThatThePeerCanReadWhy"),
	},
	{
		"any Pong answers the goaway", "internal/acked/receiver/control.go",
		"if c.goawaySent && id == goawayPing {", "if c.goawaySent {",
		receiverProbe("TestReceiver_HasOnlyCopiesUntilTheGoawayIsAnswered"),
	},
	{
		"a Pong from before the goaway answers it", "internal/acked/receiver/control.go",
		"if c.goawaySent && id == goawayPing {", "if id == goawayPing {",
		receiverProbe("TestReceiver_HasOnlyCopiesUntilTheGoawayIsAnswered"),
	},
	{
		"the answer to a goaway is not noticed", "internal/acked/receiver/control.go",
		"c.goawayAnswered = true", "c.goawayAnswered = false",
		receiverProbe("TestReceiver_HasOnlyCopiesUntilTheGoawayIsAnswered"),
	},
	{
		"a silent peer is never ended", "internal/acked/receiver/conn.go",
		"if c.receiver.cfg.TLS != nil || c.idle ||", "if c.receiver.cfg.TLS != nil ||",
		receiverProbe("TestConn_EndsASilentPeer"),
	},

	// Streams.
	{
		"a connection that lost its stream can still publish", "internal/acked/receiver/stream.go",
		"if s.conn != c {\n\t\treturn 0, flow.Amount{}, false, &session", "if s.conn == nil {\n\t\treturn flow.Amount{}, false, &session",
		receiverProbe("TestStream_TakesNothingOfAConnectionThatLostIt"),
	},
	{
		"streams with unsettled messages are forgotten", "internal/acked/receiver/held.go",
		"s.opens == 0 && (s.ended != nil || s.heldLocked() == 0)", "s.opens == 0",
		receiverProbe("TestReceiver_EvictsUnconfirmedRejections"),
	},
	{
		"a stream that is being opened is forgotten", "internal/acked/receiver/registry.go",
		"r.addLocked(p, key, s)\n\ts.beginOpen()\n", "r.addLocked(p, key, s)\n",
		receiverProbe("TestReceiver_EvictsNoStreamThatIsBeingOpened"),
	},
	{
		"the credit of a detached stream is lost", "internal/acked/receiver/credit.go",
		"\ts.topic.Window().Release(a)\n\tif claim != nil {", "\tif claim != nil {",
		simulation,
	},
	{
		"a Want that a grant has crossed is answered", "internal/acked/receiver/credit.go",
		"if !ok { // a grant has crossed", "if !ok && seen > 1<<62 { // a grant has crossed",
		receiverProbe("TestStream_IgnoresAWantThatAGrantHasCrossed"),
	},
	{
		"a grant for an older claim counts", "internal/acked/receiver/credit.go",
		"if s.claim != claim {", "if s.claim == nil && s.conn == nil {",
		receiverProbe("TestStream_ReturnsAGrantForAnOlderClaim"),
	},
	{
		"the store is written again after a failed write", "internal/acked/receiver/dedupe.go",
		"failed == nil {\n\t\tb.err = c.write(b)", "true {\n\t\tb.err = c.write(b)",
		receiverProbe("TestCommitter_WritesNothingAfterAFailedWrite"),
	},

	// The flusher.
	{
		"a kick during a flush is lost", "internal/flush/flusher.go",
		"if f.state.CompareAndSwap(flushing, kicked) {", "if true {",
		probe{"internal/flush", "^TestFlusher_", ""},
	},
	{
		"Close does not wait for the flush that runs", "internal/flush/flusher.go",
		"f.closeIfIdle()\n\t<-f.done", "f.closeIfIdle()",
		probe{"internal/flush", "^TestFlusher_", ""},
	},
}
