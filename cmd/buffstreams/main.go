// Command buffstreams shows the transport at work (demo), connects topics with standard input and output (pub, sub), and
// lists what waits on disk (outbox).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
)

// exitInterrupted is the code of a command that a signal kept from finishing its work.
const exitInterrupted = 130

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)   // the second signal ends the process
	signal.Ignore(syscall.SIGPIPE) // a write to a closed pipe is an error that commands deal with
	err := newRoot().ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "buffstreams: "+oneLine(err))
	if errors.Is(err, pipe.ErrInterrupted) {
		return exitInterrupted
	}
	return 1
}

// oneLine is an error as a user sees it.
func oneLine(err error) string {
	text := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	return strings.TrimPrefix(text, "buffstreams: ")
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "buffstreams",
		Short:         "Messages over TCP without a broker, for Watermill and BuffStreams",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newDemo(), newDemoPublisher(), newPub(), newSub(), newOutbox(), newBridge())
	return root
}
