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
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// plugin is the form of every line: monitoring systems parse it.
var plugin = regexp.MustCompile(`^BUFFSTREAMS [A-Z]+ (OK|WARNING|CRITICAL|UNKNOWN) - [^|\n]+( \| ('[^']+'=-?[0-9.]+s?;[0-9.]+;[0-9.]+;0 ?)+)?\n$`)

// A machine that is busy is within these limits, and not within the usual ones.
const slow, slower = "--warning=30s", "--critical=40s"

// requireCheck runs a check.
func requireCheck(t *testing.T, state int, parts []string, args ...string) {
	t.Helper()
	stdout, stderr, code := runCommand(t, "", append([]string{"check"}, args...)...)
	require.Equal(t, state, code, stdout+stderr)
	require.Empty(t, stderr)
	require.Regexp(t, plugin, stdout)
	require.Contains(t, stdout, " "+[]string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}[state]+" - ")
	for _, part := range parts {
		require.Contains(t, stdout, part)
	}
}

func TestCheck_Connect(t *testing.T) {
	t.Parallel()
	_, at := startSub(t, nil, anyPort)
	requireCheck(t, 0, []string{"welcomed with version 1"}, "connect", at, slow, slower)
	requireCheck(t, 1, []string{"welcomed"}, "connect", at, "-w", "1ns", "-c", "0s")
	requireCheck(t, 2, []string{"welcomed"}, "connect", at, "-w", "1ns", "-c", "1ns")
	requireCheck(t, 2, []string{"refused"}, "connect", freeAddress(t))
	requireCheck(t, 3, []string{"bad address"}, "connect", "nowhere")
	requireCheck(t, 3, []string{"nonsense"}, "connect", at, "--nonsense")
	requireCheck(t, 3, nil, "connect")

	_, plain := startSub(t, nil, anyPort, "--wire", "buffstreams")
	requireCheck(t, 0, []string{"connected"}, "connect", plain, "--wire", "buffstreams", slow, slower)
	requireCheck(t, 2, []string{"no greeting"}, "connect", plain, "-t", "1s")
}

// TestCheck_ConnectToWhatIsSilent: a connection alone proves nothing, as the kernel takes it for a process that hangs.
func TestCheck_ConnectToWhatIsSilent(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", anyPort)
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	requireCheck(t, 2, []string{"no greeting"}, "connect", ln.Addr().String(), "-t", "1s")
}

func TestCheck_Publish(t *testing.T) {
	t.Parallel()
	sub, at := startSub(t, nil, anyPort+"/t", "--count", "2", "--json")
	requireCheck(t, 0, []string{"received in"}, "publish", at+"/t", slow, slower)
	requireCheck(t, 0, []string{"handled in"}, "publish", at+"/t", "--confirm", "handled", slow, slower)
	requireCheck(t, 3, []string{"perhaps"}, "publish", at+"/t", "--confirm", "perhaps")
	got, _ := sub.wait()
	require.Equal(t, 2, strings.Count(got, `"buffstreams_check":"1"`))
	requireCheck(t, 2, []string{"not received"}, "publish", at+"/t", "-t", "300ms")
}

// certificate makes a self-signed pair for 127.0.0.1 that ends after left.
func certificate(t *testing.T, dir string, left time.Duration) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-365 * 24 * time.Hour), NotAfter: time.Now().Add(left),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	return cert, key
}

func TestCheck_Certificate(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for left, want := range map[time.Duration]int{90*day + time.Hour: 0, 20*day + time.Hour: 1, 3*day + time.Hour: 2, -time.Hour: 2} {
		cert, key := certificate(t, t.TempDir(), left)
		_, at := startSub(t, nil, "tls://"+anyPort, "--tls-cert", cert, "--tls-key", key)
		at = "tls://" + at
		says := "expires in"
		if left < 0 {
			says = "expired 1h"
		}
		requireCheck(t, want, []string{says, "CN=test"}, "certificate", at, "--tls-ca", cert)
		if want == 0 {
			requireCheck(t, 2, []string{"unknown authority"}, "certificate", at)
			requireCheck(t, 0, []string{"welcomed"}, "connect", at, "--tls-ca", cert, slow, slower)
			requireCheck(t, 2, []string{"unknown authority"}, "connect", at)
		}
	}
	requireCheck(t, 3, []string{"no certificate without TLS"}, "certificate", freeAddress(t))
}
