package tests

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// TestProtocol_DocumentHasEveryFieldAndCode compares the document's list of bodies, fields and codes with proto/.
func TestProtocol_DocumentHasEveryFieldAndCode(t *testing.T) {
	var lines []string
	bodies := (&wire.Frame{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for i := range bodies.Len() {
		body := bodies.Get(i)
		tag := protowire.AppendTag(nil, body.Number(), protowire.BytesType)
		lines = append(lines, fmt.Sprintf("%x %s: %s", tag, body.Message().Name(), fieldsOf(body.Message())))
	}
	require.Equal(t, strings.Join(lines, "\n")+"\n", documentBlocks(t, "bodies")[0])

	var codes []string
	values := wire.Code(0).Descriptor().Values()
	for i := 1; i < values.Len(); i++ {
		codes = append(codes, fmt.Sprintf("%d %s", values.Get(i).Number(), strings.TrimPrefix(string(values.Get(i).Name()), "CODE_")))
	}
	require.Equal(t, strings.Join(codes, ", ")+"\n", documentBlocks(t, "codes")[0])
}

// fieldsOf lists the fields of a body: number, name, and a type where it is no varint.
func fieldsOf(body protoreflect.MessageDescriptor) string {
	var all []string
	fields := body.Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		text := fmt.Sprintf("%d %s", f.Number(), f.Name())
		switch f.Kind() {
		case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.Fixed64Kind:
			text += " " + f.Kind().String()
		}
		if f.IsList() {
			text += " repeated"
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}
