package peers

import (
	"errors"
	"net"
	"sync"
)

// serve accepts connections, each handled by a goroutine of its own, until it is closed.
func serve(handle func(net.Conn)) (Receiver, error) {
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	wg.Go(func() { // ends when the listener is closed
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { // ends when the sender closes its end
				handle(conn)
				_ = conn.Close()
			})
		}
	})
	return at{l.Addr().String(), ends{l.Close, func() error { wg.Wait(); return nil }}}, nil
}

// dial opens n connections.
func dial(address string, n int) (conns []net.Conn, err error) {
	for range n {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return nil, errors.Join(err, hangUp(conns))
		}
		conns = append(conns, conn)
	}
	return conns, nil
}

func hangUp(conns []net.Conn) error {
	var errs []error
	for _, conn := range conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}
