package watch

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// height is the rows that a text takes on a terminal.
func height(text string, columns int) (rows int) {
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		rows += max(1, (utf8.RuneCountInString(line)+columns-1)/columns)
	}
	return rows
}

// What is stuck comes first, and stays in sight on any terminal, whole where that is possible; tables have the rest.
func TestFit_TheFirstLinesStay(t *testing.T) {
	head, table := "title\n", "\n"
	for i := range 30 {
		head += fmt.Sprintf("CRITICAL  größer als breit %d\n", i)
		table += fmt.Sprintf("ADDRESS-%d  %s\n", i, strings.Repeat("x", 100))
	}
	require.Equal(t, head, fit(head, 80, 40))
	require.Equal(t, head+"\nA B\n", fit(head+"\nA B\n", 80, 60))
	for _, columns := range []int{1, 3, 20, 80} {
		for rows := range 50 {
			for _, text := range []string{head, head + table, "title\n" + table, "title\n"} {
				got := fit(text, columns, rows)
				require.LessOrEqual(t, height(got, columns), max(rows-1, 2), "%d x %d: %q", columns, rows, got)
				first, _, _ := strings.Cut(got, "\n")
				require.Equal(t, "title"[:min(columns, len("title"))], first)
			}
		}
	}
	small := fit(head+table, 20, 24)
	require.Contains(t, small, "CRITICAL  größer als breit 0\n", "a reason wraps")
	require.Contains(t, small, "\n... 24 lines more\n")
	require.Contains(t, small, "\n\nADDRESS-0  xxxxxxxxx\n", "a table is cut")
}
