// Package drill breaks real processes on purpose, each in a way of its own, and looks at them from outside only: at the
// page in a real Chromium, at a Prometheus with the rules of metrics/prometheus, at the spans of their messages, and
// with the command check. Within a minute the cause and the place must be named by each, and the alert of that trouble,
// and no other, must fire. DRILL=1 runs it.
package drill
