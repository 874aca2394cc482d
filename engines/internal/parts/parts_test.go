package parts

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// own is the size of a message that is nothing else.
func own(size int) int { return size }

func TestPublish_PartsAreWithinTheLimit(t *testing.T) {
	for _, test := range []struct {
		messages []int
		want     [][]int
	}{
		{nil, nil},
		{[]int{30, 1}, [][]int{{30}, {1}}},
		{[]int{9, 1, 1}, [][]int{{9, 1}, {1}}},
		{[]int{1, 1, 1, 1, 30, 1}, [][]int{{1, 1, 1}, {1}, {30}, {1}}},
	} {
		var got [][]int
		err := Publish(test.messages, Limit{3, 10}, own, func(part []int, _ []error) error {
			got = append(got, part)
			return nil
		})
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%v is stored as %v (%v), not %v", test.messages, got, err, test.want)
		}
	}
}

// TestPublish_SaysOfEachMessageWhatBecameOfIt: one is refused, and one is on its way when the engine is lost. What was stored
// before, in the same part too, must not be published again.
func TestPublish_SaysOfEachMessageWhatBecameOfIt(t *testing.T) {
	refused, lost := errors.New("refused"), errors.New("lost")
	const refusedSize, lostSize = 7, 8
	store := func(part []int, errs []error) error { // one by one
		for i, size := range part {
			switch size {
			case refusedSize:
				errs[i] = refused
			case lostSize:
				return Fail(errs[i:], lost)
			}
		}
		return nil
	}
	whole := Whole(func(part []int) error {
		switch {
		case slices.Contains(part, refusedSize):
			return &driver.RefusedError{Err: refused}
		case slices.Contains(part, lostSize):
			return lost
		}
		return nil
	})
	halves := func(part []int, errs []error) error { return Halves(part, errs, store) }
	for name, store := range map[string]Store[int]{"one by one": store, "by halves": halves, "whole": whole} {
		err := Publish([]int{1, refusedSize, 1, 1, lostSize, 1, 1}, Limit{4, 100}, own, store)
		var each *driver.PublishError
		if !errors.As(err, &each) {
			t.Fatalf("%s: %v", name, err)
		}
		for i, want := range []error{nil, refused, nil, nil, lost, lost, lost} {
			if !errors.Is(each.Errs[i], want) {
				t.Errorf("%s: message %d: %v, not %v", name, i, each.Errs[i], want)
			}
		}
	}
}
