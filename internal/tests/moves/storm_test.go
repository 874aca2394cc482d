package moves

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// TestMoves_Storm kills, restarts and stops replicas, and kills a publisher with an outbox, at random moments. Each message
// whose Publish had returned is handled, and what comes twice is marked. MOVES_STORM is the number of faults, SEED repeats
// their choice.
func TestMoves_Storm(t *testing.T) {
	faults, err := strconv.Atoi(os.Getenv("MOVES_STORM"))
	if err != nil {
		t.Skip("takes minutes: MOVES_STORM=100 is the number of faults")
	}
	seed, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	for name, policy := range map[string]route.Policy{
		"Failover": route.Failover, "RoundRobin": route.RoundRobin, "LeastPending": route.LeastPending, "Hash": route.Hash,
	} {
		t.Run(name, func(t *testing.T) {
			t.Log("SEED=", seed)
			s := newStorm(t, policy, rand.New(rand.NewPCG(seed, uint64(policy))))
			for range faults {
				time.Sleep(time.Duration(s.IntN(300)) * time.Millisecond)
				s.fault()
			}
			s.settle()
			s.account()
		})
	}
}

// storm is four replicas, of which at least one runs at any time, and the lives of their publisher.
type storm struct {
	*rand.Rand
	t          *testing.T
	env        []string // of publishers
	addresses  []string
	lives      [][]*process      // of each address
	stopped    map[int]time.Time // until when
	publishers []*process
}

func newStorm(t *testing.T, policy route.Policy, r *rand.Rand) *storm {
	s := &storm{Rand: r, t: t, lives: make([][]*process, 4), stopped: map[int]time.Time{}}
	for i := range s.lives {
		s.addresses = append(s.addresses, testkit.FreeAddress(t))
		s.begin(i)
	}
	s.env = []string{"", "MOVES_OUTBOX=" + t.TempDir(), fmt.Sprint("MOVES_POLICY=", int(policy))}
	s.publish("-1")
	return s
}

// begin starts a replica.
func (s *storm) begin(i int) {
	p := start(s.t, "replica", "MOVES_ADDRESS="+s.addresses[i])
	p.await("ready")
	s.lives[i] = append(s.lives[i], p)
}

// publish starts the publisher's next life. Its route has some of the addresses: what the outbox sent to the others is
// theirs no more.
func (s *storm) publish(count string) {
	var set []string
	for _, i := range s.Perm(len(s.addresses))[:1+s.IntN(len(s.addresses))] {
		set = append(set, s.addresses[i])
	}
	s.env[0] = "MOVES_ADDRESSES=" + strings.Join(set, ",")
	s.publishers = append(s.publishers, start(s.t, "publisher", append(s.env, "MOVES_LIFE="+strconv.Itoa(len(s.publishers)), "MOVES_COUNT="+count)...))
}

func (s *storm) last(i int) *process { return s.lives[i][len(s.lives[i])-1] }
func (s *storm) publisher() *process { return s.publishers[len(s.publishers)-1] }

// fault does one thing, and lets those go on that were stopped for long enough.
func (s *storm) fault() {
	i := s.IntN(len(s.lives))
	runs := s.stopped[i].IsZero() && len(s.stopped) < len(s.lives)-1
	switch k := s.IntN(10); {
	case k < 4 && runs:
		s.last(i).kill()
		time.Sleep(time.Duration(s.IntN(200)) * time.Millisecond)
		s.begin(i)
	case k < 7 && runs:
		s.last(i).signal(syscall.SIGSTOP)
		s.stopped[i] = time.Now().Add(time.Duration(s.IntN(2 * int(moveAfter))))
	case k < 8:
		s.publisher().kill()
		s.publish("-1")
	}
	for i, until := range s.stopped {
		if time.Now().After(until) {
			s.last(i).signal(syscall.SIGCONT)
			delete(s.stopped, i)
		}
	}
}

// settle lets everything run, and waits until the outbox is empty.
func (s *storm) settle() {
	s.publisher().kill()
	for i := range s.stopped {
		s.last(i).signal(syscall.SIGCONT)
	}
	s.publish("0")
	s.publisher().await("drained")
}

func (s *storm) account() {
	s.t.Helper()
	for _, p := range slices.Concat(append(s.lives, s.publishers)...) {
		p.kill() // what they said can be known to each other before this process knows it
	}
	handled, marked, again := map[string]int{}, map[string]int{}, 0
	for _, lives := range s.lives {
		for _, p := range lives {
			for _, l := range p.said("got") {
				f := strings.Fields(l)
				handled[f[1]]++
				if f[2] == "true" {
					marked[f[1]]++
				}
			}
		}
	}
	sent := 0
	for _, p := range s.publishers {
		for _, l := range p.said("sent") {
			sent++
			require.NotZero(s.t, handled[strings.Fields(l)[1]], "%s is lost", l)
		}
	}
	for id, n := range handled {
		again += n - 1
		require.GreaterOrEqual(s.t, marked[id], n-1, "message %s came %d times", id, n)
	}
	s.t.Logf("%d messages were sent in %d lives, and handled; %d came again, marked", sent, len(s.publishers), again)
}
