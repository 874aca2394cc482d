package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// streamConfig is the part of a stream's configuration that the driver sets or looks at. The client's own type does not
// have allow_atomic.
type streamConfig struct {
	Name        string        `json:"name"`
	Subjects    []string      `json:"subjects"`
	Retention   string        `json:"retention"`
	Discard     string        `json:"discard"`
	Storage     string        `json:"storage"`
	Replicas    int           `json:"num_replicas"`
	MaxAge      time.Duration `json:"max_age"`
	MaxBytes    int64         `json:"max_bytes"`
	MaxMsgs     int64         `json:"max_msgs"`
	Duplicates  time.Duration `json:"duplicate_window"`
	AllowAtomic bool          `json:"allow_atomic"`
}

// streamAnswer is what the server says about a stream.
type streamAnswer struct {
	Error   *jetstream.APIError `json:"error"`
	Config  streamConfig        `json:"config"`
	Created time.Time           `json:"created"`
}

// stream is a topic's stream, as it was found or made.
type stream struct {
	name, subject string
	replicas      int
	atomic        bool // it takes batches of which all or nothing is stored
	id            string
}

// streamRequest is one to the API of JetStream. The answer's error is its own.
func (b *broker) streamRequest(ctx context.Context, subject string, body any) (streamAnswer, error) {
	var answer streamAnswer
	data, err := json.Marshal(body)
	if err != nil {
		return answer, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ctx, done := b.asks(ctx, "$JS.API.STREAM."+subject)
	defer done()
	msg, err := b.nc.RequestWithContext(ctx, "$JS.API.STREAM."+subject, data)
	if err != nil {
		return answer, causeOf(ctx, err)
	}
	if err = json.Unmarshal(msg.Data, &answer); err == nil && answer.Error != nil {
		err = answer.Error
	}
	return answer, err
}

// requestTimeout bounds one request: after it the leader has changed, or the answer is lost.
const requestTimeout = 5 * time.Second

// stream returns the stream of a topic, and makes it where there is none and create allows that.
func (b *broker) stream(ctx context.Context, topic string) (*stream, error) {
	if topic == "" {
		return nil, errors.New("engines: nats: the topic is empty")
	}
	b.mu.Lock()
	s := b.streams[topic]
	b.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s = &stream{name: driver.Escape(topic, driver.Word)}
	s.subject = s.name
	answer, err := b.streamRequest(ctx, "INFO."+s.name, struct{}{})
	if isCode(err, jetstream.JSErrCodeStreamNotFound) {
		if !b.create {
			return nil, fmt.Errorf("engines: nats: stream %s of topic %.200q: %w", s.name, topic, driver.ErrNoTopic)
		}
		wanted := b.wanted
		wanted.Name, wanted.Subjects = s.name, []string{s.subject}
		answer, err = b.streamRequest(ctx, "CREATE."+s.name, wanted)
		if isCode(err, jetstream.JSErrCodeStreamNameInUse) { // another process was first
			answer, err = b.streamRequest(ctx, "INFO."+s.name, struct{}{})
		}
	}
	if err != nil {
		return nil, fmt.Errorf("engines: nats: stream of topic %.200q: %w", topic, err)
	}
	s.replicas, s.atomic = answer.Config.Replicas, answer.Config.AllowAtomic
	if len(answer.Config.Subjects) > 0 {
		s.subject = answer.Config.Subjects[0]
	}
	s.id = fmt.Sprintf("nats/%s/%d/", s.name, answer.Created.UnixNano())
	b.mu.Lock()
	defer b.mu.Unlock()
	b.streams[topic] = s
	return s, nil
}

// streamAgain makes the stream of a topic again where it is gone, and create allows that.
func (b *broker) streamAgain(ctx context.Context, topic string) error {
	b.mu.Lock()
	delete(b.streams, topic)
	b.mu.Unlock()
	_, err := b.stream(ctx, topic)
	return err
}

func isCode(err error, code jetstream.ErrorCode) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == code
}

// Declare makes the stream, and the durable consumer of a group.
func (b *broker) Declare(ctx context.Context, topic, group string) error {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.PublishTimeout)
	defer cancel()
	return retry(ctx, func() error {
		s, err := b.stream(ctx, topic)
		if err == nil && group != "" {
			_, err = b.consumer(ctx, s, group, 0)
		}
		return err
	})
}

// consumer makes the consumer of a group, or of one subscription without a group, unless it is there. One that is there
// keeps its place. A new one begins at a place in the stream, or with 0 where the URL says.
func (b *broker) consumer(ctx context.Context, s *stream, group string, from uint64) (jetstream.Consumer, error) {
	cfg := jetstream.ConsumerConfig{
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: b.cfg.RedeliverAfter, MaxAckPending: -1, Replicas: s.replicas,
		DeliverPolicy: jetstream.DeliverAllPolicy,
	}
	if group == "" {
		cfg.Name, cfg.InactiveThreshold = "once-"+nuid.Next(), max(time.Minute, 2*b.cfg.RedeliverAfter)
	} else {
		cfg.Durable = driver.Escape(group, driver.Word)
	}
	if group == "" || b.cfg.Start == driver.StartNew {
		cfg.DeliverPolicy = jetstream.DeliverNewPolicy
	}
	if from > 0 {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, from
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout) // an answer can be lost: the caller tries again
	defer cancel()
	ctx, done := b.asks(ctx, "$JS.API.CONSUMER.")
	defer done()
	if group != "" {
		consumer, err := b.js.Consumer(ctx, s.name, cfg.Durable)
		if !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return consumer, causeOf(ctx, err)
		}
	}
	consumer, err := b.js.CreateOrUpdateConsumer(ctx, s.name, cfg)
	return consumer, causeOf(ctx, err)
}
