package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/access"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/frames"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
	"github.com/buffstreams/watermill-buffstreams/framing"
)

// ConnectOptions say whom to greet.
type ConnectOptions struct {
	Address string
	// Plain means that the peer speaks the BuffStreams wire, which has no greeting: it is only connected to.
	Plain  bool
	Limits Limits
	Access access.Access
}

const (
	smallestFrame = 65_600 // that a Hello may offer
	largestReply  = 4096   // of what is no Welcome or Failure
)

// Connect connects and greets, as a publisher does. It opens no stream, and so leaves nothing at the peer.
func Connect(ctx context.Context, o ConnectOptions) (Result, error) {
	begin := time.Now()
	conn, err := dial(ctx, o.Address, o.Access, false)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = conn.Close() }()
	what := "connected"
	if !o.Plain {
		if what, err = greet(ctx, conn, o.Access); err != nil {
			return Result{}, fmt.Errorf("%s: %w", o.Address, err)
		}
	}
	took := time.Since(begin)
	return Result{
		State: o.Limits.of(took), Text: fmt.Sprintf("%s: %s in %.1f ms", o.Address, what, took.Seconds()*1000),
		Perf: []Value{o.Limits.value("time", took)},
	}, nil
}

// dial connects, with TLS for a tls:// address. With lax the certificate is not verified: the caller does that.
func dial(ctx context.Context, topic string, a access.Access, lax bool) (net.Conn, error) {
	address, err := pipe.ParseTopic(topic)
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, address.Target.Network, address.Target.Address)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // an interrupt ends what waits; on a closed one it does nothing
	if !address.Target.TLS {
		return conn, nil
	}
	cfg, err := tlsConfig(address.Target.Address, a)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	cfg.InsecureSkipVerify = lax // the caller verifies
	secured := tls.Client(conn, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("TLS with %s: %w", address.Target.Address, err), conn.Close())
	}
	return secured, nil
}

func tlsConfig(hostPort string, a access.Access) (*tls.Config, error) {
	var acked buffstreams.AckedConfig
	if err := a.ClientTLSOnly(&acked); err != nil {
		return nil, err
	}
	cfg := &tls.Config{}
	if acked.ClientTLS != nil {
		cfg = acked.ClientTLS.Clone()
	}
	host, _, err := net.SplitHostPort(hostPort)
	cfg.ServerName, cfg.MinVersion = host, tls.VersionTLS13
	return cfg, err
}

func greet(ctx context.Context, conn net.Conn, a access.Access) (string, error) {
	_, encrypted := conn.(*tls.Conn)
	token, err := a.Show(encrypted || conn.RemoteAddr().Network() == "unix")
	if err != nil {
		return "", err
	}
	hello := frames.Hello{Token: token, Agent: "buffstreams check", MaxFrame: smallestFrame}
	if err := hello.Write(conn, !encrypted); err != nil {
		return "", err
	}
	f, err := frames.Read(conn, largestReply)
	if err != nil {
		if length := (*framing.LengthError)(nil); errors.As(err, &length) { // another limit would not help
			err = fmt.Errorf("its answer would have %d bytes", length.Length)
		}
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return "", fmt.Errorf("no greeting came back: is it a listener of this library, and does only one side use TLS? %w", err)
	}
	body := f.Body()
	switch f.Kind {
	case "welcome":
		return fmt.Sprintf("welcomed with version %d", uintOf(body, "version")), nil
	case "failure":
		code := body.Get(body.Descriptor().Fields().ByName("code")).Enum()
		name := body.Descriptor().Fields().ByName("code").Enum().Values().ByNumber(code)
		return "", fmt.Errorf("refused: %s, %.200q", name.Name(), body.Get(body.Descriptor().Fields().ByName("reason")).String())
	}
	return "", fmt.Errorf("the answer to the greeting is a %.20q", f.Kind)
}

func uintOf(m protoreflect.Message, field protoreflect.Name) uint64 {
	return m.Get(m.Descriptor().Fields().ByName(field)).Uint()
}

// CertificateOptions say whose certificates to look at.
type CertificateOptions struct {
	Address string // tls://
	Limits  Limits // of the time that is left
	Access  access.Access
}

// Certificate looks when the certificates of a listener expire, and whether this side would accept them.
func Certificate(ctx context.Context, o CertificateOptions) (Result, error) {
	conn, err := dial(ctx, o.Address, o.Access, true)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = conn.Close() }()
	secured, ok := conn.(*tls.Conn)
	if !ok {
		return Result{}, fmt.Errorf("%s is no tls:// address", o.Address)
	}
	chain := secured.ConnectionState().PeerCertificates
	first := chain[0] // a TLS server shows one at least
	for _, c := range chain {
		if c.NotAfter.Before(first.NotAfter) {
			first = c
		}
	}
	left := time.Until(first.NotAfter)
	when := "expires in " + days(left)
	if left <= 0 {
		when = "expired " + days(-left) + " ago"
	}
	r := Result{
		Text: fmt.Sprintf("%s: %.100q %s, on %s", o.Address, first.Subject.String(), when, first.NotAfter.UTC().Format(time.RFC3339)),
		Perf: []Value{o.Limits.value("left", left)},
	}
	switch {
	case left <= o.Limits.Critical:
		r.State = Critical
	case left <= o.Limits.Warn:
		r.State = Warning
	}
	if left > 0 {
		if err := verify(o, chain); err != nil {
			r.State, r.Text = Critical, fmt.Sprintf("%s: %v", o.Address, err)
		}
	}
	return r, nil
}

func days(d time.Duration) string {
	if d < 48*time.Hour {
		return d.Round(time.Minute).String()
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func verify(o CertificateOptions, chain []*x509.Certificate) error {
	address, err := pipe.ParseTopic(o.Address)
	if err != nil {
		return err
	}
	cfg, err := tlsConfig(address.Target.Address, o.Access)
	if err != nil {
		return err
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{DNSName: cfg.ServerName, Roots: cfg.RootCAs, Intermediates: between})
	return err
}
