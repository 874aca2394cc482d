package netio

import (
	"crypto/tls"
	"fmt"
	"net"
)

// MinTLS is the least version of TLS. A configuration that allows less, as the zero value of its MinVersion does, is raised
// to it: its owner may share it with servers that have older clients, and no peer of ours can be one. A MaxVersion below it
// contradicts, and is an error.
const MinTLS = tls.VersionTLS13

// checkTLS refuses what raiseTLS cannot raise.
func CheckTLS(cfg *tls.Config) error {
	if cfg != nil && cfg.MaxVersion != 0 && cfg.MaxVersion < MinTLS {
		return fmt.Errorf("MaxVersion %s is below TLS 1.3, the least that is spoken; leave it 0", tls.VersionName(cfg.MaxVersion))
	}
	return nil
}

// raiseTLS returns a copy that speaks TLS 1.3 or later.
func raiseTLS(cfg *tls.Config) *tls.Config {
	cfg = cfg.Clone()
	cfg.MinVersion = max(cfg.MinVersion, MinTLS)
	return cfg
}

// serverTLS is raiseTLS for a listener; configurations that GetConfigForClient returns are raised as well. Sessions are not
// resumed: connections live long, and each must show a certificate that holds now.
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

// clientTLS is raiseTLS for a dial to address, whose host the peer's certificate must name. cfg may be nil.
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

// Verifies tells whether cfg checks who the peer is.
func Verifies(cfg *tls.Config) bool {
	return cfg == nil || !cfg.InsecureSkipVerify || cfg.VerifyConnection != nil || cfg.VerifyPeerCertificate != nil
}
