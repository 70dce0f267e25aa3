package store

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hallmark-iot/hallmark/internal/once"
	"github.com/hallmark-iot/hallmark/ledger"
)

// issuing stores the certificates that are asked for at the same moment by one function, in one savepoint: a statement for all of them
// costs little more than one for each, and over a network the way there and back is most of what it costs.
//
// Who comes first leads: its write takes along whoever has come until it runs. When that write fails it has done nothing, and each is
// tried by itself, so that one of them harms itself only.
type issuing struct {
	db *DB
	do func(tx *Tx, all []*issue) error // all of them or none; what concerns one alone it leaves with that one

	mu      sync.Mutex
	waiting []joined // guarded by mu; the first of them leads
}

type joined struct {
	it       *issue
	receipts *ledger.Receipts // of who asked; nil: nobody collects them
	done     chan error
}

// run returns when it is done, durably, or has failed; see DB.Write.
func (q *issuing) run(ctx context.Context, it *issue) error {
	if once.Of(ctx) != nil { // a mark that goes with this one's own write
		return q.alone(ctx, it)
	}
	j := joined{it, ledger.ReceiptsOf(ctx), make(chan error, 1)}
	q.mu.Lock()
	q.waiting = append(q.waiting, j)
	leads := len(q.waiting) == 1
	q.mu.Unlock()
	if leads {
		q.lead(context.WithoutCancel(ctx))
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("store: outcome of the write not known: %w", ctx.Err())
	}
}

// lead writes for all that wait. What it writes is collected for each by itself, and it does not end when who leads goes away.
func (q *issuing) lead(ctx context.Context) {
	ctx, _ = ledger.WithReceipts(ctx) // what it writes is not the leader's alone
	var all []joined
	err := q.db.Write(ctx, func(tx *Tx) error {
		all = q.take()
		its := make([]*issue, len(all))
		for i, j := range all {
			its[i] = j.it
		}
		return q.do(tx, its)
	})
	if all == nil { // it has not even run
		all = q.take()
	}
	again := err != nil && len(all) > 1 && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrClosed)
	for _, j := range all {
		if again {
			go func() { j.end(q.alone(ctx, j.it)) }()
			continue
		}
		j.end(err)
	}
}

// end tells who asked, with what was written for it.
func (j joined) end(err error) {
	if err == nil && j.receipts != nil {
		j.receipts.Add(j.it.wrote...)
	}
	j.done <- err
}

func (q *issuing) take() []joined {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.waiting
	q.waiting = nil
	return all
}

func (q *issuing) alone(ctx context.Context, it *issue) error {
	return q.db.Write(ctx, func(tx *Tx) error { return q.do(tx, []*issue{it}) })
}
