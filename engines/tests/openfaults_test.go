package tests

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/buffstreams/watermill-buffstreams/engines"
	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

const secret = "geheim"

// guarded is an engine with users: owner may everything, guest nothing but log in. Both have the secret as the password.
type guarded struct {
	name string
	// plain and secure are the addresses, without scheme, of a port in plaintext and of one with TLS.
	plain, secure string
	// schemes are those of plaintext and of TLS.
	schemes [2]string
	path    string
	ca      string
}

func (g guarded) url(user, password string) string {
	return g.schemes[0] + "://" + user + ":" + password + "@" + g.plain + g.path
}

func guardedNATS(t *testing.T) guarded {
	cert := newCertificate(t)
	start := func(o *server.Options) string {
		o.Host, o.Port, o.JetStream, o.StoreDir, o.NoLog, o.NoSigs = "127.0.0.1", server.RANDOM_PORT, true, t.TempDir(), true, true
		o.Users = []*server.User{
			{Username: "owner", Password: secret},
			{Username: "guest", Password: secret, Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: []string{"$JS.API.INFO"}}, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
			}},
		}
		s, err := server.NewServer(o)
		require.NoError(t, err)
		go s.Start() // ends with the server
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		require.True(t, s.ReadyForConnections(10*time.Second))
		return s.Addr().String()
	}
	return guarded{
		name: "nats", schemes: [2]string{"nats", "nats+tls"}, ca: cert.cert,
		plain: start(&server.Options{}), secure: start(&server.Options{TLSConfig: cert.server(t), TLSTimeout: 2}),
	}
}

func guardedKafka(t *testing.T) guarded {
	cert := newCertificate(t)
	start := func(o ...kfake.Opt) string {
		o = append(o, kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "owner", secret),
			kfake.User("PLAIN", "guest", secret))
		c, err := kfake.NewCluster(o...)
		require.NoError(t, err)
		t.Cleanup(c.Close)
		return c.ListenAddrs()[0]
	}
	return guarded{name: "kafka", schemes: [2]string{"kafka", "kafka+tls"}, ca: cert.cert, plain: start(), secure: start(kfake.TLS(cert.server(t)))}
}

func guardedRedis(t *testing.T) guarded {
	cert := newCertificate(t)
	port, err := freePort()
	require.NoError(t, err)
	p, err := newRedis("", "--tls-port", fmt.Sprint(port), "--tls-cert-file", cert.cert, "--tls-key-file", cert.key, "--tls-ca-cert-file", cert.cert,
		"--tls-auth-clients", "no", "--user", "default", "off", "--user", "owner", "on", ">"+secret, "~*", "+@all", "--user", "guest", "on", ">"+secret, "~other:*", "+@all")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(p.stop)
	return guarded{
		name: "redis", schemes: [2]string{"redis", "rediss"}, ca: cert.cert, plain: p.address(), secure: fmt.Sprintf("127.0.0.1:%d", port), path: "/0",
	}
}

func guardedAMQP(t *testing.T) guarded {
	if os.Getenv(withServers) == "" {
		t.Skip(errNotAsked)
	}
	cert := newCertificate(t)
	port, err := freePort()
	require.NoError(t, err)
	p, err := newRabbitMQ("", fmt.Sprintf("listeners.ssl.1 = 127.0.0.1:%d\nssl_options.cacertfile = %s\nssl_options.certfile = %s\nssl_options.keyfile = %s\n",
		port, cert.cert, cert.cert, cert.key))
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(p.stop)
	for _, user := range []string{"owner", "visitor"} {
		require.NoError(t, p.ctl("add_user", user, secret))
	}
	require.NoError(t, p.ctl("set_permissions", "owner", ".*", ".*", ".*"))
	require.NoError(t, p.ctl("set_permissions", "visitor", "^$", "^$", "^$"))
	return guarded{
		name: "amqp", schemes: [2]string{"amqp", "amqps"}, ca: cert.cert, plain: p.address(), secure: fmt.Sprintf("127.0.0.1:%d", port), path: "/",
	}
}

func guardedPostgres(t *testing.T) guarded {
	if os.Getenv(withServers) == "" {
		t.Skip(errNotAsked)
	}
	cert := newCertificate(t)
	start := func(settings ...string) string {
		p, err := newPostgres("", settings...)
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(p.stop)
		conn, err := pgx.Connect(t.Context(), "postgres://postgres@"+p.address()+"/postgres")
		require.NoError(t, err)
		for _, sql := range []string{
			"CREATE ROLE owner SUPERUSER LOGIN PASSWORD '" + secret + "'", "CREATE ROLE guest LOGIN PASSWORD '" + secret + "'",
		} {
			_, err := conn.Exec(t.Context(), sql)
			require.NoError(t, err)
		}
		require.NoError(t, os.WriteFile(filepath.Join(p.dir, "data", "pg_hba.conf"), []byte("host all all 127.0.0.1/32 scram-sha-256\n"), 0o600))
		_, err = conn.Exec(t.Context(), "SELECT pg_reload_conf()")
		require.NoError(t, err)
		require.NoError(t, conn.Close(t.Context()))
		return p.address()
	}
	return guarded{
		name: "postgres", schemes: [2]string{"postgres", "postgres"}, ca: cert.cert, path: "/postgres",
		plain: start(), secure: start("ssl=on", "ssl_cert_file="+cert.cert, "ssl_key_file="+cert.key),
	}
}

// blackHole accepts connections and says nothing, until the test ends.
func blackHole(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// wrongURL is a URL that cannot work, and what Open says about it.
type wrongURL struct {
	what, url string
	causes    []*driver.Cause
}

func wrongURLs(t *testing.T, g guarded) []wrongURL {
	port, err := freePort()
	require.NoError(t, err)
	owner, plain, secure := "owner:"+secret+"@", g.schemes[0]+"://", g.schemes[1]+"://"
	verified, demanded := "", ""
	if g.name == "postgres" { // whose scheme does not say it
		verified, demanded = "?sslmode=verify-full", "?sslmode=require"
	}
	urls := []wrongURL{
		{"a wrong password", plain + "owner:" + secret + "x@" + g.plain + g.path, []*driver.Cause{driver.ErrCredentials}},
		{"an unknown user", plain + "other:" + secret + "@" + g.plain + g.path, []*driver.Cause{driver.ErrCredentials}},
		{"no server", plain + owner + fmt.Sprintf("127.0.0.1:%d", port) + g.path, []*driver.Cause{driver.ErrUnreachable}},
		{"an unknown host", plain + owner + "nosuch.invalid" + g.path, []*driver.Cause{driver.ErrUnreachable}},
		{"a server that says nothing", plain + owner + blackHole(t) + g.path, []*driver.Cause{driver.ErrUnreachable, driver.ErrProtocol}},
		// Redis and a broker of Kafka wait for the rest of what TLS begins with.
		{"TLS to plaintext", secure + owner + g.plain + g.path + demanded, []*driver.Cause{driver.ErrNoTLS, driver.ErrUnreachable}},
		{"an authority that is not known", secure + owner + g.secure + g.path + verified, []*driver.Cause{driver.ErrCertificate}},
	}
	if g.name != "amqp" { // whose user is guest without one
		// A broker of Kafka says nothing: its client guesses what is missing.
		urls = append(urls, wrongURL{"no credentials", plain + g.plain + g.path, []*driver.Cause{driver.ErrCredentials, driver.ErrProtocol}})
	}
	if g.name != "postgres" { // whose scheme is the same
		// NATS tells that it needs TLS, and the client goes on with it.
		urls = append(urls, wrongURL{"plaintext to TLS", plain + owner + g.secure + g.path, []*driver.Cause{driver.ErrProtocol, driver.ErrCertificate}})
	}
	if g.name == "amqp" || g.name == "postgres" {
		urls = append(urls, wrongURL{"an unknown database", plain + owner + g.plain + "/nosuch", []*driver.Cause{driver.ErrNoDatabase}})
	}
	if g.name == "nats" {
		urls = append(urls, wrongURL{"a wrong token", plain + secret + "@" + g.plain, []*driver.Cause{driver.ErrCredentials}})
	}
	return urls
}

// assertShowsNoSecret fails where an error has what must not be in logs.
func assertShowsNoSecret(t *testing.T, err error) {
	t.Helper()
	assert.NotContains(t, err.Error(), secret)
}

// eachGuarded runs a test with every engine that has users.
func eachGuarded(t *testing.T, test func(*testing.T, guarded)) {
	for name, start := range map[string]func(*testing.T) guarded{
		"nats": guardedNATS, "kafka": guardedKafka, "redis": guardedRedis, "amqp": guardedAMQP, "postgres": guardedPostgres,
	} {
		if only := only(); only != "" && !strings.Contains(","+only+",", ","+name+",") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, start(t))
		})
	}
}

// TestOpenFaults_SayWhatIsWrong: URLs that cannot work are errors of Open in time, with a cause, what helps, and no secret.
func TestOpenFaults_SayWhatIsWrong(t *testing.T) {
	eachGuarded(t, func(t *testing.T, g guarded) {
		for _, wrong := range wrongURLs(t, g) {
			t.Run(wrong.what, func(t *testing.T) {
				t.Parallel()
				const within = 15 * time.Second // some have an answer in milliseconds, which a busy machine makes seconds
				ctx, cancel := context.WithTimeout(t.Context(), within)
				defer cancel()
				began := time.Now()
				_, err := engines.Open(ctx, wrong.url, drivers()...)
				require.Error(t, err)
				assert.Less(t, time.Since(began), within+20*time.Second)
				assertShowsNoSecret(t, err)
				var explained *driver.ServerError
				if assert.ErrorAs(t, err, &explained, "%v", err) {
					assert.Contains(t, wrong.causes, explained.Cause, "%v", err)
					assert.Equal(t, g.name, explained.Engine)
				}
				t.Log(err)
			})
		}
	})
}

// TestOpenFaults_MissingPermissionsAreErrors: of the first call that needs one, at once.
func TestOpenFaults_MissingPermissionsAreErrors(t *testing.T) {
	eachGuarded(t, func(t *testing.T, g guarded) {
		guest := "guest"
		if g.name == "amqp" {
			guest = "visitor" // there is a guest already
		}
		e, err := engines.Open(t.Context(), g.url(guest, secret)+"?group=g", drivers()...)
		require.NoError(t, err)
		defer func() { require.NoError(t, e.Close()) }()
		began := time.Now()
		err = e.Publisher().Publish("topic", messageOf("x"))
		require.ErrorIs(t, err, driver.ErrDenied)
		assertShowsNoSecret(t, err)
		t.Log(err)
		sub, err := e.Subscriber()
		require.NoError(t, err)
		_, err = sub.Subscribe(t.Context(), "topic")
		require.ErrorIs(t, err, driver.ErrDenied)
		assertShowsNoSecret(t, err)
		assert.Less(t, time.Since(began), 25*time.Second, "not after publish_timeout, 30 s")
		// With all permissions, and by TLS, it works.
		e, err = engines.Open(t.Context(), g.schemes[1]+"://owner:"+secret+"@"+g.secure+g.path+"?group=g&tls_ca="+g.ca, drivers()...)
		require.NoError(t, err)
		defer func() { require.NoError(t, e.Close()) }()
		sub, err = e.Subscriber()
		require.NoError(t, err)
		messages, err := sub.Subscribe(t.Context(), "topic")
		require.NoError(t, err)
		require.NoError(t, e.Publisher().Publish("topic", messageOf("x")))
		receive(t, messages).Ack()
	})
}
