package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
)

const subHelp = `Listen at a topic's address and print its messages, each on a line of its own.

` + topicHelp + `

A message is acked after it was written. Payloads can contain newlines and any other byte; for exact output use
  --json  an object for each message, on a line: uuid, attempt (the number of the delivery), metadata, payload_base64 with
          the exact bytes, and payload, the same as text, if it is UTF-8
  --raw   the payload without a newline after it
  --dump  files in a directory: NUMBER.payload with the exact bytes, and NUMBER.json with the rest; numbers go on
          where an earlier command ended

An interrupt ends the listening: what is at hand is written and acked, then the command returns 0; so it does when
the reader of its output is gone. Unacked messages stay with their publishers.`

type subFlags struct {
	wireFlags
	group     string
	count     int
	json, raw bool
	timestamp bool
	headers   bool
	nack      bool
	dump      string
}

func newSub(secret accessFlags) *cobra.Command {
	f := subFlags{wireFlags: wireFlags{accessFlags: secret}}
	cmd := &cobra.Command{
		Use: "sub TOPIC", Short: "Print the messages of a topic", Long: subHelp, Args: cobra.ExactArgs(1),
		Example: `  buffstreams sub 127.0.0.1:5031/orders
  buffstreams sub 127.0.0.1:5031/orders --group billing --json | jq .metadata
  buffstreams sub 127.0.0.1:5031/orders --headers --timestamp --nack --count 1
  buffstreams sub tls://:5031/orders --tls-cert cert.pem --tls-key key.pem --token-file token --dump orders`,
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
	flags.BoolVar(&f.timestamp, "timestamp", false, "the time of arrival before each payload; with --json a field time")
	flags.BoolVar(&f.headers, "headers", false, "a line with UUID and metadata before each payload")
	flags.StringVar(&f.dump, "dump", "", "write messages to files in this directory, and not to standard output")
	flags.BoolVar(&f.nack, "nack", false, "give every message back after it was written; it comes again after a second")
	return cmd
}

func (f *subFlags) options(cmd *cobra.Command, topic string) (pipe.SubOptions, error) {
	common, err := f.wireFlags.options(cmd, topic)
	o := pipe.SubOptions{
		Options: common, Group: f.group, Count: f.count, Out: os.Stdout,
		Timestamp: f.timestamp, Headers: f.headers, Dump: f.dump, Nack: f.nack, Warn: os.Stderr,
		Listening: listening,
	}
	switch {
	case err != nil:
		return o, err
	case f.count < 0 || cmd.Flags().Changed("count") && f.count == 0:
		return o, fmt.Errorf("--count %d is not positive", f.count)
	case f.raw && (f.timestamp || f.headers):
		return o, errors.New("--raw prints payloads alone: --timestamp and --headers have no meaning with it")
	case f.dump != "" && (f.json || f.raw):
		return o, errors.New("--dump prints nothing: --json and --raw have no meaning with it")
	case f.nack && o.Wire == buffstreams.WireBuffStreams:
		return o, errors.New("--nack is not possible on the buffstreams wire: it has no acks")
	case cmd.Flags().Changed("dump") && f.dump == "":
		return o, errors.New("--dump is empty")
	case f.json && f.raw:
		return o, errors.New("--json and --raw exclude each other")
	case f.json:
		o.Format = pipe.JSON
	case f.raw:
		o.Format = pipe.Raw
	}
	return o, nil
}
