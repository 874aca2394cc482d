package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/access"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
)

const topicHelp = `TOPIC is [tcp|tls://]host:port[/name] or unix:///path.sock#name. Both ends must name the same topic; on the buffstreams
wire there are no names.`

// accessFlags say how connections are secured.
type accessFlags struct {
	access.Access
	token *string // from the environment or the profile, once the command runs
}

func (f *accessFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.CA, "tls-ca", "", "PEM file of the certificates that the other side is verified by (default: the system's)")
	flags.StringVar(&f.Certificate, "tls-cert", "", "PEM file of this side's certificate")
	flags.StringVar(&f.Key, "tls-key", "", "PEM file of its key")
	flags.StringVar(&f.TokenFile, "token-file", "", "file with the token to show, or to demand where this side listens")
	flags.BoolVar(&f.Insecure, "insecure", false, "plaintext where other machines can reach it, also for the token")
}

// access is what the flags and the environment say.
func (f *accessFlags) access() access.Access {
	a := f.Access
	a.Token = *f.token
	return a
}

// wireFlags are those of pub and sub.
type wireFlags struct {
	accessFlags
	wire    string
	max     int
	verbose bool
}

func (f *wireFlags) register(cmd *cobra.Command) {
	f.accessFlags.register(cmd)
	cmd.Flags().StringVar(&f.wire, "wire", "acked", "protocol: acked, or buffstreams for peers of the original library")
	cmd.Flags().IntVar(&f.max, "max-message-size", 0,
		"limit of one message in bytes (default 1 MiB; on the buffstreams wire 4096, and it must equal the peer's)")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log on standard error what happens to connections")
}

func (f *wireFlags) options(cmd *cobra.Command, topic string) (pipe.Options, error) {
	o := pipe.Options{Topic: topic, MaxMessageSize: f.max, Access: f.access(), Logger: pipe.NewLogger(os.Stderr, f.verbose)}
	if cmd.Flags().Changed("max-message-size") && f.max <= 0 {
		return o, fmt.Errorf("--max-message-size %d is not positive", f.max)
	}
	var err error
	o.Wire, err = choose("--wire", f.wire, map[string]buffstreams.Wire{
		"acked": buffstreams.WireAcked, "buffstreams": buffstreams.WireBuffStreams,
	})
	if err == nil && o.Wire == buffstreams.WireBuffStreams && o.Access.HasToken() {
		err = errors.New("a token is not possible on the buffstreams wire: it has no greeting to show it in")
	}
	return o, err
}

// confirms are the values of --confirm.
var confirms = map[string]buffstreams.Confirm{
	"enqueued": buffstreams.ConfirmEnqueued, "received": buffstreams.ConfirmReceived, "handled": buffstreams.ConfirmHandled,
}

// choose maps the value of a flag.
func choose[T any](flag, value string, choices map[string]T) (T, error) {
	choice, ok := choices[value]
	if !ok {
		return choice, fmt.Errorf("%s %q is unknown; see --help", flag, value)
	}
	return choice, nil
}

// terminal tells whether a person looks at f.
func terminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// screen is the number of columns of a terminal that can be drawn on; 0: f is none.
func screen(f *os.File) int {
	if kind := os.Getenv("TERM"); !terminal(f) || kind == "" || kind == "dumb" {
		return 0
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil || columns <= 0 {
		return 80
	}
	return columns
}

// quietLogger is for commands whose errors say all that matters.
func quietLogger(verbose bool) watermill.LoggerAdapter {
	if !verbose {
		return watermill.NopLogger{}
	}
	return pipe.NewLogger(os.Stderr, verbose)
}
