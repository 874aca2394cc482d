package drive

import (
	"context"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/peers"
	"github.com/buffstreams/watermill-buffstreams/route"
)

const short = 20 * time.Millisecond

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == ChildArg {
		if err := Child(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			_, _ = os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func setupFor(t *testing.T, p peers.Peer) peers.Setup {
	t.Helper()
	s := peers.Setup{Size: 110, InFlight: 1, Name: "test"}
	switch p.Name {
	case peers.JetStream.Name, peers.JetStreamAsync.Name, peers.JetStreamEmbedded.Name, peers.JetStreamFeed.Name:
		s.Dir = t.TempDir()
	case peers.Bridge.Name:
		s.Dir, s.Keys = shortDir(t), 100
	case peers.Redis.Name:
		address, _, stop, err := peers.StartRedis()
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { _ = stop() })
		s.Broker = address
	}
	return s
}

// shortDir is a directory in which the path of a socket is not too long.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "drive-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func TestDrive_EveryPeerDeliversAllInEveryShape(t *testing.T) {
	for _, p := range peers.All() {
		for name, l := range map[string]Load{"1": {}, "batches": {Batch: 100}, "4": {Publishers: 4}} {
			if p.Name == peers.Frames.Name || p.Name == peers.BigFrames.Name || p.Name == peers.PingPong.Name {
				l.Publishers = 1 // one connection of one sender
			}
			t.Run(p.Name+"/"+name, func(t *testing.T) {
				f, err := Stream(context.Background(), p, setupFor(t, p), l, short)
				require.NoError(t, err)
				require.Positive(t, f[Rate])
				require.Positive(t, f[Bytes])
			})
		}
	}
}

func TestDrive_BehindARouter(t *testing.T) {
	for _, p := range []peers.Peer{peers.Enqueued, peers.GoChannel, peers.NATSCore, peers.Bare} {
		t.Run(p.Name, func(t *testing.T) {
			s := setupFor(t, p)
			s.Router, s.InFlight = true, 16
			f, err := Stream(context.Background(), p, s, Load{}, short)
			require.NoError(t, err)
			require.Positive(t, f[Rate])
		})
	}
}

// TestDrive_RoutesHooksAndBatches runs what the library has besides: every message arrives once, whatever the policy.
func TestDrive_RoutesHooksAndBatches(t *testing.T) {
	for name, s := range map[string]peers.Setup{
		"fixed address": {Fixed: true, Keys: 10, Addresses: 1},
		"RoundRobin":    {Addresses: 3, Policy: route.RoundRobin, Keys: 10},
		"LeastPending":  {Addresses: 3, Policy: route.LeastPending, Keys: 10},
		"Hash":          {Addresses: 3, Policy: route.Hash, Keys: 10},
		"hooks":         {Hooks: true},
		"batches":       {Batch: 100},
		"a long call":   {Batch: 100, ACall: 100 * time.Microsecond},
	} {
		t.Run(name, func(t *testing.T) {
			s.Size, s.InFlight, s.Name = 110, 256, "test"
			f, err := Stream(context.Background(), peers.Enqueued, s, Load{Publishers: 4}, short)
			require.NoError(t, err)
			require.Positive(t, f[Rate])
		})
	}
}

func TestDrive_TwoProcesses(t *testing.T) {
	for name, run := range map[string]func(s peers.Setup) (Figures, error){
		"ours": func(s peers.Setup) (Figures, error) {
			return StreamApart(context.Background(), peers.Enqueued, s, Apart{}, Load{}, short)
		},
		"NATS": func(s peers.Setup) (Figures, error) {
			return StreamApart(context.Background(), peers.NATSCore, s, Apart{}, Load{}, short)
		},
		"NATS, server apart": func(s peers.Setup) (Figures, error) {
			return StreamApart(context.Background(), peers.NATSCore, s, Apart{Broker: true}, Load{}, short)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := run(peers.Setup{Size: 110, Name: "test"})
			require.NoError(t, err)
			require.Positive(t, f[Rate])
			require.Positive(t, f[ReceiverAllocs])
			require.Positive(t, f[Allocations])
		})
	}
	f, err := RoundTripApart(context.Background(), peers.PingPong, peers.Setup{Size: 110}, short)
	require.NoError(t, err)
	require.LessOrEqual(t, f[P50], f[P99])
}

func TestDrive_RoundTrips(t *testing.T) {
	for _, p := range []peers.Peer{peers.Handled, peers.PingPong, peers.HTTP, peers.GoChannelBlock} {
		f, err := RoundTrip(context.Background(), p, setupFor(t, p), short)
		require.NoError(t, err, p.Name)
		require.Positive(t, f[P50])
		require.LessOrEqual(t, f[P50], f[P99])
	}
}

func TestDrive_ManyConnectionsAndTopics(t *testing.T) {
	l := Load{Publishers: 4, Batch: 10, Primed: true}
	for _, n := range []int{1, 50} {
		f, err := Connections(context.Background(), peers.Received, peers.Setup{Size: 110, Name: "test"}, n, l, short)
		require.NoError(t, err)
		require.Positive(t, f[Rate])
	}
	l.Lanes = 50
	f, err := Stream(context.Background(), peers.Received, peers.Setup{Size: 110, Name: "test", Topics: 50}, l, short)
	require.NoError(t, err)
	require.Positive(t, f[Rate])
	f, err = IdleTopics(1000)
	require.NoError(t, err)
	require.Positive(t, f[Idle])
}

func TestDrive_SlowTopicIsDelivered(t *testing.T) {
	for _, slow := range []time.Duration{0, time.Second} {
		f, err := BesideSlow(context.Background(), peers.Enqueued, peers.Setup{Size: 110, Name: "test", Slow: slow}, Load{}, short)
		require.NoError(t, err)
		require.Positive(t, f[Rate])
	}
}

func TestDrive_PayloadsAboveTheDefaultLimit(t *testing.T) {
	f, err := Stream(context.Background(), peers.Enqueued, peers.Setup{Size: 1 << 20, InFlight: 256, Name: "test"}, Load{Reuse: true}, short)
	require.NoError(t, err)
	require.InEpsilon(t, f[Rate]*(1<<20), f[Bytes], 0.001)
}

// TestDrive_LostMessageFailsTheTurn breaks peers on purpose.
func TestDrive_LostMessageFailsTheTurn(t *testing.T) {
	for name, spoil := range map[string]func(batch [][]byte, send func([][]byte) error) error{
		"one is lost":     func([][]byte, func([][]byte) error) error { return nil },
		"one comes twice": func(b [][]byte, send func([][]byte) error) error { _ = send(b); return send(b) },
		"one is cut":      func(b [][]byte, send func([][]byte) error) error { return send([][]byte{b[0][:60]}) },
	} {
		t.Run(name, func(t *testing.T) {
			p := peers.BuffStreams
			dial := p.Dial
			p.Dial = func(s peers.Setup, to peers.Receiver) (peers.Sender, error) {
				sender, err := dial(s, to)
				return &spoiler{Sender: sender, spoil: spoil}, err
			}
			_, err := Stream(context.Background(), p, peers.Setup{Size: 110}, Load{Patience: 200 * time.Millisecond}, short)
			var failed *measure.TallyError
			require.ErrorAs(t, err, &failed)
		})
	}
}

// spoiler spoils the third batch: a busy machine may send few.
type spoiler struct {
	peers.Sender
	spoil func([][]byte, func([][]byte) error) error
	sent  atomic.Int64
}

func (s *spoiler) Send(sender int, batch [][]byte) error {
	send := func(b [][]byte) error { return s.Sender.Send(sender, b) }
	if s.sent.Add(1) == 3 {
		return s.spoil(batch, send)
	}
	return send(batch)
}

func TestDrive_MakingAMessage(t *testing.T) {
	n, err := Making(peers.Setup{Size: 110}, Load{})
	require.NoError(t, err)
	require.InDelta(t, 6, n, 1.5, "message.NewMessage is four, its UUID the rest")
}
