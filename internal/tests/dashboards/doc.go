// Package dashboards checks the files of metrics/grafana and metrics/prometheus with Prometheus' own parser and engine,
// against a scrape of a real run. It is a module of its own, as no other part of the repository needs Prometheus.
package dashboards
