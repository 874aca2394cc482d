package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/buffstreams/watermill-buffstreams/cmd/internal/demo"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
)

const demoHelp = `Send every .go file below a folder through the transport, and account for all of them.

This process runs a Watermill router behind a TCP address, with the Retry and PoisonQueue middlewares; a second process
of this command publishes the files, each as one message. The handler parses them. A file that does not parse is retried
and then goes to the poison queue, which is a topic at the same address.

The account at the end compares what was confirmed to the publisher with what arrived, by message id and SHA-256: lost
and duplicated are differences of these two lists. The command returns 0 only if both are none.`

// demoMaxMessage takes every file of the Go sources several times over.
const demoMaxMessage = 16 << 20

type demoFlags struct {
	source        string
	max, workers  int
	json, verbose bool
}

func newDemo() *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use: "demo", Short: "Send a tree of Go files through a router and account for every one", Long: demoHelp,
		Args:    cobra.NoArgs,
		Example: "  buffstreams demo\n  buffstreams demo --source . --json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.source, "source", "", "folder to read (default: the src folder of the Go installation)")
	flags.IntVar(&f.workers, "workers", 0, "files to parse at a time (default: twice the processors)")
	flags.IntVar(&f.max, "max-message-size", demoMaxMessage, "limit of one file in bytes; larger ones are refused and counted")
	flags.BoolVar(&f.json, "json", false, "print the account as one JSON object")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "name each poisoned file and the reason on standard error")
	return cmd
}

func (f *demoFlags) run(ctx context.Context) error {
	if f.max <= 0 || f.max > 1<<29 {
		return fmt.Errorf("--max-message-size %d is not between 1 and %d", f.max, 1<<29)
	}
	if f.workers < 0 {
		return fmt.Errorf("--workers %d is negative", f.workers)
	}
	source, err := sourceFolder(ctx, f.source)
	if err != nil {
		return err
	}
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	tuneGC()
	account, err := demo.Run(ctx, demo.Options{
		Source: source, MaxMessageSize: f.max, Workers: f.workers, Executable: executable,
		Screen: os.Stderr, Bar: term.IsTerminal(int(os.Stderr.Fd())), Verbose: f.verbose,
	})
	if err := errors.Join(err, f.print(account)); err != nil {
		return err
	}
	switch {
	case !account.OK():
		return fmt.Errorf("%d messages were lost and %d duplicated", account.Lost, account.Duplicates)
	case account.Interrupted:
		return pipe.ErrInterrupted
	}
	return nil
}

func (f *demoFlags) print(account demo.Account) error {
	if f.json {
		return json.NewEncoder(os.Stdout).Encode(account)
	}
	return account.WriteText(os.Stdout)
}

// tuneGC trades memory for time, unless the user has a say in it: a parser makes much garbage.
func tuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

// sourceFolder checks the folder, or finds that of the Go installation.
func sourceFolder(ctx context.Context, source string) (string, error) {
	if source == "" {
		goroot, err := findGo(ctx)
		if err != nil {
			return "", err
		}
		source = filepath.Join(goroot, "src")
	}
	info, err := os.Stat(source)
	if err != nil {
		return "", fmt.Errorf("cannot read the source: %w; choose another with --source", err)
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%s is not a folder; choose another with --source", source)
	}
	return source, nil
}

func findGo(ctx context.Context) (string, error) {
	if goroot := os.Getenv("GOROOT"); goroot != "" {
		return goroot, nil
	}
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if goroot := strings.TrimSpace(string(out)); err == nil && goroot != "" {
		return goroot, nil
	}
	return "", errors.New("no Go installation found; choose a folder with --source")
}

// newDemoPublisher is the second process of demo.
func newDemoPublisher() *cobra.Command {
	cfg := demo.PublisherConfig{Control: os.Stdin, Events: os.Stdout}
	cmd := &cobra.Command{
		Use: demo.PublisherCommand, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			signal.Ignore(os.Interrupt, syscall.SIGTERM) // of the process group; demo says when to stop
			return demo.RunPublisher(context.WithoutCancel(cmd.Context()), cfg)
		},
	}
	cmd.Flags().StringVar(&cfg.Topic, "topic", "", "address topic to publish to")
	cmd.Flags().StringVar(&cfg.Source, "source", "", "folder to read")
	cmd.Flags().IntVar(&cfg.MaxMessageSize, "max-message-size", demoMaxMessage, "limit of one file in bytes")
	return cmd
}
