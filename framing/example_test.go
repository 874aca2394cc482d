package framing_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/buffstreams/watermill-buffstreams/framing"
)

func ExampleNewFixed() {
	c, err := framing.NewFixed(4, binary.BigEndian, 1<<20)
	fmt.Println(err)
	frame, _ := framing.AppendFrame(nil, c, []byte("hi"))
	fmt.Printf("% x\n", frame)
	// Output:
	// <nil>
	// 00 00 00 02 68 69
}

func ExampleNewVarint() {
	c, err := framing.NewVarint(1 << 20)
	fmt.Println(err)
	frame, _ := framing.AppendFrame(nil, c, []byte("hi"))
	fmt.Printf("% x\n", frame)
	// Output:
	// <nil>
	// 02 68 69
}

// Both ends need the same limit: the width of the header follows from it.
func ExampleNewBuffStreams() {
	c, err := framing.NewBuffStreams(4096)
	fmt.Println(err)
	frame, _ := framing.AppendFrame(nil, c, []byte("hi"))
	fmt.Printf("% x\n", frame)
	// Output:
	// <nil>
	// 04 00 00 68 69
}

func ExampleNewReader() {
	c, _ := framing.NewVarint(100)
	r := framing.NewReader(bytes.NewReader([]byte("\x02hi\x05hello\x09cut")), c)
	for {
		payload, err := r.Next()
		if err != nil {
			fmt.Println(err == io.EOF, errors.Is(err, framing.ErrTruncatedBody)) //nolint:errorlint // io.EOF itself is a clean end
			return
		}
		fmt.Println(string(payload))
	}
	// Output:
	// hi
	// hello
	// false true
}

func ExampleNewWriter() {
	c, _ := framing.NewVarint(100)
	var out bytes.Buffer
	w := framing.NewWriter(&out, c)
	for _, payload := range []string{"hi", "hello"} {
		if err := w.Append([]byte(payload)); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(w.Flush())
	fmt.Printf("%q\n", out.String())
	// Output:
	// <nil>
	// "\x02hi\x05hello"
}
