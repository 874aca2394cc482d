package hosts

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// report has what was measured, for one table at the end.
var report figures

// figures are measures with what each run has found.
type figures struct {
	mu   sync.Mutex // guards rows
	rows []*figure
}

// figure is one measure.
type figure struct {
	name, what, goal, unit string
	values                 []float64
}

// note adds what a run has found of a measure. goal is for the reader: tests require it themselves where it is due.
func (f *figures) note(name, what, goal, unit string, value float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.rows, func(r *figure) bool { return r.name == name && r.what == what })
	if i < 0 {
		i = len(f.rows)
		f.rows = append(f.rows, &figure{name: name, what: what, goal: goal, unit: unit})
	}
	f.rows[i].values = append(f.rows[i].values, value)
}

// print writes the table: medians beside goals.
func (f *figures) print(out io.Writer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.rows) == 0 {
		return
	}
	slices.SortStableFunc(f.rows, func(a, b *figure) int { return strings.Compare(a.name+a.what, b.name+b.what) })
	_, _ = fmt.Fprintln(out, "\n| # | what | goal | median | least | most | runs |\n|---|---|---|---:|---:|---:|---:|")
	for _, r := range f.rows {
		slices.Sort(r.values)
		show := func(v float64) string { return fmt.Sprintf("%.4g %s", v, r.unit) }
		_, _ = fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s | %d |\n", r.name, r.what, r.goal,
			show(median(r.values)), show(r.values[0]), show(r.values[len(r.values)-1]), len(r.values))
	}
	_, _ = fmt.Fprintln(out, "\nH5, shares of keys that move: TestHash_OneOfNComesOrGoes. H6: TestRoute_AddressesComeAndGo, and make churn.")
}
