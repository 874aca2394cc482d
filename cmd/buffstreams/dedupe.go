package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/buffstreams/watermill-buffstreams/cmd/internal/stored"
)

// dedupeFlags choose records.
type dedupeFlags struct{ streams stored.Streams }

func (f *dedupeFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.streams.Publisher, "publisher", "", "only streams of this publisher: its id in hexadecimal, or the beginning of it")
	flags.StringVar(&f.streams.Topic, "topic", "", "only streams to this topic; it can be empty")
	flags.DurationVar(&f.streams.Idle, "idle", 0, "only streams of which nothing was saved for so long")
}

func (f *dedupeFlags) choose(cmd *cobra.Command) (stored.Streams, error) {
	s := f.streams
	s.HasTopic = cmd.Flags().Changed("topic")
	s.Publisher = strings.ToLower(s.Publisher)
	even := s.Publisher + strings.Repeat("0", len(s.Publisher)%2)
	if _, err := hex.DecodeString(even); err != nil || len(s.Publisher) > 32 {
		return s, fmt.Errorf("--publisher %.50q is not hexadecimal", s.Publisher)
	}
	if s.Idle < 0 {
		return s, fmt.Errorf("--idle %v is negative", s.Idle)
	}
	return s, nil
}

// day makes flags readable.
const day = 24 * time.Hour

func newDedupe() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dedupe", Short: "Look into the dedupe file of a subscriber, and mend it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDedupeLs(), newDedupeRm())
	return cmd
}

func newDedupeLs() *cobra.Command {
	var f dedupeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls FILE", Short: "List the streams that a dedupe file knows", Args: cobra.ExactArgs(1),
		Long: `List the streams that a dedupe file knows, those of a publisher side by side: up to which sequence all is settled, how many messages
are settled beyond a gap, how many only for a group, and when this was saved. One process at a time can use a file: stop the
subscriber first.

  --json  an object for each stream, on a line: publisher, stream, topic, epoch, settled_through, settled_beyond, groups, saved

Exit codes: 0 listed; 1 failed.`,
		Example: `  buffstreams dedupe ls /var/lib/orders/dedupe.db
  buffstreams dedupe ls /var/lib/orders/dedupe.db --topic orders --idle 720h --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := f.choose(cmd)
			if err != nil {
				return err
			}
			return stored.ListDedupe(args[0], s, asJSON, os.Stdout)
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print an object for each stream")
	return cmd
}

func newDedupeRm() *cobra.Command {
	var f dedupeFlags
	var force, all bool
	cmd := &cobra.Command{
		Use: "rm FILE", Short: "Forget streams", Args: cobra.ExactArgs(1),
		Long: `Forget streams of a dedupe file. If their publisher sends messages again that were handled, they are handled again. ` +
			`One process at
a time can use a file: stop the subscriber first.

` + outboxForce + `

Exit codes: 0 forgotten; 1 failed, or there was no --force.`,
		Example: `  buffstreams dedupe rm /var/lib/orders/dedupe.db --publisher 5f3a --force
  buffstreams dedupe rm /var/lib/orders/dedupe.db --idle 2160h --force`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := f.choose(cmd)
			if err == nil && all == (s.Publisher != "" || s.HasTopic || s.Idle > 0) {
				err = errors.New("--all is needed, or some of --publisher, --topic and --idle")
			}
			if err != nil {
				return err
			}
			return stored.RemoveDedupe(args[0], s, force, os.Stdout)
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all streams")
	cmd.Flags().BoolVar(&force, "force", false, "do it")
	return cmd
}
