package tests

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/engines"
)

// childJob makes a child of the test binary do a job instead of the tests: such as to be killed.
const childJob = "ENGINES_CHILD_JOB"

func TestMain(m *testing.M) {
	jobs := map[string]func() error{"hold": holdMessages, "take": takeMessages, "bridge": runBridgeChild, "nats-node": runNATSNode, "kafka": runKafkaChild}
	if name := os.Getenv(childJob); name != "" {
		if err := jobs[name](); err != nil {
			fmt.Fprintln(os.Stderr, name+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	stopServers()
	os.Exit(code)
}

// child is a process of the test binary with a job.
type child struct {
	*exec.Cmd
	lines chan string // of its standard output
}

// startChild starts a job, with variables as NAME=value. The test kills it at its end.
func startChild(t *testing.T, job string, env ...string) *child {
	t.Helper()
	c := &child{Cmd: exec.CommandContext(t.Context(), os.Args[0]), lines: make(chan string, 4096)}
	c.Env = append(append(os.Environ(), childJob+"="+job), env...)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	go func() { // ends with the child
		defer close(c.lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			c.lines <- scanner.Text()
		}
	}()
	t.Cleanup(c.kill)
	return c
}

// kill ends the child as kill -9 does, and waits for its end.
func (c *child) kill() {
	_ = c.Process.Kill()
	for range c.lines { // until the end of the output
	}
	_ = c.Wait()
}

// next returns the next line of the child.
func (c *child) next(t *testing.T) string {
	t.Helper()
	select {
	case line, ok := <-c.lines:
		require.True(t, ok, "the child has ended")
		return line
	case <-time.After(patience):
		require.Fail(t, "the child says nothing")
		return ""
	}
}

// patience is how long a test waits for what must come.
const patience = 2 * time.Minute

// childSubscription opens TEST_URL and subscribes to TEST_TOPIC.
func childSubscription() (<-chan *message.Message, error) {
	e, err := engines.Open(context.Background(), os.Getenv("TEST_URL"), drivers()...)
	if err != nil {
		return nil, err
	}
	sub, err := e.Subscriber()
	if err != nil {
		return nil, err
	}
	return sub.Subscribe(context.Background(), os.Getenv("TEST_TOPIC"))
}

// holdMessages prints what it gets and acks nothing, until it is killed.
func holdMessages() error {
	messages, err := childSubscription()
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for msg := range messages {
		fmt.Println(string(msg.Payload))
	}
	return nil
}

// takeMessages prints what it gets and acks it, until it is killed.
func takeMessages() error {
	messages, err := childSubscription()
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for msg := range messages {
		fmt.Println(string(msg.Payload))
		msg.Ack()
	}
	return nil
}
