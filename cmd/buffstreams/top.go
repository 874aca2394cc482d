package main

import (
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/buffstreams/watermill-buffstreams/cmd/internal/watch"
)

const topHelp = `Show what a process does, from the /stats of its monitor: whether it is ready; what is stuck, and why; addresses, groups and
outboxes with rates.

ADDRESS is that of the monitor: host:port, or a URL with the path at which it is mounted.

On a terminal the tables are drawn anew every --interval until an interrupt. Elsewhere there is one, unless --count says
otherwise: tables with headings, an empty line between them, and cells without spaces or in quotes.
  --json  the statistics as they came, on a line

Exit codes: 0 shown, or ended by an interrupt; 1 failed.`

type topFlags struct {
	accessFlags
	interval    time.Duration
	count, rows int
	json        bool
}

func newTop(secret accessFlags) *cobra.Command {
	f := topFlags{accessFlags: secret}
	cmd := &cobra.Command{
		Use: "top ADDRESS", Short: "Show what a process does, from its monitor", Long: topHelp, Args: cobra.ExactArgs(1),
		Example: `  buffstreams top 127.0.0.1:8080
  buffstreams top https://host:8080/buffstreams --token-file token --tls-ca ca.pem
  buffstreams top 127.0.0.1:8080 --json | jq .stuck`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.interval < 100*time.Millisecond || f.rows < 1 || f.count < 0 {
				return errors.New("--interval must be at least 100ms, --rows positive, and --count not negative")
			}
			s, err := watch.Open(args[0], f.access())
			if err != nil {
				return err
			}
			defer s.Close()
			screen := terminal(os.Stdout) && !f.json
			if !screen && f.count == 0 {
				f.count = 1
			}
			return watch.Top(cmd.Context(), s, watch.TopOptions{
				Every: f.interval, Count: f.count, Rows: f.rows, Screen: screen, JSON: f.json, Out: os.Stdout,
			})
		},
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.DurationVar(&f.interval, "interval", time.Second, "time between two tables")
	flags.IntVar(&f.count, "count", 0, "end after so many tables (default: on a terminal no end, elsewhere 1)")
	flags.IntVar(&f.rows, "rows", 40, "rows of a list at most, the most troubled")
	flags.BoolVar(&f.json, "json", false, "print the statistics as they came")
	return cmd
}
