package testkit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// SelfSignedTLS makes a certificate for 127.0.0.1 and Home, and the configurations of a server and a client that use
// it.
func SelfSignedTLS(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	return selfSigned(t, loopback())
}

// SelfSignedTLSFor is SelfSignedTLS with a certificate for names alone.
func SelfSignedTLSFor(t testing.TB, names ...string) (server, client *tls.Config) {
	t.Helper()
	return selfSigned(t, nil, names...)
}

func selfSigned(t testing.TB, ips []net.IP, names ...string) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: ips, DNSNames: names,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	server = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return server, &tls.Config{RootCAs: roots}
}

// loopback is what certificates are for.
func loopback() []net.IP { return []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(Home())} }

// Authority is a certificate authority that signs certificates for 127.0.0.1 and Home.
type Authority struct {
	t    testing.TB
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64
}

// NewAuthority makes an authority with a key of its own.
func NewAuthority(t testing.TB) *Authority {
	a := &Authority{t: t, last: time.Now().UnixNano()}
	a.key = a.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.last), Subject: pkix.Name{CommonName: "Authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	require.NoError(t, err)
	a.Cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	return a
}

func (a *Authority) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	return key
}

// PEM is the certificate of the authority.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Cert.Raw})
}

// Issue returns a new certificate with its key, both as PEM.
func (a *Authority) Issue(name string) (certificate, key []byte) {
	a.last++
	own := a.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.last), Subject: pkix.Name{CommonName: name}, IPAddresses: loopback(),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, &own.PublicKey, a.key)
	require.NoError(a.t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(own)
	require.NoError(a.t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

// Certificate returns a new certificate.
func (a *Authority) Certificate(name string) tls.Certificate {
	certificate, err := tls.X509KeyPair(a.Issue(name))
	require.NoError(a.t, err)
	return certificate
}

// Roots returns a pool with the authority in it.
func (a *Authority) Roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(a.Cert)
	return roots
}

// TLSFiles are the PEM files of one side, in a directory of their own.
type TLSFiles struct {
	Certificate, Key, CA string // paths

	t   testing.TB
	age time.Duration
}

// NewTLSFiles writes a certificate that a issued, its key, and the certificate of the authority that peers have.
func NewTLSFiles(t testing.TB, a, peers *Authority, name string) *TLSFiles {
	dir := t.TempDir()
	f := &TLSFiles{
		t:           t,
		Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem"),
	}
	f.Renew(a, name)
	f.Write(f.CA, peers.PEM())
	return f
}

// Renew replaces certificate and key.
func (f *TLSFiles) Renew(a *Authority, name string) {
	certificate, key := a.Issue(name)
	f.Write(f.Certificate, certificate)
	f.Write(f.Key, key)
}

// Write replaces a file, and sets its modification time to one that no earlier Write has used.
func (f *TLSFiles) Write(name string, data []byte) {
	require.NoError(f.t, os.WriteFile(name, data, 0o600))
	f.age += time.Second
	at := time.Now().Add(f.age - time.Hour)
	require.NoError(f.t, os.Chtimes(name, at, at))
}
