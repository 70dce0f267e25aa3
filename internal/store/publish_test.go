package store_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/audit"
	"github.com/hallmark-iot/hallmark/wire"
)

func (r *rig) audit(t *testing.T) audit.Report {
	t.Helper()
	rep, err := audit.Verify(t.Context(), r.policy(), r.fetch)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// Published entry by entry, a log keeps the partial files of its right edge only, and a reader by an old checkpoint still reads.
func TestPartialFilesGoWhenTheFullOneIsThere(t *testing.T) {
	r := newRig(t)
	var old []byte
	for i := range 260 {
		r.grow(t, 1)
		if i == 99 {
			note, err := r.fetch(t.Context(), "checkpoint")
			if err != nil {
				t.Fatal(err)
			}
			old = note
		}
	}
	for _, dir := range []string{"tile/0/000.p", "tile/entries/000.p"} {
		if _, err := os.Stat(filepath.Join(r.export.Dir, filepath.FromSlash(dir))); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
	for _, path := range []string{"tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/4"} {
		if _, err := r.fetch(t.Context(), path); err != nil {
			t.Error(err)
		}
	}
	if rep := r.audit(t); rep.Size != 260 {
		t.Errorf("size %d", rep.Size)
	}
	rep, err := audit.Verify(t.Context(), r.policy(), func(ctx context.Context, path string) ([]byte, error) {
		if path == "checkpoint" {
			return old, nil
		}
		return r.fetch(ctx, path)
	})
	if err != nil || rep.Size != 100 {
		t.Errorf("by the checkpoint of 100: %d, %v", rep.Size, err)
	}
}

func TestLostFilesAreWrittenAgain(t *testing.T) {
	r := newRig(t)
	r.grow(t, 700)
	if err := errors.Join(os.RemoveAll(r.export.Dir), os.Mkdir(r.export.Dir, 0o750)); err != nil {
		t.Fatal(err)
	}
	r.start(r.db) // as after a restart
	if err := r.pub.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.pub.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rep := r.audit(t); rep.Size != 700 {
		t.Errorf("size %d", rep.Size)
	}
}

// Somebody with access to the database changes the tree behind what is published: nothing more is signed, witnesses or not.
func TestAChangedTreeIsNotSigned(t *testing.T) {
	r := newRig(t)
	r.grow(t, 5)
	before, err := r.fetch(t.Context(), "checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	other := newRig(t)
	other.grow(t, 9)
	tile, err := other.db.Tile(t.Context(), ledger.Events, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	state, err := other.db.State(t.Context(), ledger.Events)
	if err != nil {
		t.Fatal(err)
	}
	err = r.db.Write(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE tile SET data = $1 WHERE level = 0`, tile)
		_, err2 := tx.Exec(`UPDATE tlog_state SET size = $1, root = $2`, state.Size, state.Root[:])
		return errors.Join(err, err2)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.pub.Step(t.Context()); !errors.Is(err, ledger.ErrForked) {
		t.Errorf("%v, want ErrForked", err)
	}
	after, err := r.fetch(t.Context(), "checkpoint")
	if err != nil || string(after) != string(before) {
		t.Errorf("the checkpoint changed: %s (%v)", after, err)
	}
}

// broken is a witness that answers with something else.
type broken struct {
	ledger.Cosigner
	answer func(line []byte) ([]byte, error)
}

func (b broken) Cosign(ctx context.Context, old uint64, proof [][32]byte, note []byte) ([]byte, error) {
	line, err := b.Cosigner.Cosign(ctx, old, proof, note)
	if err != nil {
		return nil, err
	}
	return b.answer(line)
}

func TestWitnessesThatFailOrLie(t *testing.T) {
	for name, answer := range map[string]func([]byte) ([]byte, error){
		"is down":       func([]byte) ([]byte, error) { return nil, errors.New("no route") },
		"says nothing":  func([]byte) ([]byte, error) { return nil, nil },
		"says nonsense": func([]byte) ([]byte, error) { return []byte("ok"), nil },
		"signs badly": func(line []byte) ([]byte, error) {
			line[len(line)-20] ^= 1
			return line, nil
		},
	} {
		r := newRig(t)
		uids := r.grow(t, 2)
		config := func(quorum int) ledger.PublisherConfig {
			return ledger.PublisherConfig{
				Store: r.db, Log: ledger.Events, Origin: origin, Key: r.key, Export: r.export, Quorum: quorum,
				Logger: slog.New(slog.DiscardHandler), Witnesses: []ledger.Cosigner{broken{r.w[0], answer}, r.w[1]},
			}
		}
		r.pub = ledger.NewPublisher(config(2))
		if err := r.pub.Step(t.Context()); !errors.Is(err, wire.ErrNotWitnessed) || !strings.Contains(err.Error(), r.w[0].Name()) {
			t.Errorf("one %s, both needed: %v", name, err)
		}
		r.audit(t) // what was published before still stands
		r.pub = ledger.NewPublisher(config(1))
		uids = append(uids, r.grow(t, 3)...)
		rep, err := audit.Verify(t.Context(), audit.Policy{
			Origin: origin, Key: r.key.Public(), Quorum: 1, Witnesses: believed(r.w[1]),
		}, r.fetch)
		if err != nil || rep.Size != uint64(len(uids)) || len(rep.Cosigned) != 1 || len(rep.Strange) != 0 {
			t.Errorf("one %s, one needed: %+v, %v", name, rep, err)
		}
	}
}

// BenchmarkWitnessed is the time from handing in a fact until it can be proven to a device.
func BenchmarkWitnessed(b *testing.B) {
	r := newRig(b)
	published := make(chan struct{}, 1)
	quiet := slog.New(slog.DiscardHandler)
	pub := ledger.NewPublisher(ledger.PublisherConfig{
		Store: r.db, Log: ledger.Events, Origin: origin, Key: r.key, Export: r.export, Quorum: 2, Logger: quiet,
		Witnesses: []ledger.Cosigner{r.w[0], r.w[1]}, Published: func() {
			select {
			case published <- struct{}{}:
			default:
			}
		},
	})
	seq := ledger.NewSequencer(r.db, ledger.Events, pub.Wake, quiet)
	r.db.OnAppend(seq.Wake)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 2)
	go func() { done <- seq.Run(ctx) }()
	go func() { done <- pub.Run(ctx) }()
	for b.Loop() {
		f := fact("x")
		if err := r.db.Write(ctx, func(tx *store.Tx) error { return tx.Append(f) }); err != nil {
			b.Fatal(err)
		}
		for {
			_, err := r.reader.Logged(ctx, f.UID)
			if err == nil {
				break
			}
			if !errors.Is(err, ledger.ErrNotYetWitnessed) {
				b.Fatal(err)
			}
			<-published
		}
	}
	cancel()
	if err := errors.Join(<-done, <-done); err != nil {
		b.Error(err)
	}
}

// Everything that was started ends, and leaves nothing running or open behind.
func TestTheLoopsEnd(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	r := &rig{key: newEd(t), export: durable.Files{Dir: t.TempDir()}}
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "hallmark.db"))
	if err != nil {
		t.Fatal(err)
	}
	published := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	quiet := slog.New(slog.DiscardHandler)
	pub := ledger.NewPublisher(ledger.PublisherConfig{
		Store: db, Log: ledger.Events, Origin: origin, Key: r.key, Export: r.export, Logger: quiet,
		Published: sync.OnceFunc(func() { close(published) }),
	})
	seq := ledger.NewSequencer(db, ledger.Events, pub.Wake, quiet)
	db.OnAppend(seq.Wake)
	done := make(chan error, 2)
	go func() { done <- seq.Run(ctx) }()
	go func() { done <- pub.Run(ctx) }()
	if err := db.Write(t.Context(), func(tx *store.Tx) error { return tx.Append(fact("x")) }); err != nil {
		t.Fatal(err)
	}
	<-published
	cancel()
	if err := errors.Join(<-done, <-done, db.Close()); err != nil {
		t.Error(err)
	}
}

// stubborn is a place that allows no conditional writes, as a bucket's policy or an old S3 server may.
type stubborn struct{ ledger.Exporter }

func (stubborn) Swap(context.Context, string, []byte, []byte) (bool, error) { return false, nil }

// A place that takes no checkpoint is told of, and not asked over and over.
func TestAPlaceWithoutConditionalWritesIsAnError(t *testing.T) {
	r := newRig(t)
	r.grow(t, 3)
	pub := ledger.NewPublisher(ledger.PublisherConfig{
		Store: r.db, Log: ledger.Events, Origin: origin, Key: r.key, Export: stubborn{r.export},
		Witnesses: []ledger.Cosigner{r.w[0], r.w[1]}, Quorum: 2, Logger: slog.New(slog.DiscardHandler),
	})
	if err := pub.Step(t.Context()); err == nil || !strings.Contains(err.Error(), "conditional writes") {
		t.Fatalf("error %v, want one that names what is missing", err)
	}
}
