package flow

import (
	"fmt"
	"testing"
)

// BenchmarkBudget_Line is what a grant costs while so many windows wait: each holds a little, asks for more, and gives back.
func BenchmarkBudget_Line(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		for _, held := range []int{0, 10} {
			b.Run(fmt.Sprintf("%d-held-%d", n, held), func(b *testing.B) {
				for range b.N {
					queueUp(n, held)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/window")
			})
		}
	}
}

// queueUp has n windows hold so many bytes each, and ask for 100, of which the budget has room for 50 at a time.
func queueUp(n, held int) {
	budget := NewBudget(n*held + 10_000)
	granted := 0
	var queue []*Window
	for range n {
		w := openWindowOf(budget, 1000, 1000)
		if held > 0 {
			w.Take(amount(1, held))
		}
		w.Wait(&Claim{Want: amount(1, 100), Least: amount(1, 100), Enough: amount(1, 100), Grant: func(Amount) {
			granted++
			queue = append(queue, w)
		}})
	}
	for len(queue) > 0 {
		w := queue[0]
		queue = queue[1:]
		w.Release(amount(1, 100))
	}
	if granted != n {
		panic(fmt.Sprint("granted ", granted, " of ", n))
	}
}
