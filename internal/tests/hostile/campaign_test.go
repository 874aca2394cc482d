package hostile

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// attackCommand makes the test binary attack: it is a process of its own, so that what it costs is not counted as the
// library's. It takes orders on its standard input and reports on its standard output, in JSON.
const attackCommand = "attack"

const (
	patience = 30 * time.Second // a peer that has not answered by then goes on
	slowOnes = 300              // slow attacks at a time
)

type orders struct {
	Acked, Plain string // addresses
	Victim       victim
	Total        int // connections
	Rate         int // of them in a second
	Traps        int // listeners
}

type report struct {
	Listeners []string            // the traps, before anything else
	Made      int                 // connections
	Caught    int                 // connections to traps
	Kinds     int                 // of attacks
	Seconds   float64             // that they took
	Wrong     map[string][]string // attacks with an answer that they should not have got
	Skipped   int                 // slow attacks that were one too many, or came late
}

// campaign is the attacking process.
type campaign struct {
	orders
	wg     sync.WaitGroup
	over   atomic.Bool
	caught atomic.Int64
	slow   chan struct{}

	mu  sync.Mutex
	all report
}

// rage runs the campaign and returns the process's exit code.
func rage(in io.Reader, out io.Writer) int {
	lines := bufio.NewReader(in)
	c := &campaign{slow: make(chan struct{}, slowOnes)}
	c.all.Wrong = map[string][]string{}
	if err := c.run(lines, json.NewEncoder(out)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (c *campaign) run(in *bufio.Reader, out *json.Encoder) error {
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	if err := json.Unmarshal(line, &c.orders); err != nil {
		return err
	}
	listeners, err := c.setTraps()
	if err != nil {
		return err
	}
	if err := out.Encode(report{Listeners: listeners}); err != nil {
		return err
	}
	if _, err := in.ReadBytes('\n'); err != nil { // the word to begin
		return err
	}
	start := time.Now()
	c.strike(start)
	c.over.Store(true)
	c.wg.Wait()
	c.all.Seconds = time.Since(start).Seconds()
	c.all.Caught = int(c.caught.Load())
	if err := out.Encode(c.all); err != nil {
		return err
	}
	_, _ = in.ReadBytes('\n') // the traps stay until the other process is done with them
	return nil
}

// aimed is an attack and the address it is made at.
type aimed struct {
	attack
	address string
}

func (c *campaign) table() (all []aimed) {
	for _, a := range append(greetings(), frames(c.Victim)...) {
		all = append(all, aimed{a, c.Acked})
	}
	for _, a := range plains() {
		all = append(all, aimed{a, c.Plain})
	}
	return all
}

// strike makes the attacks, one after the other in rounds, at a steady rate, and waits for their ends.
func (c *campaign) strike(start time.Time) {
	table := c.table()
	c.all.Kinds = len(table) + len(traps())
	var wg sync.WaitGroup
	for at := 0; c.all.Made < c.Total; at++ {
		round, a := at/len(table), table[at%len(table)]
		if a.rare > 1 && round%a.rare != 0 {
			continue
		}
		if a.slow && (c.late() || !c.enter()) {
			c.all.Skipped++
			continue
		}
		time.Sleep(time.Until(start.Add(time.Duration(c.all.Made) * time.Second / time.Duration(c.Rate))))
		from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+c.all.Made%253))}
		c.all.Made++
		wg.Go(func() { // ends with its connection, whose time is bounded
			c.make(a, from, round)
			if a.slow {
				<-c.slow
			}
		})
	}
	wg.Wait()
}

// late tells that who begins a slow attack now would make everybody wait for its end.
func (c *campaign) late() bool { return c.Total > 8*c.Rate && c.all.Made > c.Total-4*c.Rate }

func (c *campaign) enter() bool {
	select {
	case c.slow <- struct{}{}:
		return true
	default:
		return false
	}
}

func dialFrom(from net.Addr, address string) (net.Conn, error) {
	local := &net.TCPAddr{}
	if tcp, ok := from.(*net.TCPAddr); ok && localAddresses {
		local.IP = tcp.IP
	}
	return (&net.Dialer{LocalAddr: local, Timeout: patience}).Dial("tcp", address)
}

func (c *campaign) make(a aimed, from net.Addr, turn int) {
	conn, err := dialFrom(from, a.address)
	if err != nil {
		c.note(a.name, err)
		return
	}
	defer func() { _ = conn.Close() }()
	p := newPeer(conn, turn)
	p.within(patience)
	a.does(p)
	if err := a.want(p); err != nil {
		c.note(a.name, err)
	}
}

// note writes a wrong answer down, of each attack the first few.
func (c *campaign) note(name string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.all.Wrong[name]) < 3 {
		c.all.Wrong[name] = append(c.all.Wrong[name], err.Error())
	}
}

// setTraps listens; each connection to a trap gets the next of traps. They end with the process.
func (c *campaign) setTraps() (addresses []string, err error) {
	table := traps()
	var turn atomic.Int64
	for range c.Traps {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		addresses = append(addresses, ln.Addr().String())
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				i := int(turn.Add(1) - 1)
				c.catch(table[i%len(table)], conn, i/len(table))
			}
		}()
	}
	return addresses, nil
}

func (c *campaign) catch(a attack, conn net.Conn, turn int) {
	if c.over.Load() || a.rare > 1 && turn%a.rare != 0 {
		_ = conn.Close()
		return
	}
	c.caught.Add(1)
	c.wg.Go(func() { // ends with the connection, whose time is bounded
		defer func() { _ = conn.Close() }()
		p := newPeer(conn, turn)
		p.within(patience)
		if _, err := p.next(); err != nil { // the hello
			c.note(a.name, err)
			return
		}
		a.does(p)
		if err := a.want(p); err != nil {
			c.note(a.name, err)
		}
	})
}
