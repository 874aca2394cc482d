package driver

import (
	"crypto/tls"
	"crypto/x509"
	"os"
)

// TLSParameters are those that ClientTLS reads.
func TLSParameters() []Parameter {
	return []Parameter{
		{"tls_ca", "file of the certificates by which the server is verified; default the system's"},
		{"tls_cert", "file of the client's certificate"},
		{"tls_key", "file of its key"},
	}
}

// ClientTLS reads tls_ca, tls_cert and tls_key. It returns nil where none is given.
func (p *Params) ClientTLS() (*tls.Config, error) {
	ca, cert, key := p.String("tls_ca", ""), p.String("tls_cert", ""), p.String("tls_key", "")
	if ca == "" && cert == "" && key == "" {
		return nil, p.Err()
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			p.Fail("tls_ca", err.Error())
			return nil, p.Err()
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			p.Fail("tls_ca", "the file has no certificate")
		}
	}
	if cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			p.Fail("tls_cert", err.Error())
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, p.Err()
}
