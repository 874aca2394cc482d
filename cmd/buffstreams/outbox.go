package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
)

const outboxLsHelp = `List the streams of an outbox, as the --outbox of pub and the library make them: where their messages go, how many
wait, what these count against the quota in bytes, the first sequence that was not handled and the next to be given out.

Listing opens the outbox, as publishing does, and so fails while another process uses it. Nothing is sent, and no message
changes; what receivers see of it is that the outbox's epoch is higher when it is opened next.

  --json  one object: dir, streams (destination, topic, pending, bytes, first, next), pending and bytes in total

Exit codes: 0 listed; 1 failed.`

func newOutbox() *cobra.Command {
	cmd := &cobra.Command{
		Use: "outbox", Short: "Look into the outbox of a publisher", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newOutboxLs())
	return cmd
}

func newOutboxLs() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls DIR", Short: "List what waits in an outbox", Long: outboxLsHelp, Args: cobra.ExactArgs(1),
		Example: `  buffstreams outbox ls /var/spool/orders
  buffstreams outbox ls /var/spool/orders --json | jq .pending`,
		RunE: func(_ *cobra.Command, args []string) error { return pipe.List(args[0], os.Stdout, asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one object")
	return cmd
}
