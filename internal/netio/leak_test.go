package netio

import (
	"testing"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }
