// Package fault is the one classification of errors that callers outside may see.
//
// Under all stages. A stage returns a *Fault when the caller did, or may do, something about it; any other error is internal:
// adapters answer 500 and keep its text in their own log. Every fault names the thing and the remedy.
package fault

import (
	"errors"
	"fmt"
)

// Kind says what class of failure this is; adapters map it to a status once.
type Kind int

// The classes. Invalid is the caller's input; Conflict is the state of the thing; Denied is policy; Unavailable passes with
// time; Exhausted is a limit that waiting does not lift (a quota).
const (
	Internal Kind = iota
	Invalid
	NotFound
	Conflict
	Denied
	Unavailable
	Exhausted
)

func (k Kind) String() string {
	switch k {
	case Invalid:
		return "invalid"
	case NotFound:
		return "not found"
	case Conflict:
		return "conflict"
	case Denied:
		return "denied"
	case Unavailable:
		return "unavailable"
	case Exhausted:
		return "exhausted"
	case Internal:
	}
	return "internal"
}

// Status is the HTTP status of the class in a problem (RFC 9457). The device's protocols have their own.
func (k Kind) Status() int {
	switch k {
	case Invalid:
		return 422
	case NotFound:
		return 404
	case Conflict, Exhausted:
		return 409
	case Denied:
		return 403
	case Unavailable:
		return 503
	case Internal:
	}
	return 500
}

// Type is the URI of the problem type, in which the code is.
func (f *Fault) Type() string { return "urn:hallmark:fault:" + f.Code }

// Fault is an error fit for the caller's eyes.
type Fault struct {
	Kind   Kind
	Code   string // stable, machine-readable, e.g. "order.quota"
	Text   string // what went wrong, naming the thing
	Remedy string // what to do next; may be empty
	Cause  error  // for the log only, never shown
}

// Error implements error.
func (f *Fault) Error() string {
	if f.Remedy == "" {
		return f.Text
	}
	return f.Text + ": " + f.Remedy
}

// Unwrap gives the cause, so that errors.Is sees through.
func (f *Fault) Unwrap() error { return f.Cause }

// New makes a fault.
func New(kind Kind, code, text, remedy string) *Fault {
	return &Fault{Kind: kind, Code: code, Text: text, Remedy: remedy}
}

// Newf is New with a formatted text; %w sets the cause, and With the remedy.
func Newf(kind Kind, code, format string, args ...any) *Fault {
	err := fmt.Errorf(format, args...)
	return &Fault{Kind: kind, Code: code, Text: err.Error(), Cause: errors.Unwrap(err)}
}

// With gives f what to do next.
func (f *Fault) With(remedy string) *Fault {
	f.Remedy = remedy
	return f
}

// KindOf gives the class of err; Internal when it is not a Fault.
func KindOf(err error) Kind {
	if f, ok := errors.AsType[*Fault](err); ok {
		return f.Kind
	}
	return Internal
}
