package bridge

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
)

// answers tells of each message whether it was acked (+), nacked (-) or neither (.).
func answers(messages []*message.Message) (s string) {
	for _, msg := range messages {
		select {
		case <-msg.Acked():
			s += "+"
		case <-msg.Nacked():
			s += "-"
		default:
			s += "."
		}
	}
	return s
}

func TestAcks_ComeInOrderButForThoseThatAreTriedAgain(t *testing.T) {
	var a acks
	var all []*held
	var messages []*message.Message
	for range 6 {
		messages = append(messages, message.NewMessage("", nil))
		all = append(all, &held{msg: messages[len(messages)-1]})
	}
	a.add(all[:4])
	a.confirm(all[1], all[3])
	require.Equal(t, "......", answers(messages))
	a.add(all[4:])
	a.confirm(all[0])
	require.Equal(t, "++....", answers(messages))
	a.leave(all[2]) // it is published again
	require.Equal(t, "++.+..", answers(messages))
	a.confirm(all[5])
	a.confirm(all[2])
	require.Equal(t, "++++..", answers(messages))
	a.nack(all[4])
	require.Equal(t, "++++-+", answers(messages))
	require.Empty(t, a.line)
}
