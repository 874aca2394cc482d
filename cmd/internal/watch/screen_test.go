package watch

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is stuck comes first, and stays in sight on any terminal.
func TestFit_TheFirstLinesStay(t *testing.T) {
	text := strings.Repeat("CRITICAL größer als breit\n", 30)
	require.Equal(t, text, fit(text, 80, 40))
	for _, rows := range []int{0, 1, 3, 10, 30} {
		lines := strings.Split(fit(text, 12, rows), "\n")
		require.LessOrEqual(t, len(lines), max(rows, 3), "%d rows, the last of them empty", rows)
		require.Equal(t, "CRITICAL grö", lines[0])
		require.True(t, strings.HasPrefix(lines[len(lines)-2], "... "), lines)
		require.Empty(t, lines[len(lines)-1])
	}
	require.Contains(t, fit(text, 80, 10), "... 22 lines more")
}
