// Package bridge carries messages between any two engines. A message is acked at its source when the destination has
// confirmed it: a bridge that dies loses none, and one that comes back duplicates none where the destination knows IDs
// or can look back.
package bridge

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/engines"
)

// Defaults of Config.
const (
	DefaultMaxInFlight  = 4096
	DefaultLanes        = 2
	DefaultBatch        = 1000
	DefaultBatchBytes   = 4 << 20
	DefaultDrainTimeout = 30 * time.Second
)

// Topic is what a bridge carries.
type Topic struct {
	// From is the topic at the source, To that at the destination; an empty To is the same.
	From, To string
}

// Config configures a Bridge. Two engines and Topics are required.
type Config struct {
	// From and To are the engines' URLs. Parameters that they have count; where they have none the source gets
	// group=bridge, and members=1 if its order needs that.
	From, To string
	// Source and Destination are engines that are open, instead of From and To, such as a GoChannel. They are not
	// closed, and are used as they are: the source's group, max_in_flight and members are what its URL said.
	Source, Destination *engines.Engine
	// Options are for opening both.
	Options engines.Options
	// Topics are carried side by side.
	Topics []Topic
	// Key is the metadata key of the order key: messages that share its value keep their order, others go side by side.
	// Empty means that each topic keeps its order as a whole.
	Key string
	// MaxInFlight is how many messages of a topic may be in the bridge's hands; 0 means 4096.
	MaxInFlight int
	// Lanes is how many batches of a topic may be on their way at a time, where there is a Key; 0 means 2: few
	// large batches cost an engine less than many small ones.
	Lanes int
	// Batch and BatchBytes bound what one Publish call carries; 0 means 1000 messages and 4 MiB.
	Batch, BatchBytes int
	// MaxMessageSize is the limit of payload and metadata in bytes; a larger message is poison. 0 means the
	// destination's.
	MaxMessageSize int
	// LookBack is how many of the destination's last messages are read at the start, to skip those that are there
	// already; 0 means four times MaxInFlight, negative none. More is needed where others publish to the same topics.
	LookBack int
	// DeadLetter gets the messages that the destination refuses for good, at DeadLetterTopic, with the metadata keys of
	// Watermill's poison queue. Nil with a DeadLetterTopic means the source. Without a topic the bridge ends at the
	// first such message, which stays at the source.
	DeadLetter      message.Publisher
	DeadLetterTopic string
	// DrainTimeout bounds how long the end waits for the destination; 0 means 30 s.
	DrainTimeout time.Duration
	// Hooks are told what happens.
	Hooks Hooks
	// Logger takes what no caller is told of. Nil means watermill.NopLogger.
	Logger watermill.LoggerAdapter
}

// Hooks are called on the goroutine of a batch, which waits for them; concurrently. A panic is logged.
type Hooks struct {
	// OnForward is called when the destination has confirmed messages.
	OnForward func(topic Topic, messages, bytes int, took time.Duration)
	// OnRetry is called when messages were not confirmed and are published again.
	OnRetry func(topic Topic, messages int, err error)
	// OnRefused is called for a message that the destination refuses for good, before it becomes a dead letter.
	OnRefused func(topic Topic, msg *message.Message, err error)
}

func (c *Config) setDefaults() error {
	def := func(p *int, value int) {
		if *p == 0 {
			*p = value
		}
	}
	def(&c.MaxInFlight, DefaultMaxInFlight)
	def(&c.Lanes, DefaultLanes)
	def(&c.Batch, DefaultBatch)
	def(&c.BatchBytes, DefaultBatchBytes)
	def(&c.LookBack, 4*c.MaxInFlight)
	if c.DrainTimeout == 0 {
		c.DrainTimeout = DefaultDrainTimeout
	}
	if c.Logger == nil {
		c.Logger = watermill.NopLogger{}
	}
	if c.Options.Logger == nil {
		c.Options.Logger = c.Logger
	}
	switch {
	case (c.From == "") == (c.Source == nil) || (c.To == "") == (c.Destination == nil):
		return errors.New("bridge: it needs two engines: From or Source, and To or Destination")
	case isGoChannel(c.From) || isGoChannel(c.To):
		return errors.New("bridge: a URL opens a GoChannel of the bridge's own, where nothing comes from, and nothing is kept; give one that is open as Source or Destination")
	case len(c.Topics) == 0:
		return errors.New("bridge: there are no Topics")
	case c.MaxInFlight < 0 || c.Lanes < 0 || c.Batch < 0 || c.BatchBytes < 0 || c.MaxMessageSize < 0 || c.DrainTimeout < 0:
		return errors.New("bridge: MaxInFlight, Lanes, Batch, BatchBytes, MaxMessageSize and DrainTimeout must not be negative")
	case c.DeadLetter != nil && c.DeadLetterTopic == "":
		return errors.New("bridge: DeadLetter needs DeadLetterTopic")
	}
	topics := make([]Topic, len(c.Topics))
	for i, t := range c.Topics {
		if t.From == "" {
			return errors.New("bridge: a topic is empty")
		}
		if t.To == "" {
			t.To = t.From
		}
		if t.To == t.From && (c.From != "" && place(c.From) == place(c.To) || c.Source != nil && c.Source == c.Destination) {
			return fmt.Errorf("bridge: the topic %.200q would go to itself, again and again; give it another name at the destination", t.From)
		}
		topics[i] = t
	}
	c.Topics = topics
	if c.Key == "" {
		c.Lanes = 1
	}
	return nil
}

func isGoChannel(url string) bool { return strings.HasPrefix(url, "gochannel:") }

// place is what a URL has without user and parameters.
func place(url string) string {
	url, _, _ = strings.Cut(url, "?")
	scheme, rest, _ := strings.Cut(url, "://")
	return scheme + "://" + strings.TrimSuffix(rest[strings.LastIndexByte(rest, '@')+1:], "/")
}

// Bridge carries messages between two engines. It is safe for concurrent use.
type Bridge struct {
	cfg      Config
	from, to *engines.Engine
	counts   counters

	mu       sync.Mutex
	failing  error // of the last batch that was not confirmed; guarded by mu
	fatal    error // why the bridge ends by itself; guarded by mu
	stop     context.CancelFunc
	starting bool // the destination's last messages are being read; guarded by mu
}

// Open opens both engines. Run carries the messages; a Bridge that is not run must be closed.
func Open(ctx context.Context, cfg Config) (*Bridge, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	b := &Bridge{cfg: cfg, starting: true}
	source := cfg.Options
	source.Defaults = map[string]string{
		"group": "bridge", "members": "1", "max_in_flight": strconv.Itoa(cfg.MaxInFlight), "close_timeout": cfg.DrainTimeout.String(),
	}
	destination := cfg.Options
	destination.Defaults = map[string]string{
		"publish_timeout": "876000h", // the bridge waits for its destination as long as it lives
	}
	if cfg.Key != "" {
		destination.Defaults["key"], destination.Defaults["members"] = cfg.Key, "1" // Kafka's records get the key
	}
	var err error
	if b.from = cfg.Source; b.from == nil {
		if b.from, err = engines.OpenWith(ctx, cfg.From, source); err != nil {
			return nil, fmt.Errorf("bridge: source: %w", err)
		}
	}
	if b.to = cfg.Destination; b.to == nil {
		if b.to, err = engines.OpenWith(ctx, cfg.To, destination); err != nil {
			return nil, errors.Join(fmt.Errorf("bridge: destination: %w", err), b.Close())
		}
	}
	if b.cfg.DeadLetterTopic != "" && b.cfg.DeadLetter == nil {
		b.cfg.DeadLetter = b.from.Publisher()
	}
	return b, nil
}

// Run carries messages until ctx is done or a message is refused and there is no place for dead letters. Then no new
// ones are taken, those in hand are delivered for up to DrainTimeout, and both engines are closed. What was not
// confirmed stays at the source. It returns nil for an end by ctx.
func (b *Bridge) Run(ctx context.Context) error {
	ctx, b.stop = context.WithCancel(ctx)
	defer b.stop()
	delivering, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	// Some engines' publishers end only with the engine.
	defer context.AfterFunc(delivering, func() { _ = b.closeDestination() })()
	if err := b.declareDeadLetters(ctx); err != nil {
		return errors.Join(err, b.Close())
	}
	var pipes []*pipe
	for _, topic := range b.cfg.Topics {
		p, err := b.newPipe(ctx, topic)
		if err != nil {
			return errors.Join(err, b.Close())
		}
		pipes = append(pipes, p)
	}
	var running sync.WaitGroup
	for _, p := range pipes {
		if err := p.subscribe(ctx); err != nil {
			b.end(err)
			break
		}
		running.Go(func() { p.run(delivering) }) // ends when its subscription has, or with delivering
	}
	b.mu.Lock()
	b.starting = false
	b.mu.Unlock()
	<-ctx.Done()
	timer := time.AfterFunc(b.cfg.DrainTimeout, giveUp)
	defer timer.Stop()
	running.Wait()
	b.mu.Lock()
	err := b.fatal
	b.mu.Unlock()
	return errors.Join(err, b.Close())
}

// declareDeadLetters makes the topic of dead letters at the source, so that a topic that is missing there shows before a
// message has to go to it.
func (b *Bridge) declareDeadLetters(ctx context.Context) error {
	if b.cfg.DeadLetterTopic == "" || b.cfg.DeadLetter != b.from.Publisher() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookBackTimeout)
	defer cancel()
	if err := b.from.Declare(ctx, b.cfg.DeadLetterTopic); err != nil {
		return fmt.Errorf("bridge: the topic of dead letters %.200q at the source: %w", b.cfg.DeadLetterTopic, err)
	}
	return nil
}

// end ends Run with an error.
func (b *Bridge) end(err error) {
	b.mu.Lock()
	if b.fatal == nil {
		b.fatal = err
	}
	b.mu.Unlock()
	b.stop()
}

// note keeps the state of the destination for Ready: nil if it confirms.
func (b *Bridge) note(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failing = err
}

// Ready returns nil if both engines answer and the destination confirms what it gets.
func (b *Bridge) Ready(ctx context.Context) error {
	b.mu.Lock()
	starting, failing := b.starting, errors.Join(b.failing, b.fatal)
	b.mu.Unlock()
	switch {
	case failing != nil:
		return failing
	case starting:
		return errors.New("bridge: starting")
	}
	if err := b.from.Check(ctx); err != nil {
		return fmt.Errorf("bridge: source: %w", err)
	}
	if err := b.to.Check(ctx); err != nil {
		return fmt.Errorf("bridge: destination: %w", err)
	}
	return nil
}

// Close closes both engines, those that Open has opened. Run does that at its end.
func (b *Bridge) Close() error {
	if b.cfg.Source == nil {
		return errors.Join(b.from.Close(), b.closeDestination())
	}
	return b.closeDestination()
}

func (b *Bridge) closeDestination() error {
	if b.cfg.Destination != nil || b.to == nil {
		return nil
	}
	return b.to.Close()
}
