package pipe

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// listed is an outbox as JSON has it, and listedStream one of its streams.
type listed struct {
	Dir     string         `json:"dir"`
	Streams []listedStream `json:"streams"`
	Pending uint64         `json:"pending"`
	Bytes   int64          `json:"bytes"`
}

type listedStream struct {
	Destination string `json:"destination"`
	Topic       string `json:"topic"`
	Pending     uint64 `json:"pending"`
	Bytes       int64  `json:"bytes"`
	First       uint64 `json:"first"`
	Next        uint64 `json:"next"`
}

// List writes what an outbox holds: a table, or one JSON object.
func List(dir string, out io.Writer, asJSON bool) error {
	box, err := OpenOutbox(dir, false)
	if err != nil {
		return err
	}
	l := listed{Dir: dir, Streams: []listedStream{}} // [] rather than null
	for _, s := range box.Streams() {
		l.Streams = append(l.Streams, listedStream{s.Key.Destination, s.Key.Topic, s.Pending, s.Bytes, s.First, s.Next})
		l.Pending += s.Pending
		l.Bytes += s.Bytes
	}
	if err := box.Close(); err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		return enc.Encode(l)
	}
	return l.writeTable(out)
}

func (l *listed) writeTable(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, err := fmt.Fprintln(table, "DESTINATION\tTOPIC\tPENDING\tBYTES\tFIRST\tNEXT")
	for _, s := range l.Streams {
		_, rowErr := fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%d\n",
			Printable(s.Destination), Printable(s.Topic), s.Pending, s.Bytes, s.First, s.Next)
		err = errors.Join(err, rowErr)
	}
	_, totalErr := fmt.Fprintf(table, "TOTAL\t\t%d\t%d\n", l.Pending, l.Bytes)
	return errors.Join(err, totalErr, table.Flush())
}

// Printable is a name as it is where that cannot mislead a person at a terminal or a program that splits it at spaces,
// and quoted otherwise.
func Printable(name string) string {
	quoted := strconv.Quote(name)
	if quoted == `"`+name+`"` && name != "" && !strings.ContainsRune(name, ' ') {
		return name
	}
	return quoted
}
