package session

// Refused is a message that the receiver settled without handling it.
type Refused struct {
	Topic    string
	Sequence uint64
	Message  []byte // as it was encoded; the receiver of this value owns it
	Err      *PeerError
}
