package store_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/store"
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
		envelope := must(wire.SignNewAttestKey(wire.NewAttestKey{Device: device, Origin: "soft", Bundle: 2}, from, identity, to))(t)
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
	refused("another device's key", "attest.key-known", change(v, id, id, s.keys[id], identity, s.keys[other]))
	envelope := must(wire.SignNewAttestKey(wire.NewAttestKey{Device: id, Origin: "soft", Bundle: 2}, s.keys[id], identity, next))(t)
	for range 2 { // the answer was lost
		if err := v.ReplaceKey(t.Context(), access.DeviceCaller(id), id, envelope); err != nil {
			t.Fatal(err)
		}
	}
	d := must(s.db.Attest().Device(t.Context(), id))(t)
	if !bytes.Equal(d.AttestKey, must(wire.SPKIOf(next.Public()))(t)) {
		t.Error("the registry has another key")
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
