package store_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
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

// BenchmarkWitnessedOpen is how long a fact waits until it is under a published checkpoint of two witnesses, while 500 come in a second,
// whatever becomes of those before.
func BenchmarkWitnessedOpen(b *testing.B) {
	const rate = 500
	r := newRig(b)
	quiet := slog.New(slog.DiscardHandler)
	var mu sync.Mutex
	handed := map[[16]byte]time.Time{}
	var order [][16]byte // by place
	var waits []time.Duration
	ctx, cancel := context.WithCancel(b.Context())
	pub := ledger.NewPublisher(ledger.PublisherConfig{
		Store: r.db, Log: ledger.Events, Origin: origin, Key: r.key, Export: r.export, Quorum: 2, Logger: quiet,
		Witnesses: []ledger.Cosigner{r.w[0], r.w[1]}, Published: func() {
			cp, err := r.reader.Latest(ctx, ledger.Events)
			if err != nil {
				return
			}
			now := time.Now()
			mu.Lock()
			defer mu.Unlock()
			for len(waits) < int(cp.Size) {
				waits = append(waits, now.Sub(handed[order[len(waits)]]))
			}
		},
	})
	seq := ledger.NewSequencer(watched{r.db, func(uids [][16]byte) {
		mu.Lock()
		order = append(order, uids...)
		mu.Unlock()
		pub.Wake()
	}}, ledger.Events, nil, quiet)
	r.db.OnAppend(seq.Wake)
	done := make(chan error, 2)
	go func() { done <- seq.Run(ctx) }()
	go func() { done <- pub.Run(ctx) }()
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	var writes sync.WaitGroup
	b.ResetTimer()
	for range b.N {
		<-tick.C
		f := fact("device")
		f.Data = make([]byte, 300)
		mu.Lock()
		handed[f.UID] = time.Now()
		mu.Unlock()
		writes.Go(func() {
			if err := r.db.Write(ctx, func(tx *store.Tx) error { return tx.Append(f) }); err != nil {
				b.Error(err)
			}
		})
	}
	writes.Wait()
	for all := false; !all; time.Sleep(10 * time.Millisecond) {
		mu.Lock()
		all = len(waits) == b.N
		mu.Unlock()
	}
	cancel()
	if err := errors.Join(<-done, <-done); err != nil {
		b.Error(err)
	}
	slices.Sort(waits)
	b.ReportMetric(float64(waits[len(waits)*99/100].Microseconds())/1000, "p99-ms")
}

// BenchmarkDisk is what a fact whose entry has 300 bytes takes of the disk: in the database with its indexes and tiles, and in the exported log.
func BenchmarkDisk(b *testing.B) {
	for b.Loop() { // its time says nothing
	}
	const facts = 50_000
	dir := b.TempDir()
	db, err := sqlite.Open(b.Context(), filepath.Join(dir, "hallmark.db"))
	if err != nil {
		b.Fatal(err)
	}
	export := filepath.Join(dir, "log")
	quiet := slog.New(slog.DiscardHandler)
	pub := ledger.NewPublisher(ledger.PublisherConfig{
		Store: db, Log: ledger.Events, Origin: origin, Key: newEd(b), Export: durable.Files{Dir: export}, Logger: quiet,
	})
	bare, err := fact("00112233445566778899aabbccddeeff").Encode(nil)
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 300-len(bare))
	for range facts / 500 {
		if err := db.Write(b.Context(), func(tx *store.Tx) error {
			for range 500 {
				f := fact("00112233445566778899aabbccddeeff")
				f.Data = data
				if err := tx.Append(f); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	seq := ledger.NewSequencer(db, ledger.Events, nil, quiet)
	for n := 1; n > 0; {
		if n, err = seq.Step(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	if err := errors.Join(pub.Step(b.Context()), db.Close()); err != nil {
		b.Fatal(err)
	}
	var kept, published int64
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if strings.HasPrefix(path, export) {
			published += info.Size()
		} else {
			kept += info.Size()
		}
		return err
	}); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(kept)/facts, "db-B")
	b.ReportMetric(float64(published)/facts, "log-B")
}
