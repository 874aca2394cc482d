// Command outbox measures the outbox: how many durable messages a second it takes beside the limit of group commit and
// beside NATS JetStream, and what it costs after a crash and while the peer is away. It prints Markdown.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/recovery"
)

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "outbox benchmark: "+err.Error())
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 && args[0] == recovery.ChildArg {
		return recovery.Child(args[1:], os.Stdin, os.Stdout)
	}
	flags := flag.NewFlagSet("outbox", flag.ContinueOnError)
	quick := flags.Bool("quick", false, "half a minute instead of three: fewer and shorter rounds")
	file := flags.String("json", "", "write the figures to this `file` as well")
	dir := flags.String("dir", "", "`directory` on the disk to measure; empty means that of temporary files")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := in(*dir, func(at string) (*report, error) { return bench(ctx, at, planFor(*quick)) })
	if err != nil {
		return err
	}
	fmt.Print(r.markdown())
	if *file == "" {
		return nil
	}
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(*file, append(content, '\n'), 0o644)
}

// in gives work a directory that is gone afterwards.
func in(parent string, work func(dir string) (*report, error)) (r *report, err error) {
	dir, err := os.MkdirTemp(parent, "outbox-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if fs := measure.Gather(dir).FileSystem; strings.HasPrefix(fs, "tmpfs ") {
		return nil, fmt.Errorf("%s is in memory, where an fsync costs nothing: use --dir", dir)
	}
	return work(dir)
}
