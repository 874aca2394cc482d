package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/storage/dedupe"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// requireForce runs a command without --force, which changes nothing, and then with it.
func requireForce(t *testing.T, dir, would, done string, args ...string) {
	t.Helper()
	before := list(t, dir).Pending
	stdout, stderr, code := runCommand(t, "", args...)
	require.Equal(t, 1, code)
	require.Contains(t, stdout, would)
	requireOneLine(t, stderr, "nothing was changed", "--force")
	require.Equal(t, before, list(t, dir).Pending)
	stdout, stderr, code = runCommand(t, "", append(args, "--force")...)
	require.Zero(t, code, stderr)
	require.Empty(t, stderr)
	require.Contains(t, stdout, done)
}

func destination(topic string) string {
	d, _, _ := strings.Cut(topic, "#")
	return d
}

func TestOutboxShow_PrintsWhatWaits(t *testing.T) {
	t.Parallel()
	topic, other, dir := quietTopic(t), quietTopic(t), outboxDir(t)
	_, _, code := runCommand(t, "", "pub", "--outbox", dir, topic, "two\nlines\x00\xff"[:9], "-H", "k=v w", "--timeout", "1ms")
	require.Equal(t, 1, code)
	leaveMore(t, dir, other, "other\n", 2)
	stdout, stderr, code := runCommand(t, "", "outbox", "show", dir, "--json")
	require.Zero(t, code, stderr)
	var all []map[string]any
	for line := range strings.Lines(stdout) {
		var o map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &o))
		all = append(all, o)
	}
	require.Len(t, all, 2)
	require.Equal(t, "two\nlines", all[0]["payload"])
	require.Equal(t, map[string]any{"k": "v w"}, all[0]["metadata"])
	require.Equal(t, destination(topic), all[0]["destination"])
	require.EqualValues(t, 1, all[0]["sequence"])
	require.Len(t, all[0]["uuid"], 36)

	stdout, _, code = runCommand(t, "", "outbox", "show", dir, "--destination", destination(topic))
	require.Zero(t, code)
	require.Equal(t, 1, strings.Count(stdout, "\n"), "one line, whatever is in it")
	require.Contains(t, stdout, `k="v w" "two\nlines"`)
	for _, args := range [][]string{{"--topic", "x"}, {"--sequence", "2-"}, {"--destination", "nowhere"}} {
		stdout, _, code = runCommand(t, "", append([]string{"outbox", "show", dir}, args...)...)
		require.Zero(t, code)
		require.Empty(t, stdout)
	}
	stdout, _, _ = runCommand(t, "", "outbox", "show", dir, "--count", "1")
	require.Equal(t, 1, strings.Count(stdout, "\n"))
	require.Equal(t, 2, list(t, dir).Pending, "looking changes nothing")
}

// What waits for an address that will never come back is delivered elsewhere, in order, behind what waits there.
func TestOutboxMv_IsDeliveredElsewhere(t *testing.T) {
	t.Parallel()
	gone, there, dir := quietTopic(t), quietTopic(t), outboxDir(t)
	leaveMore(t, dir, there, "first\nsecond\n", 2)
	leaveMore(t, dir, gone, sequence(0, 3000), 3002)
	requireForce(t, dir, "would move to "+destination(there)+" messages: 3000", "moved to "+destination(there)+" messages: 3000",
		"outbox", "mv", dir, "--destination", destination(gone), "--to", destination(there))
	sub, _ := startSub(t, nil, there, "--group", "g")
	drain(t, dir)
	require.Equal(t, "first\nsecond\n"+sequence(0, 3000), interrupted(t, sub))
}

func TestOutboxMv_PartOfAStream(t *testing.T) {
	t.Parallel()
	gone, there, dir := quietTopic(t), quietTopic(t), outboxDir(t)
	leave(t, dir, gone, 10)
	requireForce(t, dir, "messages: 3", "messages: 3",
		"outbox", "mv", dir, "--destination", destination(gone), "--to", destination(there), "--sequence", "4-6")
	moved, _ := startSub(t, nil, there, "--group", "g")
	kept, _ := startSub(t, nil, gone, "--group", "g")
	drain(t, dir)
	require.Equal(t, sequence(3, 6), interrupted(t, moved))
	require.Equal(t, sequence(0, 3)+sequence(6, 10), interrupted(t, kept))
	require.Zero(t, list(t, dir).Pending)
}

func TestOutboxRm_DropsWhatIsChosen(t *testing.T) {
	t.Parallel()
	topic, other, dir := quietTopic(t), quietTopic(t), outboxDir(t)
	leave(t, dir, topic, 5)
	leaveMore(t, dir, other, "other\n", 6)
	requireForce(t, dir, "would drop messages: 1", "dropped messages: 1", "outbox", "rm", dir, "--destination", destination(topic), "--sequence", "2")
	require.Equal(t, 5, list(t, dir).Pending)
	sub, _ := startSub(t, nil, topic, "--group", "g")
	others, _ := startSub(t, nil, other, "--group", "g")
	drain(t, dir)
	require.Equal(t, sequence(0, 1)+sequence(2, 5), interrupted(t, sub))
	require.Equal(t, "other\n", interrupted(t, others))
	leaveMore(t, dir, topic, sequence(0, 3), 3)
	requireForce(t, dir, "messages: 3", "messages: 3", "outbox", "rm", dir, "--all")
	require.Zero(t, list(t, dir).Pending)
}

// What may have been sent already is counted: a receiver can have it.
func TestOutboxRm_SaysWhatMayHaveBeenSent(t *testing.T) {
	t.Parallel()
	topic, dir := quietTopic(t), outboxDir(t)
	sub, _ := startSub(t, nil, topic, "--group", "g", "--nack")
	pub := start(t, nil, "pub", "--outbox", dir, topic)
	_, err := io.WriteString(pub.stdin, "x\n")
	require.NoError(t, err)
	require.Equal(t, "x\n", sub.stdout.line())
	pub.signal(os.Interrupt)
	_, code := pub.wait()
	require.Equal(t, exitInterrupted, code)
	sub.signal(os.Kill)
	stdout, _, code := runCommand(t, "", "outbox", "rm", dir, "--all")
	require.Equal(t, 1, code)
	require.Equal(t, "would drop messages: 1, of which 1 may have been sent already\n", stdout)
	stdout, _, _ = runCommand(t, "", "outbox", "show", dir, "--json")
	require.Contains(t, stdout, `"sent":true`)
}

// retry keeps what the subscriber refuses, where pub --drain would drop it.
func TestOutboxRetry_KeepsWhatIsRefused(t *testing.T) {
	t.Parallel()
	topic, dir := quietTopic(t), outboxDir(t)
	_, _, code := runCommand(t, "ok\n"+strings.Repeat("x", 200)+"\n", "pub", "--outbox", dir, topic, "--timeout", "1ms")
	require.Equal(t, 1, code)
	sub, _ := startSub(t, nil, topic, "--group", "g", "--max-message-size", "100")
	_, stderr, code := runCommand(t, "", "outbox", "retry", dir, "--timeout", "5s")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "1 message waits in "+dir)
	require.Equal(t, "ok\n", interrupted(t, sub))
	require.Equal(t, 1, list(t, dir).Pending)
	sub, _ = startSub(t, nil, topic, "--group", "g")
	_, stderr, code = runCommand(t, "", "outbox", "retry", dir)
	require.Zero(t, code, stderr)
	require.Len(t, interrupted(t, sub), 201)
	require.Zero(t, list(t, dir).Pending)
}

// What cannot be read is named and dropped, and what is behind it is delivered.
func TestOutboxRepair_LetsTheRestPass(t *testing.T) {
	t.Parallel()
	topic, dir := quietTopic(t), outboxDir(t)
	leave(t, dir, topic, 1)
	stdout, stderr, code := runCommand(t, "", "outbox", "repair", dir)
	require.Zero(t, code, stderr)
	require.Equal(t, "sound: all 1 messages can be read\n", stdout)
	leaveMore(t, dir, topic, "behind\n", 2)
	damage(t, dir, "line 0")
	_, stderr, code = runCommand(t, "", "outbox", "show", dir)
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "repair")
	_, stderr, code = runCommand(t, "", "outbox", "rm", dir, "--all")
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "sequences 1 to ", "repair")
	requireForce(t, dir, "would drop 1 sequences", "dropped 1 sequences", "outbox", "repair", dir)
	sub, _ := startSub(t, nil, topic, "--group", "g")
	drain(t, dir)
	require.Equal(t, "behind\n", interrupted(t, sub))
}

func TestOutbox_InUse(t *testing.T) {
	t.Parallel()
	topic, dir := quietTopic(t), outboxDir(t)
	leave(t, dir, topic, 1)
	box, err := outbox.Open(outbox.Config{Dir: dir})
	require.NoError(t, err)
	defer func() { require.NoError(t, box.Close()) }()
	for _, args := range [][]string{{"ls"}, {"show"}, {"rm", "--all"}, {"mv", "--destination", "a:1", "--to", "b:1"}, {"retry"}, {"repair"}} {
		_, stderr, code := runCommand(t, "", append([]string{"outbox", args[0], dir}, args[1:]...)...)
		require.Equal(t, 1, code)
		requireOneLine(t, stderr, "in use")
	}
}

func TestOutboxMend_Errors(t *testing.T) {
	t.Parallel()
	topic, dir := quietTopic(t), outboxDir(t)
	leave(t, dir, topic, 1)
	for _, args := range [][]string{
		{"rm", dir}, {"rm", dir, "--all", "--destination", "x"}, {"rm", dir, "--all", "--sequence", "0"}, {"rm", dir, "--all", "--sequence", "3-2"},
		{"rm", dir, "--all", "--sequence", "x"}, {"mv", dir, "--destination", "x"}, {"mv", dir, "--to", "h:1"},
		{"mv", dir, "--destination", "x", "--to", "orders"}, {"mv", dir, "--destination", "x", "--to", "h:1/name"},
		{"mv", dir, "--destination", "h:1", "--to", "tcp://h:1"}, {"show", dir, "--count", "-1"}, {"show", dir + "no"}, {"repair", dir + "no"},
		{"retry", dir, "--timeout", "0s"}, {"retry", dir + "no"},
	} {
		_, stderr, code := runCommand(t, "", append([]string{"outbox"}, args...)...)
		require.Equal(t, 1, code, args)
		requireOneLine(t, stderr)
	}
	require.Equal(t, 1, list(t, dir).Pending)
}

// dedupeFile is that of a subscriber that has handled a message of each of two publishers.
func dedupeFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dedupe")
	file, err := dedupe.Open(path)
	require.NoError(t, err)
	cfg := buffstreams.ManagerConfig{CloseTimeout: time.Millisecond, Acked: buffstreams.AckedConfig{Dedupe: file}}
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ManagerConfig: cfg, ConsumerGroup: "g"}, nil)
	require.NoError(t, err)
	messages, err := sub.Subscribe(context.Background(), anyPort+"/t")
	require.NoError(t, err)
	at, err := sub.Addr(anyPort + "/t")
	require.NoError(t, err)
	for range 2 {
		box, err := outbox.Open(outbox.Config{Dir: t.TempDir()}) // its streams outlive their publisher
		require.NoError(t, err)
		publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Outbox: box}, nil)
		require.NoError(t, err)
		require.NoError(t, publisher.Publish(at.String()+"/t", message.NewMessage("", []byte("x")), message.NewMessage("", []byte("y"))))
		(<-messages).Ack()
		t.Cleanup(func() { _ = publisher.Close(); _ = box.Close() })
		(<-messages).Ack()
	}
	require.NoError(t, sub.Close())
	require.NoError(t, file.Save(map[store.StreamID]store.StreamState{ // one that ages
		{Publisher: [16]byte{0xab, 0xcd}, Stream: 1, Topic: "old topic"}: {
			Epoch: 3, Secret: [16]byte{1, 2, 3}, Settled: []store.Range{{First: 1, Last: 5}, {First: 8, Last: 9}},
			Groups: map[string][]store.Range{"g": {{First: 6, Last: 6}}},
		},
	}))
	require.NoError(t, file.Close())
	return path
}

func TestDedupe_ListAndForget(t *testing.T) {
	t.Parallel()
	path := dedupeFile(t)
	stdout, stderr, code := runCommand(t, "", "dedupe", "ls", path, "--publisher", "ABCD", "--json")
	require.Zero(t, code, stderr)
	var l struct {
		Publisher, Topic string
		Stream, Epoch    uint64
		Through          uint64 `json:"settled_through"`
		Beyond           uint64 `json:"settled_beyond"`
		Groups           map[string]uint64
		Saved            time.Time
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &l))
	require.Equal(t, "old topic", l.Topic)
	require.Equal(t, hex.EncodeToString([]byte{0xab, 0xcd})+strings.Repeat("0", 28), l.Publisher)
	require.Equal(t, []uint64{1, 3, 5, 2, 1}, []uint64{l.Stream, l.Epoch, l.Through, l.Beyond, l.Groups["g"]})
	require.WithinDuration(t, time.Now(), l.Saved, time.Minute)
	require.NotContains(t, stdout, "010203", "the secret is not shown")
	require.NotContains(t, stdout, "AQID")

	stdout, _, code = runCommand(t, "", "dedupe", "ls", path)
	require.Zero(t, code)
	rows := strings.Split(strings.TrimSpace(stdout), "\n")
	require.Contains(t, rows[0], "PUBLISHER")
	require.Contains(t, stdout, `"old topic"`)
	count := len(rows) - 1
	require.Greater(t, count, 1)

	stdout, stderr, code = runCommand(t, "", "dedupe", "rm", path, "--topic", "old topic")
	require.Equal(t, 1, code)
	require.Equal(t, "would forget streams: 1\n", stdout)
	requireOneLine(t, stderr, "--force")
	stdout, _, code = runCommand(t, "", "dedupe", "rm", path, "--topic", "old topic", "--force")
	require.Zero(t, code)
	require.Equal(t, "forgot streams: 1\n", stdout)
	stdout, _, _ = runCommand(t, "", "dedupe", "ls", path)
	require.Equal(t, count, strings.Count(stdout, "\n"))
	stdout, _, _ = runCommand(t, "", "dedupe", "rm", path, "--idle", "1h", "--force")
	require.Equal(t, "forgot streams: 0\n", stdout)
	_, _, code = runCommand(t, "", "dedupe", "rm", path, "--all", "--force")
	require.Zero(t, code)
	stdout, _, _ = runCommand(t, "", "dedupe", "ls", path)
	require.Equal(t, 1, strings.Count(stdout, "\n"))
}

func TestDedupe_Errors(t *testing.T) {
	t.Parallel()
	path := dedupeFile(t)
	none := path + "-none"
	text := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(text, []byte(strings.Repeat("no database", 1000)), 0o600))
	for _, args := range [][]string{
		{"ls", none}, {"ls", filepath.Dir(path)}, {"ls", text}, {"rm", path}, {"rm", path, "--all", "--topic", "x"}, {"rm", none, "--all"},
		{"ls", path, "--publisher", "xy"}, {"ls", path, "--publisher", strings.Repeat("a", 33)}, {"ls", path, "--idle", "-1s"},
	} {
		_, stderr, code := runCommand(t, "", append([]string{"dedupe"}, args...)...)
		require.Equal(t, 1, code, args)
		requireOneLine(t, stderr)
	}
	require.NoFileExists(t, none, "looking makes none")
	file, err := dedupe.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, file.Close()) }()
	_, stderr, code := runCommand(t, "", "dedupe", "ls", path)
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "in use")
}
