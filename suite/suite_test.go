package suite

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"strings"
	"testing"
)

func TestEverySuiteIsWhole(t *testing.T) {
	for _, id := range IDs() {
		s, err := Get(id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hpke.NewKEM(s.KEM); err != nil {
			t.Errorf("%s: KEM: %v", id, err)
		}
		if _, err := hpke.NewKDF(s.KDF); err != nil {
			t.Errorf("%s: KDF: %v", id, err)
		}
		if _, err := hpke.NewAEAD(s.AEAD); err != nil {
			t.Errorf("%s: AEAD: %v", id, err)
		}
		if !s.Hash.Available() {
			t.Errorf("%s: hash %v is not linked in", id, s.Hash)
		}
		key, err := ecdsa.GenerateKey(s.Curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if of, err := Of(key.Public()); err != nil || of.ID != id {
			t.Errorf("Of(key of %s) = %v, %v", id, of.ID, err)
		}
		digest := s.Hash.New()
		sig, err := key.Sign(rand.Reader, digest.Sum(nil), s.Hash)
		if err != nil || !ecdsa.VerifyASN1(&key.PublicKey, digest.Sum(nil), sig) {
			t.Errorf("%s: signature does not verify: %v", id, err)
		}
		if ok, why := s.Validated(); why == "" || (ok && !strings.Contains(why, "Module")) {
			t.Errorf("%s: Validated() = %v, %q", id, ok, why)
		}
	}
}

func TestUnknownIsAnError(t *testing.T) {
	if _, err := Get("HM-P256-2"); err == nil {
		t.Error("Get of an unknown suite succeeded")
	}
	if _, err := Get(""); err == nil {
		t.Error("Get of no suite succeeded")
	}
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	if _, err := Of(ed.Public()); err == nil {
		t.Error("an Ed25519 key was put in a suite")
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Of(p521.Public()); err == nil {
		t.Error("a P-521 key was put in a suite")
	}
}
