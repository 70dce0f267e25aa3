package wire

import (
	"errors"
	"testing"
)

func TestSignaturesMadeApartMergeToTheThreshold(t *testing.T) {
	p := newPeople(t, 3, 2)
	a, b := p.sign(t, TypeRelease, []byte("p"), 0), p.sign(t, TypeRelease, []byte("p"), 1)
	if _, err := VerifyThreshold(TypeRelease, a, p.role); !errors.Is(err, ErrThreshold) {
		t.Fatalf("one signature of two: %v", err)
	}
	ab, err := MergeSignatures(TypeRelease, a, b)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := VerifyThreshold(TypeRelease, ab, p.role); err != nil || string(got) != "p" {
		t.Errorf("merged: %q, %v", got, err)
	}
	again, err := MergeSignatures(TypeRelease, ab, a)
	if err != nil {
		t.Fatal(err)
	}
	if _, signers, err := ThresholdPayload(TypeRelease, again); err != nil || len(signers) != 2 {
		t.Errorf("merged again: %d signers, %v", len(signers), err)
	}
	aa, err := MergeSignatures(TypeRelease, a, p.sign(t, TypeRelease, []byte("p"), 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyThreshold(TypeRelease, aa, p.role); !errors.Is(err, ErrThreshold) {
		t.Errorf("one key twice counts as two: %v", err)
	}
	if _, err := MergeSignatures(TypeRelease, a, p.sign(t, TypeRelease, []byte("q"), 1)); err == nil {
		t.Error("signatures over different payloads merged")
	}
	if _, err := MergeSignatures(TypeRelease, a, p.sign(t, TypeWarrant, []byte("p"), 1)); err == nil {
		t.Error("a signature over another type merged")
	}
}
