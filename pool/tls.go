package pool

import (
	"crypto/tls"
	"fmt"
	"net"
)

// minTLS is the least version of TLS. A configuration that allows less, as the zero value of its MinVersion does, is raised
// to it: its owner may share it with servers that have older clients, and no peer of ours can be one. A MaxVersion below it
// contradicts, and is an error.
const minTLS = tls.VersionTLS13

// checkTLS refuses what raiseTLS cannot raise.
func checkTLS(field string, cfg *tls.Config) error {
	if cfg != nil && cfg.MaxVersion != 0 && cfg.MaxVersion < minTLS {
		return configError(field, "MaxVersion %s is below TLS 1.3, the least that is spoken; leave it 0", tls.VersionName(cfg.MaxVersion))
	}
	return nil
}

// raiseTLS returns a copy that speaks TLS 1.3 or later.
func raiseTLS(cfg *tls.Config) *tls.Config {
	cfg = cfg.Clone()
	cfg.MinVersion = max(cfg.MinVersion, minTLS)
	return cfg
}

// serverTLS is raiseTLS for a listener; configurations that GetConfigForClient returns are raised as well. Sessions are not
// resumed: connections live long, and each must show a certificate that holds now.
func serverTLS(cfg *tls.Config) *tls.Config {
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
		if err := checkTLS("GetConfigForClient", chosen); err != nil {
			return nil, err
		}
		chosen = raiseTLS(chosen)
		chosen.SessionTicketsDisabled = true
		return chosen, nil
	}
	return cfg
}

// clientTLS is raiseTLS for a dial to address, whose host the peer's certificate must name. cfg may be nil.
func clientTLS(cfg *tls.Config, address string) (*tls.Config, error) {
	if cfg == nil {
		cfg = &tls.Config{MinVersion: minTLS}
	}
	cfg = raiseTLS(cfg)
	if cfg.ServerName != "" {
		return cfg, nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil && !cfg.InsecureSkipVerify {
		return nil, fmt.Errorf("pool: no host in %s for the peer's certificate to name: set ServerName: %w", quoteAddress(address), err)
	}
	cfg.ServerName = host
	return cfg, nil
}

// ClientTLS is the TLS configuration with which this Manager dials t, or nil if t has no TLS.
func (m *Manager) ClientTLS(t Target) (*tls.Config, error) {
	if !t.TLS {
		return nil, nil
	}
	return clientTLS(m.cfg.Acked.ClientTLS, t.Address)
}

// verifies tells whether cfg checks who the peer is.
func verifies(cfg *tls.Config) bool {
	return cfg == nil || !cfg.InsecureSkipVerify || cfg.VerifyConnection != nil || cfg.VerifyPeerCertificate != nil
}
