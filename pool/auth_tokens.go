package pool

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
)

// Why the hooks below refuse. The peer is not told.
var (
	errNoToken       = errors.New("pool: no token was sent")
	errUnknownToken  = errors.New("pool: unknown token")
	errNoCertificate = errors.New("pool: no verified client certificate: set ClientCAs and ClientAuth in ServerTLS")
	errNoName        = errors.New("pool: the client certificate has no common name")
)

// Tokens returns an Authenticate hook for a fixed set of tokens, each with the principal that it stands for. It keeps only
// their hashes, and compares in a time that tells nothing of them. An empty token never matches.
func Tokens(principals map[string]string) func(context.Context, Peer) (string, error) {
	type entry struct {
		hash      [sha256.Size]byte
		principal string
	}
	entries := make([]entry, 0, len(principals))
	for token, principal := range principals {
		if token != "" {
			entries = append(entries, entry{sha256.Sum256([]byte(token)), principal})
		}
	}
	return func(_ context.Context, p Peer) (string, error) {
		if p.Token == "" {
			return "", errNoToken
		}
		hash, found := sha256.Sum256([]byte(p.Token)), -1
		for i := range entries { // all of them, whichever matches
			found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(hash[:], entries[i].hash[:]), i, found)
		}
		if found < 0 {
			return "", errUnknownToken
		}
		return entries[found].principal, nil
	}
}

// CertificateName is an Authenticate hook: the principal is the common name of the peer's verified certificate.
func CertificateName(_ context.Context, p Peer) (string, error) {
	certificate := p.Certificate()
	if certificate == nil {
		return "", errNoCertificate
	}
	if certificate.Subject.CommonName == "" {
		return "", errNoName
	}
	return certificate.Subject.CommonName, nil
}

// maxToken is what a token may take of the 4 KiB that a listener reads from a peer it does not know.
const maxToken = 3 << 10

// StaticToken returns an AckedConfig.Token that gives the same token to the given targets, and none to others; with no
// targets it gives it to all.
func StaticToken(token string, targets ...Target) func(context.Context, Target) (string, error) {
	return func(_ context.Context, t Target) (string, error) {
		for _, allowed := range targets {
			if allowed == t {
				return token, nil
			}
		}
		if len(targets) == 0 {
			return token, nil
		}
		return "", nil
	}
}

// ErrInsecureToken is what every *InsecureTokenError matches.
var ErrInsecureToken = errors.New("pool: refusing to send a token in plaintext")

// InsecureTokenError refuses to send AckedConfig.Token where others could read it.
type InsecureTokenError struct {
	Address string
}

func (e *InsecureTokenError) Error() string {
	return fmt.Sprintf("%v: %s has no TLS; dial tls://, or set AckedConfig.Insecure to send it nevertheless", ErrInsecureToken, quoteAddress(e.Address))
}

// Unwrap makes errors.Is(err, ErrInsecureToken) true.
func (e *InsecureTokenError) Unwrap() error { return ErrInsecureToken }

// token asks for the token to send to the link's target. Bytes on a Unix socket do not leave the machine; those to a
// loopback address do not either, but any local user can have bound that first.
func (c *linkConfig) token(ctx context.Context) ([]byte, error) {
	if c.Token == nil {
		return nil, nil
	}
	var token string
	err := call(func() (err error) { token, err = c.Token(ctx, c.target); return err })
	switch {
	case err != nil:
		return nil, fmt.Errorf("pool: AckedConfig.Token: %w", err)
	case token == "":
		return nil, nil
	case len(token) > maxToken:
		return nil, fmt.Errorf("pool: AckedConfig.Token returned %d bytes, more than the %d that a listener takes", len(token), maxToken)
	case c.tls == nil && c.target.Network != "unix" && !c.Insecure:
		return nil, &InsecureTokenError{Address: c.target.Address}
	}
	return []byte(token), nil
}
