package hosts

import (
	"testing"

	"github.com/buffstreams/watermill-buffstreams/route"
)

func TestZZProf(t *testing.T) {
	three := addresses(t, 3)
	t.Log(throughput(t, route.Route{Addresses: three, Policy: route.RoundRobin}, nil, three))
}
func TestZZOne(t *testing.T) {
	three := addresses(t, 1)
	t.Log(throughput(t, route.Route{Addresses: three, Policy: route.RoundRobin}, nil, three))
}
