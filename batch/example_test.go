package batch_test

import (
	"context"
	"fmt"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/batch"
)

func ExampleRun() {
	messages := make(chan *message.Message, 3) // as a subscriber's Subscribe returns
	for _, payload := range []string{"a", "b", "c"} {
		messages <- message.NewMessage(watermill.NewUUID(), []byte(payload))
	}
	close(messages)
	insert := func(_ context.Context, msgs []*message.Message) error {
		fmt.Println("one insert of", len(msgs), "rows")
		return nil
	}
	if err := batch.Run(context.Background(), messages, insert, batch.Config{Size: 2}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// one insert of 2 rows
	// one insert of 1 rows
}
