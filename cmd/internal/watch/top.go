package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/buffstreams/watermill-buffstreams/monitor"
)

// TopOptions say what to show, and how often.
type TopOptions struct {
	Every time.Duration
	// Count is after how many tables to end; 0 means no end.
	Count int
	// Rows bounds each list.
	Rows int
	// Screen is the size of the terminal that is cleared before each table; nil: it is none.
	Screen func() (columns, rows int)
	JSON   bool // the statistics as they came, on a line each
	Out    io.Writer
}

// Top shows a table, and another one every interval. An error of the first look is returned; later ones are shown, as
// the process that is looked at may come back. It returns nil when ctx is done.
func Top(ctx context.Context, s *Source, o TopOptions) error {
	tick := time.NewTicker(o.Every)
	defer tick.Stop()
	var before *monitor.Stats
	for i := 0; o.Count == 0 || i < o.Count; i++ {
		if i > 0 {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
		}
		text, next, err := look(ctx, s, o, before)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && (i == 0 || o.Screen == nil):
			return err
		case err != nil:
			text = err.Error() + "\n"
		}
		before = next
		if o.Screen != nil {
			columns, rows := o.Screen()
			text = "\x1b[H\x1b[2J" + fit(text, columns, rows)
		}
		if _, err := io.WriteString(o.Out, text); err != nil {
			return err
		}
	}
	return nil
}

func look(ctx context.Context, s *Source, o TopOptions, before *monitor.Stats) (text string, now *monitor.Stats, err error) {
	ctx, cancel := context.WithTimeout(ctx, max(o.Every, 5*time.Second))
	defer cancel()
	if o.JSON {
		body, err := s.Raw(ctx, o.Rows)
		return strings.TrimSpace(string(body)) + "\n", nil, err
	}
	stats, err := s.Stats(ctx, o.Rows)
	if err != nil {
		return "", nil, err
	}
	var b strings.Builder
	err = write(&b, &stats, before)
	return b.String(), &stats, err
}

// write writes tables with headings. Columns are separated by spaces; a cell that has any is quoted.
func write(out io.Writer, s, before *monitor.Stats) error {
	state := "ready"
	if !s.Ready {
		state = "not ready: " + strings.Join(s.NotReady, "; ")
	}
	errs := []error{line(out, "%s  %s  %s\n", clean(s.Title), s.At.UTC().Format(time.RFC3339), clean(state))}
	for _, x := range s.Stuck {
		level := "WARNING"
		if x.Critical {
			level = "CRITICAL"
		}
		errs = append(errs, line(out, "%s  %s %s: %s\n", level, x.What, clean(x.Name), clean(x.Why)))
	}
	addresses := [][]string{{"ADDRESS", "OF", "STATE", "FOR", "PENDING", "OLDEST", "SENT", "SENT/S", "SETTLED", "REFUSED", "LAST-ERROR"}}
	for i := range s.Addresses {
		a := &s.Addresses[i]
		addresses = append(addresses, []string{
			cell(a.Address), cell(a.Source), a.State, age(s.At, a.Since), strconv.Itoa(a.Pending), age(s.At, a.OldestUnsettled),
			count(a.Sent), rate(s, before, a.Sent, sentBefore(before, a)), count(a.Settled), count(a.Refused), cell(a.LastError),
		})
	}
	groups := [][]string{{"TOPIC", "GROUP", "AT", "STATE", "LAG", "IN-FLIGHT", "OLDEST", "MEMBERS", "SETTLED", "SETTLED/S", "STUCK-KEYS"}}
	for i := range s.Listeners {
		l := &s.Listeners[i]
		for j := range l.Topics {
			for _, g := range l.Topics[j].Groups {
				groups = append(groups, []string{
					cell(l.Topics[j].Topic), cell(g.Group), cell(l.Bound), l.State, strconv.Itoa(g.Lag), strconv.Itoa(g.InFlight),
					age(s.At, g.OldestUnsettled), strconv.Itoa(g.Members), count(g.Settled),
					rate(s, before, g.Settled, settledBefore(before, l.Bound, l.Topics[j].Topic, g.Group)), strconv.Itoa(len(g.StuckKeys)),
				})
			}
		}
	}
	boxes := [][]string{{"OUTBOX", "OF", "DESTINATION", "PENDING", "BYTES", "OLDEST"}}
	for i := range s.Outboxes {
		o := &s.Outboxes[i]
		for _, d := range o.Destinations {
			boxes = append(boxes, []string{cell(o.Name), cell(o.Source), cell(d.Name), count(d.Pending), strconv.FormatInt(d.Bytes, 10), age(s.At, d.OldestUnsettled)})
		}
	}
	for _, table := range [][][]string{addresses, groups, boxes} {
		if len(table) > 1 {
			errs = append(errs, writeTable(out, table))
		}
	}
	return errors.Join(errs...)
}

func line(out io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintf(out, format, args...)
	return err
}

func writeTable(out io.Writer, rows [][]string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	err := line(w, "\n")
	for _, row := range rows {
		err = errors.Join(err, line(w, "%s\n", strings.Join(row, "\t")))
	}
	return errors.Join(err, w.Flush())
}

func count(n uint64) string { return strconv.FormatUint(n, 10) }

// age is - where there is no time.
func age(now, since time.Time) string {
	if since.IsZero() {
		return "-"
	}
	return max(0, now.Sub(since)).Round(time.Second).String()
}

// cell is one word: peers choose names.
func cell(text string) string {
	if text == "" {
		return "-"
	}
	if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return strconv.Quote(text)
	}
	return text
}

// clean is text without what a terminal would obey.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// rate is - in the first table, and where the counter is new.
func rate(now, before *monitor.Stats, n uint64, was *uint64) string {
	if before == nil || was == nil || n < *was {
		return "-"
	}
	seconds := now.At.Sub(before.At).Seconds()
	if seconds <= 0 {
		return "-"
	}
	return strconv.FormatFloat(float64(n-*was)/seconds, 'f', 0, 64)
}

func sentBefore(before *monitor.Stats, a *monitor.Address) *uint64 {
	if before == nil {
		return nil
	}
	for i := range before.Addresses {
		if b := &before.Addresses[i]; b.Address == a.Address && b.Source == a.Source {
			return &b.Sent
		}
	}
	return nil
}

func settledBefore(before *monitor.Stats, bound, topic, group string) *uint64 {
	if before == nil {
		return nil
	}
	for i := range before.Listeners {
		l := &before.Listeners[i]
		for j := range l.Topics {
			for k := range l.Topics[j].Groups {
				if g := &l.Topics[j].Groups[k]; l.Bound == bound && l.Topics[j].Topic == topic && g.Group == group {
					return &g.Settled
				}
			}
		}
	}
	return nil
}
