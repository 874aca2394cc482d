package ask

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/access"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// Responder makes the reply to a request. ctx ends with the command, or when the request is taken from it.
type Responder func(ctx context.Context, request *message.Message) ([]byte, error)

// ReplyOptions say which requests to answer.
type ReplyOptions struct {
	Topic string
	Group string
	// Count is after how many replies to end; 0 means no end.
	Count int
	// Workers is how many requests are answered at a time.
	Workers int
	// Allow are the networks to which replies may be sent, as the requests say where to.
	Allow          []netip.Prefix
	MaxMessageSize int
	Access         access.Access
	Logger         watermill.LoggerAdapter
	// Listening is told the address once requests are taken, Warn what became of those that got no reply.
	Listening func(address string)
	Warn      func(text string)
	Respond   Responder
}

// Loopback is where replies may be sent if nothing else is said.
var Loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// replier answers requests.
type replier struct {
	o         ReplyOptions
	publisher *buffstreams.Publisher
	replied   atomic.Int64
	enough    context.CancelFunc
}

// Reply answers until Count or the end of ctx.
func Reply(ctx context.Context, o ReplyOptions) error {
	if _, err := pipe.ParseTopic(o.Topic); err != nil {
		return err
	}
	acked := pipe.AckedConfig(o.MaxMessageSize)
	if err := o.Access.Server(&acked); err != nil {
		return err
	}
	if err := o.Access.ClientTLSOnly(&acked); err != nil { // the token is for no address that a request names
		return err
	}
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{
		Logger: o.Logger, Acked: acked, DialAllow: &pool.DialAllow{Prefixes: o.Allow},
	})
	if err != nil {
		return err
	}
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	return errors.Join((&replier{o: o, enough: enough}).run(ctx, manager), manager.Close())
}

func (r *replier) run(ctx context.Context, manager *buffstreams.Manager) (err error) {
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		Manager: manager, ConsumerGroup: r.o.Group, MaxInFlight: r.o.Workers,
	}, r.o.Logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sub.Close()) }()
	r.publisher, err = buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Manager: manager, Ephemeral: true, Confirm: buffstreams.ConfirmReceived, PublishTimeout: 10 * time.Second,
	}, r.o.Logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.publisher.Close()) }()
	at, err := sub.Addr(r.o.Topic)
	if err != nil {
		return pipe.ExplainListen(r.o.Topic, err)
	}
	messages, err := sub.Subscribe(context.Background(), r.o.Topic)
	if err != nil {
		return err
	}
	r.o.Listening(at.String())
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case m, ok := <-messages:
			if !ok {
				return buffstreams.ErrSubscriberClosed
			}
			wg.Go(func() { r.answer(ctx, m) }) // at most Workers at a time: so many are unacked
		case <-ctx.Done():
			return nil
		}
	}
}

// answer replies and acks: a request is answered at least once.
func (r *replier) answer(ctx context.Context, m *message.Message) {
	defer m.Ack()
	to := m.Metadata.Get(ReplyToKey)
	if to == "" {
		r.o.Warn(fmt.Sprintf("message %.100q says not where to reply to: it has no %s", m.UUID, ReplyToKey))
		return
	}
	payload, err := r.o.Respond(ctx, m)
	reply := message.NewMessage(watermill.NewUUID(), payload)
	reply.Metadata.Set(CorrelationKey, m.Metadata.Get(CorrelationKey))
	if err != nil {
		reply.Payload = nil
		reply.Metadata.Set(ErrorKey, err.Error())
		r.o.Warn(fmt.Sprintf("request %.100q failed: %v", m.UUID, err))
	}
	if err := r.publisher.Publish(to, reply); err != nil {
		r.o.Warn(fmt.Sprintf("no reply to %.100q: %v", to, err))
		return
	}
	if n := r.replied.Add(1); r.o.Count > 0 && n >= int64(r.o.Count) {
		r.enough()
	}
}

// maxComplaint is how much of a program's standard error a reply quotes, in bytes.
const maxComplaint = 500

// TokenVariable is the environment variable that can have this command's token. Programs do not get it.
const TokenVariable = "BUFFSTREAMS_TOKEN" //nolint:gosec // the name, not the token

// Program runs a program, without a shell, for each request: the payload is its input, and its output the reply.
func Program(name string, args ...string) Responder {
	return func(ctx context.Context, request *message.Message) ([]byte, error) {
		cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // the user names the program
		cmd.Stdin = bytes.NewReader(request.Payload)
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, TokenVariable+"=") })
		var complaint bytes.Buffer
		cmd.Stderr = &complaint
		out, err := cmd.Output()
		if err != nil {
			text := complaint.Bytes()
			return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(text[:min(len(text), maxComplaint)]))
		}
		return out, nil
	}
}
