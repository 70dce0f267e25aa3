package wire_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/hallmark-iot/hallmark/wire"
)

func decision() wire.GateDecision {
	return wire.GateDecision{
		V: 1, Product: "pump", Subject: [][]byte{make([]byte, 32)}, DB: make([]byte, 32), Policy: make([]byte, 32), At: 7, OK: true,
		Steps: []wire.GateStep{{N: 1, OK: true}, {N: 2, OK: true}},
	}
}

func TestADecisionFollowsFromItsSteps(t *testing.T) {
	data, err := wire.EncodeGateDecision(decision())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := wire.DecodeGateDecision(data); err != nil || !got.OK || len(got.Steps) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	bad := decision()
	bad.Steps[1].OK = false
	if _, err := wire.EncodeGateDecision(bad); err == nil {
		t.Error("a decision is good and one of its steps is not")
	}
	// The same from outside: the step's flag is changed in the bytes.
	raw, err := wire.Marshal(bad)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.DecodeGateDecision(raw); err == nil {
		t.Error("it is read from outside")
	}
}

// A release without a decision has the digest that it always had.
func TestReleasesWithoutADecisionKeepTheirDigest(t *testing.T) {
	r := wire.Release{
		ID: "pump-1.0.0", Product: "pump", Hardware: []string{"A"}, Model: wire.ModelBlob, Version: "1.0.0", Counter: 1, Created: 1_700_000_000,
		Components: []wire.Component{{Name: "app", Kind: wire.KindExec, Version: "1.0.0", Size: 1, Digest: bytes.Repeat([]byte{1}, 32), Health: wire.HealthAlive}},
	}
	payload, err := wire.EncodeRelease(r)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(payload)
	if got := hex.EncodeToString(sum[:]); got != "edf12db47e9a36010f9974a4da8dc121bf25cf724526c923445c0ecc3ba8ae11" {
		t.Errorf("digest %s", got)
	}
	r.Decision = bytes.Repeat([]byte{2}, 32)
	if payload, err = wire.EncodeRelease(r); err != nil {
		t.Fatal(err)
	}
	if got, err := wire.DecodeRelease(payload); err != nil || !bytes.Equal(got.Decision, r.Decision) {
		t.Errorf("%x, %v", got.Decision, err)
	}
	r.Decision = []byte{1}
	if _, err := wire.EncodeRelease(r); err == nil {
		t.Error("a digest of one byte is taken")
	}
}

func FuzzDecodeGateDecision(f *testing.F) {
	data, err := wire.EncodeGateDecision(decision())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := wire.DecodeGateDecision(data)
		if err != nil {
			return
		}
		again, err := wire.EncodeGateDecision(d)
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%x is written as %x, %v", data, again, err)
		}
	})
}
