package main

import (
	"encoding/json"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
)

// modules are those whose versions matter besides our own.
var modules = []string{
	"github.com/ThreeDotsLabs/watermill", "github.com/ThreeDotsLabs/watermill-nats/v2", "github.com/ThreeDotsLabs/watermill-http/v2",
	"github.com/ThreeDotsLabs/watermill-redisstream", "github.com/nats-io/nats-server/v2", "github.com/nats-io/nats.go",
	"github.com/redis/go-redis/v9", "google.golang.org/grpc",
}

// report is what is known at the end.
type report struct {
	Facts   measure.Facts      `json:"facts"`
	Redis   string             `json:"redis"` // version of the server; empty if none could be started
	Plan    plan               `json:"plan"`
	Making  float64            `json:"allocations_of_making_a_message"`
	Results map[string]*result `json:"contests"`

	order []string
	reach []goal
}

func (r *report) json() ([]byte, error) {
	content, err := json.MarshalIndent(struct {
		*report
		Goals []goal `json:"goals"`
	}{r, r.reach}, "", "  ")
	return append(content, '\n'), err
}
