package engines

import "errors"

// ErrUnknownScheme means that no driver given to Open has a URL's scheme.
var ErrUnknownScheme = errors.New("engines: no driver for the URL scheme")

// ErrClosed is the error of calls to what is closed.
var ErrClosed = errors.New("engines: closed")
