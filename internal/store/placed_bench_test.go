package store_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
)

// round tells many that something has happened.
type round struct {
	mu   sync.Mutex
	done chan struct{} // closed when it happens next; guarded by mu
}

func (r *round) next() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done
}

func (r *round) happen() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.done)
	r.done = make(chan struct{})
}

// appendUntil has many writers append facts, each waiting until there holds for its fact. It looks again whenever placed or published.
func appendUntil(b *testing.B, published bool, there func(ctx context.Context, r *rig, uid [16]byte) (bool, error)) {
	r := newRig(b)
	quiet := slog.New(slog.DiscardHandler)
	news := &round{done: make(chan struct{})}
	placed, witnessed := news.happen, func() {}
	if published {
		placed, witnessed = func() {}, news.happen
	}
	pub := ledger.NewPublisher(ledger.PublisherConfig{
		Store: r.db, Log: ledger.Events, Origin: origin, Key: r.key, Export: r.export, Quorum: 2, Logger: quiet,
		Witnesses: []ledger.Cosigner{r.w[0], r.w[1]}, Published: witnessed,
	})
	seq := ledger.NewSequencer(r.db, ledger.Events, func() { placed(); pub.Wake() }, quiet)
	r.db.OnAppend(seq.Wake)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 2)
	go func() { done <- seq.Run(ctx) }()
	go func() { done <- pub.Run(ctx) }()
	b.SetParallelism(128)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			f := fact("device")
			f.Data = make([]byte, 300)
			if err := r.db.Write(ctx, func(tx *store.Tx) error { return tx.Append(f) }); err != nil {
				b.Error(err)
				return
			}
			for {
				wait := news.next()
				ok, err := there(ctx, r, f.UID)
				if err != nil {
					b.Error(err)
					return
				}
				if ok {
					break
				}
				<-wait
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "facts/s")
	b.StopTimer()
	cancel()
	if err := errors.Join(<-done, <-done); err != nil {
		b.Error(err)
	}
}

// BenchmarkPlaced is facts a second, each writer waiting until its fact is durable and has its place.
func BenchmarkPlaced(b *testing.B) {
	appendUntil(b, false, func(ctx context.Context, r *rig, uid [16]byte) (bool, error) {
		_, ok, err := r.reader.Locate(ctx, uid)
		return ok, err
	})
}

// BenchmarkCovered is facts a second, each writer waiting until its fact is under a published checkpoint of two witnesses.
func BenchmarkCovered(b *testing.B) {
	appendUntil(b, true, func(ctx context.Context, r *rig, uid [16]byte) (bool, error) {
		ref, ok, err := r.reader.Locate(ctx, uid)
		if err != nil || !ok {
			return false, err
		}
		cp, err := r.reader.Latest(ctx, ledger.Events)
		if errors.Is(err, ledger.ErrNotFound) {
			return false, nil
		}
		return err == nil && ref.Index < cp.Size, err
	})
}
