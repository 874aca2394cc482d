// Command compare measures this library beside what its users would pick instead, and writes a page, the figures, and a
// chart.
//
//	go run ./benchmarks/compare --quick --out docs
//
// With BENCHMARK_PROFILES=DIR every process leaves a CPU profile there.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/drive"
)

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "compare: "+err.Error())
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	quick bool
	out   string
	only  string
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("compare", flag.ContinueOnError)
	flags.BoolVar(&o.quick, "quick", false, "two minutes instead of twelve: fewer and shorter rounds")
	flags.StringVar(&o.out, "out", "", "`directory` for benchmarks.md, benchmarks.json and benchmarks.svg; empty prints the page")
	flags.StringVar(&o.only, "only", "", "only contests whose name begins with one of these `prefixes`, with commas between them")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.only != "" && o.out != "" {
		return o, errors.New("a page needs all contests: --only prints to the terminal, leave --out away")
	}
	return o, nil
}

func run(args []string) (err error) {
	stopProfile, err := profile()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopProfile()) }()
	if len(args) > 0 && args[0] == drive.ChildArg {
		return drive.Child(args[1:], os.Stdin, os.Stdout)
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "compare-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // temporary; what stays is the system's to clean
	r, err := bench(ctx, dir, planFor(o.quick), o.only)
	if err != nil {
		return err
	}
	if o.out == "" {
		fmt.Print(r.page())
		return nil
	}
	return r.write(o.out)
}

// write leaves all three files or says which it could not.
func (r *report) write(dir string) error {
	figures, err := r.json()
	if err != nil {
		return err
	}
	chart, err := r.chart()
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"benchmarks.md": []byte(r.page()), "benchmarks.json": figures, "benchmarks.svg": chart,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// wanted tells whether a contest was asked for.
func wanted(only, name string) bool {
	if only == "" {
		return true
	}
	for prefix := range strings.SplitSeq(only, ",") {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
