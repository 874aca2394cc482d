package netio

import (
	"net"
	"strconv"
	"strings"
)

// Provider is the value of the log field of that name.
const Provider = "buffstreams"

// maxLoggedAddress bounds what a log line or error repeats of an address.
const maxLoggedAddress = 128

// Quote makes an address, which a peer or a message may have chosen, safe for a log line or an error: quoted and
// truncated.
func Quote(address string) string {
	if len(address) > maxLoggedAddress {
		address = address[:maxLoggedAddress] + "…"
	}
	return strconv.Quote(address)
}

// PeerText is the address of a peer as logs show it. The peer has chosen that of its Unix socket. It is empty if addr
// is nil.
func PeerText(addr net.Addr) string {
	if addr == nil {
		return ""
	}
	return Printable(addr.String())
}

// maxLoggedText bounds what a log line repeats of a text that a peer may have chosen.
const maxLoggedText = 300

// printableError is an error whose text is safe for a log line.
type printableError struct{ error }

func (e printableError) Error() string { return Printable(e.error.Error()) }

func (e printableError) Unwrap() error { return e.error }

// Sanitize returns err with a text that is Printable. It returns nil if err is nil.
func Sanitize(err error) error {
	if err == nil {
		return nil
	}
	return printableError{err}
}

// Printable makes text that a peer may have chosen safe for a log line or an error: truncated, on one line, without
// control characters.
func Printable(text string) string {
	if len(text) > maxLoggedText {
		text = strings.ToValidUTF8(text[:maxLoggedText], "") + "…"
	}
	if strings.IndexFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) < 0 {
		return text
	}
	quoted := strconv.Quote(text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
