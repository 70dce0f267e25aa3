package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
)

// BenchmarkAppend is facts a second, each writer waiting until its fact is durable, many writers at once.
func BenchmarkAppend(b *testing.B) { benchAppend(b, storetest.Open(b)) }

func benchAppend(b *testing.B, db *store.DB) {
	data := make([]byte, 300)
	b.SetParallelism(128)
	b.ReportAllocs()
	b.ResetTimer() // opening a store may take longer than a run
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			f := fact("device")
			f.Data = data
			if err := db.Write(context.Background(), func(tx *store.Tx) error { return tx.Append(f) }); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "facts/s")
}

// BenchmarkReferenceInsert is the same rows straight into the same engine, 256 to a commit, from one goroutine: what the
// engine alone allows.
func BenchmarkReferenceInsert(b *testing.B) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.TempDir(), "ref.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`CREATE TABLE entry (id INTEGER PRIMARY KEY, uid BLOB UNIQUE, data BLOB)`); err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 300)
	for done := 0; done < b.N; {
		tx, err := db.Begin()
		if err != nil {
			b.Fatal(err)
		}
		st, err := tx.Prepare(`INSERT INTO entry (uid, data) VALUES (?1, ?2)`)
		if err != nil {
			b.Fatal(err)
		}
		for range min(256, b.N-done) {
			f := fact("device")
			if _, err := st.Exec(f.UID[:], data); err != nil {
				b.Fatal(err)
			}
			done++
		}
		if err := errors.Join(st.Close(), tx.Commit()); err != nil { //nolint:sqlclosecheck // in a loop: each before its commit
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "facts/s")
}

// BenchmarkProof is one inclusion proof in a log of 20,000 entries.
func BenchmarkProof(b *testing.B) {
	r := newRig(b)
	var uids [][16]byte
	for range 20 {
		uids = append(uids, r.grow(b, 1000)...)
	}
	var i atomic.Uint64
	b.ResetTimer()
	for b.Loop() {
		if _, err := r.reader.Logged(context.Background(), uids[i.Add(7919)%uint64(len(uids))]); err != nil {
			b.Fatal(fmt.Errorf("proof: %w", err))
		}
	}
}
