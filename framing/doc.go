// Package framing turns a byte stream into frames and back.
//
// A frame is a header that holds the length of the payload, then the payload. Which header that is, a [Codec] decides:
// [Fixed], [Varint] or [BuffStreams]. [Reader] and [Writer] do the streaming for all of them. The package knows nothing
// of sockets, messages or protocols.
//
// # What a peer can and cannot do
//
// A header is checked in full (limit, sign, canonical form) before anything is sliced or allocated, and lengths are
// compared as unsigned 64-bit numbers, so no header can overflow an int. The memory of a [Reader] follows the bytes
// that arrived, never the length that was declared.
//
// # Ends of a stream
//
// A stream can end in three ways, and a caller can tell them apart: io.EOF between frames, [ErrTruncatedHeader] and
// [ErrTruncatedBody].
package framing
