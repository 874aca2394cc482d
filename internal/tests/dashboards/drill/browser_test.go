package drill

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// browser is a real Chromium, with a tab for each page that is looked at.
type browser struct{ ctx context.Context }

// startBrowser returns nil if there is no Chromium.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox)
		allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
		t.Cleanup(cancel)
		ctx, cancel := chromedp.NewContext(allocator)
		t.Cleanup(cancel)
		require.NoError(t, chromedp.Run(ctx)) // starts it
		return &browser{ctx}
	}
	return nil
}

// tab is the page of one process.
type tab struct {
	ctx   context.Context
	close context.CancelFunc
}

// open opens the page of a process, and waits until it has shown its first statistics.
func (b *browser) open(t *testing.T, p *process) *tab {
	t.Helper()
	one := &tab{}
	one.ctx, one.close = chromedp.NewContext(b.ctx)
	// A page behind another asks for nothing: each has to believe that it is looked at.
	require.NoError(t, chromedp.Run(one.ctx, emulation.SetFocusEmulationEnabled(true), chromedp.Navigate("http://"+p.role.Monitor+"/")))
	_, shown := within(nameable, func() bool { return one.text("state") != "Loading" })
	require.True(t, shown, "the page of %s shows nothing", p.role.Monitor)
	return one
}

// text is what an element says.
func (one *tab) text(id string) (text string) {
	_ = chromedp.Run(one.ctx, chromedp.Evaluate(`document.getElementById("`+id+`").innerText`, &text)) // an error is no text
	return text
}

// stuck is what the page names as stuck, each as "what name: why".
func (one *tab) stuck() (all []string) {
	for line := range strings.Lines(one.text("stuck")) {
		if _, what, found := strings.Cut(strings.TrimSpace(line), ": "); found { // behind Critical or Warning
			all = append(all, what)
		}
	}
	return all
}
