// Package once carries what a request says of itself through the context into the transaction that does it.
//
// Under all stages. A request that changes something may bring a mark (its Idempotency-Key) and an expectation (its If-Match). The
// store writes the mark, and looks at the expectation, in the same transaction as the first write that is made on the request's
// behalf: so what was done is known to be done, and nothing is done to a thing that has changed, however a crash or another
// request falls in between. It trusts the adapter to name the caller it authenticated.
package once

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Keep is how long a mark and its answer are kept.
const Keep = 24 * time.Hour

// Errors of the store.
var (
	ErrRunning = errors.New("a request with this key has been begun by somebody else")
	ErrChanged = errors.New("the thing is not as it was expected to be")
)

// Mark names one request for good: of two with one mark, one is done.
type Mark struct {
	Caller, Key string
	Request     [32]byte // SHA-256 of what was asked for
}

// Answer is what a request was answered.
type Answer struct {
	Status    int
	Type      string // Content-Type
	Tag       string // ETag
	Facts     string // the facts it wrote, as its answer named them
	FactCount string
	Body      []byte
}

// Kept is a stored mark. Done is false while, or because, the answer was never stored.
type Kept struct {
	Mark
	Done   bool
	Answer Answer
}

// Thing is a kind of resource that has a revision.
type Thing string

// The things.
const (
	Case       Thing = "case"
	Device     Thing = "device"
	Enrolment  Thing = "enrolment"
	Finding    Thing = "finding"
	Lot        Thing = "lot"
	Member     Thing = "member"
	Order      Thing = "order"
	Part       Thing = "part"
	Product    Thing = "product"
	Proposal   Thing = "proposal"
	Release    Thing = "release"
	Retirement Thing = "retirement"
	Rollout    Thing = "rollout"
	Supplier   Thing = "supplier"
	Statement  Thing = "statement" // has a tag before there is one, so that the first can be conditional too
)

// Expectation is what a thing's tag must be: one of Tags.
type Expectation struct {
	Thing Thing
	ID    string
	Tags  []string
}

// Met reports whether tag is one of those. What is not there meets nothing.
func (e Expectation) Met(tag string) bool { return tag != "" && slices.Contains(e.Tags, tag) }

// Store keeps marks and knows tags. Writes are durable when they return nil.
type Store interface {
	// Kept finds a mark by caller and key.
	Kept(ctx context.Context, caller, key string) (Kept, bool, error)
	// PutAnswer stores the answer of a mark that is there.
	PutAnswer(ctx context.Context, m Mark, a Answer) error
	// ForgetMarks removes those made before.
	ForgetMarks(ctx context.Context, before time.Time) error
	// Tag gives a thing's tag, which is another after each change; empty when there is no such thing.
	Tag(ctx context.Context, thing Thing, id string) (string, error)
}

// Request is one request on its way. It is safe for concurrent use, though its writes are meant to follow one another.
type Request struct {
	mark   *Mark
	expect *Expectation

	mu      sync.Mutex
	settled bool // the mark is durable and the expectation was met; guarded by mu
}

type key struct{}

// With gives a context whose first write settles the request's mark and expectation; both may be nil.
func With(ctx context.Context, m *Mark, e *Expectation) (context.Context, *Request) {
	r := &Request{mark: m, expect: e}
	return context.WithValue(ctx, key{}, r), r
}

// Expect gives a context with an expectation more; the mark stays.
func Expect(ctx context.Context, e Expectation) (context.Context, *Request) {
	r := Of(ctx)
	if r == nil {
		return With(ctx, nil, &e)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expect = &e
	return ctx, r
}

// Without gives a context whose writes settle nothing: what is written down of a request is not what it asked for.
func Without(ctx context.Context) context.Context {
	if Of(ctx) == nil {
		return ctx
	}
	return context.WithValue(ctx, key{}, (*Request)(nil))
}

// Of gives the request of a context, or nil.
func Of(ctx context.Context) *Request {
	r, _ := ctx.Value(key{}).(*Request)
	return r
}

// Open gives what the next write has to settle; false when there is nothing.
func (r *Request) Open() (*Mark, *Expectation, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mark, r.expect, !r.settled && (r.mark != nil || r.expect != nil)
}

// Settle is called by the store, after the commit.
func (r *Request) Settle() {
	r.mu.Lock()
	r.settled = true
	r.mu.Unlock()
}

// Settled reports whether something was written on the request's behalf.
func (r *Request) Settled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.settled
}
