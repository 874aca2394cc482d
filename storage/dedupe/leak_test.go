package dedupe

import (
	"testing"

	"github.com/buffstreams/watermill-buffstreams/storage/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
