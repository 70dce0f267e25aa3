package store_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
)

// lost are facts that a database forgets: of each kind one, about things it may not know either.
func lost() (out []ledger.Fact) {
	at := time.UnixMilli(1_800_000_000_000)
	for kind, data := range map[ledger.Kind]string{
		ledger.KindCertRevoked:            `{"scope":"device","id":"d1","reason":1,"at":"2026-11-21T00:00:00Z","by":"person:a"}`,
		ledger.KindTelemetryKeysDestroyed: `{}`,
		ledger.KindReleaseWithdrawn:       `{"release":"00ff","reason":"broken"}`,
		ledger.KindArtifactsPruned:        `{"product":"pump","artifacts":["00ff"],"deltas":["00ff"]}`,
		ledger.KindReleaseClosed:          `{"release":"00ff","id":"r","install":2,"reason":"broken"}`,
		ledger.KindProductCreated:         `{"id":"d1"}`,
		ledger.KindEnrolmentChanged:       `{"product":"d1","mode":"approved"}`,
		ledger.KindBundleDueChanged:       `{"product":"d1","days":30}`,
		ledger.KindIsolationChanged:       `{"product":"d1","layers":["seccomp"]}`,
		ledger.KindSchemaChanged:          `{"product":"d1","parameters":[{"name":"rate","type":"integer"}]}`,
		ledger.KindDeviceForgotten:        `{"device":"d1"}`,
		ledger.KindDeviceState:            `{"device":"d1","from":"active","to":"decommissioning","event":"retire"}`,
		ledger.KindDeviceGrouped:          `{"device":"d1"}`,
		ledger.KindDeviceReplaced:         `{"device":"d1","by":"d2"}`,
		ledger.KindDeviceLogForked:        `{"device":"d1","seq":7}`,
		ledger.KindVerdict:                `{"device":"d1","status":2}`,
		ledger.KindOrderClosed:            `{}`,
		ledger.KindOrderMastered:          `{"product":"p","hardware":"A","revision":3,"digest":"00"}`,
		ledger.KindOrderCancelled:         `{"order":"d1"}`,
		ledger.KindOrderAbandoned:         `{"order":"d1"}`,
		ledger.KindRolloutPaused:          `{}`,
		ledger.KindCommandCancelled:       `{"command":"d1"}`,
		ledger.KindRetireOrdered:          `{"product":"p","warrant":"w","ids":["d1"]}`,
		ledger.KindRetireDisposed:         `{}`,
		ledger.KindAccessChanged:          `{"member":"person:a","revoked":"0011223344556677"}`,
	} {
		out = append(out, ledger.New(kind, at, "person:a", "d1", nil, []byte(data)))
	}
	for _, data := range []string{
		`{"member":"person:a","passkey":"00","what":"removed"}`, `{"member":"person:a","issuer":"i","what":"unbound"}`, `{"id":"g","product":"p","revoked":"x"}`,
		`{"id":"g","reader":"person:a","product":"p","stream":"s","purpose":"x","until":"2027-01-01T00:00:00Z"}`,
		`{"caller":"person:a","kind":"person","roles":["admin"],"use":"token","life_ns":1,"again":false}`,
	} {
		out = append(out, ledger.New(ledger.KindAccessChanged, at, "person:a", "person:a", nil, []byte(data)))
	}
	return append(out, ledger.New(ledger.KindAccessChanged, at, "person:b", "person:a", nil,
		[]byte(`{"id":"person:a","kind":"person","roles":["auditor"],"created":"2026-01-01T00:00:00Z","changed":"2026-01-02T00:00:00Z","ended":"2026-01-02T00:00:00Z"}`)))
}

// oneLog puts facts in the log that is replayed, so that one tree has them all; what follows from a fact does not depend on its log.
func oneLog(facts ...ledger.Fact) []ledger.Fact {
	for i := range facts {
		facts[i].Log = ledger.Events
	}
	return facts
}

func appendAll(t *testing.T, db *store.DB, facts ...ledger.Fact) {
	t.Helper()
	if err := db.Write(t.Context(), func(tx *store.Tx) error { return tx.Append(facts...) }); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) entries(t *testing.T, from uint64) [][]byte {
	t.Helper()
	out, err := r.db.Entries(t.Context(), ledger.Events, from, from+4096)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// What an old database lacks is put where it was, with what follows from it; what waited in it keeps its place, or comes behind.
func TestAReplayPutsEveryFactWhereItWas(t *testing.T) {
	r := newRig(t)
	r.grow(t, 5)
	old := r.backup(t)
	waited, behind := fact("waited"), fact("behind")
	appendAll(t, r.db, waited)
	appendAll(t, r.db, oneLog(lost()...)...)
	r.grow(t, 300)
	appendAll(t, old, waited, behind)
	all := r.entries(t, 5)
	counts := map[ledger.Kind]store.Replayed{}
	for at := 0; at < len(all); at += 100 {
		part := all[at:min(at+100, len(all))]
		if err := old.Replay(t.Context(), ledger.Events, uint64(5+at), part, counts); err != nil {
			t.Fatal(err)
		}
		if err := old.Replay(t.Context(), ledger.Events, uint64(5+at), part, counts); !errors.Is(err, ledger.ErrForked) {
			t.Fatalf("the same part again: %v", err)
		}
	}
	want, err := r.db.State(t.Context(), ledger.Events)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := old.State(t.Context(), ledger.Events); err != nil || got != want {
		t.Fatalf("another tree: %+v, %v; want %+v", got, err, want)
	}
	if c := counts[waited.Kind]; c.Kept != 1 {
		t.Errorf("what waited was not recognised: %+v", c)
	}
	for _, kind := range []ledger.Kind{ledger.KindCertRevoked, ledger.KindTelemetryKeysDestroyed, ledger.KindAccessChanged, ledger.KindProductCreated} {
		if counts[kind].Applied == 0 {
			t.Errorf("%s: nothing followed from it: %+v", kind, counts[kind])
		}
	}
	revoked, err := old.PKI().RevokedSince(t.Context(), 0, 10)
	if err != nil || len(revoked) != 1 || revoked[0].ID != "d1" {
		t.Errorf("revocations %+v, %v", revoked, err)
	}
	if m, err := old.Member(t.Context(), "person:a"); err != nil || m.Ended.IsZero() {
		t.Errorf("the member who was ended: %+v, %v", m, err)
	}
	place(t, old)
	if ref, ok, err := old.Locate(t.Context(), behind.UID); err != nil || !ok || ref.Index != want.Size {
		t.Errorf("what was never published: %+v, %v, %v", ref, ok, err)
	}
}

// A fact of the same name with other contents is not what was published: nothing is changed.
func TestAReplayOverAnotherFactIsRefused(t *testing.T) {
	for name, other := range map[string]func(f ledger.Fact) ledger.Fact{
		"other contents": func(f ledger.Fact) ledger.Fact { f.Subject = "another"; return f },
		"another log":    func(f ledger.Fact) ledger.Fact { f.Log = ledger.Control; return f },
	} {
		r := newRig(t)
		r.grow(t, 5)
		old := r.backup(t)
		f := fact("x")
		appendAll(t, r.db, fact("before"), f)
		r.grow(t, 1)
		appendAll(t, old, other(f))
		err := old.Replay(t.Context(), ledger.Events, 5, r.entries(t, 5), map[ledger.Kind]store.Replayed{})
		if !errors.Is(err, ledger.ErrForked) {
			t.Errorf("%s: %v, want ErrForked", name, err)
		}
		if s, err := old.State(t.Context(), ledger.Events); err != nil || s.Size != 5 {
			t.Errorf("%s: %d entries, %v", name, s.Size, err)
		}
		if _, _, err := old.Locate(t.Context(), [16]byte(fmt.Appendf(nil, "%016d", 1))); !errors.Is(err, ledger.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An order that was ended in the lost time is ended again, as it was: no record of it makes a device.
func TestAReplayEndsOrdersAsTheyWereEnded(t *testing.T) {
	r := newRig(t)
	r.grow(t, 5)
	at := time.UnixMilli(1_800_000_000_000).UTC()
	ends := map[factory.State]ledger.Kind{factory.Cancelled: ledger.KindOrderCancelled, factory.Abandoned: ledger.KindOrderAbandoned, factory.Closed: ledger.KindOrderClosed}
	old := r.backup(t)
	for to := range ends {
		for _, db := range []*store.DB{r.db, old} {
			if err := db.CreateOrder(t.Context(), factory.Order{ID: "ord-" + string(to), Product: "pump", State: factory.Open, Created: at}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for to, kind := range ends {
		f := ledger.New(kind, at, "person:a", "ord-"+string(to), nil, []byte(`{}`))
		if err := r.db.EndOrder(t.Context(), "ord-"+string(to), to, at, oneLog(f)[0]); err != nil {
			t.Fatal(err)
		}
	}
	r.grow(t, 1)
	if err := old.Replay(t.Context(), ledger.Events, 5, r.entries(t, 5), map[ledger.Kind]store.Replayed{}); err != nil {
		t.Fatal(err)
	}
	for to := range ends {
		want, err := r.db.Order(t.Context(), "ord-"+string(to))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := old.Order(t.Context(), want.ID); err != nil || got.State != to || got.ClosedUID != want.ClosedUID || !got.Closed.Equal(want.Closed) {
			t.Errorf("%s: %s at %v, %v", to, got.State, got.Closed, err)
		}
	}
}
