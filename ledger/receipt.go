package ledger

import (
	"context"
	"encoding/hex"
	"strings"
	"sync"
)

// Receipt names a fact that is durable. Whoever keeps it can ask for the fact's proof as soon as it has its place.
type Receipt struct {
	Log Log
	UID [16]byte
}

// String gives "events/" and the UID in hex.
func (r Receipt) String() string { return string(r.Log) + "/" + hex.EncodeToString(r.UID[:]) }

// Receipts collects what became durable on behalf of one request, so that its answer can say so.
type Receipts struct {
	mu   sync.Mutex
	list []Receipt
}

type receiptsKey struct{}

// WithReceipts gives a context whose writes are collected.
func WithReceipts(ctx context.Context) (context.Context, *Receipts) {
	r := &Receipts{}
	return context.WithValue(ctx, receiptsKey{}, r), r
}

// ReceiptsOf gives the collector of a context, or nil.
func ReceiptsOf(ctx context.Context) *Receipts {
	r, _ := ctx.Value(receiptsKey{}).(*Receipts)
	return r
}

// Add is called by the store, after the commit.
func (r *Receipts) Add(list ...Receipt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, list...)
}

// All gives what was collected so far.
func (r *Receipts) All() []Receipt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Receipt(nil), r.list...)
}

// Names writes the first ones, at most most, separated by commas, and counts all.
func (r *Receipts) Names(most int) (names string, count int) {
	all := r.All()
	list := make([]string, 0, min(len(all), most))
	for _, one := range all[:min(len(all), most)] {
		list = append(list, one.String())
	}
	return strings.Join(list, ","), len(all)
}
