// Package session is the acked protocol as state machines: no I/O, no clock, no goroutine and no lock. Its callers,
// internal/acked/sender and internal/acked/receiver, have these, and guard each machine with a lock of their own.
//
// # State machines
//
// A Client is the sending side of one destination. Its phase is that of the current connection (disconnected, greeting,
// established, draining), and it has an Outbound for each stream, that is for each topic, and for each fetched stream.
//
// An Outbound is the sending side of one stream. Its state is that on the current connection (unopened, opening, open,
// or broken for good). It outlives connections with its retransmit buffer, which holds every message that is not
// settled. A fetched stream has none: a store, the outbox, keeps its messages, and they are fetched after every Opened.
//
// An Inbound is the receiving side of one stream. It outlives connections too: it remembers what was received and
// settled, and so drops what is sent again.
//
// A message is settled when it was handled, or rejected and the rejection confirmed. Sequences are per stream and begin
// at 1; the set of settled ones is a Watermark at both ends. Credit is per stream and connection, as totals since
// Opened.
//
// # The journey of a message
//
// Batch.Append encodes it with its tag and length, and nothing encodes it again. Client.Enqueue copies it to the
// stream's retransmit buffer, if the window has room, or adopts its memory, if it is large. schedule puts the stream
// into the send queue, or sends Open for it first. Client.Output takes streams in turn, and makes a Segment of as much
// of one chunk as the credit covers (Outbound.segment), or asks for credit (requestCredit). The caller has the Segment
// framed by Encoder.AppendPublish or AppendAround and writes it. On the other side Encoder.Verify takes the checksum
// off, Decode parses the PublishFrame, and Inbound.Accept checks credit and sequence and returns the messages that are
// new.
//
// # The journey of an ack
//
// Inbound.Settle, or Accept for what was received, notes what the sender does not know, and Inbound.Ack collects it
// with granted credit into an AckFrame. Client.Receive decodes it (acked) and Outbound.acked applies it: settle frees
// chunks of the retransmit buffer, finishReached finishes the waiters of Publish calls, signalRoom wakes those that
// wait for the window. Freed memory is reused at the next Output, when no Segment has a view of it. A rejection travels
// in the same way from Inbound.Reject to Client.Refused, and its confirmation back to Inbound.RejectSeen.
//
// # After a reconnect
//
// Open says from where on messages are not settled (Base), and Inbound.Attach answers with Opened: the lowest sequence
// not received, and what is settled above Base. Outbound.opened settles that and resumes at the first message that is
// missing.
//
// # Files
//
//	batch.go         messages that are encoded and not enqueued yet
//	client.go        Client: streams, connect and disconnect
//	output.go        Client.Output: what to send, cut into segments; opening streams, asking for credit
//	receive.go       Client.Receive: what each frame does, to the Client and to its stream
//	refusal.go       messages and streams that the peer refuses
//	tick.go          what is due after a time: deadlines, idle streams, pings
//	move.go          streams that move to another Client; tenure.go: what can come twice; peer.go: whether the receiver answers
//	outbound.go      Outbound: what is known of one stream
//	waiter.go        the callers that wait until messages have arrived
//	retransmit.go    its retransmit buffer, and Client.Enqueue, which fills it; chunk.go: a part of that
//	deferredfree.go  its freed memory, until nothing is written from it
//	fetched.go       streams whose messages a store keeps
//	turn.go          callers that wait for room; explain.go: what a caller waits for
//	inbound.go       Inbound
//	watermark.go     sets of sequences
//	credit.go        what a sender may send
//	frame.go         limits, headers and tags; encode.go, decode.go: frames to bytes and back
//	errors.go        refusals and their sentinels
package session
