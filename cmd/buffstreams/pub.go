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

const pubHelp = `Publish each line of standard input as a message, or a file as one.

` + topicHelp + `

The command waits for its subscriber up to --wait, and returns 0 when every message has reached the level of --confirm:
  enqueued  the send window took it; at the end of the input it is received as well
  received  the subscriber's process holds it
  handled   the subscriber has acked it
On the acked wire it stays at the end until all is handled, for at most --timeout, as it keeps what the subscriber would
need again after a crash. On the buffstreams wire, which knows no acks, it is enqueued, and at the end of the input all
is written to the socket.

An interrupt ends the reading; what was read is confirmed, then the command returns 130. A second one ends it at once.`

type pubFlags struct {
	wireFlags
	file, confirm string
	timeout, wait time.Duration
	json          bool
}

func newPub() *cobra.Command {
	var f pubFlags
	cmd := &cobra.Command{
		Use: "pub TOPIC", Short: "Publish lines of standard input, or a file", Long: pubHelp, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := f.options(cmd, args[0])
			if err != nil {
				return err
			}
			return pipe.Publish(cmd.Context(), o)
		},
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.file, "file", "", "publish this file as one message")
	flags.StringVar(&f.confirm, "confirm", "received", "enqueued, received or handled; on the buffstreams wire only enqueued")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long a confirmation may take")
	flags.DurationVar(&f.wait, "wait", 5*time.Second, "how long to wait at the start for somebody to listen at the address")
	flags.BoolVar(&f.json, "json", false, "print a line {line, uuid} for each message that was confirmed")
	return cmd
}

func (f *pubFlags) options(cmd *cobra.Command, topic string) (pipe.PubOptions, error) {
	common, err := f.wireFlags.options(cmd, topic)
	o := pipe.PubOptions{Options: common, Timeout: f.timeout, Wait: f.wait, File: f.file, In: os.Stdin, Warn: os.Stderr}
	if err != nil {
		return o, err
	}
	if !f.verbose { // all that matters shows in its error
		o.Logger = watermill.NopLogger{}
	}
	if f.timeout <= 0 {
		return o, fmt.Errorf("--timeout %v is not positive", f.timeout)
	}
	if f.wait < 0 {
		return o, fmt.Errorf("--wait %v is negative", f.wait)
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
	o.Confirm, err = choose("--confirm", f.confirm, map[string]buffstreams.Confirm{
		"enqueued": buffstreams.ConfirmEnqueued, "received": buffstreams.ConfirmReceived, "handled": buffstreams.ConfirmHandled,
	})
	if err == nil && o.Wire == buffstreams.WireBuffStreams && o.Confirm != buffstreams.ConfirmEnqueued {
		err = fmt.Errorf("--confirm %s is not possible on the buffstreams wire: it knows no acks", f.confirm)
	}
	return o, err
}
