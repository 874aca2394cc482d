// Package access has what a command shows to its peers, and what it demands of them: certificates and a token.
package access

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// Access says how connections are secured. The zero value is plaintext without a token, at loopback addresses only.
type Access struct {
	// CA, Certificate and Key are PEM files, as in buffstreams.TLSFiles.
	CA, Certificate, Key string
	// TokenFile has the token in its first line, and is read again for every connection. Token is used without a
	// TokenFile; there is no flag for it, as other users of the machine can read command lines.
	TokenFile, Token string
	// Insecure permits plaintext at addresses that other machines can reach, and a token to be sent over it.
	Insecure bool
}

// maxToken is the longest token that the library sends, in bytes.
const maxToken = 3 << 10

// token returns the present token; empty if there is none.
func (a Access) token() (string, error) {
	if a.TokenFile == "" {
		return a.Token, nil
	}
	text, err := os.ReadFile(a.TokenFile)
	if err != nil {
		return "", fmt.Errorf("cannot read the token: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	line = strings.TrimSpace(line)
	if line == "" || len(line) > maxToken {
		return "", fmt.Errorf("%s: the first line must be a token of 1 to %d bytes", a.TokenFile, maxToken)
	}
	return line, nil
}

// Show returns the token for a peer, or an error where others could read it on its way.
func (a Access) Show(encrypted bool) (string, error) {
	if a.HasToken() && !encrypted && !a.Insecure {
		return "", errors.New("refusing to send the token over plaintext; use a tls:// or https:// address, or --insecure")
	}
	return a.token()
}

// HasToken tells whether there is a token to show or to demand.
func (a Access) HasToken() bool { return a.TokenFile != "" || a.Token != "" }

// Client puts into cfg what is shown to the peers that are dialed.
func (a Access) Client(cfg *buffstreams.AckedConfig) error {
	if err := a.ClientTLSOnly(cfg); err != nil || !a.HasToken() {
		return err
	}
	if _, err := a.token(); err != nil {
		return err
	}
	cfg.Token = func(context.Context, string) (string, error) { return a.token() }
	return nil
}

// ClientTLSOnly is Client without the token, for peers that others name.
func (a Access) ClientTLSOnly(cfg *buffstreams.AckedConfig) (err error) {
	cfg.Insecure = cfg.Insecure || a.Insecure
	if a.CA != "" || a.Certificate != "" || a.Key != "" {
		cfg.ClientTLS, err = buffstreams.TLSFiles{CA: a.CA, Certificate: a.Certificate, Key: a.Key}.Client()
	}
	return a.explain(err)
}

// explain says which flags name files that are no good.
func (a Access) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case (a.Certificate == "") != (a.Key == ""):
		return errors.New("--tls-cert and --tls-key need each other")
	}
	var flags []string
	for _, f := range [][2]string{{"--tls-ca", a.CA}, {"--tls-cert", a.Certificate}, {"--tls-key", a.Key}} {
		if f[1] != "" {
			flags = append(flags, f[0]+" "+f[1])
		}
	}
	return fmt.Errorf("%s: %w", strings.Join(flags, ", "), err)
}

// Server puts into cfg what is shown to and demanded of the peers that connect: with a certificate the listener speaks
// TLS at tls:// addresses, with a CA it demands a certificate, and with a token it lets in those that show the same.
func (a Access) Server(cfg *buffstreams.AckedConfig) error {
	cfg.Insecure = cfg.Insecure || a.Insecure
	if a.Certificate != "" || a.Key != "" {
		var err error
		if cfg.ServerTLS, err = (buffstreams.TLSFiles{CA: a.CA, Certificate: a.Certificate, Key: a.Key}).Server(); err != nil {
			return a.explain(err)
		}
	}
	if !a.HasToken() {
		return nil
	}
	if _, err := a.token(); err != nil {
		return err
	}
	cfg.Authenticate = func(ctx context.Context, p buffstreams.Peer) (string, error) {
		token, err := a.token()
		if err != nil {
			return "", errors.Join(buffstreams.ErrUnavailable, err)
		}
		return buffstreams.Tokens(map[string]string{token: "token"})(ctx, p)
	}
	return nil
}
