// Package browser tests the page of monitor/ in a real Chromium. It is skipped where there is none, or no axe-core: make
// browser installs both.
package browser

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/monitor"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
)

// peerEnv makes this binary a subscriber that is there to be killed.
const peerEnv = "BROWSER_TEST_PEER"

// pictureEnv is the file that the picture of the documentation is written to.
const pictureEnv = "MONITOR_PICTURE"

const limit = time.Minute

func TestMain(m *testing.M) {
	if os.Getenv(peerEnv) != "" {
		peer()
		return
	}
	os.Exit(m.Run())
}

// peer subscribes, says where, and acks until it is killed.
func peer() {
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ConsumerGroup: "warehouse", MaxInFlight: 100}, nil)
	if err != nil {
		panic(err)
	}
	messages, err := sub.Subscribe(context.Background(), "127.0.0.1:0/shipments")
	if err != nil {
		panic(err)
	}
	at, err := sub.Addr("127.0.0.1:0/shipments")
	if err != nil {
		panic(err)
	}
	fmt.Println(at)
	for m := range messages {
		m.Ack()
	}
}

// world is a process with everything that the page shows, and a peer that can be killed.
type world struct {
	url       string
	publisher *buffstreams.Publisher
	subs      map[string]*buffstreams.Subscriber
	here      string // topic of this process
	there     string // topic of the peer
	peer      *exec.Cmd
	stopPage  context.CancelFunc
}

// hostileTopic shows that names are text, whatever a peer calls its topic.
const hostileTopic = `returns<img src=x onerror=console.error(1)>`

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{subs: map[string]*buffstreams.Subscriber{}}
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{CloseTimeout: 50 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { _ = manager.Close() }) // messages are left on purpose
	w.publisher, err = buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Manager: manager, Confirm: buffstreams.ConfirmEnqueued, CloseTimeout: time.Millisecond,
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.publisher.Close() })
	w.subscribe(t, manager)
	box, err := outbox.Open(outbox.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, box.Close()) })
	w.startPeer(t)
	stored, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		ManagerConfig: buffstreams.ManagerConfig{CloseTimeout: 50 * time.Millisecond}, Outbox: box, CloseTimeout: time.Millisecond,
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = stored.Close() })
	require.NoError(t, stored.Publish(w.there, message.NewMessage("", []byte("stored"))))

	m, err := monitor.New(monitor.Config{
		Title: "Order service", Managers: map[string]*buffstreams.Manager{"main": manager},
		Publishers: map[string]*buffstreams.Publisher{"shipping": stored}, Subscribers: w.subs,
		StuckAfter: 2 * time.Second,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	w.serve(t, m)
	return w
}

// subscribe handles orders in this process.
func (w *world) subscribe(t *testing.T, manager *buffstreams.Manager) {
	t.Helper()
	for _, group := range []string{"billing", "audit"} {
		sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
			Manager: manager, ConsumerGroup: group, MaxInFlight: 100, CloseTimeout: time.Millisecond,
		}, nil)
		require.NoError(t, err)
		t.Cleanup(func() { _ = sub.Close() })
		w.subs[group] = sub
		for _, topic := range []string{"orders", hostileTopic} {
			messages, err := sub.Subscribe(t.Context(), "127.0.0.1:0/"+topic)
			require.NoError(t, err)
			go func() { // ends with the Subscriber
				for m := range messages {
					m.Ack()
				}
			}()
		}
		at, err := sub.Addr("127.0.0.1:0/orders")
		require.NoError(t, err)
		w.here = at.String() + "/orders"
	}
}

func (w *world) startPeer(t *testing.T) {
	t.Helper()
	w.peer = exec.Command(os.Args[0])
	w.peer.Env = append(os.Environ(), peerEnv+"=1")
	out, err := w.peer.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, w.peer.Start())
	t.Cleanup(func() {
		_ = w.peer.Process.Kill()
		_ = w.peer.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	w.there = strings.TrimSpace(line) + "/shipments"
}

func (w *world) serve(t *testing.T, m *monitor.Monitor) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	at, ended := make(chan net.Addr, 1), make(chan error, 1)
	go func() { ended <- m.ListenAndServe(ctx, "127.0.0.1:0", nil, func(a net.Addr) { at <- a }) }() // ends with ctx
	w.url = "http://" + (<-at).String() + "/"
	w.stopPage = sync.OnceFunc(func() {
		stop()
		require.NoError(t, <-ended)
	})
	t.Cleanup(w.stopPage)
}

// traffic publishes to this process and to the peer until the test ends.
func (w *world) traffic(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, topic := range []string{w.here, w.there} {
		wg.Go(func() { // ends with stop
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				_ = w.publisher.Publish(topic, message.NewMessage("", []byte("an order"))) // the peer is killed
				<-tick.C
			}
		})
	}
	t.Cleanup(func() {
		stop()
		wg.Wait()
	})
}

// complaints are what the console has said.
type complaints struct {
	mu  sync.Mutex
	all []string
}

func (c *complaints) add(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, text)
}

func (c *complaints) list() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string{}, c.all...)
}

// listen takes what a console shows as a warning or an error.
func (c *complaints) listen(ctx context.Context) {
	chromedp.ListenTarget(ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			c.add(e.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.APITypeError || e.Type == runtime.APITypeWarning {
				c.add(fmt.Sprint(e.Args))
			}
		case *cdplog.EventEntryAdded:
			if e.Entry.Level == cdplog.LevelError || e.Entry.Level == cdplog.LevelWarning {
				c.add(e.Entry.Text)
			}
		}
	})
}

// tab is a tab of a browser, in a test.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// chromium is a tab, and what its console complains of.
func chromium(t *testing.T) (*tab, *complaints) {
	t.Helper()
	if raced {
		t.Skip("the race detector is too slow for what measures time: make browser runs this")
	}
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Skip("there is no Chromium here: make browser installs it where apt-get may")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(1280, 900),
		chromedp.WSURLReadTimeout(limit)) // its start is given 20 s otherwise
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 2*limit)
	t.Cleanup(cancel)
	c := &complaints{}
	c.listen(ctx)
	return &tab{t, ctx}, c
}

// axe is axe-core's program.
func axe(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Skip("there is no axe-core here: make browser installs it with npm")
	}
	return string(text)
}

// do runs actions.
func do(p *tab, actions ...chromedp.Action) {
	p.t.Helper()
	require.NoError(p.t, chromedp.Run(p.ctx, actions...))
}

// eval evaluates JavaScript.
func eval[T any](p *tab, script string) (v T) {
	p.t.Helper()
	do(p, chromedp.Evaluate(script, &v, func(e *runtime.EvaluateParams) *runtime.EvaluateParams { return e.WithAwaitPromise(true) }))
	return v
}

// await waits until a script says true.
func await(p *tab, script string) {
	p.t.Helper()
	begin := time.Now()
	for !eval[bool](p, script) {
		require.Less(p.t, time.Since(begin), limit, "waiting for %s; the page has:\n%s", script, eval[string](p, "document.body.innerText"))
		time.Sleep(10 * time.Millisecond) // a browser cannot be waited for in any other way
	}
}

// cell is the text of the column of the row that has a text.
func cell(table, row, column string) string {
	return fmt.Sprintf(`([...document.querySelectorAll("#%s tbody tr")].find(r => r.innerText.includes(%q))?.querySelector('[data-label=%q]')?.textContent ?? "")`,
		table, row, column)
}

const number = `parseInt(%s.replaceAll(",", "") || "0")`

func TestPage_ShowsWhatHappens(t *testing.T) {
	p, console := chromium(t)
	w := newWorld(t)
	do(p, chromedp.Navigate(w.url))
	await(p, `document.getElementById("state").textContent === "Ready."`)
	require.Equal(t, "Order service", eval[string](p, `document.title`))
	w.traffic(t)

	// It is live: two counts after the first are larger.
	here, _, _ := strings.Cut(w.here, "/")
	sent := fmt.Sprintf(number, cell("addresses", here, "Sent"))
	for range 3 {
		before := eval[int](p, sent)
		await(p, fmt.Sprintf("%s > %d", sent, before))
	}
	handled := fmt.Sprintf(number, cell("topics", "orders\tbilling", "Settled"))
	await(p, handled+" > 0")
	await(p, `parseFloat(document.getElementById("v-handled").textContent.replaceAll(",", "")) > 100`)
	await(p, `document.querySelector("#c-out polyline").getAttribute("points").split(" ").length > 2`)
	await(p, `document.getElementById("outbox").innerText.includes("delivering")`)
	require.Contains(t, eval[string](p, `document.getElementById("topics").innerText`), hostileTopic, "names are text")
	require.Zero(t, eval[int](p, `document.querySelectorAll("img").length`))

	// A peer that is killed shows with one of the next updates, which come each second, with its place and the cause. They are counted:
	// on a busy machine a second takes longer.
	there, _, _ := strings.Cut(w.there, "/")
	await(p, cell("addresses", there, "State")+` === "ready"`)
	gone := fmt.Sprintf(`(["failed", "gone", "silent"].includes(%s) && document.getElementById("stuck").innerText.includes(%q))`,
		cell("addresses", there, "State"), there)
	do(p, chromedp.Evaluate(fmt.Sprintf(`var updates = 0, shown = 0;
		new MutationObserver(() => setTimeout(() => { updates++; if (!shown && %s) shown = updates; })).
			observe(document.getElementById("at"), {childList: true, characterData: true, subtree: true})`, gone), nil))
	require.NoError(t, w.peer.Process.Kill())
	before := eval[int](p, "updates")
	await(p, "shown > 0")
	took := eval[int](p, "shown") - before
	t.Logf("a killed peer was on the page with update %d", took)
	require.LessOrEqual(t, took, 3, "the first can have been on its way")
	await(p, fmt.Sprintf(`/refused|reset|EOF/.test(%s)`, cell("addresses", there, "Last error")))
	require.Contains(t, eval[string](p, `document.getElementById("state").textContent`), "stuck")

	require.Empty(t, console.list())
	picture(p)

	w.stopPage()
	await(p, `!document.getElementById("offline").hidden && document.getElementById("offline").textContent.includes("No statistics")`)
}

// picture writes the picture of the documentation, if that is asked for.
func picture(p *tab) {
	p.t.Helper()
	path := os.Getenv(pictureEnv)
	if path == "" {
		return
	}
	time.Sleep(30 * time.Second) // for lines to look at
	var image []byte
	do(p, emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "light"}}),
		chromedp.EmulateViewport(1200, 860), chromedp.ActionFunc(func(ctx context.Context) (err error) {
			image, err = page.CaptureScreenshot().WithFormat(page.CaptureScreenshotFormatPng).Do(ctx)
			return err
		}))
	require.NoError(p.t, os.WriteFile(path, image, 0o600))
}

// looks are the ways in which people see the page.
var looks = []struct {
	scheme string
	width  int64
}{{"light", 1280}, {"dark", 1280}, {"light", 360}, {"dark", 360}}

func TestPage_IsAccessible(t *testing.T) {
	program := axe(t)
	p, console := chromium(t)
	w := newWorld(t)
	w.traffic(t)
	do(p, chromedp.Navigate(w.url))
	await(p, `document.querySelectorAll("table").length >= 5`)
	require.NoError(t, w.peer.Process.Kill()) // so that there is something stuck
	await(p, `document.querySelectorAll("#stuck li").length > 0`)
	eval[any](p, program+";null")
	for _, look := range looks {
		do(p, chromedp.EmulateViewport(look.width, 800),
			emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: look.scheme}}))
		found := eval[[]string](p, `axe.run().then(r => r.violations.map(v => v.id + ": " + v.help + " " + v.nodes.map(n => n.html).join(" ")))`)
		require.Empty(t, found, "%+v", look)
		require.LessOrEqual(t, eval[int64](p, `document.documentElement.scrollWidth`), look.width, "nothing sticks out at %+v", look)
	}
	back := map[string]string{}
	for _, scheme := range []string{"light", "dark"} {
		do(p, emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}))
		back[scheme] = eval[string](p, `getComputedStyle(document.body).backgroundColor`)
	}
	require.NotEqual(t, back["light"], back["dark"])
	require.Empty(t, console.list())
}

// The keyboard reaches everything, and what is updated takes no focus away.
func TestPage_Keyboard(t *testing.T) {
	p, console := chromium(t)
	w := newWorld(t)
	w.traffic(t)
	do(p, chromedp.Navigate(w.url))
	await(p, `document.querySelectorAll("table").length >= 4`)
	const focus = `(document.activeElement.id || document.activeElement.className || document.activeElement.tagName)`
	do(p, chromedp.KeyEvent(kb.Tab))
	require.Equal(t, "skip", eval[string](p, focus))
	do(p, chromedp.KeyEvent(kb.Tab))
	require.Equal(t, "pause", eval[string](p, focus))
	do(p, chromedp.KeyEvent(" "))
	require.Equal(t, "true", eval[string](p, `document.getElementById("pause").getAttribute("aria-pressed")`))
	at := eval[string](p, `document.getElementById("at").textContent + document.getElementById("addresses").innerText`)
	time.Sleep(1500 * time.Millisecond) // it stands still meanwhile
	require.Equal(t, at, eval[string](p, `document.getElementById("at").textContent + document.getElementById("addresses").innerText`))
	do(p, chromedp.KeyEvent(" "), chromedp.KeyEvent(kb.Tab))
	require.Equal(t, "scroll", eval[string](p, focus))
	eval[bool](p, `document.activeElement.dataset.mine = "1"; true`)
	await(p, fmt.Sprintf("%q !== %s", at, `document.getElementById("at").textContent + document.getElementById("addresses").innerText`))
	require.Equal(t, "1", eval[string](p, `document.activeElement.dataset.mine ?? ""`), "an update keeps the focus")
	require.Empty(t, console.list())
}

// An answer that was on its way when the page was paused changes it no more.
func TestPage_PauseHoldsWhatIsOnItsWay(t *testing.T) {
	p, _ := chromium(t)
	w := newWorld(t)
	w.traffic(t)
	do(p, chromedp.Navigate(w.url))
	await(p, `document.getElementById("at").textContent !== ""`)
	do(p, chromedp.Evaluate(`var release, asked = window.fetch;
		window.fetch = async (...of) => { const answer = await asked(...of); await new Promise(r => release = r); return answer }`, nil))
	await(p, "release !== undefined")
	const shown = `document.getElementById("at").textContent + document.getElementById("addresses").innerText`
	at := eval[string](p, `document.getElementById("pause").click(); `+shown)
	require.Equal(t, at, eval[string](p, `release(); new Promise(r => setTimeout(r, 200)).then(() => `+shown+`)`))
}

// With 10,000 topics the page stays small, says what it leaves off, and is live.
func TestPage_TenThousandTopics(t *testing.T) {
	if raced {
		t.Skip("the race detector is too slow for that many topics")
	}
	w := newWorld(t)
	for i := range 10_000 {
		require.NoError(t, w.subs["billing"].SubscribeInitialize(fmt.Sprintf("127.0.0.1:0/t%d", i)))
	}
	p, console := chromium(t) // its time begins here
	w.traffic(t)
	do(p, chromedp.Navigate(w.url))
	await(p, `/: 9,9\d\d more are in stats/.test(document.querySelector("#topics caption")?.textContent ?? "")`)
	here, _, _ := strings.Cut(w.here, "/")
	sent := fmt.Sprintf(number, cell("addresses", here, "Sent"))
	await(p, fmt.Sprintf("%s > %d", sent, eval[int](p, sent)))
	require.LessOrEqual(t, eval[int](p, `document.querySelectorAll("tbody tr").length`), 500, "some 100 rows of each list")
	require.LessOrEqual(t, eval[int](p, `document.getElementsByTagName("*").length`), 10_000)
	require.Less(t, eval[int](p, `fetch("stats?limit=100").then(a => a.text()).then(t => t.length)`), 200_000)
	require.Empty(t, console.list())
}
