// Package keystest is what every key store has to do: one list of behaviours for all of them.
//
// Under all stages, on the device; for tests.
package keystest

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/hpke"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// Store is a key store under test.
type Store struct {
	// Open opens it: again, after what Open gave before was let go. It closes what has to be closed with the test.
	Open   func(t *testing.T) hw.KeyStore
	Suites []suite.ID // those of which it makes keys
	Hard   bool       // nobody gets a private key out: what Signer gives is no key of crypto/ecdsa
}

// Run runs the list.
func Run(t *testing.T, s Store) {
	for name, test := range map[string]func(*testing.T, Store){
		"keys are made once": madeOnce, "they sign": sign, "they outlive their process": outlive, "what is destroyed is gone": destroyed,
		"what is not there": notThere, "one agrees on secrets": agree, "many at once": many, "purposes take turns": turns,
	} {
		t.Run(name, func(t *testing.T) { test(t, s) })
	}
}

// fresh opens a store and destroys what is in it.
func (s Store) fresh(t *testing.T) hw.KeyStore {
	t.Helper()
	k := s.Open(t)
	for _, name := range hw.AllNames() {
		if err := k.Destroy(name); err != nil {
			t.Fatal(err)
		}
	}
	if o := k.Origin(); !slices.Contains([]string{"soft", "isolated", "tpm", "pkcs11"}, o) {
		t.Errorf("origin %q: evidence has no such word", o)
	}
	return k
}

func generate(t *testing.T, k hw.KeyStore, name string, id suite.ID) crypto.PublicKey {
	t.Helper()
	pub, err := k.Generate(name, id)
	if err != nil {
		t.Fatalf("generate %s: %v", name, err)
	}
	return pub
}

func signer(t *testing.T, k hw.KeyStore, name string) crypto.Signer {
	t.Helper()
	s, err := k.Signer(name)
	if err != nil {
		t.Fatalf("signer of %s: %v", name, err)
	}
	return s
}

func same(t *testing.T, a, b crypto.PublicKey) bool {
	t.Helper()
	x, err := suite.MarshalPublic(a)
	y, err2 := suite.MarshalPublic(b)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(x, y)
}

func madeOnce(t *testing.T, s Store) {
	k := s.fresh(t)
	pub := generate(t, k, hw.KeyLDevID, s.Suites[0])
	if _, err := k.Generate(hw.KeyLDevID, s.Suites[0]); !errors.Is(err, hw.ErrKeyExists) {
		t.Errorf("a key of that name again: %v", err)
	}
	if !same(t, pub, signer(t, k, hw.KeyLDevID).Public()) {
		t.Error("another key than the one that was made")
	}
	other := generate(t, k, hw.KeyAttest, s.Suites[0])
	if same(t, pub, other) {
		t.Error("two names have one key")
	}
	if _, err := k.Generate(hw.KeyIDevID, "HM-NONE-1"); !errors.Is(err, hw.ErrSuite) {
		t.Errorf("a suite that there is not: %v", err)
	}
	if _, err := k.Signer(hw.KeyIDevID); !errors.Is(err, hw.ErrNoKey) {
		t.Errorf("a key of it: %v", err)
	}
}

func sign(t *testing.T, s Store) {
	k := s.fresh(t)
	for _, id := range s.Suites {
		if err := k.Destroy(hw.KeyLDevID); err != nil {
			t.Fatal(err)
		}
		set, err := suite.Get(id)
		if err != nil {
			t.Fatal(err)
		}
		pub := generate(t, k, hw.KeyLDevID, id)
		key := signer(t, k, hw.KeyLDevID)
		if _, soft := key.(*ecdsa.PrivateKey); soft && s.Hard {
			t.Error("the key itself is given out")
		}
		message := []byte("what the device says")
		said, err := wire.Sign1(wire.TypeEpoch, message, key)
		if err != nil {
			t.Fatalf("suite %s: %v", id, err)
		}
		if got, err := wire.Verify1(wire.TypeEpoch, said, pub); err != nil || !bytes.Equal(got, message) {
			t.Errorf("suite %s: %q, %v", id, got, err)
		}
		if !set.Certifies(pub) {
			continue
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatalf("suite %s: request: %v", id, err)
		}
		if req, err := x509.ParseCertificateRequest(der); err != nil || req.CheckSignature() != nil {
			t.Errorf("suite %s: request: %v", id, errors.Join(err, req.CheckSignature()))
		}
	}
}

func outlive(t *testing.T, s Store) {
	pub := generate(t, s.fresh(t), hw.KeyIDevID, s.Suites[0])
	again := s.Open(t)
	if !same(t, pub, signer(t, again, hw.KeyIDevID).Public()) {
		t.Error("another key after it was opened again")
	}
	if err := again.Destroy(hw.KeyIDevID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t).Signer(hw.KeyIDevID); !errors.Is(err, hw.ErrNoKey) {
		t.Errorf("destroyed, and there when it is opened again: %v", err)
	}
}

func destroyed(t *testing.T, s Store) {
	k := s.fresh(t)
	was := generate(t, k, hw.KeyLDevID, s.Suites[0])
	held := signer(t, k, hw.KeyLDevID)
	for range 2 { // the second time there is nothing
		if err := k.Destroy(hw.KeyLDevID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.Signer(hw.KeyLDevID); !errors.Is(err, hw.ErrNoKey) {
		t.Errorf("a signer of it: %v", err)
	}
	if s.Hard {
		if _, err := held.Sign(rand.Reader, make([]byte, 32), crypto.SHA256); !errors.Is(err, hw.ErrNoKey) {
			t.Errorf("who held a signer of it signs: %v", err)
		}
	}
	if same(t, was, generate(t, k, hw.KeyLDevID, s.Suites[0])) {
		t.Error("the key of before is back")
	}
}

func notThere(t *testing.T, s Store) {
	k := s.fresh(t)
	if _, err := k.Signer(hw.KeyAttest); !errors.Is(err, hw.ErrNoKey) {
		t.Errorf("no key: %v", err)
	}
	for _, name := range []string{"", "../idevid", "idevid/..", "ID", "a b", "x\x00y"} {
		if _, err := k.Generate(name, s.Suites[0]); err == nil {
			t.Errorf("a key called %q was made", name)
		}
		if _, err := k.Signer(name); err == nil {
			t.Errorf("a key called %q signs", name)
		}
	}
}

// agree: what is sealed to the key opens by it and by no other, over the store's next start too; it signs nothing, and is gone when it was destroyed.
func agree(t *testing.T, s Store) {
	k := s.fresh(t)
	exchanger := func(k hw.KeyStore) (ecdh.KeyExchanger, hpke.PrivateKey) {
		t.Helper()
		e, err := k.Exchanger()
		if err != nil {
			t.Fatal(err)
		}
		key, err := hpke.NewDHKEMPrivateKey(e)
		if err != nil {
			t.Fatal(err)
		}
		return e, key
	}
	e, key := exchanger(k)
	if _, soft := e.(*ecdh.PrivateKey); soft && s.Hard {
		t.Error("the key itself is given out")
	}
	for range 4 { // a coordinate may begin with a zero
		sealed, err := hpke.Seal(key.PublicKey(), hpke.HKDFSHA256(), hpke.AES256GCM(), []byte("for it"), []byte("a secret"))
		if err != nil {
			t.Fatal(err)
		}
		again, opener := exchanger(s.Open(t))
		if !again.PublicKey().Equal(e.PublicKey()) {
			t.Fatal("another key after it was opened again")
		}
		if got, err := hpke.Open(opener, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte("for it"), sealed); err != nil || string(got) != "a secret" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if _, err := k.Signer(hw.KeyCode); err == nil {
		t.Error("it signs")
	}
	if _, err := k.Generate(hw.KeyCode, s.Suites[0]); err == nil {
		t.Error("a key that signs was made in its place")
	}
	other, err := ecdh.P384().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.ECDH(other.PublicKey()); err == nil {
		t.Error("it agrees with a key on another curve")
	}
	for range 2 {
		if err := k.Destroy(hw.KeyCode); err != nil {
			t.Fatal(err)
		}
	}
	peer, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.ECDH(peer.PublicKey()); err == nil && s.Hard {
		t.Error("who held it agrees with a key that was destroyed")
	}
	if next, _ := exchanger(k); next.PublicKey().Equal(e.PublicKey()) {
		t.Error("the key of before is back")
	}
}

func many(t *testing.T, s Store) {
	k := s.fresh(t)
	pub := generate(t, k, hw.KeyAttest, s.Suites[0])
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			key, err := k.Signer(hw.KeyAttest)
			if err != nil {
				t.Error(err)
				return
			}
			message := []byte{byte(i)}
			for range 4 {
				said, err := wire.Sign1(wire.TypeEpoch, message, key)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := wire.Verify1(wire.TypeEpoch, said, pub); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func turns(t *testing.T, s Store) {
	k := s.fresh(t)
	for _, purpose := range []string{hw.KeyIDevID, hw.KeyLDevID, hw.KeyAttest} {
		var pubs []crypto.PublicKey
		for _, name := range hw.Names(purpose) {
			pubs = append(pubs, generate(t, k, name, s.Suites[0]))
		}
		if err := k.Destroy(purpose); err != nil {
			t.Fatal(err)
		}
		if other := hw.Other(purpose, purpose); !same(t, pubs[1], signer(t, k, other).Public()) {
			t.Errorf("%s: the key beside it changed", purpose)
		}
	}
}

// Survives makes two keys and destroys one, cuts, and looks at what is there again.
func Survives(t *testing.T, id suite.ID, open func() hw.KeyStore, cut func()) {
	t.Helper()
	k := open()
	kept := generate(t, k, hw.KeyIDevID, id)
	generate(t, k, hw.KeyLDevID, id)
	if err := k.Destroy(hw.KeyLDevID); err != nil {
		t.Fatal(err)
	}
	cut()
	if _, err := k.Signer(hw.KeyIDevID); err == nil || errors.Is(err, hw.ErrNoKey) {
		t.Errorf("a store that is not there says that there is no such key: %v", err)
	}
	k = open()
	if !same(t, kept, signer(t, k, hw.KeyIDevID).Public()) {
		t.Error("another key after the cut")
	}
	if _, err := k.Signer(hw.KeyLDevID); !errors.Is(err, hw.ErrNoKey) {
		t.Errorf("what was destroyed before the cut: %v", err)
	}
}
