package store_test

import (
	"context"
	"database/sql"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/postgres"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
)

// BenchmarkAppendPostgres is BenchmarkAppend of one node on PostgreSQL: many writers share a commit.
func BenchmarkAppendPostgres(b *testing.B) { benchAppend(b, storetest.OpenPostgres(b)) }

// connections is how many nodes, or clients, write at once, each in transactions of its own.
const connections = 32

// BenchmarkAppendPostgresAlone is 32 nodes on one database, each appending one fact after the other: one transaction each.
func BenchmarkAppendPostgresAlone(b *testing.B) {
	url := storetest.Postgres(b)
	nodes := make([]*store.DB, connections)
	for i := range nodes {
		var err error
		if nodes[i], err = postgres.Open(b.Context(), url); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = nodes[i].Close() })
	}
	each(b, func(i int) error {
		f := fact("device")
		f.Data = make([]byte, 300)
		return nodes[i].Write(context.Background(), func(tx *store.Tx) error { return tx.Append(f) })
	})
}

// BenchmarkReferenceInsertPostgres is the same rows, of the same table, by the same driver from 32 connections, one transaction each.
func BenchmarkReferenceInsertPostgres(b *testing.B) {
	db, err := sql.Open("pgx", storetest.Postgres(b))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.SetMaxIdleConns(connections)
	db.SetMaxOpenConns(connections)
	st, err := db.Prepare(`INSERT INTO entry (log, uid, kind, subject, at, data) VALUES ($1, $2, $3, $4, $5, $6)`) //nolint:sqlclosecheck // it is, by the defer below
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	data := make([]byte, 300)
	each(b, func(int) error {
		f := fact("device")
		_, err := st.ExecContext(context.Background(), string(f.Log), f.UID[:], string(f.Kind), f.Subject, f.At.UnixMilli(), data)
		return err
	})
}

// each shares b.N between the connections.
func each(b *testing.B, do func(connection int) error) {
	b.Helper()
	left := make(chan struct{}, b.N)
	for range b.N {
		left <- struct{}{}
	}
	close(left)
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range connections {
		wg.Go(func() {
			for range left {
				if err := do(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "facts/s")
}

// BenchmarkSequencedPostgres is how long a fact waits for its place while 500 come in a second, whatever becomes of those before.
func BenchmarkSequencedPostgres(b *testing.B) { benchSequenced(b, storetest.OpenPostgres(b)) }

// BenchmarkSequenced is the same on SQLite.
func BenchmarkSequenced(b *testing.B) { benchSequenced(b, storetest.Open(b)) }

func benchSequenced(b *testing.B, db *store.DB) {
	const rate = 500
	var mu sync.Mutex
	handed := map[[16]byte]time.Time{}
	var waits []time.Duration
	ctx, cancel := context.WithCancel(context.Background())
	seq := ledger.NewSequencer(watched{db, func(uids [][16]byte) {
		now := time.Now()
		mu.Lock()
		defer mu.Unlock()
		for _, uid := range uids {
			waits = append(waits, now.Sub(handed[uid]))
		}
	}}, ledger.Events, nil, slog.New(slog.DiscardHandler))
	db.OnAppend(seq.Wake)
	var work sync.WaitGroup
	work.Go(func() { _ = seq.Run(ctx) })
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	var writes sync.WaitGroup
	b.ResetTimer()
	for range b.N {
		<-tick.C
		f := fact("device")
		mu.Lock()
		handed[f.UID] = time.Now()
		mu.Unlock()
		writes.Go(func() {
			if err := db.Write(ctx, func(tx *store.Tx) error { return tx.Append(f) }); err != nil {
				b.Error(err)
			}
		})
	}
	writes.Wait()
	if _, err := seq.Step(ctx); err != nil {
		b.Fatal(err)
	}
	cancel()
	work.Wait()
	if len(waits) != b.N {
		b.Fatalf("%d of %d got their place", len(waits), b.N)
	}
	slices.Sort(waits)
	b.ReportMetric(float64(waits[len(waits)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(waits[len(waits)*99/100].Microseconds())/1000, "p99-ms")
}

// watched tells which facts have got their place, once that is durable.
type watched struct {
	*store.DB
	placed func(uids [][16]byte)
}

func (w watched) Sequence(ctx context.Context, log ledger.Log, limit int,
	place func(ledger.State, []ledger.Pending, func(int, uint64) ([]byte, error)) (ledger.Placement, error),
) (int, error) {
	var uids [][16]byte
	n, err := w.DB.Sequence(ctx, log, limit, func(s ledger.State, pending []ledger.Pending, right func(int, uint64) ([]byte, error)) (ledger.Placement, error) {
		for _, p := range pending {
			f, err := ledger.Decode(log, p.Data)
			if err != nil {
				return ledger.Placement{}, err
			}
			uids = append(uids, f.UID)
		}
		return place(s, pending, right)
	})
	if err == nil {
		w.placed(uids)
	}
	return n, err
}

// BenchmarkPlacePostgres is facts a second that a sequencer gives their places, as many at once as it takes.
func BenchmarkPlacePostgres(b *testing.B) { benchPlace(b, storetest.OpenPostgres(b)) }

// BenchmarkPlace is the same on SQLite.
func BenchmarkPlace(b *testing.B) { benchPlace(b, storetest.Open(b)) }

func benchPlace(b *testing.B, db *store.DB) {
	data := make([]byte, 300)
	for done := 0; done < b.N; {
		err := db.Write(context.Background(), func(tx *store.Tx) error {
			for range min(4096, b.N-done) {
				f := fact("device")
				f.Data = data
				if err := tx.Append(f); err != nil {
					return err
				}
				done++
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	seq := ledger.NewSequencer(db, ledger.Events, nil, slog.New(slog.DiscardHandler))
	b.ResetTimer()
	for {
		n, err := seq.Step(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		if n == 0 {
			break
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "facts/s")
}
