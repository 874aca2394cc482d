package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// authority issues certificates into files, as a real one would from elsewhere.
type authority struct {
	dir    string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	issued int64
}

func newAuthority(dir string) *authority {
	dir, err := os.MkdirTemp(dir, "authority")
	check(err)
	a := &authority{dir: dir, issued: 1}
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: filepath.Base(dir)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	check(err)
	a.cert, err = x509.ParseCertificate(der)
	check(err)
	a.write("ca.crt", "CERTIFICATE", der)
	return a
}

// issue writes a new certificate of a name, with its key, and returns the files.
func (a *authority) issue(name string) buffstreams.TLSFiles {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	a.issued++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.issued), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	check(err)
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	check(err)
	return buffstreams.TLSFiles{
		Certificate: a.write(name+".crt", "CERTIFICATE", der), Key: a.write(name+".key", "PRIVATE KEY", encoded),
		CA: filepath.Join(a.dir, "ca.crt"),
	}
}

func (a *authority) write(name, kind string, der []byte) (path string) {
	path = filepath.Join(a.dir, name)
	check(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}

// serial is the number of the certificate that a name's file has now.
func (a *authority) serial(name string) string {
	data, err := os.ReadFile(filepath.Join(a.dir, name+".crt"))
	check(err)
	block, _ := pem.Decode(data)
	cert, err := x509.ParseCertificate(block.Bytes)
	check(err)
	return cert.SerialNumber.String()
}
