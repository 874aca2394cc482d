package netio

import (
	"crypto/tls"
	"fmt"
	"net"
)

// MinTLS is the least version of TLS. ServerTLS and ClientTLS raise a configuration that allows less, as the zero value
// of MinVersion does: its owner may share it with servers that have older clients, and no peer of this protocol is one.
// A MaxVersion below it is a contradiction, and an error.
const MinTLS = tls.VersionTLS13

// CheckTLS returns an error if cfg cannot be raised to MinTLS. A nil cfg is valid.
func CheckTLS(cfg *tls.Config) error {
	if cfg != nil && cfg.MaxVersion != 0 && cfg.MaxVersion < MinTLS {
		return fmt.Errorf("MaxVersion %s is below TLS 1.3, the least that is spoken; leave it 0", tls.VersionName(cfg.MaxVersion))
	}
	return nil
}

// raiseTLS returns a copy of cfg that speaks TLS 1.3 or later.
func raiseTLS(cfg *tls.Config) *tls.Config {
	cfg = cfg.Clone()
	cfg.MinVersion = max(cfg.MinVersion, MinTLS)
	return cfg
}

// ServerTLS returns a copy of cfg for a listener that speaks TLS 1.3 or later; configurations that GetConfigForClient
// returns are raised as well. Sessions are not resumed: connections live long, and each must show a certificate that is
// valid now.
func ServerTLS(cfg *tls.Config) *tls.Config {
	cfg = raiseTLS(cfg)
	cfg.SessionTicketsDisabled = true
	choose := cfg.GetConfigForClient
	if choose == nil {
		return cfg
	}
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		chosen, err := choose(hello)
		if err != nil || chosen == nil {
			return nil, err
		}
		if err := CheckTLS(chosen); err != nil {
			return nil, fmt.Errorf("GetConfigForClient: %w", err)
		}
		chosen = raiseTLS(chosen)
		chosen.SessionTicketsDisabled = true
		return chosen, nil
	}
	return cfg
}

// ClientTLS returns a copy of cfg for a dial to address that speaks TLS 1.3 or later; the peer's certificate must name
// the host of address, unless cfg has a ServerName. cfg may be nil.
func ClientTLS(cfg *tls.Config, address string) (*tls.Config, error) {
	if cfg == nil {
		cfg = &tls.Config{MinVersion: MinTLS}
	}
	cfg = raiseTLS(cfg)
	if cfg.ServerName != "" {
		return cfg, nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil && !cfg.InsecureSkipVerify {
		return nil, fmt.Errorf("buffstreams: no host in %s for the peer's certificate to name: set ServerName: %w", Quote(address), err)
	}
	cfg.ServerName = host
	return cfg, nil
}

// Verifies tells whether cfg verifies the identity of the peer. cfg may be nil.
func Verifies(cfg *tls.Config) bool {
	return cfg == nil || !cfg.InsecureSkipVerify || cfg.VerifyConnection != nil || cfg.VerifyPeerCertificate != nil
}
