package netio

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestQuote_Truncates(t *testing.T) {
	assert.Equal(t, `"a\nb"`, Quote("a\nb"))
	assert.LessOrEqual(t, len(Quote(string(make([]byte, 10000)))), 4*maxLoggedAddress+5)
}
