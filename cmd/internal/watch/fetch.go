// Package watch reads the /stats of a monitor, for the commands top, check lag and check stuck.
package watch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/access"
	"github.com/buffstreams/watermill-buffstreams/monitor"
)

// maxStats is the largest answer that is read, in bytes.
const maxStats = 256 << 20

// Source is where statistics come from.
type Source struct {
	url    string
	token  string
	client *http.Client
}

// Open takes the address of a monitor: a URL, with or without /stats, or host:port.
func Open(address string, a access.Access) (*Source, error) {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%.200q is no address of a monitor; use http://host:port/path or https://host:port/path", address)
	}
	if u.User != nil {
		return nil, errors.New("the address has a password in it; use --token-file")
	}
	if !strings.HasSuffix(u.Path, "/stats") {
		u.Path = strings.TrimSuffix(u.Path, "/") + "/stats"
	}
	token, err := a.Show(u.Scheme == "https" || loopback(u.Hostname()))
	if err != nil {
		return nil, err
	}
	var acked buffstreams.AckedConfig
	if err := a.ClientTLSOnly(&acked); err != nil {
		return nil, err
	}
	transport := &http.Transport{DialTLSContext: dialTLS(acked.ClientTLS)}
	return &Source{u.String(), token, &http.Client{Transport: transport, CheckRedirect: noRedirect}}, nil
}

// noRedirect keeps the token where it was meant for.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// Raw returns the answer as it came. limit is that of the rows of a list; 0 means all.
func (s *Source) Raw(ctx context.Context, limit int) ([]byte, error) {
	where := s.url
	if limit > 0 {
		where += fmt.Sprintf("?limit=%d", limit)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, where, http.NoBody)
	if err != nil {
		return nil, err
	}
	if s.token != "" {
		r.Header.Set("Authorization", "Bearer "+s.token)
	}
	answer, err := s.client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.url, noAnswer(err))
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxStats))
	if err != nil {
		return nil, fmt.Errorf("%s: its answer has no end: %w", s.url, err)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", s.url, notOK(answer, body))
	}
	return body, nil
}

// Stats returns what the answer says.
func (s *Source) Stats(ctx context.Context, limit int) (monitor.Stats, error) {
	body, err := s.Raw(ctx, limit)
	if err != nil {
		return monitor.Stats{}, err
	}
	var stats monitor.Stats
	var form struct{ Version int } // fields of another version can have other types
	if err := json.Unmarshal(body, &form); err != nil {
		return stats, fmt.Errorf("%s: an HTTP server, but no monitor: %w; %s", s.url, err, useMonitor)
	}
	switch form.Version {
	case monitor.Version:
	case 0:
		return stats, fmt.Errorf("%s: an HTTP server, but no monitor: what it answers has no version; %s", s.url, useMonitor)
	default:
		return stats, fmt.Errorf("%s: its statistics have version %d, this command knows %d; use the command of the version that the process is built with",
			s.url, form.Version, monitor.Version)
	}
	if err := json.Unmarshal(body, &stats); err != nil {
		return stats, fmt.Errorf("%s: no statistics of version %d: %w", s.url, form.Version, err)
	}
	return stats, nil
}

// Close ends idle connections.
func (s *Source) Close() { s.client.CloseIdleConnections() }
