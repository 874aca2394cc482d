package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
)

const topicHelp = `TOPIC is [tcp|tls://]host:port[/name] or unix:///path.sock#name. Both ends must name the same topic; on the buffstreams
wire there are no names.`

// wireFlags are those of pub and sub.
type wireFlags struct {
	wire    string
	max     int
	verbose bool
}

func (f *wireFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.wire, "wire", "acked", "protocol: acked, or buffstreams for peers of the original library")
	cmd.Flags().IntVar(&f.max, "max-message-size", 0,
		"limit of one message in bytes (default 1 MiB; on the buffstreams wire 4096, and it must equal the peer's)")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log on standard error what happens to connections")
}

func (f *wireFlags) options(cmd *cobra.Command, topic string) (pipe.Options, error) {
	o := pipe.Options{Topic: topic, MaxMessageSize: f.max, Logger: pipe.NewLogger(os.Stderr, f.verbose)}
	if cmd.Flags().Changed("max-message-size") && f.max <= 0 {
		return o, fmt.Errorf("--max-message-size %d is not positive", f.max)
	}
	var err error
	o.Wire, err = choose("--wire", f.wire, map[string]buffstreams.Wire{
		"acked": buffstreams.WireAcked, "buffstreams": buffstreams.WireBuffStreams,
	})
	return o, err
}

// choose maps the value of a flag.
func choose[T any](flag, value string, choices map[string]T) (T, error) {
	choice, ok := choices[value]
	if !ok {
		return choice, fmt.Errorf("%s %q is unknown; see --help", flag, value)
	}
	return choice, nil
}
