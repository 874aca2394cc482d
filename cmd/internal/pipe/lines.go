package pipe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// TooLongError is a message that is over the limit. It was not sent.
type TooLongError struct {
	What  string // such as `line 3`
	Size  int64  // bytes; 0: more than Limit, and no more is known
	Limit int    // bytes
}

func (e *TooLongError) Error() string {
	size := fmt.Sprintf("%d bytes long", e.Size)
	if e.Size == 0 {
		size = fmt.Sprintf("longer than %d bytes", e.Limit)
	}
	return fmt.Sprintf("%s is %s, the limit is %d; raise --max-message-size at both ends", e.What, size, e.Limit)
}

// line is one message of the input.
type line struct {
	number  int // from 1
	payload []byte
}

// lineReader cuts its input into lines of up to limit bytes without their newline. It never holds more than one.
type lineReader struct {
	r     *bufio.Reader
	limit int
	count int
}

func newLineReader(r io.Reader, limit int) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 64<<10), limit: limit}
}

// next returns io.EOF after the last line, which needs no newline.
func (l *lineReader) next() (line, error) {
	var payload []byte
	for {
		part, err := l.r.ReadSlice('\n')
		complete := err == nil
		if complete {
			part = part[:len(part)-1]
		}
		if len(payload)+len(part) > l.limit {
			return line{}, &TooLongError{What: fmt.Sprintf("line %d", l.count+1), Limit: l.limit}
		}
		payload = append(payload, part...)
		switch {
		case complete, errors.Is(err, io.EOF) && len(payload) > 0:
			l.count++
			return line{l.count, payload}, nil
		case errors.Is(err, bufio.ErrBufferFull):
		default:
			return line{}, err
		}
	}
}

// readAhead is how many lines wait while a batch is on its way.
const readAhead = 512

// input is where lines come from.
type input struct {
	lines chan line
	err   error // why lines was closed, if not at the end of the input
}

// readLines starts to read. The goroutine ends with the input or after ctx is done; as a read cannot be cut short, it
// can outlive the command's work and end with the process.
func readLines(ctx context.Context, r io.Reader, limit int) *input {
	in := &input{lines: make(chan line, readAhead)}
	go func() {
		defer close(in.lines)
		reader := newLineReader(r, limit)
		for ctx.Err() == nil {
			l, err := reader.next()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					in.err = err
				}
				return
			}
			in.lines <- l
		}
	}()
	return in
}

// readFile reads no more than the limit, whatever the file turns out to be.
func readFile(path string, limit int) (payload []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	payload, err = io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(payload) > limit {
		tooLong := &TooLongError{What: path, Limit: limit}
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			tooLong.Size = info.Size()
		}
		return nil, tooLong
	}
	return payload, err
}

// gather returns what is there, up to a batch, and waits only for the first line. ok is false at the end of the input;
// after ctx is done it is false as soon as nothing is there.
func (in *input) gather(ctx context.Context) (batch []line, ok bool) {
	first, ok := in.wait(ctx)
	if !ok {
		return nil, false
	}
	batch = append(batch, first)
	const most = 1 << 20
	for size := len(first.payload); len(batch) < readAhead && size < most; {
		select {
		case l, more := <-in.lines:
			if !more {
				return batch, true // the next call says so
			}
			batch = append(batch, l)
			size += len(l.payload)
		default:
			return batch, true
		}
	}
	return batch, true
}

// wait prefers a line to the end of ctx.
func (in *input) wait(ctx context.Context) (line, bool) {
	select {
	case l, more := <-in.lines:
		return l, more
	default:
	}
	select {
	case l, more := <-in.lines:
		return l, more
	case <-ctx.Done():
		return line{}, false
	}
}
