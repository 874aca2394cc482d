package drill

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// server is a Prometheus that scrapes the processes, with the rules of metrics/prometheus as they are.
type server struct {
	url string

	mu    sync.Mutex                 // guards fired
	fired map[string]map[string]bool // alerts that have fired, by job
}

// startPrometheus starts Debian's Prometheus. jobs has the addresses of each job's processes.
func startPrometheus(t *testing.T, binary string, jobs map[string][]string) *server {
	t.Helper()
	dir := t.TempDir()
	rules, err := filepath.Abs("../../../../metrics/prometheus/buffstreams.rules.yml")
	require.NoError(t, err)
	var cfg strings.Builder
	fmt.Fprintf(&cfg, "global: {scrape_interval: 5s, evaluation_interval: 5s}\nrule_files: [%q]\nscrape_configs:\n", rules)
	for job, targets := range jobs {
		fmt.Fprintf(&cfg, "  - job_name: %s\n    static_configs: [{targets: [%s]}]\n", job, strings.Join(targets, ", "))
	}
	file := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(file, []byte(cfg.String()), 0o600))
	at := freeAddress(t)
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	cmd := exec.Command(binary, "--config.file", file, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", at)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
	})
	s := &server{url: "http://" + at, fired: map[string]map[string]bool{}}
	_, ready := within(time.Minute, func() bool {
		r, err := http.Get(s.url + "/-/ready")
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	text, _ := os.ReadFile(log.Name())
	require.True(t, ready, "%s", text)
	return s
}

// get asks the API.
func (s *server) get(path string, into any) error {
	r, err := http.Get(s.url + path)
	if err != nil {
		return err
	}
	defer func() { _ = r.Body.Close() }()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, r.Status)
	}
	return json.NewDecoder(r.Body).Decode(into)
}

// query returns the labels of what a query gives.
func (s *server) query(q string) (series []map[string]string) {
	var answer struct {
		Data struct {
			Result []struct{ Metric map[string]string }
		}
	}
	if s.get("/api/v1/query?query="+url.QueryEscape(q), &answer) != nil {
		return nil
	}
	for _, one := range answer.Data.Result {
		series = append(series, one.Metric)
	}
	return series
}

// firing returns the alerts that a job has now, and notes them.
func (s *server) firing(job string) (names []string) {
	var answer struct {
		Data struct {
			Alerts []struct {
				State  string
				Labels map[string]string
			}
		}
	}
	if s.get("/api/v1/alerts", &answer) != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range answer.Data.Alerts {
		if a.State != "firing" {
			continue
		}
		of, name := a.Labels["job"], a.Labels["alertname"]
		if s.fired[of] == nil {
			s.fired[of] = map[string]bool{}
		}
		s.fired[of][name] = true
		if of == job {
			names = append(names, name)
		}
	}
	return names
}

// everFired returns the alerts that a job has had.
func (s *server) everFired(job string) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.fired[job] {
		names = append(names, name)
	}
	return names
}
