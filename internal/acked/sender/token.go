package sender

import (
	"context"
	"errors"
	"fmt"

	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// ErrInsecureToken is what every *InsecureTokenError matches.
var ErrInsecureToken = errors.New("buffstreams: refusing to send a token in plaintext")

// InsecureTokenError refuses to send AckedConfig.Token in plaintext.
type InsecureTokenError struct {
	Address string // that was dialed
}

func (e *InsecureTokenError) Error() string {
	return fmt.Sprintf("%v: %s has no TLS; dial tls://, or set AckedConfig.Insecure to send it nevertheless",
		ErrInsecureToken, netio.Quote(e.Address))
}

// Unwrap makes errors.Is(err, ErrInsecureToken) true.
func (e *InsecureTokenError) Unwrap() error { return ErrInsecureToken }

// maxToken bounds a token, in bytes: a listener reads 4 KiB from a peer that it has not authenticated.
const maxToken = 3 << 10

// token calls Token, and refuses a result that must not be sent. Bytes on a Unix socket do not leave the machine. Those
// to a loopback address do not either, but any local user can have bound that address first.
func (c *Config) token(ctx context.Context) ([]byte, error) {
	if c.Token == nil {
		return nil, nil
	}
	token, err := hook.CallWithin(ctx, "AckedConfig.Token", func() (string, error) { return c.Token(ctx) }, nil)
	switch {
	case err != nil:
		return nil, fmt.Errorf("buffstreams: AckedConfig.Token: %w", err)
	case token == "":
		return nil, nil
	case len(token) > maxToken:
		return nil, fmt.Errorf("buffstreams: AckedConfig.Token returned %d bytes, more than the %d that a listener takes",
			len(token), maxToken)
	case c.TLS == nil && c.Target.Network != "unix" && !c.Insecure:
		return nil, &InsecureTokenError{Address: c.Target.Address}
	}
	return []byte(token), nil
}
