package buffstreams

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// TLSFiles makes TLS configurations of PEM files. When the files change, the next handshake uses what is in them then:
// a certificate is replaced without a restart. Files that cannot be used, such as a certificate whose key is still to
// come, change nothing: the last good ones stay, and OnError is told.
type TLSFiles struct {
	// Certificate and Key are this side's. A client without them shows no certificate.
	Certificate, Key string
	// CA has the certificates by which the other side is verified. A server with a CA demands a client certificate
	// (mTLS), one without asks for none; a client without one uses the system's. A server reads it again when it
	// changes, a client only once.
	CA string
	// OnError is told why changed files are not used. It may be nil. It is called during handshakes, concurrently.
	OnError func(error)
}

// Server returns a configuration for AckedConfig.ServerTLS or pool.ListenerConfig.TLSConfig.
func (f TLSFiles) Server() (*tls.Config, error) {
	if f.Certificate == "" || f.Key == "" {
		return nil, configError("TLSFiles.Certificate", "a server needs Certificate and Key")
	}
	files, err := f.open()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: netio.MinTLS,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return files.current().server(), nil
		},
		// GetConfigForClient answers always; this is for code that looks whether there is a certificate.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return files.current().own, nil },
	}, nil
}

// Client returns a configuration for AckedConfig.ClientTLS or pool.WriterConfig.TLSConfig.
func (f TLSFiles) Client() (*tls.Config, error) {
	if (f.Certificate == "") != (f.Key == "") {
		return nil, configError("TLSFiles.Key", "Certificate and Key need each other")
	}
	files, err := f.open()
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{MinVersion: netio.MinTLS, RootCAs: files.current().ca}
	if f.Certificate != "" {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return files.current().own, nil }
	}
	return cfg, nil
}

// tlsFiles is what the files held when they were last good.
type tlsFiles struct {
	TLSFiles

	mu     sync.Mutex
	seen   [3]stamp
	loaded tlsMaterial
}

// stamp is by what a changed file is known.
type stamp struct {
	size int64
	time time.Time
}

type tlsMaterial struct {
	own *tls.Certificate
	ca  *x509.CertPool
}

func (m tlsMaterial) server() *tls.Config {
	cfg := &tls.Config{MinVersion: netio.MinTLS, Certificates: []tls.Certificate{*m.own}}
	if m.ca != nil {
		cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, m.ca
	}
	return cfg
}

func (f TLSFiles) open() (*tlsFiles, error) {
	files := &tlsFiles{TLSFiles: f}
	files.seen = files.stamps()
	var err error
	files.loaded, err = f.load()
	return files, err
}

// current returns what is to be used now.
func (f *tlsFiles) current() tlsMaterial {
	f.mu.Lock()
	stamps := f.stamps()
	if stamps == f.seen {
		defer f.mu.Unlock()
		return f.loaded
	}
	f.seen = stamps
	fresh, err := f.load()
	if err == nil {
		f.loaded = fresh
	}
	loaded := f.loaded
	f.mu.Unlock()
	if err != nil && f.OnError != nil {
		_ = hook.Call("TLSFiles.OnError", func() error { f.OnError(err); return nil }) // it has no logger
	}
	return loaded
}

func (f TLSFiles) stamps() (all [3]stamp) {
	for i, name := range [...]string{f.Certificate, f.Key, f.CA} {
		if info, err := os.Stat(name); err == nil {
			all[i] = stamp{info.Size(), info.ModTime()}
		}
	}
	return all
}

func (f TLSFiles) load() (m tlsMaterial, err error) {
	if f.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
		if err != nil {
			return m, fmt.Errorf("buffstreams: TLSFiles: %w", err)
		}
		m.own = &pair
	}
	if f.CA == "" {
		return m, nil
	}
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return m, fmt.Errorf("buffstreams: TLSFiles: %w", err)
	}
	m.ca = x509.NewCertPool()
	if !m.ca.AppendCertsFromPEM(pem) {
		return m, errors.New("buffstreams: TLSFiles: no certificate in the CA file")
	}
	return m, nil
}
