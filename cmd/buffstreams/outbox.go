package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/stored"
)

const outboxLsHelp = `List the streams of an outbox, as the --outbox of pub and the library make them: where their messages go, how many
wait, what these count against the quota in bytes, the first sequence that was not handled and the next to be given out.

Listing opens the outbox, as publishing does, and so fails while another process uses it. Nothing is sent, and no message
changes; what receivers see of it is that the outbox's epoch is higher when it is opened next.

  --json  one object: dir, streams (destination, topic, pending, bytes, first, next), pending and bytes in total

Exit codes: 0 listed; 1 failed.`

// outboxOne is what all commands that open an outbox say.
const outboxOne = `One process at a time can use an outbox: stop the publisher first.`

// outboxForce is what those say that change one.
const outboxForce = `Without --force nothing is changed: it says what it would do, and returns 1.`

func newOutbox(secret accessFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "outbox", Short: "Look into the outbox of a publisher, and mend it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newOutboxLs(), newOutboxShow(), newOutboxMv(), newOutboxRm(), newOutboxRetry(secret), newOutboxRepair())
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

// selectFlags choose messages.
type selectFlags struct {
	selection stored.Selection
	sequence  string
}

func (f *selectFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.selection.Destination, "destination", "", "only messages for this address, as ls shows it")
	flags.StringVar(&f.selection.Topic, "topic", "", "only messages of this topic; it can be empty")
	flags.StringVar(&f.sequence, "sequence", "", "only these: N, FIRST-LAST or FIRST-")
}

func (f *selectFlags) choose(cmd *cobra.Command) (stored.Selection, error) {
	f.selection.HasTopic = cmd.Flags().Changed("topic")
	err := f.selection.ParseSequences(f.sequence)
	return f.selection, err
}

func newOutboxShow() *cobra.Command {
	var f selectFlags
	var count int
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show DIR", Short: "Print messages of an outbox", Args: cobra.ExactArgs(1),
		Long: `Print the messages that wait in an outbox, a line each: destination, topic, sequence, UUID, metadata, and the payload's beginning in
quotes. ` + outboxOne + `

  --json  an object for each message: destination, topic, sequence, sent (whether it may have been sent already), uuid, metadata,
          payload_base64 with the exact bytes, and payload, the same as text, if it is UTF-8

Exit codes: 0 shown; 1 failed, or some messages cannot be read.`,
		Example: `  buffstreams outbox show /var/spool/orders --count 10
  buffstreams outbox show /var/spool/orders --destination 10.0.0.7:5031 --topic orders --sequence 17-20 --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := f.choose(cmd)
			if err == nil && count < 0 {
				err = fmt.Errorf("--count %d is negative", count)
			}
			if err != nil {
				return err
			}
			return stored.Show(args[0], s, count, asJSON, os.Stdout)
		},
	}
	f.register(cmd)
	cmd.Flags().IntVar(&count, "count", 0, "at most so many (default: all)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print an object for each message")
	return cmd
}

func newOutboxMv() *cobra.Command {
	var f selectFlags
	var to string
	var force bool
	cmd := &cobra.Command{
		Use: "mv DIR", Short: "Move messages to another destination", Args: cobra.ExactArgs(1),
		Long: `Move messages to another destination, for an address that will never come back. They keep their order and their topics, and go
behind those that wait for that destination already. What was sent to the old address and not handled may be handled at both: it
says how many messages that can be. ` + outboxOne + `

` + outboxForce + ` A crash on the way leaves messages in both places, never in none.

Exit codes: 0 moved; 1 failed, or there was no --force.`,
		Example: `  buffstreams outbox mv /var/spool/orders --destination 10.0.0.7:5031 --to 10.0.0.8:5031
  buffstreams outbox mv /var/spool/orders --destination 10.0.0.7:5031 --to 10.0.0.8:5031 --force`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := f.choose(cmd)
			if err == nil && (s.Destination == "" || to == "") {
				err = errors.New("--destination and --to are needed: 'buffstreams outbox ls' shows the destinations")
			}
			if err != nil {
				return err
			}
			return stored.Move(cmd.Context(), args[0], s, to, force, os.Stdout)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&to, "to", "", "the new destination: host:port, tls://host:port or unix:///path.sock")
	cmd.Flags().BoolVar(&force, "force", false, "do it")
	return cmd
}

func newOutboxRm() *cobra.Command {
	var f selectFlags
	var force, all bool
	cmd := &cobra.Command{
		Use: "rm DIR", Short: "Drop messages", Args: cobra.ExactArgs(1),
		Long: `Drop messages that wait in an outbox. They were confirmed to their publisher, and will not be delivered, unless they were sent
already. ` + outboxOne + `

` + outboxForce + `

Exit codes: 0 dropped; 1 failed, or there was no --force.`,
		Example: `  buffstreams outbox rm /var/spool/orders --destination 10.0.0.7:5031
  buffstreams outbox rm /var/spool/orders --destination 10.0.0.7:5031 --topic orders --sequence 17 --force`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := f.choose(cmd)
			if err == nil && all == (s.Destination != "") {
				err = errors.New("one of --destination and --all is needed")
			}
			if err != nil {
				return err
			}
			return stored.Remove(args[0], s, force, os.Stdout)
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "messages for all destinations")
	cmd.Flags().BoolVar(&force, "force", false, "do it")
	return cmd
}

func newOutboxRetry(secret accessFlags) *cobra.Command {
	f := accessFlags{token: secret.token}
	var timeout time.Duration
	var verbose bool
	cmd := &cobra.Command{
		Use: "retry DIR", Short: "Try to deliver what waits", Args: cobra.ExactArgs(1),
		Long: `Try to deliver what waits in an outbox, for at most --timeout. What a subscriber refuses stays, other than with 'buffstreams pub
--drain', which drops it after it has named it. At the end it says how many messages are left, and why. ` + outboxOne + `

Exit codes: 0 the outbox is empty; 1 messages are left; 130 interrupted.`,
		Example: `  buffstreams outbox retry /var/spool/orders --timeout 1m`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if timeout <= 0 {
				return fmt.Errorf("--timeout %v is not positive", timeout)
			}
			return pipe.Retry(cmd.Context(), pipe.PubOptions{
				Options: pipe.Options{Access: f.access(), Logger: quietLogger(verbose)}, Outbox: args[0], Timeout: timeout, Warn: os.Stderr,
			})
		},
	}
	f.register(cmd)
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to try")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log on standard error what happens to connections")
	return cmd
}

func newOutboxRepair() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "repair DIR", Short: "Drop what a damaged outbox cannot read", Args: cobra.ExactArgs(1),
		Long: `Read all messages of an outbox, and name those that cannot be read, as the file system has damaged them. With --force they are
dropped, so that those behind them are delivered. An outbox that cannot even be opened cannot be mended: restore it, or move its
directory away. ` + outboxOne + `

` + outboxForce + `

Exit codes: 0 all can be read, or what cannot was dropped; 1 failed, or there was no --force.`,
		Example: `  buffstreams outbox repair /var/spool/orders
  buffstreams outbox repair /var/spool/orders --force`,
		RunE: func(_ *cobra.Command, args []string) error { return stored.Repair(args[0], force, os.Stdout) },
	}
	cmd.Flags().BoolVar(&force, "force", false, "do it")
	return cmd
}
