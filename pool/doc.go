// Package pool sends and receives messages over plain connections: BuffStreams' API and wire format, without acks.
//
// A Writer collects the messages of any number of goroutines and sends them in few system calls; when its connection
// breaks, it opens another. A Listener hands each message that it receives to a callback or a channel. A Manager holds
// Writers and Listeners by address.
//
// A nil error means that a message was queued or sent, not that the peer has it: TCP loses what it had taken when a
// connection breaks. Package buffstreams, on the same sockets, has acks and redelivery.
package pool
