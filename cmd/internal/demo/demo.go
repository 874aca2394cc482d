// Package demo sends a tree of Go files through the transport and accounts for every one of them: a second process
// publishes them, a Watermill router in this one parses them, with the Retry and PoisonQueue middlewares around it.
//
// The way of a file: publisher.go reads and publishes it and reports that over a pipe (events.go), desk.go receives and
// parses it or sends it on to the poison queue, ledger.go writes both sides down, account.go compares them.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strconv"
	"time"
)

// Options of a run.
type Options struct {
	// Source is the folder; every regular file below it whose name ends in .go is published.
	Source string
	// MaxMessageSize is the size in bytes up to which a file is published; a larger one is refused.
	MaxMessageSize int
	// Workers is how many files are parsed at a time; 0 means twice the number of processors.
	Workers int
	// Executable is started with the arguments of PublisherArgs: it is to call RunPublisher.
	Executable string
	// Screen gets the progress and what went wrong, in lines. Bar asks for a progress bar.
	Screen io.Writer
	Bar    bool
	// Verbose names on Screen each file that was poisoned, with the reason.
	Verbose bool
}

// patience is how long nothing may come of what was published before it is given up as lost.
const patience = 60 * time.Second

// childGrace is how long the publisher's process may take to end after it was asked to.
const childGrace = 30 * time.Second

// Run sends all files through and returns the account. When ctx is done no further file is published, and the account
// is about those that were. The error is about the run itself; loss is told by the account.
func Run(ctx context.Context, o Options) (Account, error) {
	if o.Workers == 0 {
		o.Workers = 2 * runtime.NumCPU()
	}
	ledger := newLedger()
	screen := newScreen(o.Screen, o.Bar, ledger)
	d, err := openDesk(deskConfig{
		workers: o.Workers, limit: o.MaxMessageSize, ledger: ledger, onPoisoned: func(name, reason string) {
			if o.Verbose {
				screen.printf("poisoned %s: %s", name, reason)
			}
		},
	})
	if err != nil {
		return Account{}, err
	}
	screen.start()
	start := time.Now()
	err = publish(ctx, o, d.topic, ledger, screen)
	ledger.awaitOutcomes(patience)
	end := ledger.lastOutcome(start)
	err = errors.Join(err, d.close()) // duplicates that are still on their way arrive before it returns
	screen.stop()
	return ledger.account(o.Source, d.poisonTopic, end.Sub(start)), err
}

// publish runs the publisher's process to its end.
func publish(ctx context.Context, o Options, topic string, ledger *ledger, screen *screen) error {
	//nolint:gosec // the executable is this one
	cmd := exec.CommandContext(ctx, o.Executable, PublisherArgs(topic, o.Source, o.MaxMessageSize)...)
	cmd.Stderr = o.Screen
	stdin, err := cmd.StdinPipe() // it stops when this ends, also if this process is killed
	if err != nil {
		return err
	}
	cmd.Cancel, cmd.WaitDelay = stdin.Close, childGrace
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start the publisher's process: %w", err)
	}
	done, readErr := readEvents(stdout, ledger, screen)
	waitErr := cmd.Wait()
	switch {
	case done || ctx.Err() != nil:
		ledger.interrupt(ctx.Err() != nil)
		return nil //nolint:nilerr // an interrupted run has its account, too
	case readErr != nil:
		return fmt.Errorf("the publisher's process reports nonsense: %w", readErr)
	case waitErr != nil:
		return fmt.Errorf("the publisher's process failed: %w", waitErr)
	}
	return errors.New("the publisher's process ended early")
}

// PublisherArgs are the arguments with which an executable becomes the publisher's process.
func PublisherArgs(topic, source string, limit int) []string {
	return []string{PublisherCommand, "--topic", topic, "--source", source, "--max-message-size", strconv.Itoa(limit)}
}

// PublisherCommand is the name of the command for the publisher's process.
const PublisherCommand = "demo-publisher"
