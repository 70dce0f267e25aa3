package store_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// A device's attestation key changes by its own word alone, of the right piece, to a suite that the bundle has, and to no key that anybody has or had; once it
// has, what the former key signs counts for nothing, and a log that is replayed says the same.
func TestADeviceChangesItsAttestationKey(t *testing.T) {
	s := newStages(t, wire.ModelBlob)
	id, other := devN(0), devN(1)
	s.make(id, release.Release{})
	s.make(other, release.Release{})
	identity := newKey(t)
	sum := sha256.Sum256(spki(t, identity))
	exec := func(q string, args ...any) {
		t.Helper()
		if err := s.db.Write(t.Context(), func(tx *store.Tx) error { _, err := tx.Exec(q, args...); return err }); err != nil {
			t.Fatal(err)
		}
	}
	exec(`UPDATE device SET identity = $1 WHERE id = $2`, sum[:], id)
	v := must(attest.NewService(attest.Config{
		Store: s.db.Attest(), Guard: s.guard, References: s.db.Releases(),
		Policy: func(context.Context, string) (attest.Policy, error) {
			return attest.Policy{Suites: []string{"HM-P256-1", "HM-MLDSA44-1"}}, nil
		},
	}))(t)
	of := func(set suite.ID) crypto.Signer { return must(must(suite.Get(set))(t).Generate())(t) }
	change := func(by *attest.Service, caller, device string, from, identity, to crypto.Signer) error {
		envelope := must(wire.SignNewAttestKey(wire.NewAttestKey{Device: device, Origin: "isolated", Bundle: 2}, from, identity, to))(t)
		return by.ReplaceKey(t.Context(), access.DeviceCaller(caller), caller, envelope)
	}
	next := of(suite.MLDSA44)
	refused := func(what, code string, err error) {
		t.Helper()
		if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != code {
			t.Errorf("%s: %v, want %s", what, err, code)
		}
	}
	refused("before its log has come", "attest.key-changed", change(v, id, id, s.keys[id], identity, next))
	b := make([]byte, 32)
	exec(`INSERT INTO device_log (device, seq, head, anchor, boots, counter, heard) VALUES ($1, 1, $2, $3, 1, 1, 1)`, id, b, b[:16])
	refused("another factory identity", "attest.key-changed", change(v, id, id, s.keys[id], newKey(t), next))
	refused("not by the key that goes", "attest.key", change(v, id, id, newKey(t), identity, next))
	refused("another device's", "attest.key", change(v, id, other, s.keys[id], identity, next))
	refused("a suite that the bundle has not", "attest.key-suite", change(v, id, id, s.keys[id], identity, of(suite.P384)))
	for _, better := range []string{"soft", "tpm", "pkcs11", wire.OriginStation} {
		envelope := must(wire.SignNewAttestKey(wire.NewAttestKey{Device: id, Origin: better, Bundle: 2}, s.keys[id], identity, next))(t)
		refused("a key that says it is "+better, "attest.key-origin", v.ReplaceKey(t.Context(), access.DeviceCaller(id), id, envelope))
	}
	refused("another device's key", "attest.key-known", change(v, id, id, s.keys[id], identity, s.keys[other]))
	envelope := must(wire.SignNewAttestKey(wire.NewAttestKey{Device: id, Origin: "isolated", Bundle: 2}, s.keys[id], identity, next))(t)
	for range 2 { // the answer was lost
		if err := v.ReplaceKey(t.Context(), access.DeviceCaller(id), id, envelope); err != nil {
			t.Fatal(err)
		}
	}
	d := must(s.db.Attest().Device(t.Context(), id))(t)
	if !bytes.Equal(d.AttestKey, must(wire.SPKIOf(next.Public()))(t)) || d.KeyOrigin != "isolated" {
		t.Errorf("the registry has another key, or another origin: %s", d.KeyOrigin)
	}
	refused("by the former key", "attest.key", change(v, id, id, s.keys[id], identity, of(suite.MLDSA44)))
	refused("back to the former key", "attest.key-known", change(v, id, id, next, identity, s.keys[id]))
	n := 0
	if err := s.db.Read().QueryRowContext(t.Context(), `SELECT count(*) FROM entry WHERE kind = 'device.attest-key' AND subject = $1`, id).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d facts of one change (%v)", n, err)
	}
	counts := must(s.db.Devices().CountSuites(t.Context(), "pump"))(t)
	if len(counts) != 2 || counts[0] != (device.SuiteCount{Suite: "HM-P256-1", Devices: 1}) || counts[1] != (device.SuiteCount{Suite: "HM-MLDSA44-1", Devices: 1}) {
		t.Errorf("%+v", counts)
	}
}

// A device that changed the key of its evidence in the lost time has the new one again, and only by a fact that the key before has signed.
func TestAReplayKnowsTheKeyThatADeviceChangedTo(t *testing.T) {
	r := newRig(t)
	r.grow(t, 5)
	at := time.UnixMilli(1_800_000_000_000).UTC()
	first, identity, second := newKey(t), newKey(t), newKey(t)
	old := r.backup(t)
	spki := must(wire.SPKIOf(first.Public()))(t)
	for _, db := range []*store.DB{r.db, old} {
		if err := db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`INSERT INTO device (id, product, hardware, state, legitimacy, order_id, station, made, key_origin, is_virtual, since, last_seen, release, doc, attest_key, instance_id)
				VALUES ($1, 'pump', 'A', 'active', 'genuine', 'o', 's', 0, 'soft', 1, 0, 0, $2, '{}', $3, $4)`, devN(1), []byte{}, spki, []byte{1})
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	change := func(from crypto.Signer, to crypto.Signer) {
		t.Helper()
		envelope := must(wire.SignNewAttestKey(wire.NewAttestKey{Device: devN(1), Origin: "tpm", Bundle: 2}, from, identity, to))(t)
		if err := r.db.Write(t.Context(), func(tx *store.Tx) error {
			return tx.Append(ledger.New(ledger.KindDeviceAttestKey, at, access.DeviceCaller(devN(1)).ID, devN(1), nil, envelope))
		}); err != nil {
			t.Fatal(err)
		}
		r.grow(t, 1)
	}
	change(first, second)
	if err := old.Replay(t.Context(), ledger.Events, 5, r.entries(t, 5), map[ledger.Kind]store.Replayed{}); err != nil {
		t.Fatal(err)
	}
	if d := must(old.Attest().Device(t.Context(), devN(1)))(t); !bytes.Equal(d.AttestKey, must(wire.SPKIOf(second.Public()))(t)) || d.KeyOrigin != "soft" { // what a fact of the device alone says of it changes nothing
		t.Fatalf("it has key %x, %s", d.AttestKey, d.KeyOrigin)
	}
	size := uint64(len(r.entries(t, 0)))
	change(first, newKey(t)) // by who has the key of before
	if err := old.Replay(t.Context(), ledger.Events, size, r.entries(t, size), map[ledger.Kind]store.Replayed{}); err == nil {
		t.Error("a change that the present key has not signed was taken")
	}
}
