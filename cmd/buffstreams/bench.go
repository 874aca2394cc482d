package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/buffstreams/watermill-buffstreams/cmd/internal/bench"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
)

const benchHelp = `Measure throughput.

  pub   publishes to a subscriber elsewhere
  sub   receives from publishers elsewhere
  both  does both in this process, over a socket

Each publisher has a connection of its own. A warm-up comes first; its messages carry the metadata key ` + bench.WarmUpKey + `,
and are in no figure. A message counts for the publishing side when it has reached the level of --confirm, with --outbox when
it is on disk, and for the receiving side when its handler has it. 'both' compares the two counts at the end.

The report has the rate of all clients together, the spread of the clients' rates and of the rates of whole seconds, and
percentiles: of the duration of Publish calls, which send --batch messages each; and, with 'both', of the way of a message
from before its Publish call to its handler. At full speed most of that way is waiting in windows: 'buffstreams latency'
measures it at a set rate.

On a terminal of 64 columns or more a bar shows how far it is.
  --json  one object, whose fields stay the same while its "version" does
  --csv   a line for each client, and one for all of a side

Exit codes: 0 measured; 1 failed, or 'both' received not exactly what it published; 130 interrupted, with the report of
what was measured until then, unless the peer holds up the calls that are under way.`

type benchFlags struct {
	accessFlags
	clients, size, batch, count, inFlight int
	duration, warmUp, timeout             time.Duration
	confirm, outbox, group                string
	json, csv, verbose, quiet             bool
}

func newBench(secret accessFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure throughput", Long: benchHelp, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newBenchMode(secret, bench.Pub, "pub TOPIC", "Publish as fast as it goes", `  buffstreams bench pub 127.0.0.1:5031/bench --count 1000000 --size 256
  buffstreams bench pub tls://host:5031/bench --clients 4 --duration 10s --confirm handled --json`),
		newBenchMode(secret, bench.Sub, "sub TOPIC", "Receive and count", `  buffstreams bench sub 127.0.0.1:5031/bench --count 1000000
  buffstreams bench sub 127.0.0.1:5031/bench --clients 4 --duration 10s --csv`),
		newBenchMode(secret, bench.Both, "both [TOPIC]", "Publish and receive in this process", `  buffstreams bench both
  buffstreams bench both --clients 4 --size 1024 --count 500000 --outbox /var/tmp/bench --json`),
	)
	return cmd
}

func newBenchMode(secret accessFlags, mode bench.Mode, use, short, example string) *cobra.Command {
	f := benchFlags{accessFlags: secret}
	args := cobra.ExactArgs(1)
	if mode == bench.Both {
		args = cobra.MaximumNArgs(1)
	}
	cmd := &cobra.Command{
		Use: use, Short: short, Long: benchHelp, Example: example, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			topic := "127.0.0.1:0/bench"
			if len(args) == 1 {
				topic = args[0]
			}
			return f.run(cmd.Context(), mode, topic)
		},
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.IntVar(&f.clients, "clients", 1, "publishers, and subscriptions that share a group")
	flags.IntVar(&f.count, "count", 0, "messages of all clients together (default: as many as --duration allows)")
	flags.DurationVar(&f.duration, "duration", 5*time.Second, "how long to measure, where there is no --count")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long a confirmation, and the end, may take")
	flags.BoolVar(&f.json, "json", false, "print one JSON object")
	flags.BoolVar(&f.csv, "csv", false, "print comma-separated values")
	flags.BoolVar(&f.quiet, "no-progress", false, "show no bar on a terminal")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log on standard error what happens to connections")
	f.batch, f.confirm, f.group, f.inFlight = 100, "received", "bench", 256
	if mode != bench.Sub {
		flags.IntVar(&f.size, "size", 128, "bytes of a payload")
		flags.IntVar(&f.batch, "batch", f.batch, "messages of a Publish call")
		flags.DurationVar(&f.warmUp, "warmup", time.Second, "how long to send before measuring")
		flags.StringVar(&f.confirm, "confirm", f.confirm, "enqueued, received or handled")
		flags.StringVar(&f.outbox, "outbox", "", "confirm on disk: each publisher gets an outbox in this directory")
	}
	if mode != bench.Pub {
		flags.StringVar(&f.group, "group", f.group, "consumer group of the subscriptions")
		flags.IntVar(&f.inFlight, "in-flight", f.inFlight, "messages that a subscription may have unacked")
	}
	return cmd
}

func (f *benchFlags) run(ctx context.Context, mode bench.Mode, topic string) error {
	if f.json && f.csv {
		return errors.New("--json and --csv exclude each other")
	}
	confirm, err := choose("--confirm", f.confirm, confirms)
	if err != nil {
		return err
	}
	o := bench.Options{
		Mode: mode, Topic: topic, Clients: f.clients, Size: f.size, Batch: f.batch, Count: f.count, Duration: f.duration,
		WarmUp: f.warmUp, Confirm: confirm, ConfirmName: f.confirm, Outbox: f.outbox, Group: f.group, InFlight: f.inFlight,
		Timeout: f.timeout, Access: f.access(), Logger: pipe.NewLogger(os.Stderr, f.verbose), Listening: listening,
	}
	if mode != bench.Sub { // its errors say all that matters
		o.Logger = quietLogger(f.verbose)
	}
	if screen(os.Stderr) >= barWidth && !f.quiet {
		o.Bar = os.Stderr
	}
	report, err := bench.Run(ctx, o)
	if report == nil {
		return err
	}
	write := report.WriteText
	switch {
	case f.json:
		write = report.WriteJSON
	case f.csv:
		write = report.WriteCSV
	}
	return errors.Join(err, write(os.Stdout))
}

const (
	barWidth  = 64 // columns that the bar needs at least
	plotWidth = 80 // columns that the plot needs
)

// listening says where, in the one form that all commands have.
func listening(address string) { fmt.Fprintf(os.Stderr, "buffstreams: listening at %s\n", address) }

const latencyHelp = `Measure latency at a set rate.

Without a TOPIC messages go from this process to itself, over a loopback socket, and the latency is one way: until the
handler has the message. With a TOPIC they go to a 'buffstreams reply TOPIC --echo' and back, and it is that of the round trip.

Messages are sent on a schedule, whatever became of those before, and each is measured from the time at which it was due: so
a stall counts for every message that it held up (no coordinated omission). How late they were sent is shown besides: it
says whether this machine could keep the schedule.

Percentiles go to five nines; those with fewer than ten messages beyond them are marked. On a terminal of 80 columns, or with
--plot, a plot shows them, with the same room for each further nine. --json prints one object, whose fields stay the same while
its "version" does.

Exit codes: 0 measured; 1 failed, or messages did not come; 130 interrupted.`

type latencyFlags struct {
	accessFlags
	rate                      float64
	duration, warmUp, timeout time.Duration
	size                      int
	json, plot, verbose       bool
}

func newLatency(secret accessFlags) *cobra.Command {
	f := latencyFlags{accessFlags: secret}
	cmd := &cobra.Command{
		Use: "latency [TOPIC]", Short: "Measure latency at a set rate", Long: latencyHelp, Args: cobra.MaximumNArgs(1),
		Example: `  buffstreams latency --rate 10000 --duration 30s
  buffstreams latency 127.0.0.1:5031/echo --rate 500 --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			topic := ""
			if len(args) == 1 {
				topic = args[0]
			}
			return f.run(cmd, topic)
		},
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.Float64Var(&f.rate, "rate", 1000, "messages per second")
	flags.DurationVar(&f.duration, "duration", 10*time.Second, "how long to measure")
	flags.DurationVar(&f.warmUp, "warmup", time.Second, "how long to send before measuring")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Second, "how long messages may take at the end")
	flags.IntVar(&f.size, "size", 128, "bytes of a payload, 8 at least")
	flags.BoolVar(&f.json, "json", false, "print one JSON object")
	flags.BoolVar(&f.plot, "plot", false, "plot also where the output is no terminal; --plot=false never")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "log on standard error what happens to connections")
	return cmd
}

func (f *latencyFlags) run(cmd *cobra.Command, topic string) error {
	report, err := bench.Latency(cmd.Context(), bench.LatencyOptions{
		Topic: topic, Rate: f.rate, Duration: f.duration, WarmUp: f.warmUp, Size: f.size, Timeout: f.timeout,
		Access: f.access(), Logger: quietLogger(f.verbose),
	})
	if report == nil {
		return err
	}
	if f.json {
		return errors.Join(err, report.WriteJSON(os.Stdout))
	}
	plot := f.plot || screen(os.Stdout) >= plotWidth && !cmd.Flags().Changed("plot")
	return errors.Join(err, report.WriteText(os.Stdout, plot))
}
