package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/spf13/cobra"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
)

const pubHelp = `Publish each line of standard input as a message; or BODY, or a file, as one.

` + topicHelp + `

The command waits for its subscriber up to --wait, and returns 0 when every message has reached the level of --confirm:
  enqueued  the send window took it; at the end of the input it is received as well
  received  the subscriber's process holds it
  handled   the subscriber has acked it
On the acked wire it stays at the end until all is handled, for at most --timeout, as it keeps what the subscriber would
need again after a crash. On the buffstreams wire, which knows no acks, it is enqueued, and at the end of the input all
is written to the socket.

With --template payloads and values of --header are templates of Go's text/template: {{.Count}} is the number of the message
from 1, {{.ID}} its UUID, {{.Time}} {{.Unix}} {{.UnixNano}} the time, {{.Random 10 20}} a text of 10 to 20 letters and digits.

An interrupt ends the reading; what was read is confirmed (with --rate or --count: what was due), then the command returns 130. A second one ends it at once.

With --outbox DIR a line is confirmed, and its --json receipt printed, when it is on disk in the outbox DIR, whether or not
anybody listens. It is delivered in the background, in order, and again after a crash until it was handled; a subscriber
drops what it has already. At the end of the input the command waits until the outbox is empty, also of what earlier
commands left, and returns 0; --timeout bounds that wait, which otherwise has no end. When it ends early, by an interrupt
(130) or an error (1), it says how many messages are left: they stay in DIR, for the next command with this outbox.
  --drain   takes no input: delivers what is left in DIR, for whatever topic, and returns 0 when it is empty
One process at a time can use an outbox. It takes up to 1 GiB for a destination, and refuses lines beyond that.
'buffstreams outbox ls DIR' shows what waits, and its neighbours mend it.`

type pubFlags struct {
	wireFlags
	file, confirm, outbox string
	headers               []string
	rate                  float64
	count                 int
	template              bool
	timeout, wait         time.Duration
	json, drain           bool
}

func newPub(secret accessFlags) *cobra.Command {
	f := pubFlags{wireFlags: wireFlags{accessFlags: secret}}
	cmd := &cobra.Command{
		Use: "pub TOPIC [BODY]", Short: "Publish lines of standard input, a text, or a file", Long: pubHelp,
		Example: `  buffstreams pub 127.0.0.1:5031/greetings hello
  buffstreams pub 127.0.0.1:5031/orders --file order.json -H type=order -H customer=17
  buffstreams pub 127.0.0.1:5031/test --template 'number {{.Count}}, {{.Random 10 20}}' --count 1000 --rate 50
  buffstreams pub tls://host:5031/orders --tls-ca ca.pem --token-file token --outbox /var/spool/orders < orders.ndjson`,
		Args: f.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			topic := ""
			if !f.drain {
				topic = args[0]
			}
			o, err := f.options(cmd, topic)
			if err != nil {
				return err
			}
			if len(args) == 2 {
				body := []byte(args[1])
				o.Body = &body
			}
			if f.drain {
				return pipe.Drain(cmd.Context(), o)
			}
			return pipe.Publish(cmd.Context(), o)
		},
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.file, "file", "", "publish this file as one message")
	flags.StringArrayVarP(&f.headers, "header", "H", nil, "metadata as key=value; can be repeated")
	flags.IntVar(&f.count, "count", 0, "publish BODY or the file so many times; of standard input, at most so many lines")
	flags.Float64Var(&f.rate, "rate", 0, "messages per second at most (default: no limit)")
	flags.BoolVar(&f.template, "template", false, "payloads and values of --header are templates: see above")
	flags.StringVar(&f.confirm, "confirm", "received", "enqueued, received or handled; on the buffstreams wire only enqueued")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long a confirmation may take; with --outbox how long to wait at the end (default there: 0, no end)")
	flags.DurationVar(&f.wait, "wait", 5*time.Second, "how long to wait at the start for somebody to listen at the address")
	flags.BoolVar(&f.json, "json", false, "print a line {line, uuid} for each message that was confirmed")
	flags.StringVar(&f.outbox, "outbox", "", "confirm a message when it is on disk in this directory, and deliver it from there")
	flags.BoolVar(&f.drain, "drain", false, "with --outbox: take no input, deliver what earlier commands left")
	return cmd
}

// args demands a topic for the input.
func (f *pubFlags) args(cmd *cobra.Command, args []string) error {
	if f.drain { // a topic is of no meaning: whatever the outbox has is delivered
		return cobra.MaximumNArgs(1)(cmd, args)
	}
	if f.file != "" {
		return cobra.ExactArgs(1)(cmd, args)
	}
	return cobra.RangeArgs(1, 2)(cmd, args)
}

// checkOutbox refuses flags that contradict each other; with an outbox it makes the wait endless unless told otherwise.
func (f *pubFlags) checkOutbox(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	switch {
	case f.drain && f.outbox == "":
		return errors.New("--drain needs --outbox DIR")
	case given("outbox") && f.outbox == "":
		return errors.New("--outbox is empty")
	case f.outbox == "":
		return nil
	case f.wire != "acked":
		return fmt.Errorf("--outbox is not possible with --wire %s: only the acked wire tells what was delivered", f.wire)
	case given("confirm"):
		return errors.New("--confirm and --outbox exclude each other: a message is confirmed when it is in the outbox")
	case given("wait"):
		return errors.New("--wait and --outbox exclude each other: nobody needs to listen; --timeout bounds the wait at the end")
	case f.drain && (given("file") || f.json):
		return errors.New("--drain takes no input: --file and --json have no meaning with it")
	}
	if !given("timeout") {
		f.timeout = 0
	}
	return nil
}

func (f *pubFlags) options(cmd *cobra.Command, topic string) (pipe.PubOptions, error) {
	if err := f.checkOutbox(cmd); err != nil {
		return pipe.PubOptions{}, err
	}
	common, err := f.wireFlags.options(cmd, topic)
	o := pipe.PubOptions{
		Options: common, Outbox: f.outbox, Timeout: f.timeout, Wait: f.wait, File: f.file, In: os.Stdin, Warn: os.Stderr,
		Count: f.count, Rate: f.rate, Compose: pipe.Compose{Headers: f.headers, Template: f.template},
	}
	if err != nil {
		return o, err
	}
	if !f.verbose { // all that matters shows in its error
		o.Logger = watermill.NopLogger{}
	}
	if f.timeout < 0 || f.timeout == 0 && f.outbox == "" {
		return o, fmt.Errorf("--timeout %v is not positive", f.timeout)
	}
	if f.wait < 0 {
		return o, fmt.Errorf("--wait %v is negative", f.wait)
	}
	if f.count < 0 || f.count == 0 && cmd.Flags().Changed("count") {
		return o, fmt.Errorf("--count %d is not positive", f.count)
	}
	if cmd.Flags().Changed("rate") && !(f.rate > 0) { // NaN is not either
		return o, fmt.Errorf("--rate %v is not positive", f.rate)
	}
	if o.Wire == buffstreams.WireBuffStreams && len(f.headers) > 0 {
		return o, errors.New("--header is not possible on the buffstreams wire: it has no metadata")
	}
	if cmd.Flags().Changed("file") && f.file == "" {
		return o, errors.New("--file is empty")
	}
	if f.json {
		o.Receipts = os.Stdout
	}
	if o.Wire == buffstreams.WireBuffStreams && !cmd.Flags().Changed("confirm") {
		f.confirm = "enqueued"
	}
	o.Confirm, err = choose("--confirm", f.confirm, confirms)
	if err == nil && o.Wire == buffstreams.WireBuffStreams && o.Confirm != buffstreams.ConfirmEnqueued {
		err = fmt.Errorf("--confirm %s is not possible on the buffstreams wire: it knows no acks", f.confirm)
	}
	return o, err
}
