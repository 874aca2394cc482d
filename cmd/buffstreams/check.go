package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/check"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/watch"
	"github.com/buffstreams/watermill-buffstreams/monitor"
)

const checkHelp = `Look at a peer once, in the form of a plugin for monitoring systems of the Nagios family.

The output is one line, "BUFFSTREAMS NAME STATE - text | performance data", on standard output whatever the state is.

Exit codes: 0 OK; 1 WARNING; 2 CRITICAL, also where the peer cannot be reached or refuses; 3 UNKNOWN: a flag, an address or
a file of this side is no good, which says nothing of the peer.`

type checkFlags struct {
	accessFlags
	warning, critical, timeout time.Duration
}

func (f *checkFlags) register(cmd *cobra.Command, warning, critical time.Duration, what string) {
	f.accessFlags.register(cmd)
	flags := cmd.Flags()
	flags.DurationVarP(&f.warning, "warning", "w", warning, what+" from which on it is a warning; 0 never")
	flags.DurationVarP(&f.critical, "critical", "c", critical, what+" from which on it is critical; 0 never")
	flags.DurationVarP(&f.timeout, "timeout", "t", 10*time.Second, "how long to wait for the peer")
}

func (f *checkFlags) limits() check.Limits {
	return check.Limits{Warn: f.warning, Critical: f.critical}
}

// run looks, unless the flags or what they name make no sense: that says nothing of the peer, and so is no state of it.
func (f *checkFlags) run(cmd *cobra.Command, look func(ctx context.Context) (check.Result, error)) error {
	switch {
	case f.timeout <= 0:
		return fmt.Errorf("--timeout %v is not positive", f.timeout)
	case f.warning < 0 || f.critical < 0:
		return errors.New("--warning and --critical must not be negative; 0 means never")
	}
	if err := f.access().Client(&buffstreams.AckedConfig{}); err != nil {
		return err
	}
	return check.Run(cmd.Context(), os.Stdout, cmd.Name(), f.timeout, look)
}

func newCheck(secret accessFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "check", Short: "Look at a peer once, as a monitoring plugin", Long: checkHelp, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCheckConnect(secret), newCheckCertificate(secret), newCheckPublish(secret), newCheckLag(secret), newCheckStuck(secret),
		newCheckReady(secret))
	return cmd
}

func newCheckConnect(secret accessFlags) *cobra.Command {
	f := checkFlags{accessFlags: secret}
	var wire string
	cmd := &cobra.Command{
		Use: "connect ADDRESS", Short: "Connect and greet", Args: cobra.ExactArgs(1),
		Long: `Connect and greet, as a publisher does before its first message. It leaves nothing at the peer. On the buffstreams wire, which
has no greeting, it only connects.

` + checkHelp,
		Example: `  buffstreams check connect 127.0.0.1:5031
  buffstreams check connect tls://host:5031 --tls-ca ca.pem --token-file token -w 100ms -c 1s`,
		RunE: func(cmd *cobra.Command, args []string) error {
			plain, err := choose("--wire", wire, map[string]bool{"acked": false, "buffstreams": true})
			if err != nil {
				return err
			}
			if _, err := pipe.ParseTopic(args[0]); err != nil {
				return err
			}
			return f.run(cmd, func(ctx context.Context) (check.Result, error) {
				return check.Connect(ctx, check.ConnectOptions{Address: args[0], Plain: plain, Limits: f.limits(), Access: f.access()})
			})
		},
	}
	f.register(cmd, time.Second, 5*time.Second, "duration")
	cmd.Flags().StringVar(&wire, "wire", "acked", "protocol: acked, or buffstreams")
	return cmd
}

func newCheckCertificate(secret accessFlags) *cobra.Command {
	f := checkFlags{accessFlags: secret}
	cmd := &cobra.Command{
		Use: "certificate ADDRESS", Short: "Look when certificates expire", Args: cobra.ExactArgs(1),
		Long: `Look when the first of the certificates that a tls:// listener shows expires. It is critical too if this side would not accept
them: wrong name, unknown authority, not valid yet.

` + checkHelp,
		Example: `  buffstreams check certificate tls://host:5031
  buffstreams check certificate tls://host:5031 --tls-ca ca.pem -w 720h -c 72h`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch address, err := pipe.ParseTopic(args[0]); {
			case err != nil:
				return err
			case !address.Target.TLS:
				return fmt.Errorf("%s: there is no certificate without TLS; use a tls:// address", args[0])
			}
			return f.run(cmd, func(ctx context.Context) (check.Result, error) {
				return check.Certificate(ctx, check.CertificateOptions{Address: args[0], Limits: f.limits(), Access: f.access()})
			})
		},
	}
	f.register(cmd, 30*day, 7*day, "time left")
	return cmd
}

func newCheckPublish(secret accessFlags) *cobra.Command {
	f := checkFlags{accessFlags: secret}
	var confirm string
	cmd := &cobra.Command{
		Use: "publish TOPIC", Short: "Publish a message and wait for its confirmation", Args: cobra.ExactArgs(1),
		Long: `Publish one message without a payload, and wait until it is confirmed. The handlers of the topic get it, with the metadata key
` + check.MarkKey + `: they have to pass over it.

` + checkHelp,
		Example: `  buffstreams check publish 127.0.0.1:5031/health
  buffstreams check publish 127.0.0.1:5031/orders --confirm handled -w 500ms -c 5s`,
		RunE: func(cmd *cobra.Command, args []string) error {
			level, err := choose("--confirm", confirm, confirms)
			if err != nil {
				return err
			}
			if _, err := pipe.ParseTopic(args[0]); err != nil {
				return err
			}
			return f.run(cmd, func(ctx context.Context) (check.Result, error) {
				return check.Publish(ctx, check.PublishOptions{
					Topic: args[0], Confirm: level, ConfirmName: confirm, Limits: f.limits(), Access: f.access(),
				})
			})
		},
	}
	f.register(cmd, time.Second, 5*time.Second, "duration")
	cmd.Flags().StringVar(&confirm, "confirm", "received", "enqueued, received or handled")
	return cmd
}

func newCheckLag(secret accessFlags) *cobra.Command {
	f := checkFlags{accessFlags: secret}
	var o check.LagOptions
	cmd := &cobra.Command{
		Use: "lag ADDRESS", Short: "Look how far consumer groups are behind", Args: cobra.ExactArgs(1),
		Long: `Look in the /stats of a monitor how far consumer groups are behind: how many messages they have not settled, and how old the
oldest of these is. The group that is the furthest behind decides. ADDRESS is that of the monitor, as with 'buffstreams top'. That
there is no such group is critical.

` + checkHelp,
		Example: `  buffstreams check lag 127.0.0.1:8080
  buffstreams check lag https://host:8080/buffstreams --token-file token --topic orders --group billing --lag-critical 10000`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Warn < 0 || o.Critical < 0 {
				return errors.New("--lag-warning and --lag-critical must not be negative")
			}
			s, err := watch.Open(args[0], f.access())
			if err != nil {
				return err
			}
			defer s.Close()
			o.Age = f.limits()
			o.Stats = func(ctx context.Context) (monitor.Stats, error) { return s.Stats(ctx, 0) }
			return f.run(cmd, func(ctx context.Context) (check.Result, error) { return check.Lag(ctx, o) })
		},
	}
	f.register(cmd, 30*time.Second, 5*time.Minute, "age of the oldest message")
	flags := cmd.Flags()
	flags.StringVar(&o.Topic, "topic", "", "only this topic")
	flags.StringVar(&o.Group, "group", "", "only this group")
	flags.IntVar(&o.Warn, "lag-warning", 1000, "messages from which on it is a warning; 0 never")
	flags.IntVar(&o.Critical, "lag-critical", 10_000, "messages from which on it is critical; 0 never")
	return cmd
}

func newCheckStuck(secret accessFlags) *cobra.Command {
	return newCheckMonitor(secret, check.Stuck, &cobra.Command{
		Use: "stuck ADDRESS", Short: "Look what is stuck, and why", Args: cobra.ExactArgs(1),
		Long: `Look in the /stats of a monitor what is stuck: addresses, topics, groups, keys and outboxes that do not get on. The line names the
worst three and their reasons. It is critical where messages wait, otherwise a warning. ADDRESS is that of the monitor, as with 'buffstreams top'.

` + checkHelp,
		Example: `  buffstreams check stuck 127.0.0.1:8080
  buffstreams check stuck https://host:8080/buffstreams --token-file token`,
	})
}

func newCheckReady(secret accessFlags) *cobra.Command {
	return newCheckMonitor(secret, check.Ready, &cobra.Command{
		Use: "ready ADDRESS", Short: "Look whether a process is ready, and why not", Args: cobra.ExactArgs(1),
		Long: `Look in the /stats of a monitor whether its process is ready, as /readyz says: Managers, Publishers, Subscribers and outboxes. The line
has the first three reasons why it is not; then it is critical. ADDRESS is that of the monitor, as with 'buffstreams top'.

` + checkHelp,
		Example: `  buffstreams check ready 127.0.0.1:8080
  buffstreams check ready https://host:8080/buffstreams --token-file token`,
	})
}

// newCheckMonitor completes a check that looks at a monitor.
func newCheckMonitor(
	secret accessFlags, look func(context.Context, check.MonitorOptions) (check.Result, error), cmd *cobra.Command,
) *cobra.Command {
	f := checkFlags{accessFlags: secret}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := watch.Open(args[0], f.access())
		if err != nil {
			return err
		}
		defer s.Close()
		o := check.MonitorOptions{Stats: func(ctx context.Context) (monitor.Stats, error) { return s.Stats(ctx, 0) }}
		return f.run(cmd, func(ctx context.Context) (check.Result, error) { return look(ctx, o) })
	}
	f.accessFlags.register(cmd)
	cmd.Flags().DurationVarP(&f.timeout, "timeout", "t", 10*time.Second, "how long to wait for the monitor")
	return cmd
}
