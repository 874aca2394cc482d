package batch_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/batch"
)

// A message that fails by itself three times is put away, and those behind it go on.
func ExampleRun_failed() {
	messages := make(chan *message.Message, 3)
	for _, payload := range []string{"a", "bad", "c"} {
		messages <- message.NewMessage(payload, []byte(payload))
	}
	close(messages)
	handle := func(_ context.Context, msgs []*message.Message) error {
		for i, m := range msgs {
			if string(m.Payload) == "bad" {
				return &batch.FromError{Index: i, Err: errors.New("no such customer")}
			}
			fmt.Println("handled", string(m.Payload))
		}
		return nil
	}
	err := batch.Run(context.Background(), messages, handle, batch.Config{
		Sleep: 1, MaxAttempts: 3,
		Failed: func(_ context.Context, m *message.Message, reason error) error {
			fmt.Println("put away", string(m.Payload))
			return nil // from a poison queue's Publish, for example
		},
	})
	fmt.Println(err)
	// Output:
	// handled a
	// put away bad
	// handled c
	// <nil>
}
