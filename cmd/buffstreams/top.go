package main

import (
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/buffstreams/watermill-buffstreams/cmd/internal/watch"
)

const topHelp = `Show what a process does, from the /stats of its monitor: whether it is ready; what is stuck, and why; addresses, groups and
outboxes with rates.

ADDRESS is that of the monitor: host:port, or a URL with the path at which it is mounted.

On a terminal the tables are drawn anew every --interval until an interrupt, as far as they have room. Elsewhere, and where TERM is not
set or dumb, there is one, unless --count says otherwise: tables with headings, an empty line between them, and cells without spaces or in quotes.
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
			o := watch.TopOptions{Every: f.interval, Count: f.count, Rows: f.rows, JSON: f.json, Out: os.Stdout}
			switch {
			case screen(os.Stdout) > 0 && !f.json:
				o.Screen = screenSize
			case f.count == 0:
				o.Count = 1
			}
			return watch.Top(cmd.Context(), s, o)
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

// screenSize is that of the terminal, or the usual one where it does not say.
func screenSize() (columns, rows int) {
	columns, rows, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil || columns <= 0 || rows <= 0 {
		return 80, 24
	}
	return columns, rows
}
