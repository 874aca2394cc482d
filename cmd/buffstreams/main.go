// Command buffstreams shows the transport at work (demo), connects topics with standard input and output (pub, sub),
// and lists what waits on disk (outbox).
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/buffstreams/watermill-buffstreams/cmd/internal/check"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/settings"
)

// exitInterrupted is the code of a command that a signal kept from finishing its work.
const exitInterrupted = 130

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)   // the second signal ends the process
	signal.Ignore(syscall.SIGPIPE) // a write to a closed pipe is an error that commands deal with
	var c command
	cmd, err := c.newRoot().ExecuteContextC(ctx)
	if err == nil || readerGone(err) {
		return 0
	}
	var state *check.StateError
	if errors.As(err, &state) {
		return int(state.State) // its line is written
	}
	if parent := cmd.Parent(); cmd.Name() == "check" || parent != nil && parent.Name() == "check" {
		fmt.Println(check.Result{Check: cmd.Name(), State: check.Unknown, Text: oneLine(err)}.Line())
		return int(check.Unknown)
	}
	fmt.Fprintln(os.Stderr, "buffstreams: "+oneLine(err))
	if errors.Is(err, pipe.ErrInterrupted) {
		return exitInterrupted
	}
	return 1
}

// readerGone tells that nothing is wrong but that the reader of standard output has gone, as head does when it has its
// lines.
func readerGone(err error) bool {
	switch e := err.(type) { //nolint:errorlint // all of its chain is looked at
	case *fs.PathError:
		return e.Path == os.Stdout.Name() && errors.Is(e, syscall.EPIPE)
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(e.Unwrap(), func(one error) bool { return !readerGone(one) })
	case interface{ Unwrap() error }:
		return readerGone(e.Unwrap())
	}
	return false
}

// oneLine is an error as a user sees it.
func oneLine(err error) string {
	var parts []string
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, line)
		}
	}
	return strings.TrimPrefix(strings.Join(parts, "; "), "buffstreams: ")
}

const rootHelp = `Messages over TCP without a broker, for Watermill and BuffStreams.

Every flag can also be set by an environment variable, BUFFSTREAMS_ and its name in capitals, with _ for -: BUFFSTREAMS_TLS_CA; and
by a profile, a JSON object with flags by their names, such as {"tls-ca": "ca.pem", "timeout": "5s"}. The command line counts
most, then the environment, then the profile. --profile or BUFFSTREAMS_PROFILE names it.

A token has no flag, as other users of the machine can read command lines: it is in the file of --token-file, in
BUFFSTREAMS_TOKEN, or in the profile as "token", whose file then only its owner may read.

Exit codes of all commands but check: 0 done, or the reader of the output has gone, as head does; 1 failed, with one line on standard error that says why; 130 interrupted.`

// command is what one execution has read.
type command struct{ token string }

func (c *command) newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "buffstreams",
		Short:         "Messages over TCP without a broker, for Watermill and BuffStreams",
		Long:          rootHelp,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       readVersion().String(),
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) (err error) {
			c.token, err = settings.Apply(cmd)
			return err
		},
	}
	root.SetVersionTemplate("{{.Version}}\n")
	settings.Register(root)
	secret := accessFlags{token: &c.token}
	root.AddCommand(newDemo(), newDemoPublisher(), newPub(secret), newSub(secret), newRequest(secret), newReply(secret), newOutbox(secret), newDedupe(),
		newBench(secret), newLatency(secret), newCheck(secret), newTop(secret), newTap(), newBridge(), newVersion(), newDocs())
	root.SetHelpCommand(newHelp())
	root.InitDefaultCompletionCmd()
	guide(root)
	return root
}
