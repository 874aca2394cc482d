package batch_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/batch"
)

// A message that failed because its time was over has not failed by itself: it is given back, and not put away for good.
func TestRun_EndIsNoFailedAttempt(t *testing.T) {
	for name, end := range map[string]func(run, subscription context.CancelFunc){
		"of Run":              func(run, _ context.CancelFunc) { run() },
		"of the subscription": func(_, subscription context.CancelFunc) { subscription() },
	} {
		within(t, func(t *testing.T) {
			ctx, run := context.WithCancel(t.Context())
			defer run()
			s := newSource(1).ended()
			msgContext, subscription := context.WithCancel(context.Background())
			defer subscription()
			s.all[0].SetContext(msgContext)
			err := batch.Run(ctx, s.messages, func(ctx context.Context, _ []*message.Message) error {
				end(run, subscription)
				<-ctx.Done()
				return errWanted
			}, batch.Config{MaxAttempts: 1, Failed: func(context.Context, *message.Message, error) error {
				t.Errorf("the end %s put a message away", name)
				return nil
			}})
			require.Equal(t, name == "of Run", err != nil, name)
			require.Equal(t, "n", s.outcomes(), name)
		})
	}
}

// A Sleep beyond the usual cap is its own cap; one that is as long as the cap is valid.
func TestRun_LongSleep(t *testing.T) {
	for _, config := range []batch.Config{{Sleep: time.Minute}, {Sleep: time.Minute, SleepCap: time.Minute}} {
		within(t, func(t *testing.T) {
			s := newSource(1).ended()
			began := time.Now()
			r := &recorder{do: func(call int, _ []*message.Message) error {
				if call < 4 {
					return errWanted
				}
				return nil
			}}
			require.NoError(t, batch.Run(t.Context(), s.messages, r.handle, config))
			require.Equal(t, 3*time.Minute, time.Since(began))
		})
	}
}

// errorLines is a logger that keeps the fields of errors.
type errorLines struct {
	watermill.NopLogger
	fields []watermill.LogFields
}

func (l *errorLines) Error(_ string, _ error, fields watermill.LogFields) {
	l.fields = append(l.fields, fields)
}

// Each failure is a line with what came of it; a success is none.
func TestRun_LogsWhatFailed(t *testing.T) {
	within(t, func(t *testing.T) {
		s, log := newSource(5).ended(), &errorLines{}
		r := &recorder{do: func(_ int, msgs []*message.Message) error {
			if strings.Contains(payloads(msgs), "2") {
				return errWanted
			}
			return nil
		}}
		require.NoError(t, batch.Run(t.Context(), s.messages, r.handle, batch.Config{Size: 4, MaxAttempts: 2, Logger: log}))
		require.Equal(t, []string{"0 1 2 3", "0", "1 2", "1", "2 3", "2", "2", "3", "4"}, r.batches)
		require.Equal(t, "aanaa", s.outcomes())
		line := func(messages, left, failures, first int) watermill.LogFields {
			return watermill.LogFields{
				"messages": messages, "failed": messages, "handed_again": left, "first_message_uuid": s.all[first].UUID, "failures": failures,
			}
		}
		require.Equal(t, []watermill.LogFields{line(4, 4, 1, 0), line(2, 2, 1, 1), line(2, 2, 1, 2), line(1, 1, 2, 2), line(1, 0, 0, 2)}, log.fields)
	})
}
