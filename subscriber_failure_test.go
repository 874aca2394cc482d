package buffstreams

import (
	"errors"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
)

type unmarshalFunc func(data []byte) (*message.Message, error)

func (f unmarshalFunc) Unmarshal(_ string, data []byte) (*message.Message, error) { return f(data) }

// A Subscriber's OnFailure stands in for its private Manager's: with the message, or with the bytes of one that cannot be decoded.
// Where that Manager has its own, it is the Manager's that is told.
func TestSubscriber_OnFailureStandsInForItsManagers(t *testing.T) {
	var got *message.Message
	mine := func(msg *message.Message, _ error) { got = msg }
	for name, unmarshal := range map[string]unmarshalFunc{
		"decoded":       func(data []byte) (*message.Message, error) { return message.NewMessage("", data), nil },
		"a literal":     func(data []byte) (*message.Message, error) { return &message.Message{Payload: data}, nil },
		"not decodable": func([]byte) (*message.Message, error) { return nil, errors.New("no") },
		"nothing":       func([]byte) (*message.Message, error) { return nil, nil },
		"a panic":       func([]byte) (*message.Message, error) { panic("oops") },
	} {
		sub, err := NewSubscriber(SubscriberConfig{Unmarshaler: unmarshal, OnFailure: mine}, nil)
		require.NoError(t, err)
		got = nil
		sub.manager.cfg.OnFailure("orders", []byte("order"), ErrUndelivered)
		require.NotNil(t, got, name)
		require.Equal(t, "order", string(got.Payload), name)
		require.NotPanics(t, func() { got.Metadata.Set("key", "value") }, name)
		require.NoError(t, sub.Close())
	}

	told := 0
	sub, err := NewSubscriber(SubscriberConfig{
		OnFailure: mine, ManagerConfig: ManagerConfig{OnFailure: func(string, []byte, error) { told++ }},
	}, nil)
	require.NoError(t, err)
	got = nil
	sub.manager.cfg.OnFailure("orders", nil, ErrUndelivered)
	require.Equal(t, 1, told)
	require.Nil(t, got)
	require.NoError(t, sub.Close())
}
