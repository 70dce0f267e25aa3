package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Run is what every engine must do. open gives a fresh, migrated store that is closed with the test.
func Run(t *testing.T, open func(t *testing.T) *store.DB) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, db *store.DB)
	}{
		{"a failing write undoes its own work only", failingWrite},
		{"a fact stored twice fails its own write only", storedTwice},
		{"state and fact stand or fall together", together},
		{"the ledger is append-only", appendOnly},
		{"a writer that gave up is told so", gaveUp},
		{"a closed store takes nothing", closed},
		{"placeholders may repeat and stand in any order", placeholders},
		{"places are given once, in order, without gaps", places},
		{"checkpoints never go back", checkpoints},
		{"what is not there is said to be missing", missing},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

func fact(subject string) ledger.Fact {
	return ledger.New(ledger.KindDeviceHealthy, time.Now(), "test", subject, nil, []byte("{}"))
}

func write(t *testing.T, db *store.DB, fn func(tx *store.Tx) error) {
	t.Helper()
	if err := db.Write(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, db *store.DB, query string, args ...any) (n int) {
	t.Helper()
	if err := db.Read().QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// table makes a table of our own to keep state in: the stages' come and go.
func table(t *testing.T, db *store.DB) {
	t.Helper()
	write(t, db, func(tx *store.Tx) error {
		_, err := tx.Exec(`CREATE TABLE conformance (k TEXT PRIMARY KEY, v TEXT NOT NULL)`)
		return err
	})
}

const putState = `INSERT INTO conformance (k, v) VALUES ($1, $2)`

func failingWrite(t *testing.T, db *store.DB) {
	table(t, db)
	boom := errors.New("boom")
	var wg sync.WaitGroup
	for i := range 400 {
		wg.Go(func() {
			err := db.Write(t.Context(), func(tx *store.Tx) error {
				if i%2 == 0 {
					if _, err := tx.Exec(putState, fmt.Sprint(i), "v"); err != nil {
						return err
					}
				}
				if err := tx.Append(fact(fmt.Sprint(i))); err != nil {
					return err
				}
				switch i % 4 {
				case 2:
					return boom
				case 3:
					panic("worse")
				}
				return nil
			})
			if (i%4 < 2) != (err == nil) || (i%4 == 2) != errors.Is(err, boom) {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if n := count(t, db, `SELECT count(*) FROM entry`); n != 200 {
		t.Errorf("%d facts, want 200", n)
	}
	if n := count(t, db, `SELECT count(*) FROM conformance`); n != 100 {
		t.Errorf("%d states, want 100", n)
	}
}

func storedTwice(t *testing.T, db *store.DB) {
	table(t, db)
	old := fact("old")
	write(t, db, func(tx *store.Tx) error { return tx.Append(old) })
	// Held up by a slow write, the rest gathers into one batch.
	hold, held := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = db.Write(t.Context(), func(*store.Tx) error { close(held); <-hold; return nil })
	})
	<-held
	for i := range 60 {
		wg.Go(func() {
			f := fact(fmt.Sprint(i))
			again := i%10 == 9
			if again {
				f = old
			}
			err := db.Write(t.Context(), func(tx *store.Tx) error {
				if i%20 < 10 {
					if _, err := tx.Exec(putState, fmt.Sprint(i), "v"); err != nil {
						return err
					}
				}
				return tx.Append(f)
			})
			if again != (err != nil) {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	close(hold)
	wg.Wait()
	if n := count(t, db, `SELECT count(*) FROM entry`); n != 1+54 {
		t.Errorf("%d facts, want 55", n)
	}
	if n := count(t, db, `SELECT count(*) FROM conformance`); n != 27 {
		t.Errorf("%d states, want 27: a state whose fact was refused must not stand", n)
	}
}

func together(t *testing.T, db *store.DB) {
	table(t, db)
	// A write through QueryRow is undone as well.
	boom := errors.New("boom")
	err := db.Write(t.Context(), func(tx *store.Tx) error {
		var k string
		if err := tx.QueryRow(putState+` RETURNING k`, "a", "b").Scan(&k); err != nil || k != "a" {
			return fmt.Errorf("returning %q: %w", k, err)
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	// So is the state when the fact cannot be encoded.
	big := fact("big")
	big.Data = make([]byte, 70_000)
	lost := fact("lost")
	lost.Log = "nowhere"
	for _, f := range []ledger.Fact{big, lost} {
		err = db.Write(t.Context(), func(tx *store.Tx) error {
			if _, err := tx.Exec(putState, "c", "d"); err != nil {
				return err
			}
			return tx.Append(f)
		})
		if err == nil {
			t.Errorf("fact about %s was taken", f.Subject)
		}
	}
	if n := count(t, db, `SELECT count(*) FROM conformance`); n != 0 {
		t.Errorf("%d states, want none", n)
	}
}

func appendOnly(t *testing.T, db *store.DB) {
	do := func(q string) error {
		return db.Write(t.Context(), func(tx *store.Tx) error { _, err := tx.Exec(q); return err })
	}
	write(t, db, func(tx *store.Tx) error { return tx.Append(fact("a"), fact("b")) })
	if err := do(`UPDATE entry SET idx = 0 WHERE subject = 'a'`); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{
		`DELETE FROM entry WHERE subject = 'a'`, `DELETE FROM entry WHERE subject = 'b'`,
		`UPDATE entry SET idx = 1 WHERE subject = 'a'`, `UPDATE entry SET idx = NULL WHERE subject = 'a'`,
		`UPDATE entry SET subject = 'c', idx = 1 WHERE subject = 'b'`, `UPDATE entry SET idx = 0 WHERE subject = 'b'`,
		`UPDATE entry SET at = 1 WHERE subject = 'b'`,
	} {
		if do(q) == nil {
			t.Errorf("%s: allowed", q)
		}
	}
}

func gaveUp(t *testing.T, db *store.DB) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.Write(ctx, func(tx *store.Tx) error { return tx.Append(fact("never")) }); !errors.Is(err, context.Canceled) {
		t.Errorf("given up before it began: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	begun := make(chan struct{})
	go func() { <-begun; cancel() }()
	err := db.Write(ctx, func(tx *store.Tx) error {
		close(begun)
		<-ctx.Done()
		return tx.Append(fact("perhaps")) //nolint:contextcheck // the transaction has a context of its own
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("given up on the way: %v", err)
	}
	write(t, db, func(*store.Tx) error { return nil }) // the batch before it has ended
	if n := count(t, db, `SELECT count(*) FROM entry WHERE subject = 'perhaps'`); n != 1 {
		t.Errorf("begun work is not finished: %d", n)
	}
	if n := count(t, db, `SELECT count(*) FROM entry WHERE subject = 'never'`); n != 0 {
		t.Errorf("work whose caller had left was begun: %d", n)
	}
}

func closed(t *testing.T, db *store.DB) {
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Write(t.Context(), func(*store.Tx) error { return nil }); !errors.Is(err, store.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
	if err := db.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

func placeholders(t *testing.T, db *store.DB) {
	for _, q := range []string{`SELECT $1 || $2`, `SELECT $1 || $2 WHERE $1 <> $2`, `SELECT $1 || b FROM (SELECT $2 AS b, $1 AS a) AS x`} {
		var got string
		if err := db.Read().QueryRowContext(t.Context(), q, "a", "b").Scan(&got); err != nil || got != "ab" {
			t.Errorf("%s: %q, %v", q, got, err)
		}
	}
	var got string
	err := db.Read().QueryRowContext(t.Context(), `SELECT $2 || $1`, "a", "b").Scan(&got)
	if err != nil || got != "ba" {
		t.Errorf("out of order: %q, %v", got, err)
	}
}

func places(t *testing.T, db *store.DB) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 25 {
				if err := db.Write(t.Context(), func(tx *store.Tx) error { return tx.Append(fact(fmt.Sprint(i, j))) }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 2 { // two sequencers: the state's lock is the fence
		seq := ledger.NewSequencer(db, ledger.Events, nil, nil)
		wg.Go(func() {
			for range 20 {
				if _, err := seq.Step(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := ledger.NewSequencer(db, ledger.Events, nil, nil).Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := db.State(t.Context(), ledger.Events)
	if err != nil || s.Size != 200 {
		t.Fatalf("size %d, %v; want 200", s.Size, err)
	}
	n := count(t, db, `SELECT count(DISTINCT idx) FROM entry WHERE log = $1 AND idx >= 0 AND idx < 200`, string(ledger.Events))
	if n != 200 {
		t.Errorf("%d places of 200", n)
	}
}

func checkpoints(t *testing.T, db *store.DB) {
	at := func(size uint64, root byte) ledger.State { return ledger.State{Size: size, Root: [32]byte{root}} }
	put := func(s ledger.State) error { return db.PutCheckpoint(t.Context(), ledger.Control, s, []byte("signed")) }
	publish := func(s ledger.State) error { return db.Publish(t.Context(), ledger.Control, s, []byte("witnessed")) }
	for _, s := range []ledger.State{at(1, 1), at(2, 2), at(3, 3)} {
		if err := put(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(at(2, 2)); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if err := put(at(2, 9)); !errors.Is(err, ledger.ErrForked) {
		t.Errorf("another root: %v, want ErrForked", err)
	}
	if _, err := db.Published(t.Context(), ledger.Control); !errors.Is(err, ledger.ErrNotYetWitnessed) {
		t.Errorf("nothing is published yet: %v", err)
	}
	if err := publish(at(2, 2)); err != nil {
		t.Fatal(err)
	}
	if err := publish(at(1, 1)); err == nil {
		t.Error("published a smaller tree after a larger one")
	}
	if err := publish(at(3, 9)); err == nil {
		t.Error("published a root that was never signed")
	}
	p, err := db.Published(t.Context(), ledger.Control)
	if err != nil || p.Size != 2 || p.Root[0] != 2 || !bytes.Equal(p.Note, []byte("witnessed")) {
		t.Errorf("published %+v, %v", p, err)
	}
}

func missing(t *testing.T, db *store.DB) {
	_, _, locate := db.Locate(t.Context(), [16]byte{1})
	_, tile := db.Tile(t.Context(), ledger.Control, 0, 7)
	for _, err := range []error{locate, tile} {
		if !errors.Is(err, ledger.ErrNotFound) || strings.TrimSpace(err.Error()) == "" {
			t.Errorf("%v, want ErrNotFound", err)
		}
	}
}
