package receiver

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// stranger is a peer that speaks the acked protocol by hand.
type stranger struct {
	t    *testing.T
	conn net.Conn
}

func comeFrom(t *testing.T, ip, address string) stranger {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	conn, err := d.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	return stranger{t, conn}
}

func sealed(t testing.TB, f *wire.Frame) []byte {
	payload, err := proto.Marshal(f)
	require.NoError(t, err)
	sum := crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli))
	payload = binary.LittleEndian.AppendUint32(append(payload, 0x7d), sum)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

func ping(t testing.TB) []byte {
	return sealed(t, &wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{Id: 7}}})
}

func (s stranger) hello(token string) *wire.Frame {
	s.t.Helper()
	_, err := s.conn.Write(sealed(s.t, &wire.Frame{Body: &wire.Frame_Hello{Hello: &wire.Hello{
		Version: 1, MaxFrame: 65600, Token: []byte(token),
	}}}))
	require.NoError(s.t, err)
	return s.next()
}

// next returns the next frame, or nil at the end.
func (s stranger) next() *wire.Frame {
	s.t.Helper()
	head := make([]byte, 4)
	if _, err := io.ReadFull(s.conn, head); err != nil {
		var timeout net.Error
		require.False(s.t, errors.As(err, &timeout) && timeout.Timeout(), "the connection goes on")
		return nil
	}
	payload := make([]byte, binary.BigEndian.Uint32(head))
	if _, err := io.ReadFull(s.conn, payload); err != nil {
		return nil
	}
	var f wire.Frame
	require.NoError(s.t, proto.Unmarshal(payload, &f))
	return &f
}

func (s stranger) welcomed() {
	s.t.Helper()
	require.NotNil(s.t, s.hello("").GetWelcome())
}

// refused returns why.
func (s stranger) refused(token string) *wire.Failure {
	s.t.Helper()
	f := s.hello(token)
	require.NotNil(s.t, f, "closed without a word")
	require.NotNil(s.t, f.GetFailure(), "%v", f)
	require.Nil(s.t, s.next(), "it goes on")
	return f.GetFailure()
}

// listenWith returns a Receiver that logs to log, and its address.
func listenWith(t *testing.T, cfg Config, log testkit.Log) (*Receiver, string) {
	t.Helper()
	cfg.Logger = log
	r := listen(t, cfg)
	return r, r.Addr().String()
}

// until waits until the Receiver has n connections.
func (r *Receiver) until(n int) {
	for {
		r.mu.Lock()
		now := len(r.conns)
		r.mu.Unlock()
		if now == n {
			return
		}
		<-time.After(time.Millisecond) // nothing tells of it
	}
}

func TestReceiver_RefusesOneConnectionTooMany(t *testing.T) {
	for name, cfg := range map[string]Config{
		"in all": {MaxConnections: 2, MaxConnectionsPerHost: -1}, "of a host": {MaxConnections: 9, MaxConnectionsPerHost: 2},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.CheckLeaks(t)
			log := testkit.NewLog()
			r, address := listenWith(t, cfg, log)
			first, second := comeFrom(t, "127.0.0.1", address), comeFrom(t, "127.0.0.1", address)
			first.welcomed()
			second.welcomed()
			for range 3 {
				f := comeFrom(t, "127.0.0.1", address).refused("")
				require.Equal(t, wire.Code_CODE_LIMIT, f.Code)
				require.Contains(t, f.Reason, "too many connections")
			}
			require.Contains(t, log.Next(t, "info").Msg, "refused")
			other := comeFrom(t, "127.0.0.2", address)
			if name == "of a host" {
				other.welcomed()
			} else {
				other.refused("")
			}
			require.NoError(t, first.conn.Close())
			r.until(map[string]int{"in all": 1, "of a host": 2}[name])
			comeFrom(t, "127.0.0.1", address).welcomed()
		})
	}
}

// Telling strangers that there is no room must not take room without bound either.
func TestReceiver_ClosesAFloodOfConnections(t *testing.T) {
	testkit.CheckLeaks(t)
	r, address := listenWith(t, Config{MaxConnections: 1, HandshakeTimeout: time.Minute}, testkit.NewLog())
	comeFrom(t, "127.0.0.1", address).welcomed()
	silent := make([]stranger, maxRefused)
	for i := range silent {
		silent[i] = comeFrom(t, "127.0.0.1", address)
	}
	r.until(1 + maxRefused)
	require.Nil(t, comeFrom(t, "127.0.0.1", address).next())
	require.NoError(t, silent[0].conn.Close())
	r.until(maxRefused)
	comeFrom(t, "127.0.0.1", address).refused("")
}

// drip sends frame after frame, one byte at each tick, until the connection ends, and returns how long it lasted.
func (s stranger) drip(frame []byte, every time.Duration) time.Duration {
	s.t.Helper()
	start, ended := time.Now(), make(chan struct{})
	go func() { // ends with the connection
		_, _ = io.Copy(io.Discard, s.conn)
		close(ended)
	}()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for i := 0; ; i++ {
		select {
		case <-ticker.C:
			_, _ = s.conn.Write(frame[i%len(frame) : i%len(frame)+1])
		case <-ended:
			return time.Since(start)
		}
	}
}

// A peer that always sends something is given no more time than one that sends nothing.
func TestConn_EndsASlowPeer(t *testing.T) {
	hello := sealed(t, &wire.Frame{Body: &wire.Frame_Hello{Hello: &wire.Hello{Version: 1, MaxFrame: 65600, Agent: string(make([]byte, 1000))}}})
	const short, patience = 200 * time.Millisecond, 9 * time.Second // all of it takes 10 s and more
	t.Run("in its greeting", func(t *testing.T) {
		_, address := listenWith(t, Config{HandshakeTimeout: short}, testkit.NewLog())
		require.Less(t, comeFrom(t, "127.0.0.1", address).drip(hello, 20*time.Millisecond), patience)
	})
	t.Run("in its TLS handshake", func(t *testing.T) {
		server, _ := testkit.SelfSignedTLS(t)
		_, address := listenWith(t, Config{TLS: netio.ServerTLS(server), HandshakeTimeout: short}, testkit.NewLog())
		record := append([]byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}, make([]byte, 506)...)
		require.Less(t, comeFrom(t, "127.0.0.1", address).drip(record, 20*time.Millisecond), patience)
	})
	t.Run("in a frame", func(t *testing.T) {
		_, address := listenWith(t, Config{DeadAfter: short}, testkit.NewLog())
		s := comeFrom(t, "127.0.0.1", address)
		s.welcomed()
		frame := append([]byte{0, 1, 0, 0, 0x2a}, make([]byte, 1<<16)...)
		require.Less(t, s.drip(frame, 20*time.Millisecond), patience)
	})
	t.Run("in its authentication", func(t *testing.T) {
		_, address := listenWith(t, Config{HandshakeTimeout: short, Authenticate: func(ctx context.Context, _ Peer) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}}, testkit.NewLog())
		require.Equal(t, wire.Code_CODE_LIMIT, comeFrom(t, "127.0.0.1", address).refused("x").Code)
	})
}

// A frame that takes several times DeadAfter to arrive is no reason to end the connection while its bytes arrive: and
// the sender hears meanwhile that the receiver lives.
func TestConn_TakesALargeFrameOnASlowLink(t *testing.T) {
	const dead, pieces = 600 * time.Millisecond, 40
	for name, secure := range map[string]bool{"plaintext": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg, ln := Config{DeadAfter: dead}, testkit.NewPipeListener()
				server, client := testkit.SelfSignedTLS(t)
				if secure {
					cfg.TLS = netio.ServerTLS(server)
				}
				start(t, cfg, ln)
				s := stranger{t, ln.Connect()}
				defer func() { _ = s.conn.Close() }()
				seal := sealed
				if secure {
					client.ServerName = "127.0.0.1"
					s.conn = tls.Client(s.conn, client)
					seal = func(t testing.TB, f *wire.Frame) []byte {
						payload, err := proto.Marshal(f)
						require.NoError(t, err)
						return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
					}
				}
				_, err := s.conn.Write(seal(t, &wire.Frame{Body: &wire.Frame_Hello{Hello: &wire.Hello{Version: 1, MaxFrame: 65600}}}))
				require.NoError(t, err)
				require.NotNil(t, s.next().GetWelcome())
				frames := make(chan *wire.Frame, pieces)
				go func() { // ends with the connection
					for f := s.next(); f != nil; f = s.next() {
						frames <- f
					}
					close(frames)
				}()
				// An unknown field of a Ping is skipped, however large it is.
				large := (&wire.Ping{Id: 9}).ProtoReflect()
				large.SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), make([]byte, pieces*1024)))
				frame := seal(t, &wire.Frame{Body: &wire.Frame_Ping{Ping: large.Interface().(*wire.Ping)}})
				begin := time.Now()
				for len(frame) > 0 {
					n := min(len(frame), 1024)
					_, err := s.conn.Write(frame[:n])
					require.NoError(t, err)
					frame = frame[n:]
					time.Sleep(dead / 10)
				}
				require.Greater(t, time.Since(begin), 2*dead)
				alive := 0
				for f := range frames {
					if f.GetPong().GetId() == 9 {
						break
					}
					alive++
				}
				require.Greater(t, alive, 3)
				require.Less(t, alive, 9*int(time.Since(begin)/dead))
			})
		})
	}
}

func TestConn_BoundsAFrameBeforeTheWelcome(t *testing.T) {
	_, address := listenWith(t, Config{HandshakeTimeout: time.Minute}, testkit.NewLog()) // not that ends it
	s := comeFrom(t, "127.0.0.1", address)
	_, err := s.conn.Write([]byte{0, 0, 0x10, 1})
	require.NoError(t, err)
	require.Nil(t, s.next())
}

func TestConn_EndsAFloodOfPings(t *testing.T) {
	_, address := listenWith(t, Config{}, testkit.NewLog())
	s := comeFrom(t, "127.0.0.1", address)
	s.welcomed()
	for range maxPings { // a burst is all right
		_, err := s.conn.Write(ping(t))
		require.NoError(t, err)
	}
	for range maxPings {
		require.EqualValues(t, 7, s.next().GetPong().GetId())
	}
	var flood []byte
	for range maxPings {
		flood = append(flood, ping(t)...)
	}
	go func() { // ends with the connection
		for {
			if _, err := s.conn.Write(flood); err != nil {
				return
			}
		}
	}()
	for {
		f := s.next()
		require.NotNil(t, f, "the connection ended without a reason")
		if failure := f.GetFailure(); failure != nil {
			require.Equal(t, wire.Code_CODE_PROTOCOL, failure.Code)
			require.Contains(t, failure.Reason, "pings")
			return
		}
	}
}

// A peer that asks and never listens is not answered beyond a bound: its own socket holds it back.
func TestConn_BoundsAnswersThatAreNotRead(t *testing.T) {
	ln := testkit.NewPipeListener() // nothing is buffered on the way
	r := start(t, Config{WriteTimeout: time.Hour}, ln)
	s := stranger{t, ln.Connect()}
	s.welcomed()
	var c *conn
	r.mu.Lock()
	for c = range r.conns {
	}
	r.mu.Unlock()
	bad := sealed(t, &wire.Frame{Body: &wire.Frame_Open{Open: &wire.Open{Handle: 1}}}) // answered with an Opened
	var flood []byte
	for range 1000 {
		flood = append(flood, bad...)
	}
	ended := make(chan struct{})
	go func() { // ends when the listener gives up
		defer close(ended)
		for {
			if _, err := s.conn.Write(flood); err != nil {
				return
			}
		}
	}()
	waiting := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.pendingControl)
	}
	require.Eventually(t, func() bool { return waiting() > maxPendingControl }, time.Minute, time.Millisecond)
	require.Never(t, func() bool { return waiting() > maxPendingControl+1024 }, 200*time.Millisecond, time.Millisecond)
	require.NoError(t, r.Close(context.Background()))
	<-ended
	r.until(0)
}

// Pings are counted within a span: a peer that pings often, and not too often, keeps its connection for good.
func TestPingBudget_IsForEachSpan(t *testing.T) {
	var b pingBudget
	for now := time.Now(); now.Before(time.Now().Add(3 * pingSpan)); now = now.Add(pingSpan) {
		for range maxPings {
			require.True(t, b.spend(now))
		}
		require.False(t, b.spend(now.Add(pingSpan-1)))
	}
}

// What is kept of rejections that no sender has read is counted while it is kept.
func TestStream_CountsWhatIsUnheard(t *testing.T) {
	r := listen(t, Config{})
	join(r, "a")
	c := opens(t, r, openOf(1))
	s := c.handles[1]
	for _, end := range []func(){
		func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.heardLocked(1)
			s.heardLocked(2)
		},
		func() { require.Len(t, s.takeUnheard(), 2) },
	} {
		s.mu.Lock()
		for seq := range uint64(2) {
			require.Nil(t, s.keepUnheardLocked(seq+1, dispatch.Refusal{Unheard: func() {}, Bytes: 100}))
		}
		s.mu.Unlock()
		require.EqualValues(t, 200, r.unheardBytes.Load())
		end()
		require.Zero(t, r.unheardBytes.Load())
	}
}
