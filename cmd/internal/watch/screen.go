package watch

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// smallScreen is the number of rows from which on tables have some of them, whatever is stuck.
const smallScreen = 12

// fit cuts text to what a terminal shows, such that what stands first stays in sight. What is before the first empty
// line says what is stuck: it gets two thirds of the rows, and may wrap. The lines of tables are cut.
func fit(text string, columns, rows int) string {
	head, tables, found := strings.Cut(strings.TrimSuffix(text, "\n"), "\n\n")
	rows = max(rows-1, 2) // the cursor stands below the last line
	room := rows
	if found && rows >= smallScreen {
		room = rows * 2 / 3
	}
	shown, used := take(strings.Split(head, "\n"), room, columns, true)
	if found && rows-used > 2 {
		more, _ := take(strings.Split(tables, "\n"), rows-used-1, columns, false)
		shown = append(append(shown, ""), more...)
	}
	return strings.Join(shown, "\n") + "\n"
}

// take returns the first lines that have room, and how many rows they take. The last says how many are left off.
func take(lines []string, room, columns int, wraps bool) (shown []string, used int) {
	for i, line := range lines {
		height, last := 1, i == len(lines)-1
		if wraps && i > 0 {
			height = max(1, (utf8.RuneCountInString(line)+columns-1)/columns)
		} else {
			line = cut(line, columns)
		}
		left := room - used
		if height > left || height == left && !last {
			return append(shown, cut(fmt.Sprintf("... %d lines more", len(lines)-i), columns)), used + 1
		}
		shown, used = append(shown, line), used+height
	}
	return shown, used
}

func cut(line string, columns int) string {
	if utf8.RuneCountInString(line) > columns {
		return string([]rune(line)[:columns])
	}
	return line
}
