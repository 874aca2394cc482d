package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/buffstreams/watermill-buffstreams/cmd/internal/frames"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/tap"
	"github.com/buffstreams/watermill-buffstreams/framing"
)

const tapHelp = `Stand between a publisher and a subscriber, and print the frames that cross, in both directions.

It listens at LISTEN, and connects to TARGET for each connection that it gets; both are addresses without a topic's name. Bytes
go on as they come, also what is no frame. The publisher has to be given LISTEN. Frames under TLS cannot be seen. A slow reader
of the output slows the connection down.

A line has the time, the number of the connection, > to the listener or < back, the kind of the frame, and its fields as
docs/protocol.md calls them. Tokens and secrets are never printed, messages only with --payloads.
  --json  an object for each frame, on a line: time, connection, direction, kind, size, body, messages

Exit codes: 0 ended by an interrupt, or by the end of its reader; 1 failed.`

func newTap() *cobra.Command {
	var o tap.Options
	var wire string
	var limit int
	cmd := &cobra.Command{
		Use: "tap LISTEN TARGET", Short: "Print the frames between two peers", Long: tapHelp, Args: cobra.ExactArgs(2),
		Example: `  buffstreams tap 127.0.0.1:5032 127.0.0.1:5031
  buffstreams tap 127.0.0.1:5032 127.0.0.1:5031 --json --payloads | jq 'select(.kind == "reject")'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.Plain, err = choose("--wire", wire, map[string]bool{"acked": false, "buffstreams": true}); err != nil {
				return err
			}
			if o.Codec, err = tapCodec(o.Plain, limit, cmd.Flags().Changed("max-message-size")); err != nil {
				return err
			}
			o.Listen, o.Target, o.Out, o.Listening = args[0], args[1], os.Stdout, listening
			o.Warn = func(text string) { fmt.Fprintln(os.Stderr, "buffstreams: "+text) }
			return tap.Run(cmd.Context(), o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&wire, "wire", "acked", "protocol: acked, or buffstreams")
	flags.IntVar(&limit, "max-message-size", 0, "on the buffstreams wire, the limit of the peers in bytes (default 4096)")
	flags.BoolVar(&o.JSON, "json", false, "print an object for each frame")
	flags.BoolVar(&o.Payloads, "payloads", false, "print the messages too")
	flags.BoolVar(&o.Insecure, "insecure", false, "listen where other machines can reach it")
	return cmd
}

// maxFrame is the largest frame that is decoded; larger ones are only passed on, with all behind them.
const maxFrame = 1 << 30

func tapCodec(plain bool, limit int, given bool) (framing.Codec, error) {
	switch {
	case given && limit <= 0:
		return nil, fmt.Errorf("--max-message-size %d is not positive", limit)
	case plain:
		return framing.NewBuffStreams(limit)
	case given:
		return nil, errors.New("--max-message-size is for the buffstreams wire")
	}
	return frames.Codec(maxFrame)
}
