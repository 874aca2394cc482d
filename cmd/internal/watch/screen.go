package watch

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// fit cuts text to what a terminal shows: a line that wraps, or one too many, would push the first lines out of sight, which say
// what is stuck.
func fit(text string, columns, rows int) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if rows = max(rows-1, 2); len(lines) > rows { // the cursor stands below the last line
		more := len(lines) - rows + 1
		lines = append(lines[:rows-1:rows-1], fmt.Sprintf("... %d lines more, with --count 1", more))
	}
	for i, line := range lines {
		if utf8.RuneCountInString(line) > columns {
			lines[i] = string([]rune(line)[:columns])
		}
	}
	return strings.Join(lines, "\n") + "\n"
}
