package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// quietTopic is a topic at a socket where nobody listens unless the test does.
func quietTopic(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bs") // short enough for a socket
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return "unix://" + filepath.Join(dir, "s") + "#t"
}

func outboxDir(t *testing.T) string { return filepath.Join(t.TempDir(), "outbox") }

// receipts counts whole lines and demands that they are numbered from 1.
func receipts(t *testing.T, stdout string) (n int) {
	t.Helper()
	for line := range strings.Lines(stdout) {
		if !strings.HasSuffix(line, "\n") {
			break // the process was killed while it wrote
		}
		var r struct {
			Line int
			UUID string
		}
		require.NoError(t, json.Unmarshal([]byte(line), &r))
		require.NotEmpty(t, r.UUID)
		n++
		require.Equal(t, n, r.Line)
	}
	return n
}

// listing is what outbox ls --json prints.
type listing struct {
	Dir     string
	Streams []struct {
		Destination, Topic   string
		Pending, First, Next int
		Bytes                int64
	}
	Pending int
	Bytes   int64
}

func list(t *testing.T, dir string) (l listing) {
	t.Helper()
	stdout, stderr, code := runCommand(t, "", "outbox", "ls", dir, "--json")
	require.Zero(t, code, stderr)
	require.Empty(t, stderr)
	require.Equal(t, 1, strings.Count(stdout, "\n"))
	require.NoError(t, json.Unmarshal([]byte(stdout), &l))
	require.Equal(t, dir, l.Dir)
	return l
}

// drain delivers what waits, and must succeed.
func drain(t *testing.T, dir string) {
	t.Helper()
	stdout, stderr, code := runCommand(t, "not to be read", "pub", "--outbox", dir, "--drain")
	require.Zero(t, code, stderr)
	require.Empty(t, stdout)
	require.Empty(t, stderr)
}

// interrupted ends a subscriber and returns all that it has printed.
func interrupted(t *testing.T, sub *process) string {
	t.Helper()
	sub.signal(os.Interrupt)
	got, code := sub.wait()
	require.Zero(t, code, sub.stderr.String())
	return got
}

// The publisher is killed while nobody has listened yet, and in the middle of its input: every line whose receipt was
// printed is there afterwards, once and in order. Lines without a receipt may be.
func TestOutbox_KilledPublisherLeavesWhatItConfirmed(t *testing.T) {
	t.Parallel()
	const before = 5000
	topic, dir := quietTopic(t), outboxDir(t)
	pub := start(t, nil, "pub", "--outbox", dir, topic, "--json")
	go func() { // ends with pub
		for n := 0; ; n += 1000 {
			if _, err := io.WriteString(pub.stdin, sequence(n, n+1000)); err != nil {
				return
			}
		}
	}()
	var printed strings.Builder
	for range before {
		printed.WriteString(pub.stdout.line())
	}
	pub.signal(syscall.SIGKILL)
	rest, _ := pub.wait()
	confirmed := receipts(t, printed.String()+rest)
	require.GreaterOrEqual(t, confirmed, before)

	waiting := list(t, dir).Pending
	require.GreaterOrEqual(t, waiting, confirmed)
	sub, _ := startSub(t, nil, topic, "--group", "g")
	drain(t, dir)
	require.Equal(t, sequence(0, waiting), interrupted(t, sub))
	require.Zero(t, list(t, dir).Pending)
}

// The subscriber lives through it, and has had some of the messages from the publisher that was killed.
func TestOutbox_KilledPublisherDuplicatesNothing(t *testing.T) {
	t.Parallel()
	topic, dir := quietTopic(t), outboxDir(t)
	sub, _ := startSub(t, nil, topic, "--group", "g")
	pub := start(t, nil, "pub", "--outbox", dir, topic, "--json")
	_, err := io.WriteString(pub.stdin, sequence(0, 3000))
	require.NoError(t, err)
	var got strings.Builder
	for range 1000 { // of the subscriber: what it has not acked yet, it may be sent again
		got.WriteString(sub.stdout.line())
	}
	for range 3000 {
		require.NotEmpty(t, pub.stdout.line())
	}
	pub.signal(syscall.SIGKILL)
	_, _ = pub.wait()
	_, stderr, code := runCommand(t, sequence(3000, 3500), "pub", "--outbox", dir, topic)
	require.Zero(t, code, stderr)
	got.WriteString(interrupted(t, sub))
	require.Equal(t, sequence(0, 3500), got.String())
}

func TestOutbox_EndOfInputDeliversAll(t *testing.T) {
	t.Parallel()
	topic, dir := quietTopic(t), outboxDir(t)
	long := strings.Repeat("long", 200_000) + "\n"
	pub := start(t, nil, "pub", "--outbox", dir, topic, "--json")
	_, err := io.WriteString(pub.stdin, sequence(0, 3000)+long+"\n")
	require.NoError(t, err)
	require.NoError(t, pub.stdin.Close())
	var printed strings.Builder
	for range 3002 {
		printed.WriteString(pub.stdout.line()) // although nobody listens
	}
	sub, _ := startSub(t, nil, topic, "--group", "g")
	rest, code := pub.wait()
	require.Zero(t, code, pub.stderr.String())
	require.Empty(t, pub.stderr.String())
	require.Equal(t, 3002, receipts(t, printed.String()+rest))
	require.Equal(t, sequence(0, 3000)+long+"\n", interrupted(t, sub))
}

func TestOutbox_InterruptLeavesMessages(t *testing.T) {
	t.Parallel()
	for name, atEnd := range map[string]bool{"at the end of the input": true, "before it": false} {
		t.Run(name, func(t *testing.T) {
			topic, dir := quietTopic(t), outboxDir(t)
			pub := start(t, nil, "pub", "--outbox", dir, topic, "--json")
			_, err := io.WriteString(pub.stdin, sequence(0, 10))
			require.NoError(t, err)
			if atEnd {
				require.NoError(t, pub.stdin.Close())
			}
			for range 10 {
				require.NotEmpty(t, pub.stdout.line())
			}
			pub.signal(os.Interrupt)
			_, code := pub.wait()
			require.Equal(t, exitInterrupted, code)
			requireOneLine(t, pub.stderr.String(), "interrupted: 10 messages wait in "+dir)

			sub, _ := startSub(t, nil, topic, "--group", "g")
			drain(t, dir)
			require.Equal(t, sequence(0, 10), interrupted(t, sub))
		})
	}
}

func TestDrain_InterruptedLosesNothing(t *testing.T) {
	t.Parallel()
	topic, dir := quietTopic(t), outboxDir(t)
	leave(t, dir, topic, 3)
	pub := start(t, nil, "pub", "--outbox", dir, "--drain", "-v")
	pub.awaitLine("Connection lost") // it has looked for the subscriber
	pub.signal(os.Interrupt)
	_, code := pub.wait()
	require.Equal(t, exitInterrupted, code)
	require.Contains(t, pub.stderr.String(), "buffstreams: interrupted: 3 messages wait in "+dir)
	require.Equal(t, 3, list(t, dir).Pending)
}

// leave puts lines into an outbox that nobody takes out.
func leave(t *testing.T, dir, topic string, lines int) {
	t.Helper()
	_, stderr, code := runCommand(t, sequence(0, lines), "pub", "--outbox", dir, topic, "--timeout", "1ms")
	require.Equal(t, 1, code)
	wait := fmt.Sprintf("%d messages wait in %s: ", lines, dir)
	if lines == 1 {
		wait = "1 message waits in " + dir + ": 1 for unix://"
	}
	requireOneLine(t, stderr, "not everything was delivered within 1ms: "+wait)
}

func TestOutbox_OneProcessOwnsIt(t *testing.T) {
	t.Parallel()
	topic, dir := quietTopic(t), outboxDir(t)
	first := start(t, nil, "pub", "--outbox", dir, topic, "--json")
	_, err := io.WriteString(first.stdin, "mine\n")
	require.NoError(t, err)
	require.NotEmpty(t, first.stdout.line())
	for _, args := range [][]string{
		{"pub", "--outbox", dir, topic}, {"pub", "--outbox", dir, "--drain"}, {"outbox", "ls", dir},
	} {
		stdout, stderr, code := runCommand(t, "yours\n", args...)
		require.Equal(t, 1, code)
		require.Empty(t, stdout)
		requireOneLine(t, stderr, "the outbox "+dir+" is in use by another process")
	}
	first.signal(os.Interrupt)
	_, code := first.wait()
	require.Equal(t, exitInterrupted, code)
	require.Equal(t, 1, list(t, dir).Pending)
}

// Messages for somebody who is away hold up nobody else, and a bound on the wait holds.
func TestDrain_DeliversAroundAnAbsentSubscriber(t *testing.T) {
	t.Parallel()
	away, there, dir := quietTopic(t), quietTopic(t), outboxDir(t)
	leave(t, dir, away, 1)
	sub, _ := startSub(t, nil, there, "--count", "5", "--group", "g")
	pub := start(t, nil, "pub", "--outbox", dir, there)
	_, err := io.WriteString(pub.stdin, sequence(0, 5))
	require.NoError(t, err)
	require.NoError(t, pub.stdin.Close())
	got, _ := sub.wait()
	require.Equal(t, sequence(0, 5), got)
	pub.signal(os.Interrupt)
	_, code := pub.wait()
	require.Equal(t, exitInterrupted, code)

	_, stderr, code := runCommand(t, "", "pub", "--outbox", dir, "--drain", "--timeout", "3s") // it has to look for the subscriber first
	require.Equal(t, 1, code)
	address, _, _ := strings.Cut(away, "#")
	requireOneLine(t, stderr, "not everything was delivered within 3s", "1 message waits in "+dir,
		": 1 for "+address+" (connect: no such file or directory)")
}

func TestOutbox_Ls(t *testing.T) {
	t.Parallel()
	topic, dir := quietTopic(t), outboxDir(t)
	leave(t, dir, topic, 4)
	address, name, _ := strings.Cut(topic, "#")
	for range 2 { // looking changes nothing
		l := list(t, dir)
		require.Len(t, l.Streams, 1)
		s := l.Streams[0]
		require.Equal(t, address, s.Destination)
		require.Equal(t, name, s.Topic)
		require.Equal(t, []int{4, 1, 5, 4}, []int{s.Pending, s.First, s.Next, l.Pending})
		require.Positive(t, s.Bytes)
		require.Equal(t, s.Bytes, l.Bytes)
	}
	stdout, stderr, code := runCommand(t, "", "outbox", "ls", dir)
	require.Zero(t, code, stderr)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	require.Len(t, lines, 3)
	require.Equal(t, []string{"DESTINATION", "TOPIC", "PENDING", "BYTES", "FIRST", "NEXT"}, strings.Fields(lines[0]))
	row, total := strings.Fields(lines[1]), strings.Fields(lines[2])
	require.Equal(t, []string{address, name, "4", row[3], "1", "5"}, row)
	require.Equal(t, []string{"TOTAL", "4", row[3]}, total)

	sub, _ := startSub(t, nil, topic, "--group", "g")
	drain(t, dir)
	require.Equal(t, sequence(0, 4), interrupted(t, sub))
	l := list(t, dir)
	require.Empty(t, l.Streams, "one that holds nothing ends with its publisher")
	require.Zero(t, l.Pending)
	require.Zero(t, l.Bytes)
}
