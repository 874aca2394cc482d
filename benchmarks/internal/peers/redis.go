package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/redis/go-redis/v9"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
)

// Redis is watermill-redisstream with a consumer group. Setup.Broker must be the address of StartRedis.
var Redis = Peer{
	Name: "Redis streams", Guarantee: "the Redis server has it in its memory", Window: natsWindow,
	Settings: "defaults, a consumer group; redis-server as a process of its own, without persistence",
	Receive: func(s Setup, tally *measure.Tally) (Receiver, error) {
		client := redis.NewClient(&redis.Options{Addr: s.Broker})
		sub, err := redisstream.NewSubscriber(redisstream.SubscriberConfig{
			Client: client, ConsumerGroup: "bench", Consumer: "one", DisableIndefiniteInitialBlock: true,
		}, nil)
		if err != nil {
			return nil, err
		}
		wait, err := s.consume(sub, s.topics(), tally)
		if err != nil {
			return nil, err
		}
		forget := func() error { // the streams of earlier turns would fill the server's memory
			c := redis.NewClient(&redis.Options{Addr: s.Broker})
			return errors.Join(c.Del(context.Background(), s.topics()...).Err(), c.Close())
		}
		return at{s.Broker, ends{sub.Close, wait, forget}}, nil
	},
	Dial: func(s Setup, to Receiver) (Sender, error) {
		client := redis.NewClient(&redis.Options{Addr: to.Address()})
		pub, err := redisstream.NewPublisher(redisstream.PublisherConfig{Client: client}, nil)
		if err != nil {
			return nil, err
		}
		return s.publishing(pub, s.topics()), nil
	},
}

// StartRedis starts a server that stores nothing, and returns its version. ErrNoRedis means that there is none to
// start.
func StartRedis() (address, version string, stop func() error, err error) {
	exe, err := exec.LookPath("redis-server")
	if err != nil {
		return "", "", nil, fmt.Errorf("%w: %w", ErrNoRedis, err)
	}
	if address, err = freeAddress(); err != nil {
		return "", "", nil, err
	}
	_, port, _ := net.SplitHostPort(address)
	cmd := exec.Command(exe, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no")
	if err := cmd.Start(); err != nil {
		return "", "", nil, fmt.Errorf("%w: %w", ErrNoRedis, err)
	}
	stop = func() error {
		err := cmd.Process.Kill()
		_ = cmd.Wait() // its status says that it was killed
		return err
	}
	if version, err = redisVersion(address); err != nil {
		return "", "", nil, errors.Join(fmt.Errorf("%w: %w", ErrNoRedis, err), stop())
	}
	return address, version, stop, nil
}

// ErrNoRedis means that no Redis server could be started.
var ErrNoRedis = errors.New("peers: no redis-server could be started")

// freeAddress finds a port that is free now; Redis cannot be asked which one it chose.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// redisVersion waits until the server answers.
func redisVersion(address string) (string, error) {
	client := redis.NewClient(&redis.Options{Addr: address})
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		info, err := client.InfoMap(ctx, "server").Result()
		if err == nil {
			return info["Server"]["redis_version"], nil
		}
		select {
		case <-ctx.Done():
			return "", err
		case <-time.After(10 * time.Millisecond):
		}
	}
}
