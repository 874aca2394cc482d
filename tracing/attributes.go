package tracing

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// destination is where messages go to or come from.
type destination struct {
	name   string // of the topic, without the address
	server []attribute.KeyValue
}

// destinationOf reads a topic, which may name its address: [tcp|tls://]host:port[/name] or unix:///path#name.
func destinationOf(topic string) destination {
	scheme, rest, explicit := strings.Cut(topic, "://")
	if !explicit {
		scheme, rest = "tcp", topic
	}
	if scheme == "unix" {
		path, name, _ := strings.Cut(rest, "#")
		return destination{name, []attribute.KeyValue{semconv.ServerAddress(path)}}
	}
	address, name, _ := strings.Cut(rest, "/")
	host, port, err := net.SplitHostPort(address)
	number, notNumber := strconv.ParseUint(port, 10, 16)
	if err != nil || notNumber != nil {
		return destination{name: topic}
	}
	return destination{name, []attribute.KeyValue{semconv.ServerAddress(host), semconv.ServerPort(int(number))}}
}

// spanName is the name of a span, as the conventions want it.
func spanName(operation string, d destination) string {
	if d.name == "" {
		return operation
	}
	return operation + " " + d.name
}

// common are the attributes of every span about a destination.
func (t *Tracing) common(name string, kind attribute.KeyValue, d destination) []attribute.KeyValue {
	all := make([]attribute.KeyValue, 0, 10)
	all = append(all, semconv.MessagingSystemKey.String(t.system), semconv.MessagingOperationName(name), kind)
	if d.name != "" {
		all = append(all, semconv.MessagingDestinationName(d.name))
	}
	return append(all, d.server...)
}

// ofMessage are the attributes of one message.
func ofMessage(m *message.Message) []attribute.KeyValue {
	return []attribute.KeyValue{semconv.MessagingMessageID(m.UUID), semconv.MessagingMessageBodySize(len(m.Payload))}
}

// attemptKey is the number of a delivery, for which the conventions have no name.
const attemptKey = attribute.Key("messaging.buffstreams.delivery.attempt")

// ofDelivery are the attributes of a received message.
func ofDelivery(ctx context.Context, m *message.Message) []attribute.KeyValue {
	all := ofMessage(m)
	if d, ok := buffstreams.DeliveryFromContext(ctx); ok && d.Attempt > 1 {
		all = append(all, attemptKey.Int(d.Attempt))
	}
	return all
}

// errorType is the value of error.type: one of few.
func errorType(err error) attribute.KeyValue {
	lookup := (*net.DNSError)(nil)
	switch {
	case errors.As(err, &lookup): // whether or not the time of a call is over that has waited for it
		return semconv.ErrorTypeKey.String("dns")
	case errors.Is(err, buffstreams.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return semconv.ErrorTypeKey.String("timeout")
	case errors.Is(err, context.Canceled):
		return semconv.ErrorTypeKey.String("canceled")
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return semconv.ErrorTypeKey.String(fmt.Sprintf("%T", err))
}

// bounded lets the first of many names through.
type bounded struct {
	most int
	mu   sync.RWMutex // guards seen
	seen map[string]struct{}
}

func newBounded(most int) *bounded { return &bounded{most: most, seen: map[string]struct{}{}} }

// other is the name of all beyond the bound.
const other = "_OTHER"

func (b *bounded) value(name string) string {
	b.mu.RLock()
	_, ok := b.seen[name]
	full := len(b.seen) >= b.most
	b.mu.RUnlock()
	switch {
	case ok:
		return name
	case full:
		return other
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.seen[name]; !ok && len(b.seen) >= b.most {
		return other
	}
	b.seen[name] = struct{}{}
	return name
}
