package hook

import "github.com/ThreeDotsLabs/watermill"

// Logger returns a logger that never panics: what l says of itself in a panic is lost, as there is nowhere to log it.
func Logger(l watermill.LoggerAdapter) watermill.LoggerAdapter {
	switch l.(type) {
	case nil:
		return watermill.NopLogger{}
	case watermill.NopLogger, logger:
		return l
	}
	return logger{l}
}

type logger struct{ user watermill.LoggerAdapter }

func ignorePanic() { _ = recover() }

func (l logger) Error(msg string, err error, fields watermill.LogFields) {
	defer ignorePanic()
	l.user.Error(msg, err, fields)
}

func (l logger) Info(msg string, fields watermill.LogFields) {
	defer ignorePanic()
	l.user.Info(msg, fields)
}

func (l logger) Debug(msg string, fields watermill.LogFields) {
	defer ignorePanic()
	l.user.Debug(msg, fields)
}

func (l logger) Trace(msg string, fields watermill.LogFields) {
	defer ignorePanic()
	l.user.Trace(msg, fields)
}

func (l logger) With(fields watermill.LogFields) (with watermill.LoggerAdapter) {
	with = l //nolint:wastedassign // what is returned after a panic
	defer ignorePanic()
	return Logger(l.user.With(fields))
}
