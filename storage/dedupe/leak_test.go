package dedupe

import (
	"testing"

	"github.com/buffstreams/watermill-buffstreams/storage/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }
