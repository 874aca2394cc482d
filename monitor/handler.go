package monitor

import (
	"embed"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
)

//go:embed page
var page embed.FS

// contentPolicy lets the page use its own files and nothing else.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// ServeHTTP implements http.Handler.
func (m *Monitor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "monitor: there is nothing to change here", http.StatusMethodNotAllowed)
		return
	}
	m.mux.ServeHTTP(w, r)
}

func (m *Monitor) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", m.livez)
	mux.HandleFunc("/readyz", m.readyz)
	mux.HandleFunc("/stats", m.guard(m.stats))
	mux.HandleFunc("/{$}", m.guard(file("index.html", "text/html; charset=utf-8")))
	mux.HandleFunc("/page.js", m.guard(file("page.js", "text/javascript; charset=utf-8")))
	mux.HandleFunc("/page.css", m.guard(file("page.css", "text/css; charset=utf-8")))
	mux.HandleFunc("/icon.svg", m.guard(file("icon.svg", "image/svg+xml")))
	return mux
}

// guard lets a handler answer those that may see names.
func (m *Monitor) guard(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		no := m.admit(r)
		if no.code == 0 {
			next(w, r)
			return
		}
		if no.code == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Basic realm="buffstreams monitor", charset="UTF-8"`)
		}
		http.Error(w, no.text, no.code)
	}
}

func file(name, contentType string) http.HandlerFunc {
	content, err := page.ReadFile("page/" + name)
	return func(w http.ResponseWriter, _ *http.Request) {
		if err != nil { // it is embedded
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(content) // the client is gone
	}
}

// livez says that the process answers.
func (m *Monitor) livez(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok\n") }

// readyz answers 200 or 503. Probes may ask from other machines; the names of what is not ready are for those that are
// let in.
func (m *Monitor) readyz(w http.ResponseWriter, r *http.Request) {
	reasons := m.gather().notReady
	switch {
	case len(reasons) == 0:
		text(w, http.StatusOK, "ok\n")
	case m.admit(r).code != 0:
		text(w, http.StatusServiceUnavailable, "not ready\n")
	default:
		text(w, http.StatusServiceUnavailable, "not ready\n"+strings.Join(reasons, "\n")+"\n")
	}
}

func text(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, body) // the client is gone
}

// maxLimit is the largest number of rows that ?limit asks for.
const maxLimit = 1_000_000

// stats answers with the state as JSON. ?limit=N leaves off what is beyond N rows of a list, the most troubled first.
func (m *Monitor) stats(w http.ResponseWriter, r *http.Request) {
	limit := maxLimit
	if given := r.URL.Query().Get("limit"); given != "" {
		n, err := strconv.Atoi(given)
		if err != nil || n < 1 || n > maxLimit {
			http.Error(w, "monitor: limit is not a number from 1 to 1000000", http.StatusBadRequest)
			return
		}
		limit = n
	}
	body, err := json.Marshal(m.collect(limit))
	if err != nil {
		http.Error(w, "monitor: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // the client is gone
}
