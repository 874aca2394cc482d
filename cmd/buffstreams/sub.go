package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
)

const subHelp = `Listen at a topic's address and print its messages, each on a line of its own.

` + topicHelp + `

A message is acked after it was written. Payloads can contain newlines and any other byte; for exact output use
  --json  an object for each message, on a line: uuid, metadata, payload_base64 with the exact bytes, and payload, the
          same as text, if it is UTF-8
  --raw   the payload without a newline after it

An interrupt ends the listening: what is at hand is written and acked, then the command returns 0; so it does when
whoever reads its output is gone. Unacked messages stay with their publishers.`

type subFlags struct {
	wireFlags
	group     string
	count     int
	json, raw bool
	insecure  bool
}

func newSub() *cobra.Command {
	var f subFlags
	cmd := &cobra.Command{
		Use: "sub TOPIC", Short: "Print the messages of a topic", Long: subHelp, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := f.options(cmd, args[0])
			if err != nil {
				return err
			}
			return pipe.Subscribe(cmd.Context(), o)
		},
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.group, "group", "", "consumer group to share the messages with")
	flags.IntVar(&f.count, "count", 0, "return 0 after so many messages (default: no end)")
	flags.BoolVar(&f.json, "json", false, "print an object for each message")
	flags.BoolVar(&f.raw, "raw", false, "print payloads without a newline after each")
	flags.BoolVar(&f.insecure, "insecure", false, "listen in plaintext where other machines can reach it")
	return cmd
}

func (f *subFlags) options(cmd *cobra.Command, topic string) (pipe.SubOptions, error) {
	common, err := f.wireFlags.options(cmd, topic)
	o := pipe.SubOptions{
		Options: common, Group: f.group, Count: f.count, Insecure: f.insecure, Out: os.Stdout, Warn: os.Stderr,
		Listening: func(address string) { fmt.Fprintf(os.Stderr, "buffstreams: listening at %s\n", address) },
	}
	switch {
	case err != nil:
		return o, err
	case f.count < 0 || cmd.Flags().Changed("count") && f.count == 0:
		return o, fmt.Errorf("--count %d is not positive", f.count)
	case f.json && f.raw:
		return o, errors.New("--json and --raw exclude each other")
	case f.json:
		o.Format = pipe.JSON
	case f.raw:
		o.Format = pipe.Raw
	}
	return o, nil
}
