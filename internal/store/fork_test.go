package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// backup makes a database that holds what the rig's database holds now, as a backup does.
func (r *rig) backup(t *testing.T) *store.DB {
	t.Helper()
	db := storetest.Open(t)
	state, err := r.db.State(t.Context(), ledger.Events)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := r.db.Entries(t.Context(), ledger.Events, 0, state.Size)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Write(t.Context(), func(tx *store.Tx) error {
		for _, e := range entries {
			f, err := ledger.Decode(ledger.Events, e)
			if err != nil {
				return err
			}
			if err := tx.Append(f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	place(t, db)
	p, err := r.db.Published(t.Context(), ledger.Events)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.PutCheckpoint(t.Context(), ledger.Events, state, p.Note), db.Publish(t.Context(), ledger.Events, state, p.Note)); err != nil {
		t.Fatal(err)
	}
	if same, err := db.State(t.Context(), ledger.Events); err != nil || same != state {
		t.Fatalf("the copy holds another tree: %v", err)
	}
	return db
}

func place(t *testing.T, db *store.DB) {
	t.Helper()
	seq := ledger.NewSequencer(db, ledger.Events, nil, slog.New(slog.DiscardHandler))
	for n := 1; n > 0; {
		var err error
		if n, err = seq.Step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func appendFacts(t *testing.T, db *store.DB, n int) {
	t.Helper()
	err := db.Write(t.Context(), func(tx *store.Tx) error {
		for i := range n {
			if err := tx.Append(fact(fmt.Sprint(i))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	place(t, db)
}

// nothingSigned checks that the database has signed nothing larger than size.
func nothingSigned(t *testing.T, db *store.DB, size uint64) {
	t.Helper()
	if s, err := db.Signed(t.Context(), ledger.Events, size+1); !errors.Is(err, ledger.ErrNotFound) {
		t.Errorf("a tree of %d entries was signed: %v", s.Size, err)
	}
}

func TestARestoredBackupIsRefused(t *testing.T) {
	forget := func(t *testing.T, r *rig) { // the witnesses are others
		t.Helper()
		r.w = newRigWitnesses(t, r.key)
	}
	lose := func(t *testing.T, r *rig) { // the export is gone
		t.Helper()
		if err := os.RemoveAll(r.export.Dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		loss func(*testing.T, *rig)
		grow int // facts that came into the restored database since
		says string
	}{
		{"export and witnesses remember", nil, 0, "4 are missing"},
		{"the export alone remembers", forget, 0, "4 are missing"},
		{"the witnesses alone remember", lose, 0, "4 are missing"},
		{"the export alone, and the database grew as long", forget, 4, "are not those of"},
		{"the witnesses alone, and the database grew as long", lose, 4, "some were replaced"},
		{"the witnesses alone, and the database grew longer", lose, 9, "some were replaced"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.grow(t, 5)
			old := r.backup(t)
			r.grow(t, 4)
			if c.loss != nil {
				c.loss(t, r)
			}
			appendFacts(t, old, c.grow)
			r.start(old)
			err := r.pub.Check(t.Context())
			if !errors.Is(err, ledger.ErrForked) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%v, want ErrForked and %q", err, c.says)
			}
			nothingSigned(t, old, 5)
		})
	}
}

func TestAnUntouchedDatabaseIsNotRefused(t *testing.T) {
	r := newRig(t)
	if err := r.pub.Check(t.Context()); err != nil {
		t.Fatalf("nothing is there yet: %v", err)
	}
	r.grow(t, 300)
	for range 2 {
		r.start(r.db)
		if err := r.pub.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.grow(t, 1)
	}
	r.audit(t)
}

// exchanged is a database that is exchanged for another under a running process, as a failover does.
type exchanged struct{ *store.DB }

func TestAFailoverUnderOurFeetIsRefused(t *testing.T) {
	r := newRig(t)
	r.grow(t, 5)
	old := r.backup(t)
	db := &exchanged{r.db}
	r.pub = ledger.NewPublisher(ledger.PublisherConfig{
		Store: db, Log: ledger.Events, Origin: origin, Key: r.key, Export: r.export, Quorum: 1,
		Witnesses: []ledger.Cosigner{r.w[0]}, Logger: slog.New(slog.DiscardHandler),
	})
	appendFacts(t, r.db, 4)
	if err := r.pub.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(r.export.Dir); err != nil { // what this process has seen is enough
		t.Fatal(err)
	}
	appendFacts(t, old, 9)
	db.DB = old
	for range 2 {
		if err := r.pub.Step(t.Context()); !errors.Is(err, ledger.ErrForked) {
			t.Fatalf("%v, want ErrForked", err)
		}
	}
	nothingSigned(t, old, 5)
}

func TestAWitnessThatIsAwayDoesNotHoldUpTheStart(t *testing.T) {
	r := newRig(t)
	r.grow(t, 2)
	away := broken{r.w[0], nil}
	r.pub = ledger.NewPublisher(ledger.PublisherConfig{
		Store: r.db, Log: ledger.Events, Origin: origin, Key: r.key, Export: r.export, Quorum: 2, Logger: slog.New(slog.DiscardHandler),
		Witnesses: []ledger.Cosigner{silent{away}, r.w[1]},
	})
	if err := r.pub.Check(t.Context()); err != nil {
		t.Errorf("started: %v", err)
	}
	appendFacts(t, r.db, 1)
	if err := r.pub.Step(t.Context()); !errors.Is(err, wire.ErrNotWitnessed) {
		t.Errorf("published: %v, want ErrNotWitnessed", err)
	}
}

type silent struct{ ledger.Cosigner }

func (silent) Cosign(context.Context, uint64, [][32]byte, []byte) ([]byte, error) {
	return nil, errors.New("no route")
}

// Who was slower must not take back what another node has published.
func TestAnExportNeverGoesBack(t *testing.T) {
	r := newRig(t)
	r.grow(t, 3)
	slow := r.backup(t)
	r.grow(t, 2)
	newer, err := r.fetch(t.Context(), "checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	// The slow node has the same database by now; it began when there were 3 entries.
	r.start(slow)
	if err := r.pub.Step(t.Context()); !errors.Is(err, ledger.ErrForked) {
		t.Errorf("%v, want ErrForked", err)
	}
	if now, err := r.fetch(t.Context(), "checkpoint"); err != nil || string(now) != string(newer) {
		t.Errorf("the checkpoint went back: %q, %v", now, err)
	}
}

func TestEachExportIsCompleteBeforeAnythingIsPublished(t *testing.T) {
	r := newRig(t)
	also := durable.Files{Dir: t.TempDir()}
	r.pub = ledger.NewPublisher(ledger.PublisherConfig{
		Store: r.db, Log: ledger.Events, Origin: origin, Key: r.key, Export: r.export, Also: []ledger.Exporter{also}, Quorum: 2,
		Witnesses: []ledger.Cosigner{r.w[0], r.w[1]}, Logger: slog.New(slog.DiscardHandler),
	})
	r.grow(t, 300)
	for range 2 {
		r.export, also = also, r.export
		if rep := r.audit(t); rep.Size != 300 {
			t.Errorf("%d entries", rep.Size)
		}
	}
	if err := os.WriteFile(filepath.Join(also.Dir, "tile"), nil, 0o600); err == nil {
		t.Fatal("the directory is not there")
	}
	if err := errors.Join(os.RemoveAll(also.Dir), os.WriteFile(also.Dir, nil, 0o600)); err != nil { // it cannot be written any more
		t.Fatal(err)
	}
	appendFacts(t, r.db, 1)
	if err := r.pub.Step(t.Context()); err == nil {
		t.Error("published though one export failed")
	}
	if p, err := r.db.Published(t.Context(), ledger.Events); err != nil || p.Size != 300 {
		t.Errorf("published %d, %v", p.Size, err)
	}
}

// A file that went missing while the checkpoint stayed is written again.
func TestALostEdgeIsNoticedAtTheStart(t *testing.T) {
	r := newRig(t)
	r.grow(t, 700)
	for _, path := range []string{"tile/entries/002.p/188", "tile/0/000"} {
		if err := os.Remove(filepath.Join(r.export.Dir, path)); err != nil {
			t.Fatal(err)
		}
	}
	r.start(r.db)
	if err := r.pub.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.grow(t, 1)
	r.audit(t)
}
