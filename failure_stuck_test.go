package buffstreams

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
)

type publishFunc func() error

func (f publishFunc) Publish(string, ...*message.Message) error { return f() }

func (publishFunc) Close() error { return nil }

// What a callback has that does not return when the time of Close is over goes back to the group: nothing answers for it.
func TestFailure_WhatAStuckCallbackHasGoesBack(t *testing.T) {
	goOn := func() error { return nil }
	for name, cfg := range map[string]SubscriberConfig{
		nameUnmarshaler: {Unmarshaler: unmarshalFunc(func([]byte) (*message.Message, error) { return nil, goOn() })},
		nameOnFailure:   {Unmarshaler: RawMarshaler{}, OnFailure: func(*message.Message, error) { _ = goOn() }},
		nameDeadLetter:  {Unmarshaler: RawMarshaler{}, DeadLetter: publishFunc(func() error { return goOn() })},
	} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			goOn = func() error { <-release; return nil }
			topic := newBubbleTopic(t)
			topic.feed(1)
			base, cancel := context.WithCancel(t.Context())
			s := &subscription{
				subscriber: &Subscriber{cfg: cfg, manager: &Manager{}, logger: watermill.NopLogger{}},
				member:     topic.Join("g", func() {}), base: base,
			}
			d, _, ok := s.member.Take()
			require.True(t, ok)
			require.Zero(t, topic.Backlog("g"))
			cancel()
			s.failAgain(d, errors.New("no"))
			require.Equal(t, 1, topic.Backlog("g"), name)
			require.Zero(t, topic.source.settled.Load(), name)
			require.ErrorContains(t, s.code.late(), name)
			close(release)
			synctest.Wait()
		})
	}
}

// A callback in which the pump was left behind, and which has returned by the end, is nothing that Close has to tell of.
func TestUserCode_ReturnsAfterItWasLeftBehind(t *testing.T) {
	var u userCode
	u.enter(nameDedupe)
	require.True(t, u.leaveBehind())
	require.ErrorContains(t, u.late(), nameDedupe)
	ended := make(chan struct{})
	go func() { // ends in leave
		defer close(ended)
		u.leave()
		t.Error("it goes on with a pump that is not its any more")
	}()
	<-ended
	require.NoError(t, u.late())
}
