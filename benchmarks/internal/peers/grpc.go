package peers

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
)

// GRPC is a client stream a sender, of messages that hold one bytes field, all on one connection.
var GRPC = Peer{
	Name: "gRPC client stream, without Watermill", Guarantee: "the transport has taken it; the stream's answer counts them at its end",
	Settings: "write and read buffers of 64 KiB, windows of 1 MiB; no TLS",
	Receive:  receiveGRPC,
	Dial:     dialGRPC,
}

const (
	grpcMethod = "/bench.Sink/Send"
	grpcBuffer = 64 << 10
	grpcWindow = 1 << 20
)

var grpcStream = grpc.StreamDesc{StreamName: "Send", ClientStreams: true, Handler: func(srv any, stream grpc.ServerStream) error {
	return srv.(sink).take(stream) //nolint:forcetypeassert // gRPC has checked HandlerType
}}

// sink is the service.
type sink interface{ take(grpc.ServerStream) error }

type tallySink struct{ tally *measure.Tally }

func (s tallySink) take(stream grpc.ServerStream) error {
	var n int64
	for {
		var m wrapperspb.BytesValue
		switch err := stream.RecvMsg(&m); {
		case errors.Is(err, io.EOF):
			return stream.SendMsg(wrapperspb.Int64(n))
		case err != nil:
			return err
		}
		s.tally.Arrive(m.Value)
		n++
	}
}

func receiveGRPC(_ Setup, tally *measure.Tally) (Receiver, error) {
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		return nil, err
	}
	s := grpc.NewServer(grpc.WriteBufferSize(grpcBuffer), grpc.ReadBufferSize(grpcBuffer),
		grpc.InitialWindowSize(grpcWindow), grpc.InitialConnWindowSize(grpcWindow))
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bench.Sink", HandlerType: (*sink)(nil), Streams: []grpc.StreamDesc{grpcStream},
	}, tallySink{tally})
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(l) }) // ends with Stop; what fails earlier fails the senders
	return at{l.Addr().String(), ends{func() error { s.Stop(); wg.Wait(); return nil }}}, nil
}

func dialGRPC(s Setup, to Receiver) (Sender, error) {
	conn, err := grpc.NewClient(to.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithWriteBufferSize(grpcBuffer), grpc.WithReadBufferSize(grpcBuffer))
	if err != nil {
		return nil, err
	}
	g := &grpcSender{conn: conn}
	for range s.Senders {
		stream, err := conn.NewStream(context.Background(), &grpcStream, grpcMethod)
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		g.streams = append(g.streams, stream)
	}
	return g, nil
}

type grpcSender struct {
	conn    *grpc.ClientConn
	streams []grpc.ClientStream
	eager
}

func (g *grpcSender) Send(sender int, batch [][]byte) error {
	for _, payload := range batch {
		if err := g.streams[sender].SendMsg(&wrapperspb.BytesValue{Value: payload}); err != nil {
			return err
		}
	}
	return nil
}

func (g *grpcSender) Close() error {
	var errs []error
	for _, stream := range g.streams {
		var n wrapperspb.Int64Value
		errs = append(errs, stream.CloseSend(), stream.RecvMsg(&n))
	}
	return errors.Join(append(errs, g.conn.Close())...)
}
