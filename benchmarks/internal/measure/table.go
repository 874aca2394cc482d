package measure

import (
	"fmt"
	"math"
	"strings"
)

// Table is a table to be.
type Table struct {
	Head []string
	Rows [][]string
}

// Add appends a row, which has as many cells as the head.
func (t *Table) Add(cells ...string) { t.Rows = append(t.Rows, cells) }

// Markdown ends in a newline.
func (t *Table) Markdown() string {
	var b strings.Builder
	row := func(cells []string) {
		for _, c := range cells {
			b.WriteString("| " + strings.ReplaceAll(c, "|", `\|`) + " ")
		}
		b.WriteString("|\n")
	}
	row(t.Head)
	b.WriteString(strings.Repeat("|---", len(t.Head)) + "|\n")
	for _, r := range t.Rows {
		row(r)
	}
	return b.String()
}

// Figure writes a value with three digits, and thousands and millions as such.
func Figure(v float64) string {
	switch size := math.Abs(v); {
	case size >= 1e6:
		return Figure(v/1e6) + " M"
	case size >= 1e3:
		return Figure(v/1e3) + " k"
	case size >= 100:
		return fmt.Sprintf("%.0f", v)
	case size >= 10:
		return fmt.Sprintf("%.1f", v)
	case size >= 0.1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.2g", v)
	}
}

// String is the median and, in brackets, the least and the most.
func (s Spread) String() string {
	return Figure(s.Median) + " (" + Figure(s.Min) + "–" + Figure(s.Max) + ")"
}

// MiB writes a number of bytes.
func MiB(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }
