package pool

import (
	"testing"

	"github.com/buffstreams/watermill-buffstreams/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }
