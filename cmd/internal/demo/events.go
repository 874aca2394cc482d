package demo

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"sync"
)

// event is what the publisher's process reports: a line of JSON on its standard output, with one field set.
type event struct {
	Found     *totals   `json:"found,omitempty"`
	Confirmed []receipt `json:"confirmed,omitempty"`
	Refused   *refusal  `json:"refused,omitempty"`
	Skipped   *refusal  `json:"skipped,omitempty"` // a folder that cannot be read
	Lost      *refusal  `json:"lost,omitempty"`    // a message that was confirmed and then refused by the peer
	Failed    string    `json:"failed,omitempty"`
	Done      bool      `json:"done,omitempty"`
}

// totals are what there is to publish.
type totals struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

// receipt is a message that was confirmed to the publisher.
type receipt struct {
	ID   string `json:"id"`
	Size int64  `json:"size"` // of the payload
	Sum  string `json:"sum"`  // see digest
}

// refusal is a file that was not published.
type refusal struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
	// TooLarge tells files over the limit from those that cannot be read.
	TooLarge bool `json:"too_large,omitempty"`
}

// reporter writes events. It is safe for concurrent use.
type reporter struct {
	mu  sync.Mutex
	enc *json.Encoder
	err error // the first; the reader is gone
}

func newReporter(w io.Writer) *reporter { return &reporter{enc: json.NewEncoder(w)} }

func (r *reporter) report(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = r.enc.Encode(e)
	}
}

func (r *reporter) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// readEvents writes down what the publisher reports until its output ends. done tells whether it had said all.
func readEvents(r io.Reader, ledger *ledger, screen *screen) (done bool, err error) {
	dec := json.NewDecoder(bufio.NewReader(r))
	for {
		var e event
		switch err := dec.Decode(&e); {
		case errors.Is(err, io.EOF):
			return done, nil
		case err != nil:
			return false, err
		}
		done = done || e.Done
		e.apply(ledger, screen)
	}
}

func (e event) apply(ledger *ledger, screen *screen) {
	switch {
	case e.Found != nil:
		ledger.found(*e.Found)
	case len(e.Confirmed) > 0:
		ledger.confirm(e.Confirmed)
	case e.Refused != nil:
		ledger.refuse(*e.Refused)
		screen.printf("refused %s: %s", e.Refused.Name, e.Refused.Reason)
	case e.Skipped != nil:
		screen.printf("skipped %s: %s", e.Skipped.Name, e.Skipped.Reason)
	case e.Lost != nil:
		screen.printf("lost %s: %s", e.Lost.Name, e.Lost.Reason)
	case e.Failed != "":
		screen.printf("publisher: %s", e.Failed)
	}
}
