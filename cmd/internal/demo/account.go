package demo

import (
	"fmt"
	"io"
	"math"
	"time"
)

// Account is what became of every file. Found = Published + Refused, unless the run was interrupted or the publisher
// failed; Published = Handled + Poisoned + Lost, always.
type Account struct {
	Source string `json:"source"`
	Found  int    `json:"found"` // .go files below the source

	Published int   `json:"published"` // messages that were confirmed to the publisher
	Handled   int   `json:"handled"`   // of these, arrived and parsed
	Retried   int   `json:"retried"`   // attempts beyond the first, over all messages
	Poisoned  int   `json:"poisoned"`  // of the published, arrived through the poison queue
	Refused   int   `json:"refused"`   // files that were not published: over the limit, or unreadable
	Lost      int   `json:"lost"`      // of the published, did not arrive, or with another content
	Bytes     int64 `json:"bytes"`     // published

	// Duplicates are arrivals beyond the first of a message, in the handler and the poison queue together.
	Duplicates int `json:"duplicates"`
	Unreadable int `json:"unreadable"` // of the refused
	// Unconfirmed are messages that arrived though the publisher does not know it: it died, or was stopped.
	Unconfirmed int `json:"unconfirmed"`

	Seconds           float64 `json:"seconds"` // from the start of the publisher's process to the last arrival
	MessagesPerSecond float64 `json:"messages_per_second"`
	MegabytesPerSec   float64 `json:"megabytes_per_second"` // of 1,000,000 bytes
	Interrupted       bool    `json:"interrupted"`

	poisonTopic string
}

// account compares the two sides' books.
func (l *ledger) account(source, poisonTopic string, took time.Duration) Account {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := Account{
		Source: source, Found: l.total.Files, Refused: l.refused, Unreadable: l.unreadable, Bytes: l.published,
		Retried: l.attempts - l.deliveries, Interrupted: l.interrupted, poisonTopic: poisonTopic,
		Seconds: round(took.Seconds()),
	}
	for _, e := range l.entries {
		a.add(e)
	}
	if s := took.Seconds(); s > 0 {
		a.MessagesPerSecond = round(float64(a.Handled+a.Poisoned) / s)
		a.MegabytesPerSec = round(float64(a.Bytes) / 1e6 / s)
	}
	return a
}

func round(f float64) float64 { return math.Round(f*1000) / 1000 }

func (a *Account) add(e *entry) {
	a.Duplicates += max(0, e.arrivals-1)
	if e.receipt == nil {
		a.Unconfirmed++
		return
	}
	a.Published++
	switch {
	case e.arrivals == 0 || e.sum != e.receipt.Sum:
		a.Lost++
	case e.outcome == handled:
		a.Handled++
	default:
		a.Poisoned++
	}
}

// OK tells whether the transport kept its word.
func (a Account) OK() bool { return a.Lost == 0 && a.Duplicates == 0 }

// WriteText writes the account for a reader.
func (a Account) WriteText(w io.Writer) error {
	interrupted := ""
	if a.Interrupted {
		interrupted = " (interrupted: the rest was not published)"
	}
	_, err := fmt.Fprintf(w, `source      %s, %d .go files%s
published   %d messages, %.1f MB
handled     %d parsed
retried     %d attempts beyond a file's first
poisoned    %d did not parse and came back through %s
refused     %d not published: %d over the limit, %d unreadable
lost        %d
duplicated  %d
time        %.3f s: %.0f messages/s, %.1f MB/s
sum         %d published = %d handled + %d poisoned + %d lost
`,
		a.Source, a.Found, interrupted, a.Published, float64(a.Bytes)/1e6, a.Handled, a.Retried, a.Poisoned, a.poisonTopic,
		a.Refused, a.Refused-a.Unreadable, a.Unreadable, a.Lost, a.Duplicates,
		a.Seconds, a.MessagesPerSecond, a.MegabytesPerSec, a.Published, a.Handled, a.Poisoned, a.Lost)
	if err == nil && a.Unconfirmed > 0 {
		_, err = fmt.Fprintf(w, "besides     %d arrived without the publisher having seen their confirmation\n", a.Unconfirmed)
	}
	return err
}
