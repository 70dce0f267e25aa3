package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/blob"
	"github.com/hallmark-iot/hallmark/internal/blob/files"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/supply/parts"
	"github.com/hallmark-iot/hallmark/wire"
)

const month = 31 * 24 * time.Hour

// blobs are those of the stages, as another node sees them.
func (s *stages) blobs() *blob.Store {
	s.t.Helper()
	place, err := files.Open(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	return blob.New(place, s.db.Blobs())
}

func (s *stages) prune(who string, older time.Duration, dry bool) release.Prunable {
	s.t.Helper()
	p, err := s.releases.Prune(s.t.Context(), person(who), "pump", older, dry)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// swept has what leaves be gone, and says whether bytes are there.
func (s *stages) swept() {
	s.t.Helper()
	if err := s.blobs().Sweep(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stages) there(digest [32]byte) bool {
	s.t.Helper()
	f, err := s.blobs().Open(s.t.Context(), digest)
	if errors.Is(err, release.ErrNotFound) {
		return false
	}
	if err != nil {
		s.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		s.t.Fatal(err)
	}
	return true
}

func digests(p release.Prunable) (out []string) {
	for _, a := range p.Artifacts {
		out = append(out, hex.EncodeToString(a.Digest[:4]))
	}
	slices.Sort(out)
	return out
}

func TestWhatNothingNamesIsDeletedAndNothingElse(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	ctx := t.Context()
	published := s.publish("1.0.0")
	withdrawn := s.publish("1.1.0")
	sbom, lot, master := s.upload("provenance"), s.upload("a certificate"), s.upload("a master's document")
	spec := s.spec("1.2.0")
	spec.Provenance = sbom.Digest[:]
	if _, err := s.releases.Propose(ctx, person("proposer"), spec); err != nil {
		t.Fatal(err)
	}
	if _, err := s.releases.Withdraw(ctx, person("proposer"), withdrawn.Digest, "broken"); err != nil {
		t.Fatal(err)
	}
	l := parts.Lot{ID: "l1", Part: "p1", Number: "7", Certificate: hex.EncodeToString(lot.Digest[:])}
	if err := s.db.Parts().PutLot(ctx, l, ledger.New(ledger.KindLotReceived, s.now, "person:a", "l1", nil, []byte("{}"))); err != nil {
		t.Fatal(err)
	}
	if err := s.db.KeepMaster(ctx, factory.KeptMaster{
		MasterRef: factory.MasterRef{Product: "pump", Hardware: "A", Digest: "m1"}, Provenance: factory.Document{Digest: hex.EncodeToString(master.Digest[:])}, Head: []byte{1},
	}); err != nil {
		t.Fatal(err)
	}
	shared, lone := s.upload("two products have it"), s.upload("nobody's")
	if err := s.db.PutProduct(ctx, product.Product{ID: "valve", Model: wire.ModelBlob, Hardware: []string{"A"}}, ledger.New(ledger.KindProductCreated, s.now, "test", "valve", nil, []byte("{}"))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.releases.Upload(ctx, person("builder"), "valve", "app", false, bytes.NewReader([]byte("two products have it"))); err != nil {
		t.Fatal(err)
	}
	stray, _, err := s.blobs().Put(ctx, bytes.NewReader([]byte("its row never came")), 100)
	if err != nil {
		t.Fatal(err)
	}
	if p := s.prune("builder", time.Hour, false); len(p.Artifacts)+len(p.Blobs) != 0 {
		t.Errorf("what is new is deleted: %+v", p)
	}

	s.now = s.now.Add(month)
	want := []string{hex.EncodeToString(shared.Digest[:4]), hex.EncodeToString(lone.Digest[:4])}
	slices.Sort(want)
	dry := s.prune("builder", release.PruneAge, true)
	if !slices.Equal(digests(dry), want) || dry.Strays != 1 || dry.Bytes() != uint64(len("nobody's")+len("its row never came")) {
		t.Errorf("would be deleted: %v and %d strays, %d bytes; want %v", digests(dry), dry.Strays, dry.Bytes(), want)
	}
	if !s.there(lone.Digest) || len(s.entriesOf(ledger.KindArtifactsPruned)) != 0 {
		t.Error("a dry run deletes")
	}
	done := s.prune("builder", release.PruneAge, false)
	if !slices.Equal(digests(done), want) {
		t.Errorf("deleted: %v, want %v", digests(done), want)
	}
	s.swept()
	for what, is := range map[[32]byte]bool{
		lone.Digest: false, stray: false, shared.Digest: true, sbom.Digest: true, lot.Digest: true, master.Digest: true, [32]byte(published.Manifest.Components[0].Digest): true,
		[32]byte(withdrawn.Manifest.Components[0].Digest): true, sha256.Sum256([]byte("program 1.2.0")): true,
	} {
		if s.there(what) != is {
			t.Errorf("blob %x is there: %v, want %v", what[:4], !is, is)
		}
	}
	if all, err := s.releases.ListArtifacts(ctx, person("a"), "valve", nil, 0); err != nil || len(all) != 1 {
		t.Errorf("the other product has %v, %v", all, err)
	}
	facts := s.entriesOf(ledger.KindArtifactsPruned)
	if len(facts) != 1 {
		t.Fatalf("%d facts", len(facts))
	}
	var f release.Pruning
	if err := json.Unmarshal(s.prunings()[0], &f); err != nil || f.Product != "pump" || len(f.Artifacts) != 2 || f.Strays != 1 || f.Bytes != dry.Bytes() {
		t.Errorf("the ledger has %+v, %v", f, err)
	}
	if p := s.prune("builder", release.PruneAge, false); len(p.Artifacts)+len(p.Blobs) != 0 || len(s.entriesOf(ledger.KindArtifactsPruned)) != 1 {
		t.Errorf("again it deletes %+v", p)
	}
	if a := s.upload("nobody's"); !s.there(a.Digest) { // it comes back when it is wanted
		t.Error("it cannot be uploaded again")
	}
}

func TestWhatIsUploadedAgainIsNotDeletedUnderWhoDoes(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	now := s.now
	s.now = now.Add(-2 * month)
	s.upload("an old one")
	s.now = now
	if p := s.prune("builder", release.PruneAge, false); len(p.Artifacts) != 0 {
		t.Errorf("its bytes were put a moment ago: %+v", p)
	}
	s.now = now.Add(month)
	if p := s.prune("builder", release.PruneAge, false); len(p.Artifacts) != 1 {
		t.Errorf("deleted are %+v", p)
	}
}

// prunings are the data of the facts of deletions.
func (s *stages) prunings() (out [][]byte) {
	s.t.Helper()
	for _, e := range s.entriesOf(ledger.KindArtifactsPruned) {
		f, err := ledger.Decode(ledger.Control, e)
		if err != nil {
			s.t.Fatal(err)
		}
		out = append(out, f.Data)
	}
	return out
}

func TestWhoDeletesWhatOthersUploaded(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	ctx := t.Context()
	s.upload("somebody's")
	s.now = s.now.Add(48 * time.Hour)
	_, err := s.releases.Prune(ctx, person("rita"), "pump", 24*time.Hour, false)
	if _, second := errors.AsType[*access.SecondNeededError](err); !second {
		t.Errorf("another's, and young: %v", err)
	}
	if p, err := s.releases.Prune(ctx, person("rita"), "pump", 24*time.Hour, true); err != nil || len(p.Artifacts) != 1 {
		t.Errorf("a dry run takes no second person: %v, %v", p, err)
	}
	machine := access.Caller{ID: "machine:ci", Kind: access.Machine, Roles: []access.Role{access.ReleaseManager}}
	_, err = s.releases.Prune(ctx, machine, "pump", month, true)
	wantKind(t, "a machine", err, fault.Denied)
	_, err = s.releases.Prune(ctx, access.Caller{ID: "person:o", Kind: access.Person, Roles: []access.Role{access.Operator}}, "pump", month, true)
	wantKind(t, "an operator", err, fault.Denied)
	_, err = s.releases.Prune(ctx, person("rita"), "pump", 59*time.Minute, true)
	wantKind(t, "what may be under way", err, fault.Invalid)
	if p, err := s.releases.Prune(ctx, together("rita", "bob"), "pump", 24*time.Hour, false); err != nil || len(p.Artifacts) != 1 {
		t.Errorf("two people: %v, %v", p, err)
	}
	s.upload("one's own")
	s.now = s.now.Add(48 * time.Hour)
	if p := s.prune("builder", 24*time.Hour, false); len(p.Artifacts) != 1 {
		t.Errorf("one's own: %v", p)
	}
}

func TestDeltasThatNobodyNeedsAreDeleted(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	old, next, other := s.publishes("1.0.0", program("1.0.0")), s.publishes("1.1.0", program("1.1.0")), s.publishes("1.2.0", program("1.2.0"))
	s.make(devN(0), old)
	made := append(s.deltas(next), s.deltas(other)...)
	if len(made) != 3 {
		t.Fatalf("%+v", made)
	}
	s.now = s.now.Add(month)
	if p := s.prune("builder", release.PruneAge, false); len(p.Deltas) != 1 || p.Deltas[0].From != [32]byte(next.Manifest.Components[0].Digest) {
		t.Fatalf("one leads from what nobody runs; deleted are %+v", p.Deltas)
	}
	if _, err := s.releases.Withdraw(t.Context(), person("proposer"), other.Digest, "broken"); err != nil {
		t.Fatal(err)
	}
	if p := s.prune("builder", release.PruneAge, false); len(p.Deltas) != 1 || p.Deltas[0].To != [32]byte(other.Manifest.Components[0].Digest) {
		t.Fatalf("one leads to what was withdrawn; deleted are %+v", p.Deltas)
	}
	s.swept()
	for _, d := range made {
		want := d.From == [32]byte(old.Manifest.Components[0].Digest) && d.To == [32]byte(next.Manifest.Components[0].Digest)
		if s.there([32]byte(d.Digest)) != want {
			t.Errorf("the delta from %s is there: %v", d.Of, !want)
		}
	}
	// They are made again when they are wanted.
	third := s.publishes("1.3.0", program("1.3.0"))
	s.deltas(third)
	s.now = s.now.Add(month)
	if p := s.prune("builder", release.PruneAge, false); len(p.Deltas) != 2 {
		t.Fatalf("%+v", p.Deltas)
	}
	s.swept()
	if _, err := s.releases.WantDeltas(t.Context(), person("rita"), third.Digest, next.Digest); err != nil {
		t.Fatal(err)
	}
	again := s.deltas(third)
	if len(again) != 2 || slices.ContainsFunc(again, func(d release.Delta) bool { return d.State != release.DeltaMade || !s.there([32]byte(d.Digest)) }) {
		t.Errorf("made again: %+v", again)
	}
}

// An upload of bytes that are just leaving is refused until they have left, so that they do not go with the old ones.
func TestBytesThatLeaveAreNotPut(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	ctx := t.Context()
	a := s.upload("nobody's")
	s.now = s.now.Add(month)
	s.prune("builder", release.PruneAge, false)
	if !s.there(a.Digest) {
		t.Fatal("they left before they were swept") // as after a crash
	}
	_, err := s.releases.Upload(ctx, person("builder"), "pump", "app", false, bytes.NewReader([]byte("nobody's")))
	wantKind(t, "an upload of what leaves", err, fault.Unavailable)
	s.swept()
	if s.there(a.Digest) {
		t.Error("they are there still")
	}
	if a := s.upload("nobody's"); !s.there(a.Digest) {
		t.Error("they are not put again")
	}
	s.swept()
	if !s.there(a.Digest) {
		t.Error("they left again")
	}
}

// late lets a test in between the look-up of a proposal's artifacts and the write of its release.
type late struct {
	release.Store
	before func()
}

func (l late) PutRelease(ctx context.Context, r release.Release, facts ...ledger.Fact) error {
	l.before()
	return l.Store.PutRelease(ctx, r, facts...)
}

func TestAProposalMeetsADeletion(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	ctx := t.Context()
	spec := s.spec("1.0.0")
	s.now = s.now.Add(month)
	rel := s.db.Releases()
	if p, err := rel.Prunable(ctx, "pump", s.now, 0); err != nil || len(p.Artifacts) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	svc, err := release.NewService(release.Config{
		Supply: s.supply, Store: late{rel, func() { s.prune("builder", release.PruneAge, false) }}, Artifacts: rel, Deltas: rel, Blobs: s.blobs(), Products: rel, Trust: s.db.Devices(),
		Ledger: s.ledger, Commands: recaller{s}, Guard: s.guard, Now: func() time.Time { return s.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = svc.Propose(ctx, person("proposer"), spec)
	wantKind(t, "a proposal of what was deleted meanwhile", err, fault.Invalid)
	s.swept()
	spec = s.spec("1.0.0") // uploaded again
	stale, err := rel.Prunable(ctx, "pump", s.now.Add(month), 0)
	if err != nil || len(stale.Artifacts) != 1 {
		t.Fatalf("%+v, %v", stale, err)
	}
	if _, err := s.releases.Propose(ctx, person("proposer"), spec); err != nil {
		t.Fatal(err)
	}
	if err := rel.Prune(ctx, "pump", s.now.Add(month), 0, stale); !errors.Is(err, release.ErrChanged) {
		t.Errorf("a deletion of what was proposed meanwhile: %v", err)
	}
}

// Whoever wins: a release that stands has its artifacts, row and bytes.
func TestProposalsAndDeletionsRace(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	ctx := t.Context()
	const n = 20
	specs := make([]release.Spec, n)
	for i := range specs {
		specs[i] = s.spec(fmt.Sprintf("1.%d.0", i))
	}
	s.now = s.now.Add(month)
	var all sync.WaitGroup
	refused := make([]error, n)
	all.Go(func() {
		for range 5 {
			if _, err := s.releases.Prune(ctx, person("builder"), "pump", release.PruneAge, false); err != nil && !errors.Is(err, release.ErrChanged) {
				var f *fault.Fault
				if !errors.As(err, &f) || f.Kind != fault.Conflict {
					t.Error(err)
				}
			}
			if err := s.blobs().Sweep(ctx); err != nil {
				t.Error(err)
			}
		}
	})
	for i, spec := range specs {
		all.Go(func() { _, refused[i] = s.releases.Propose(ctx, person("proposer"), spec) })
	}
	all.Wait()
	s.swept()
	for i, err := range refused {
		digest := [32]byte(specs[i].Components[0].Artifact)
		_, row := s.db.Releases().Artifact(ctx, "pump", digest)
		switch {
		case err == nil && (row != nil || !s.there(digest)):
			t.Errorf("release %d stands, and its artifact: %v", i, row)
		case err != nil:
			wantKind(t, "a proposal that lost", err, fault.Invalid)
		case row == nil && !s.there(digest):
			t.Errorf("artifact %d has a row and no bytes", i)
		}
	}
}
