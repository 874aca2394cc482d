package engines

import (
	"errors"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// explainer gives the errors of an engine their causes.
type explainer struct{ spec driver.Spec }

// explain returns err as a *driver.ServerError where its cause is known. Those of single messages stay apart. What was
// opened once speaks the protocol, so that a connection that ends means a server that is away.
func (e explainer) explain(err error) error {
	err = e.explainOpening(err)
	var explained *driver.ServerError
	if errors.As(err, &explained) && explained.Cause == driver.ErrProtocol {
		explained.Cause = driver.ErrUnreachable
	}
	return err
}

// explainOpening is explain for what was never opened.
func (e explainer) explainOpening(err error) error {
	var each *driver.PublishError
	if errors.As(err, &each) {
		for i, err := range each.Errs {
			each.Errs[i] = e.explain(err)
		}
		return err
	}
	var explained *driver.ServerError
	var refused *driver.RefusedError
	if err == nil || errors.As(err, &explained) || errors.As(err, &refused) || errors.Is(err, driver.ErrNoTopic) {
		return err
	}
	var cause *driver.Cause
	if e.spec.Cause != nil {
		cause = e.spec.Cause(err)
	}
	if cause == nil {
		cause = driver.NetworkCause(err)
	}
	if cause == nil {
		return err
	}
	return &driver.ServerError{Engine: e.spec.Name, Cause: cause, Err: err}
}
