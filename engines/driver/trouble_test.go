package driver

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/assert"
)

// TestTrouble_IsLoggedOnceThenCounted: whatever its causes, and however they alternate.
func TestTrouble_IsLoggedOnceThenCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := watermill.NewCaptureLogger()
		count := func(level watermill.LogLevel) int { return len(log.Captured()[level]) }
		trouble := Trouble{Logger: log, What: "it fails", Over: "it works"}
		away := &ServerError{Cause: ErrUnreachable, Err: errors.New("away")}
		for range 100 { // 50 s
			trouble.Failed(away, nil)
			trouble.Failed(errors.New("another"), nil)
			time.Sleep(500 * time.Millisecond)
		}
		assert.Equal(t, 2, count(watermill.ErrorLogLevel))
		time.Sleep(time.Minute)
		trouble.Failed(away, nil)
		assert.Equal(t, 3, count(watermill.ErrorLogLevel))
		assert.Equal(t, 201, log.Captured()[watermill.ErrorLogLevel][2].Fields["failures"])
		trouble.Worked()
		trouble.Worked()
		assert.Equal(t, 1, count(watermill.InfoLogLevel))
		trouble.Failed(away, nil)
		assert.Equal(t, 4, count(watermill.ErrorLogLevel))
	})
}
