package suite

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"strings"
	"testing"

	"filippo.io/mldsa"
)

func TestEverySuiteIsWhole(t *testing.T) {
	sizes := map[int]bool{}
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
		key, err := s.Generate()
		if err != nil {
			t.Fatal(err)
		}
		if of, err := Of(key.Public()); err != nil || of.ID != id {
			t.Errorf("Of(key of %s) = %v, %v", id, of.ID, err)
		}
		der, err := MarshalPublic(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		if len(der) != s.SPKI || sizes[s.SPKI] {
			t.Errorf("%s: a key of %d bytes, it says %d; each suite has its own size", id, len(der), s.SPKI)
		}
		sizes[s.SPKI] = true
		pub, err := ParsePublic(der)
		if err != nil || !pub.(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
			t.Errorf("%s: a public key is not what it was: %v", id, err)
		}
		if der, err = MarshalPrivate(key); err != nil {
			t.Fatal(err)
		}
		if back, err := ParsePrivate(der); err != nil || !back.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
			t.Errorf("%s: a private key is not what it was: %v", id, err)
		}
		leaf, err := s.GenerateX509()
		if err != nil || !s.Certifies(leaf.Public()) {
			t.Errorf("%s does not certify its own key: %v", id, err)
		}
		if of, err := Of(leaf.Public()); err != nil || of.ID != s.Certified() {
			t.Errorf("%s: a key for a certificate is of %s, want %s (%v)", id, of.ID, s.Certified(), err)
		}
		if s.Quantum == s.Certifies(key.Public()) {
			t.Errorf("%s: a signing key of a suite that withstands quantum computers is in no certificate, one of another is", id)
		}
		if ok, why := s.Validated(); why == "" || (ok && (s.Quantum || !strings.Contains(why, "Module"))) {
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

func TestThereIsOneEncodingOfAKey(t *testing.T) {
	for _, id := range IDs() {
		s, _ := Get(id)
		key, err := s.Generate()
		if err != nil {
			t.Fatal(err)
		}
		der, err := MarshalPublic(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		for name, bad := range map[string][]byte{"cut": der[:len(der)-1], "longer": append(bytes.Clone(der), 0), "empty": nil} {
			if _, err := ParsePublic(bad); err == nil {
				t.Errorf("%s: a key that is %s was read", id, name)
			}
		}
	}
	big, err := mldsa.GenerateKey(mldsa.MLDSA65())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Of(big.Public()); err == nil {
		t.Error("an ML-DSA-65 key was put in a suite")
	}
}

func TestTheLastOfTheListIsWanted(t *testing.T) {
	for want, list := range map[ID][]string{
		P256: {"HM-P256-1"}, P384: {"HM-P256-1", "HM-P384-1"}, MLDSA44: {"HM-P256-1", "HM-MLDSA44-1", "HM-LATER-9"}, "": {"HM-LATER-9"},
	} {
		if got, ok := Newest(list); got.ID != want || ok != (want != "") {
			t.Errorf("Newest(%v) = %q, %v, want %q", list, got.ID, ok, want)
		}
	}
}

// FuzzParsePublic: what is read is in its one encoding, and in a suite.
func FuzzParsePublic(f *testing.F) {
	for _, id := range IDs() {
		s, _ := Get(id)
		key, err := s.Generate()
		if err != nil {
			f.Fatal(err)
		}
		der, err := MarshalPublic(key.Public())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
		if der, err = MarshalPrivate(key); err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		if k, err := ParsePrivate(der); err == nil && k.Public() == nil {
			t.Errorf("%x was read as a private key without a public half", der)
		}
		k, err := ParsePublic(der)
		if err != nil {
			return
		}
		if again, err := MarshalPublic(k); err != nil || !bytes.Equal(again, der) {
			t.Errorf("%x was read, and is written as %x (%v)", der, again, err)
		}
	})
}
