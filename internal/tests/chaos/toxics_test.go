package chaos

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// toxicCommand as the first argument makes this binary serve toxic proxies until its input ends. They have a process of
// their own because one that dies under load leaves goroutines behind, and because it can be killed.
const toxicCommand = "toxic-proxies"

// toxic is a toxiproxy toxic as its API takes it.
type toxic struct {
	Type       string           `json:"type"`
	Stream     string           `json:"stream"`
	Attributes map[string]int64 `json:"attributes"`
}

// order is what the process is told: to open a proxy, or to close it.
type order struct {
	Open  string  `json:",omitempty"` // where it leads
	With  []toxic `json:",omitempty"` // before the first connection: toxiproxy can deadlock when they change under load
	Close string  `json:",omitempty"` // its address
}

type answer struct{ Address, Err string }

// serveToxics is the process of the proxies.
func serveToxics(in io.Reader, out io.Writer) error {
	toxics.Register("flip", new(flipToxic))
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	proxies := map[string]*toxiproxy.Proxy{}
	replies := json.NewEncoder(out)
	for lines := json.NewDecoder(in); ; {
		var o order
		if err := lines.Decode(&o); err != nil {
			return err
		}
		var a answer
		if o.Close != "" {
			if p := proxies[o.Close]; p != nil {
				p.Stop()
				delete(proxies, o.Close)
			}
		} else if p, err := openToxic(server, o); err != nil {
			a.Err = err.Error()
		} else {
			a.Address = p.Listen
			proxies[p.Listen] = p
		}
		if err := replies.Encode(a); err != nil {
			return err
		}
	}
}

func openToxic(server *toxiproxy.ApiServer, o order) (*toxiproxy.Proxy, error) {
	p := toxiproxy.NewProxy(server, o.Open, "127.0.0.1:0", o.Open)
	for _, t := range o.With {
		text, err := json.Marshal(t)
		if err != nil {
			return nil, err
		}
		if _, err := p.Toxics.AddToxicJson(strings.NewReader(string(text))); err != nil {
			return nil, err
		}
	}
	return p, p.Start()
}

// flipToxic lets one bit of about every so many bytes arrive wrong.
type flipToxic struct {
	Every int64 `json:"every"`
}

// Pipe implements toxics.Toxic.
func (t *flipToxic) Pipe(stub *toxics.ToxicStub) {
	left := rand.Int64N(t.Every)
	for {
		select {
		case <-stub.Interrupt:
			return
		case c := <-stub.Input:
			if c == nil {
				stub.Close()
				return
			}
			for n := int64(len(c.Data)); left < n; left += 1 + rand.Int64N(2*t.Every) {
				c.Data[left] ^= 1 << rand.IntN(8)
			}
			left -= int64(len(c.Data))
			stub.Output <- c
		}
	}
}

// proxies is the process of the proxies seen from here. One that was killed is started again when it is needed.
type proxies struct {
	mu  sync.Mutex
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// open returns the address of a new proxy.
func (p *proxies) open(upstream string, with ...toxic) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		if err := p.start(); err != nil {
			return "", err
		}
	}
	return p.ask(order{Open: upstream, With: with})
}

func (p *proxies) start() error {
	cmd := exec.Command(os.Args[0], toxicCommand)
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	p.cmd, p.in, p.out = cmd, in, bufio.NewReader(out)
	return cmd.Start()
}

// ask wants mu.
func (p *proxies) ask(o order) (string, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return "", err
	}
	if _, err := p.in.Write(append(text, '\n')); err != nil {
		return "", err
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return "", err
	}
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return "", err
	}
	if a.Err != "" {
		return "", fmt.Errorf("chaos: %s", a.Err)
	}
	return a.Address, nil
}

// close closes a proxy; it may have died with its process.
func (p *proxies) close(address string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	_, err := p.ask(order{Close: address})
	return err
}

// kill ends the process: its connections are closed by the kernel, wherever they are.
func (p *proxies) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.in.Close()
	_ = p.cmd.Wait() // it was killed
	p.cmd = nil
}

// TestChaos_ToxicsExist holds the names and attributes that the schedule uses against toxiproxy.
func TestChaos_ToxicsExist(t *testing.T) {
	p := &proxies{}
	defer p.kill()
	for _, k := range kinds {
		if k.toxic == nil {
			continue
		}
		_, err := p.open("127.0.0.1:1", k.toxic(rand.New(rand.NewPCG(1, 1)))...)
		require.NoError(t, err, k.name)
	}
}
