package session

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// rewriteVariable names the environment variable with which TestJourney writes what it sees into its files. Read what has changed before
// it is committed: the files say what is right.
const rewriteVariable = "REWRITE_JOURNEYS"

// TestJourney goes through files of commands, each followed by all that is to be seen then, indented: what the command returned, the
// frames that went out, the calls that ended, and what has changed in the state machines.
func TestJourney(t *testing.T) {
	files, err := filepath.Glob("testdata/journeys/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			got := travel(t, string(want))
			if os.Getenv(rewriteVariable) != "" {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o600))
				return
			}
			require.Equal(t, string(want), got)
		})
	}
}

// travel returns a file with what its commands make visible now. A line that begins with # or is empty stays as it is, and begins anew
// after "new".
func travel(t *testing.T, text string) string {
	var out strings.Builder
	var j *journey
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "\t") {
			continue
		}
		out.WriteString(line)
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		if words[0] == "new" {
			j = newJourney(t, words[1:])
		}
		for _, seen := range j.do(words) {
			out.WriteString("\t" + seen + "\n")
		}
	}
	return out.String()
}

// journey is what the commands of a file work on: two Clients, their streams by label, calls that wait, and an Inbound.
type journey struct {
	t       *testing.T
	enc     Encoder
	now     time.Time
	budget  *flow.Budget
	clients map[string]*Client
	labels  []string // of streams
	streams map[string]*Outbound
	waiters map[string]*Waiter
	turns   map[string]*Turn
	calls   map[string]*Batch // of turns, what is left of them
	in      *Inbound
	seen    map[string]facts // of the state
	out     []string
}

func newJourney(t *testing.T, settings []string) *journey {
	j := &journey{
		t: t, enc: encoder(t, false), now: time.Unix(1000, 0), clients: map[string]*Client{}, streams: map[string]*Outbound{},
		waiters: map[string]*Waiter{}, turns: map[string]*Turn{}, calls: map[string]*Batch{}, seen: map[string]facts{},
	}
	cfg := ClientConfig{
		Identity: Identity{Publisher: [16]byte{1}, Epoch: 1, Secret: [16]byte{2}}, Window: Window{Messages: 1000, Bytes: 1 << 20},
		MaxFrame: MinFrame, PingAfter: 10 * time.Second, DeadAfter: 30 * time.Second, IdleCredit: time.Second,
	}
	for _, s := range settings {
		key, value, _ := strings.Cut(s, "=")
		switch key {
		case "window":
			j.scan(value, "%d/%d", &cfg.Window.Messages, &cfg.Window.Bytes)
		case "budget":
			j.budget = flow.NewBudget(j.number(value))
			cfg.Window.Budget = j.budget
		case "move":
			cfg.MoveAfter = j.duration(value)
		case "forget":
			cfg.ForgetAfter = j.duration(value)
		case "observe":
			cfg.Observe, cfg.Clock = true, func() time.Time { return j.now }
		case "lineage":
			for i, epoch := range strings.Split(value, ",") {
				cfg.Identity.Epoch = uint64(j.number(epoch))
				cfg.Identity.Lineage = append(cfg.Identity.Lineage, incarnation(cfg.Identity.Epoch, [16]byte{byte(i + 1)}))
			}
		default:
			t.Fatalf("setting %q", s)
		}
	}
	for _, name := range []string{"A", "B"} {
		j.clients[name] = NewClient(cfg)
	}
	return j
}

// do does one command, and returns what is to be seen then.
func (j *journey) do(words []string) []string {
	j.out = nil
	c := j.clients["A"]
	if words[0] == "B" {
		c, words = j.clients["B"], words[1:]
	}
	name, args := words[0], words[1:]
	if do := clientCommands[name]; do != nil {
		do(j, c, args)
	} else if do := streamCommands[name]; do != nil {
		do(j, c, j.stream(c, args[0]), args[1:])
	} else if do := inboundCommands[name]; do != nil {
		do(j, args)
	} else if name != "new" {
		j.t.Fatalf("command %q", name)
	}
	j.finished()
	j.changes()
	return j.out
}

func (j *journey) say(format string, args ...any) {
	j.out = append(j.out, strings.TrimRight(fmt.Sprintf(format, args...), " "))
}

// tell says what a command returned, unless it is nothing.
func (j *journey) tell(err error) {
	if err != nil {
		j.say("error: %v", err)
	}
}

func (j *journey) scan(text, format string, to ...any) {
	_, err := fmt.Sscanf(text, format, to...)
	require.NoError(j.t, err, text)
}

func (j *journey) number(text string) (n int) {
	j.scan(text, "%d", &n)
	return n
}

func (j *journey) numbers(texts []string) (ns []uint64) {
	for _, text := range texts {
		ns = append(ns, uint64(j.number(text)))
	}
	return ns
}

func (j *journey) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	require.NoError(j.t, err)
	return d
}

// stream returns the stream with a label, which is its name where Stream has made it.
func (j *journey) stream(c *Client, label string) *Outbound {
	o := j.streams[label]
	if o == nil {
		name := label
		if topic, ephemeral := strings.CutPrefix(label, "~"); ephemeral {
			name = Ephemeral(topic)
		}
		o = c.Stream(name)
		j.know(label, o)
	}
	return o
}

func (j *journey) know(label string, o *Outbound) {
	if !slices.Contains(j.labels, label) {
		j.labels = append(j.labels, label)
	}
	if j.streams[label] != o {
		delete(j.seen, label)
	}
	j.streams[label] = o
}

// batch makes messages of the given sizes for a stream.
func (j *journey) batch(o *Outbound, sizes []string) *Batch {
	b := &Batch{}
	for i, n := range j.sizes(sizes) {
		full := append(b.Begin(n), content(o.Topic, o.next+uint64(i), n)[:n]...)
		_, ok := b.End(full, 1<<30)
		require.True(j.t, ok)
	}
	return b
}

// sizes reads sizes of messages; 5*0 is five that are empty.
func (j *journey) sizes(texts []string) (sizes []int) {
	for _, text := range texts {
		times, size, many := strings.Cut(text, "*")
		if !many {
			times, size = "1", text
		}
		for range j.number(times) {
			sizes = append(sizes, j.number(size))
		}
	}
	return sizes
}

// finished says which calls have ended, and which were signalled.
func (j *journey) finished() {
	for _, name := range sortedKeys(j.waiters) {
		if w := j.waiters[name]; done(w) {
			j.say("%s ends: %v, lacking %v", name, w.Err, w.Lacking)
			delete(j.waiters, name)
		}
	}
	for _, name := range sortedKeys(j.turns) {
		if signalled(j.turns[name]) {
			j.say("%s is called", name)
		}
	}
}

// changes says what has changed in the state.
func (j *journey) changes() {
	note := func(name string, now facts) {
		if news := now.since(j.seen[name]); len(news) > 0 {
			j.say("%s: %v", name, news)
		}
		j.seen[name] = now
	}
	for _, name := range sortedKeys(j.clients) {
		note(name, j.describeClient(j.clients[name]))
		require.NoError(j.t, checkBooks(j.clients[name]))
	}
	for _, label := range j.labels {
		note(label, describe(j.streams[label]))
	}
	if j.in != nil {
		note("in", describeInbound(j.in))
	}
	if j.budget != nil {
		note("budget", facts{{"free", fmt.Sprint(j.budget.Free())}})
	}
}
