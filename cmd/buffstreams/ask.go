package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/spf13/cobra"

	"github.com/buffstreams/watermill-buffstreams/cmd/internal/ask"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
)

const requestHelp = `Publish a request, and print its reply.

` + topicHelp + `

The request is BODY, or standard input. Its metadata says where the reply is to go (reply_to: a topic at which this command
listens while it waits) and to what it belongs (correlation_id, as Watermill's middleware has it). The reply is printed with
a newline after it; --raw prints its exact bytes, --json an object as 'buffstreams sub' does.

Exit codes: 0 there is a reply; 1 there is none, or it says that the request failed; 130 interrupted.`

type requestFlags struct {
	accessFlags
	headers            []string
	listen             string
	timeout            time.Duration
	max                int
	json, raw, verbose bool
}

func newRequest(secret accessFlags) *cobra.Command {
	f := requestFlags{accessFlags: secret}
	cmd := &cobra.Command{
		Use: "request TOPIC [BODY]", Short: "Publish a request and print its reply", Long: requestHelp, Args: cobra.RangeArgs(1, 2),
		Example: `  buffstreams request 127.0.0.1:5031/greet world
  buffstreams request 127.0.0.1:5031/resize --raw < picture.png > small.png`,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd.Context(), args) },
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.headers, "header", "H", nil, "metadata as key=value; can be repeated")
	flags.StringVar(&f.listen, "listen", "", "where to listen for the reply: [tls://]host:port (default: a free port of the address that reaches the topic's host)")
	flags.DurationVar(&f.timeout, "timeout", 5*time.Second, "how long to wait for the reply")
	flags.IntVar(&f.max, "max-message-size", 1<<20, "limit of request and reply in bytes")
	flags.BoolVar(&f.json, "json", false, "print an object")
	flags.BoolVar(&f.raw, "raw", false, "print the payload without a newline after it")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log on standard error what happens to connections")
	return cmd
}

func (f *requestFlags) run(ctx context.Context, args []string) error {
	format, err := f.format()
	if err != nil {
		return err
	}
	headers, err := pipe.Headers(f.headers)
	if err != nil {
		return err
	}
	var body []byte
	if len(args) == 2 {
		body = []byte(args[1])
	} else if body, err = io.ReadAll(io.LimitReader(os.Stdin, int64(f.max)+1)); err != nil {
		return err
	}
	if len(body) > f.max {
		return &pipe.TooLongError{What: "the request", Limit: f.max}
	}
	r, err := ask.NewRequester(ask.RequestOptions{
		Topic: args[0], Listen: f.listen, Timeout: f.timeout, MaxMessageSize: f.max, Access: f.access(),
		Logger: quietLogger(f.verbose),
	})
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	reply, err := r.Request(waiting, body, headers)
	why := ""
	if err != nil {
		why = r.Explain()
	}
	switch closeErr := r.Close(); {
	case ctx.Err() != nil:
		return pipe.ErrInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no reply from %s within %v: %s", args[0], f.timeout, why)
	case err != nil:
		return err
	case closeErr != nil && f.verbose:
		fmt.Fprintln(os.Stderr, "buffstreams: "+oneLine(closeErr)) // there is a reply all the same
	}
	return pipe.Print(os.Stdout, format, reply)
}

func (f *requestFlags) format() (pipe.Format, error) {
	switch {
	case f.timeout <= 0:
		return 0, fmt.Errorf("--timeout %v is not positive", f.timeout)
	case f.max <= 0:
		return 0, fmt.Errorf("--max-message-size %d is not positive", f.max)
	case f.json && f.raw:
		return 0, errors.New("--json and --raw exclude each other")
	case f.json:
		return pipe.JSON, nil
	case f.raw:
		return pipe.Raw, nil
	}
	return pipe.Text, nil
}

const replyHelp = `Listen at a topic and answer its requests.

` + topicHelp + `

The reply is the request itself (--echo), the same text for all (--text), or the output of a program, which gets the request as
its input (--exec; the program's path and arguments, without a shell). If the program fails, the reply says so, and 'buffstreams request'
returns 1.

A request says itself where its reply is to go. So replies go to loopback addresses only, unless --reply-to allows other networks;
and the token is shown to none of them. A request is acked after its reply; one that is interrupted comes again.

Exit codes: 0 ended by --count or an interrupt; 1 failed.`

type replyFlags struct {
	accessFlags
	echo, verbose       bool
	text, program       string
	allow               []string
	group               string
	count, workers, max int
}

func newReply(secret accessFlags) *cobra.Command {
	f := replyFlags{accessFlags: secret}
	cmd := &cobra.Command{
		Use: "reply TOPIC", Short: "Answer requests", Long: replyHelp, Args: cobra.ExactArgs(1),
		Example: `  buffstreams reply 127.0.0.1:5031/echo --echo
  buffstreams reply 127.0.0.1:5031/words --exec "wc -w"
  buffstreams reply tls://:5031/status --text ok --reply-to 10.0.0.0/8 --tls-cert cert.pem --tls-key key.pem`,
		RunE: func(cmd *cobra.Command, args []string) error {
			respond, err := f.responder(cmd)
			if err != nil {
				return err
			}
			return f.run(cmd.Context(), args[0], respond)
		},
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&f.echo, "echo", false, "reply with the request")
	flags.StringVar(&f.text, "text", "", "reply with this text")
	flags.StringVar(&f.program, "exec", "", "reply with the output of this program")
	flags.StringSliceVar(&f.allow, "reply-to", nil, "networks that replies may go to, such as 10.0.0.0/8 (default: loopback)")
	flags.StringVar(&f.group, "group", "", "consumer group to share the requests with")
	flags.IntVar(&f.count, "count", 0, "end after so many replies (default: no end)")
	flags.IntVar(&f.workers, "workers", 16, "requests to answer at a time")
	flags.IntVar(&f.max, "max-message-size", 1<<20, "limit of request and reply in bytes")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log on standard error what happens to connections")
	return cmd
}

func (f *replyFlags) responder(cmd *cobra.Command) (ask.Responder, error) {
	given := 0
	for _, flag := range []string{"echo", "text", "exec"} {
		if cmd.Flags().Changed(flag) {
			given++
		}
	}
	program := strings.Fields(f.program)
	switch {
	case given != 1:
		return nil, errors.New("exactly one of --echo, --text and --exec is needed")
	case f.echo:
		return func(_ context.Context, m *message.Message) ([]byte, error) { return m.Payload, nil }, nil
	case len(program) > 0:
		if _, err := exec.LookPath(program[0]); err != nil {
			return nil, fmt.Errorf("--exec: %w", err)
		}
		return ask.Program(program[0], program[1:]...), nil
	case cmd.Flags().Changed("exec"):
		return nil, errors.New("--exec names no program")
	}
	return func(context.Context, *message.Message) ([]byte, error) { return []byte(f.text), nil }, nil
}

func (f *replyFlags) run(ctx context.Context, topic string, respond ask.Responder) error {
	if f.count < 0 || f.workers < 1 || f.max < 1 {
		return errors.New("--count must not be negative; --workers and --max-message-size must be positive")
	}
	allow := ask.Loopback
	for i, network := range f.allow {
		prefix, err := netip.ParsePrefix(network)
		if err != nil {
			return fmt.Errorf("--reply-to %q is no network, such as 10.0.0.0/8", network)
		}
		if i == 0 {
			allow = nil
		}
		allow = append(allow, prefix)
	}
	return ask.Reply(ctx, ask.ReplyOptions{
		Topic: topic, Group: f.group, Count: f.count, Workers: f.workers, Allow: allow, MaxMessageSize: f.max,
		Access: f.access(), Logger: quietLogger(f.verbose), Listening: listening,
		Warn:    func(text string) { fmt.Fprintln(os.Stderr, "buffstreams: "+text) },
		Respond: respond,
	})
}
