package store_test

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// signedOrder is an order's envelope by a key.
func signedOrder(t *testing.T, id string, quota uint32, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	spki, err := wire.SPKIOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	d := bytes.Repeat([]byte{7}, 32)
	payload, err := wire.EncodeOrder(wire.Order{
		Header: wire.OrderHeader{
			ID: id, OEM: "acme", Product: "pump", Hardware: "b", Quota: quota, NotBefore: 1, NotAfter: 2, Station: d, HSMSerial: "s",
			Chain: [][]byte{{1}, {2}}, Profile: wire.ProfileIDevID1, Bundle: d, Release: d, Root: d, ReturnKey: make([]byte, 65),
		},
		Key:     wire.WrappedKey{Role: wire.RoleOrderCA, SPKI: spki, Alg: wire.WrapOAEPSHA256, Template: wire.SigningTemplate(), Blob: []byte{1}},
		Content: wire.Recipient{Alg: wire.WrapOAEPSHA1, Blob: []byte{1}}, Sealed: d,
	})
	if err != nil {
		t.Fatal(err)
	}
	env, err := wire.Sign1(wire.TypeOrder, payload, key)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// A desk, what it ordered and its end come back from the log; the secrets of its orders come back by their registrations.
func TestAReplayBringsDesksBack(t *testing.T) {
	r := newRig(t)
	r.grow(t, 5)
	old := r.backup(t)
	at, key := time.UnixMilli(1_800_000_000_000).UTC(), newKey(t)
	spki, err := wire.SPKIOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	fact := func(kind ledger.Kind, subject string, v any) ledger.Fact {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return oneLog(ledger.New(kind, at, "person:sam", subject, nil, data))[0]
	}
	d := factory.Desk{Name: "desk-1", OrderKey: spki, CAs: [][]byte{{1}}, Products: []string{"pump"}, Quota: 5, By: "person:sam", At: at}
	if err := r.db.Desks().PutDesk(t.Context(), d, nil, fact(ledger.KindDeskAdded, "desk-1", factory.DeskAdded{Desk: "desk-1", OrderKey: spki, CAs: d.CAs, Products: d.Products, Quota: 5})); err != nil {
		t.Fatal(err)
	}
	d.CAs = [][]byte{{2}} // the CA is replaced, and the one before is not forgotten
	if err := r.db.Desks().PutDesk(t.Context(), d, nil, fact(ledger.KindDeskAdded, "desk-1", factory.DeskAdded{Desk: "desk-1", OrderKey: spki, CAs: d.CAs, Products: d.Products, Quota: 5})); err != nil {
		t.Fatal(err)
	}
	if d, err = r.db.Desks().Desk(t.Context(), "desk-1"); err != nil || len(d.Before) != 1 || !bytes.Equal(d.Before[0], []byte{1}) || !bytes.Equal(d.CAs[0], []byte{2}) {
		t.Fatalf("%+v, %v", d, err)
	}
	env := signedOrder(t, "ord-1", 3, key)
	created := oneLog(ledger.New(ledger.KindOrderCreated, at, "person:fay", "ord-1", nil, env))[0]
	ca := factory.Adoption{SKI: "aa", Role: "order", DER: []byte{1}, Fact: ledger.New(ledger.KindCACreated, at, "test", "aa", nil, []byte{1})}
	none := factory.Adoption{SKI: "bb", Role: "order", DER: []byte{2}, Fact: ledger.New(ledger.KindCACreated, at, "test", "bb", nil, []byte{2})}
	o := factory.Order{ID: "ord-1", Product: "pump", Quota: 3, State: factory.Open, Created: at, Desk: "desk-1", Envelope: env, Secret: []byte("sealed"), UID: created.UID}
	if err := r.db.Desks().RegisterOrder(t.Context(), o, d, ca, created); err != nil {
		t.Fatal(err)
	}
	for want, x := range map[error]factory.Order{factory.ErrExists: o, factory.ErrDeskQuota: {ID: "ord-2", Product: "pump", Quota: 3, State: factory.Open, Created: at, Desk: "desk-1"}} {
		if err := r.db.Desks().RegisterOrder(t.Context(), x, d, none); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", x.ID, err, want)
		}
	}
	if err := r.db.Desks().RemoveDesk(t.Context(), "desk-1", at.Add(time.Hour), fact(ledger.KindDeskRemoved, "desk-1", factory.DeskRemoved{Desk: "desk-1", OrderKey: spki, Reason: "stolen"})); err != nil {
		t.Fatal(err)
	}
	if err := r.db.Desks().RegisterOrder(t.Context(), factory.Order{ID: "ord-3", Product: "pump", Quota: 1, State: factory.Open, Created: at}, d, none); !errors.Is(err, factory.ErrChanged) {
		t.Errorf("of a desk that was removed meanwhile: %v", err)
	}
	cas, err := r.db.PKI().CAs(t.Context())
	if err != nil || len(cas) != 1 || cas[0].SKI != "aa" {
		t.Errorf("CAs %+v, %v: want that of the order that was taken in, and none of those that were not", cas, err)
	}
	for _, theirs := range [][][]byte{d.CAs, d.Before} {
		other := factory.Desk{Name: "desk-2", OrderKey: []byte{1}, CAs: theirs, Products: d.Products, Quota: 1, At: at}
		if err := r.db.Desks().PutDesk(t.Context(), other, []factory.Adoption{none}); !errors.Is(err, factory.ErrDeskCA) {
			t.Errorf("a CA of another desk, one that was removed: %v", err)
		}
	}
	r.grow(t, 1)
	if err := old.Replay(t.Context(), ledger.Events, 5, r.entries(t, 5), map[ledger.Kind]store.Replayed{}); err != nil {
		t.Fatal(err)
	}
	got, err := old.Desks().Desk(t.Context(), "desk-1")
	if err != nil || got.Ordered != 3 || got.Quota != 5 || got.Removed.IsZero() || !bytes.Equal(got.OrderKey, spki) || got.Products[0] != "pump" || len(got.Before) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	back, err := old.Order(t.Context(), "ord-1")
	if err != nil || back.Desk != "desk-1" || len(back.Secret) != 0 || back.UID != created.UID {
		t.Fatalf("%+v, %v", back, err)
	}
	if err := old.Desks().RestoreOrder(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := old.Desks().RestoreOrder(t.Context(), o); !errors.Is(err, factory.ErrChanged) {
		t.Errorf("an order that has its secrets was restored: %v", err)
	}
	if back, err = old.Order(t.Context(), "ord-1"); err != nil || string(back.Secret) != "sealed" || back.State != factory.Open {
		t.Errorf("%+v, %v", back, err)
	}
}
