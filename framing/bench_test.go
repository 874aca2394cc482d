package framing

import (
	"fmt"
	"io"
	"testing"
)

// loop is an endless stream of equal frames.
type loop struct {
	data []byte // whole frames, twice as long as needed for any Read
	at   int
	unit int
}

func newLoop(t testing.TB, c Codec, size int) *loop {
	f := frame(t, c, payloadOf(size, 0))
	l := &loop{unit: len(f)}
	for len(l.data) < streamSize+len(f) {
		l.data = append(l.data, f...)
	}
	return l
}

func (l *loop) Read(p []byte) (int, error) {
	n := copy(p, l.data[l.at:])
	l.at = (l.at + n) % l.unit
	return n, nil
}

func BenchmarkReader(b *testing.B) {
	for _, size := range []int{110, 16 << 10} {
		for name, c := range codecs() {
			b.Run(fmt.Sprintf("%d/%s", size, name), func(b *testing.B) {
				r := NewReader(newLoop(b, c, size), c)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := r.Next(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mframes/s")
			})
		}
	}
}

func BenchmarkReaderTake(b *testing.B) {
	c := fixed4(4 << 20)
	for _, size := range []int{110, 16 << 10, 200 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			r := NewReader(newLoop(b, c, size), c)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Next(); err != nil {
					b.Fatal(err)
				}
				r.Take()
			}
		})
	}
}

func BenchmarkAppendFrame(b *testing.B) {
	payload := payloadOf(110, 0)
	for name, c := range codecs() {
		b.Run(name, func(b *testing.B) {
			buf := make([]byte, 0, 64<<10)
			b.SetBytes(int64(len(payload)))
			b.ReportAllocs()
			for b.Loop() {
				if len(buf) > 60<<10 {
					buf = buf[:0]
				}
				buf, _ = AppendFrame(buf, c, payload)
			}
		})
	}
}

func BenchmarkWriter(b *testing.B) {
	payload := payloadOf(110, 0)
	w := NewWriter(io.Discard, fixed4(1<<20))
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Append(payload); err != nil {
			b.Fatal(err)
		}
		if w.Buffered() > 60<<10 {
			if err := w.Flush(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
