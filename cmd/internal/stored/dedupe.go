package stored

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
	"github.com/buffstreams/watermill-buffstreams/storage/dedupe"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// Streams chooses records of a dedupe file. The zero value chooses all.
type Streams struct {
	Publisher string // in hexadecimal; a prefix is enough
	Topic     string
	HasTopic  bool
	// Idle chooses those of which nothing was saved for so long; 0 all.
	Idle time.Duration
}

func (s Streams) has(r dedupe.Record) bool {
	publisher := hex.EncodeToString(r.ID.Publisher[:])
	return len(s.Publisher) <= len(publisher) && s.Publisher == publisher[:len(s.Publisher)] && (!s.HasTopic || s.Topic == r.ID.Topic) &&
		(s.Idle == 0 || time.Since(r.Saved) >= s.Idle)
}

// listed is a record as JSON has it. The secret is not shown.
type listed struct {
	Publisher string            `json:"publisher"`
	Stream    uint64            `json:"stream"`
	Topic     string            `json:"topic"`
	Epoch     uint64            `json:"epoch"`
	Through   uint64            `json:"settled_through"` // all up to it are settled
	Beyond    uint64            `json:"settled_beyond"`  // settled messages behind a gap
	Groups    map[string]uint64 `json:"groups"`          // settled for a group alone
	Saved     time.Time         `json:"saved,omitzero"`
}

// openDedupe opens a file that is there. No record goes because it is old: looking changes nothing.
func openDedupe(path string) (*dedupe.Store, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no file", path)
	}
	s, err := dedupe.OpenConfig(dedupe.Config{Path: path, ForgetAfter: -1})
	if errors.Is(err, dedupe.ErrLocked) {
		return nil, fmt.Errorf("%s is in use by another process", path)
	}
	return s, err
}

// ListDedupe writes a table, or an object for each record on a line.
func ListDedupe(path string, s Streams, asJSON bool, out io.Writer) (err error) {
	file, err := openDedupe(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if !asJSON {
		if _, err := fmt.Fprintln(table, "PUBLISHER\tSTREAM\tTOPIC\tEPOCH\tSETTLED-THROUGH\tBEYOND\tGROUPS\tSAVED"); err != nil {
			return err
		}
	}
	err = file.List(func(r dedupe.Record) error {
		if !s.has(r) {
			return nil
		}
		l := describe(r)
		if asJSON {
			return enc.Encode(l)
		}
		saved := "-"
		if !l.Saved.IsZero() {
			saved = l.Saved.UTC().Format(time.RFC3339)
		}
		groups := "-"
		for i, group := range slices.Sorted(maps.Keys(l.Groups)) {
			if i == 0 {
				groups = ""
			} else {
				groups += ","
			}
			groups += fmt.Sprintf("%s=%d", pipe.Printable(group), l.Groups[group])
		}
		_, err := fmt.Fprintf(table, "%s\t%d\t%s\t%d\t%d\t%d\t%s\t%s\n", l.Publisher, l.Stream, pipe.Printable(l.Topic), l.Epoch, l.Through, l.Beyond, groups, saved)
		return err
	})
	return errors.Join(err, table.Flush())
}

func describe(r dedupe.Record) listed {
	l := listed{
		Publisher: hex.EncodeToString(r.ID.Publisher[:]), Stream: r.ID.Stream, Topic: r.ID.Topic, Epoch: r.State.Epoch,
		Groups: map[string]uint64{}, Saved: r.Saved.UTC(),
	}
	if r.Saved.IsZero() {
		l.Saved = time.Time{}
	}
	for i, settled := range r.State.Settled {
		if i == 0 && settled.First <= 1 {
			l.Through = settled.Last
		} else {
			l.Beyond += settled.Last - settled.First + 1
		}
	}
	for group, ranges := range r.State.Groups {
		for _, settled := range ranges {
			l.Groups[group] += settled.Last - settled.First + 1
		}
	}
	return l
}

// RemoveDedupe forgets records.
func RemoveDedupe(path string, s Streams, force bool, out io.Writer) (err error) {
	file, err := openDedupe(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	var ids []store.StreamID
	err = file.List(func(r dedupe.Record) error {
		if s.has(r) {
			ids = append(ids, r.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !force {
		_, err := fmt.Fprintf(out, "would forget streams: %d\n", len(ids))
		return errors.Join(err, ErrNotForced)
	}
	for _, id := range ids {
		if err := file.Forget(id); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(out, "forgot streams: %d\n", len(ids))
	return err
}
