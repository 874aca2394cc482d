package netio

import (
	"net"
	"strconv"
	"strings"
)

// provider is the value of the log field of that name.
const Provider = "buffstreams"

// maxLoggedAddress bounds what a log line or error repeats of an address.
const maxLoggedAddress = 128

// quoteAddress makes text that may come from outside safe for a log line.
func Quote(address string) string {
	if len(address) > maxLoggedAddress {
		address = address[:maxLoggedAddress] + "…"
	}
	return strconv.Quote(address)
}

// peerText is an address as logs show it: the peer chose that of its Unix socket.
func PeerText(addr net.Addr) string {
	if addr == nil {
		return ""
	}
	return Printable(addr.String())
}

// maxLoggedText bounds what a log line repeats of text that may be a peer's.
const maxLoggedText = 300

// printableError is an error whose text may be a peer's, for a log line.
type printableError struct{ error }

func (e printableError) Error() string { return Printable(e.error.Error()) }

func (e printableError) Unwrap() error { return e.error }

func Sanitize(err error) error {
	if err == nil {
		return nil
	}
	return printableError{err}
}

// printable makes text that may be a peer's safe for a log line or an error: cut, on one line, without control characters.
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
