package store_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/failpoint"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/audit"
	"github.com/hallmark-iot/hallmark/ledger/witness"
	"github.com/hallmark-iot/hallmark/wire"
)

type edKey struct{ ed25519.PrivateKey }

func (k edKey) Sign(text []byte) ([]byte, error) { return ed25519.Sign(k.PrivateKey, text), nil }

func (k edKey) Public() ed25519.PublicKey { return k.PrivateKey.Public().(ed25519.PublicKey) }

func newEd(t testing.TB) edKey {
	t.Helper()
	_, k, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return edKey{k}
}

// rig is a whole log: database, sequencer, publisher, two witnesses, exported files.
type rig struct {
	db     *store.DB
	key    edKey
	w      []*witness.Witness
	export durable.Files
	seq    *ledger.Sequencer
	pub    *ledger.Publisher
	reader *ledger.Reader
}

const origin = "test.example/events"

// logKeys are a log's keys as a witness is told of them.
func logKeys(origin string, k edKey) []ledger.VerifierKey {
	return []ledger.VerifierKey{{Name: origin, Type: ledger.TypeEd25519, Key: k.Public()}}
}

// believed are witnesses as an auditor is told of them.
func believed(witnesses ...*witness.Witness) (out []audit.Witness) {
	for _, w := range witnesses {
		for _, k := range w.Keys() {
			out = append(out, audit.Witness{Name: k.Name, Type: k.Type, Key: k.Key})
		}
	}
	return out
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{db: storetest.Open(t), key: newEd(t), export: durable.Files{Dir: t.TempDir()}}
	r.w = newRigWitnesses(t, r.key)
	r.start(r.db)
	return r
}

func newRigWitnesses(t testing.TB, key edKey) (out []*witness.Witness) {
	t.Helper()
	for i := range 2 {
		w, err := witness.Open(t.Context(), witness.Config{
			Keys: []ledger.CosignerKey{ledger.Ed25519Cosigner(fmt.Sprintf("w%d.example", i), newEd(t))},
			Logs: []witness.Log{{Origin: origin, Keys: logKeys(origin, key), Memory: durable.File{Path: filepath.Join(t.TempDir(), "state")}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, w)
	}
	return out
}

func (r *rig) start(db *store.DB) {
	r.db = db
	quiet := slog.New(slog.DiscardHandler)
	r.seq = ledger.NewSequencer(db, ledger.Events, nil, quiet)
	r.pub = ledger.NewPublisher(ledger.PublisherConfig{
		Store: db, Log: ledger.Events, Origin: origin, Key: r.key, Export: r.export,
		Witnesses: []ledger.Cosigner{r.w[0], r.w[1]}, Quorum: 2, Logger: quiet, Failpoint: failpoint.Hit,
	})
	r.reader = ledger.NewReader(db)
}

func (r *rig) grow(t testing.TB, n int) (uids [][16]byte) {
	t.Helper()
	err := r.db.Write(t.Context(), func(tx *store.Tx) error {
		for i := range n {
			f := fact(fmt.Sprint(i))
			uids = append(uids, f.UID)
			if err := tx.Append(f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for {
		placed, err := r.seq.Step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if placed == 0 {
			break
		}
	}
	if err := r.pub.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	return uids
}

// A proof that was made before the newest checkpoint is one under that: what is asked for while the log grows is not refused.
func TestAProofGrowsWithItsLog(t *testing.T) {
	r := newRig(t)
	uid := r.grow(t, 3)[1]
	l, err := r.reader.Logged(t.Context(), uid)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // as it was made, and after the log has grown
		var ok bool
		if l.Proof, ok, err = r.reader.SignedBy(t.Context(), ledger.Events, l.Proof, r.key.Public()); err != nil || !ok {
			t.Fatalf("at size %d: %v, %v", l.Proof.Size, ok, err)
		}
		if _, err := l.Proof.Verify(r.devicePolicy(), l.Entry); err != nil {
			t.Errorf("at size %d: %v", l.Proof.Size, err)
		}
		if now, err := r.reader.Latest(t.Context(), ledger.Events); err != nil || now.Size != l.Proof.Size {
			t.Errorf("it is of size %d, the log of %d, %v", l.Proof.Size, now.Size, err)
		}
		r.grow(t, 5)
	}
	l.Proof.Size += 100
	if _, _, err := r.reader.SignedBy(t.Context(), ledger.Events, l.Proof, r.key.Public()); !errors.Is(err, ledger.ErrNotYetWitnessed) {
		t.Errorf("of a size that is not witnessed: %v", err)
	}
}

func (r *rig) policy() audit.Policy {
	return audit.Policy{Origin: origin, Key: r.key.Public(), Witnesses: believed(r.w...), Quorum: 2}
}

func (r *rig) devicePolicy() wire.LogPolicy {
	p := wire.LogPolicy{Origin: origin, LogKey: r.key.Public(), Quorum: 2}
	for _, w := range r.w {
		p.Witnesses = append(p.Witnesses, wire.Witness{Name: w.Name(), Key: w.Keys()[0].Key})
	}
	return p
}

func (r *rig) fetch(_ context.Context, path string) ([]byte, error) {
	return os.ReadFile(filepath.Join(r.export.Dir, filepath.FromSlash(path)))
}

func TestALogOfManySizesVerifiesAndProves(t *testing.T) {
	r := newRig(t)
	var uids [][16]byte
	for _, n := range []int{1, 1, 3, 250, 1, 1, 255, 300, 1000} {
		uids = append(uids, r.grow(t, n)...)
		rep, err := audit.Verify(t.Context(), r.policy(), r.fetch)
		if err != nil {
			t.Fatalf("size %d: %v", len(uids), err)
		}
		if rep.Size != uint64(len(uids)) || len(rep.Cosigned) != 2 {
			t.Fatalf("report %+v, want size %d", rep, len(uids))
		}
		for _, i := range []int{0, len(uids) / 2, len(uids) - 1} {
			l, err := r.reader.Logged(t.Context(), uids[i])
			if err != nil {
				t.Fatal(err)
			}
			cp, err := l.Proof.Verify(r.devicePolicy(), l.Entry)
			if err != nil {
				t.Fatalf("proof of %d in %d: %v", i, len(uids), err)
			}
			if cp.Size != uint64(len(uids)) || cp.Cosigned.IsZero() {
				t.Fatalf("checkpoint %+v", cp)
			}
			if f, err := wire.DecodeFact(l.Entry); err != nil || [16]byte(f.UID) != uids[i] {
				t.Fatalf("entry %d is not the fact asked for: %v", i, err)
			}
		}
	}
}

func TestEveryFlippedBitOfAProofIsRefused(t *testing.T) {
	r := newRig(t)
	uids := r.grow(t, 5)
	l, err := r.reader.Logged(t.Context(), uids[3])
	if err != nil {
		t.Fatal(err)
	}
	enc, err := wire.EncodeLogged(l)
	if err != nil {
		t.Fatal(err)
	}
	for i := range enc {
		for bit := range 8 {
			bad := bytes.Clone(enc)
			bad[i] ^= 1 << bit
			b, err := wire.DecodeLogged(bad)
			if err != nil {
				continue
			}
			if _, err := b.Proof.Verify(r.devicePolicy(), b.Entry); err == nil {
				t.Fatalf("bit %d of byte %d flipped, and still proven", bit, i)
			}
		}
	}
}

func TestEveryChangedByteOfTheFilesIsFound(t *testing.T) {
	r := newRig(t)
	r.grow(t, 7)
	current := map[string]bool{"checkpoint": true, "tile/0/000.p/7": true, "tile/entries/000.p/7": true}
	err := filepath.WalkDir(r.export.Dir, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(r.export.Dir, p)
		if err != nil || d.IsDir() || !current[filepath.ToSlash(rel)] {
			return err
		}
		delete(current, filepath.ToSlash(rel))
		good, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		for i := range good {
			bad := bytes.Clone(good)
			bad[i] ^= 0x20
			fetch := func(ctx context.Context, path string) ([]byte, error) {
				if path == filepath.ToSlash(rel) {
					return bad, nil
				}
				return r.fetch(ctx, path)
			}
			if _, err := audit.Verify(t.Context(), r.policy(), fetch); err == nil {
				t.Errorf("%s: byte %d changed, and the log still verifies", rel, i)
			}
		}
		return nil
	})
	if err != nil || len(current) != 0 {
		t.Fatal(err, current)
	}
}

// The public client of the Go checksum database's kind reads our files too.
func TestAThirdPartyClientReadsTheLog(t *testing.T) {
	r := newRig(t)
	r.grow(t, 600)
	signed, err := r.fetch(t.Context(), "checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	vkey, err := note.NewEd25519VerifierKey(origin, r.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + n.Text[len(origin)+1:]))
	if err != nil {
		t.Fatal(err)
	}
	hr := tlog.TileHashReader(tree, tiles{r})
	for _, i := range []int64{0, 255, 256, 599} {
		h, err := hr.ReadHashes([]int64{tlog.StoredHashIndex(0, i)})
		if err != nil {
			t.Fatal(err)
		}
		e, err := r.db.Entries(t.Context(), ledger.Events, uint64(i), uint64(i)+1)
		if err != nil || tlog.RecordHash(e[0]) != h[0] {
			t.Fatalf("leaf %d differs: %v", i, err)
		}
	}
}

type tiles struct{ r *rig }

func (tiles) Height() int { return 8 }

func (tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (x tiles) ReadTiles(ts []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, t := range ts {
		// Ours is the newer layout (no height in the path), theirs "tile/8/L/N".
		data, err := x.r.fetch(context.Background(), "tile/"+t.Path()[len("tile/8/"):])
		if err != nil {
			return nil, err
		}
		out = append(out, data)
	}
	return out, nil
}

func TestAnOldDatabaseDoesNotSign(t *testing.T) {
	r := newRig(t)
	r.grow(t, 5)
	r.start(storetest.Open(t)) // the database is lost; export and witnesses remember
	r.seq = ledger.NewSequencer(r.db, ledger.Events, nil, slog.New(slog.DiscardHandler))
	if err := r.pub.Check(t.Context()); !errors.Is(err, ledger.ErrForked) {
		t.Errorf("an empty database: %v, want ErrForked", err)
	}
	err := r.db.Write(t.Context(), func(tx *store.Tx) error {
		for i := range 9 {
			if err := tx.Append(fact(fmt.Sprint(i))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.seq.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.pub.Check(t.Context()); !errors.Is(err, ledger.ErrForked) {
		t.Errorf("another history, longer: %v, want ErrForked", err)
	}
	if err := r.pub.Step(t.Context()); err == nil {
		t.Error("published another history past the witnesses")
	}
}

func TestAWitnessSignsOneHistoryOnly(t *testing.T) {
	r := newRig(t)
	r.grow(t, 3)
	w := r.w[0]
	sign := func(size uint64, b byte) []byte {
		n, err := ledger.SignCheckpoint(origin, ledger.State{Size: size, Root: [32]byte{b}}, r.key)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var size *ledger.OldSizeError
	if _, err := w.Cosign(t.Context(), 0, nil, sign(9, 1)); !errors.As(err, &size) || size.Size != 3 {
		t.Errorf("told the wrong old size: %v", err)
	}
	for _, note := range [][]byte{sign(3, 1), sign(4, 1)} {
		if _, err := w.Cosign(t.Context(), 3, nil, note); !errors.Is(err, witness.ErrInconsistent) {
			t.Errorf("%q: %v", note, err)
		}
	}
	stranger := newEd(t)
	n, err := ledger.SignCheckpoint(origin, ledger.State{Size: 4}, stranger)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Cosign(t.Context(), 3, nil, n); !errors.Is(err, witness.ErrLogSignature) {
		t.Errorf("another log key: %v", err)
	}
}
