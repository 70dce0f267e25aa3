package wire_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"

	"github.com/hallmark-iot/hallmark/wire"
)

func someOwnership(t testing.TB) wire.Ownership {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := wire.SPKIOf(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	d := wire.OwnerDigest([32]byte{1}, "o-1")
	return wire.Ownership{Owner: d[:], Key: spki}
}

func TestAnOwnerIsKnownByWhoHasTheSalt(t *testing.T) {
	d := wire.OwnerDigest([32]byte{1}, "a")
	if d != wire.OwnerDigest([32]byte{1}, "a") || d == wire.OwnerDigest([32]byte{2}, "a") || d == wire.OwnerDigest([32]byte{1}, "b") {
		t.Fatal("the digest is not of salt and owner")
	}
}

func TestAnOwnershipIsOpenedByItsDigestAlone(t *testing.T) {
	o := someOwnership(t)
	raw, err := wire.EncodeOwnership(o)
	if err != nil {
		t.Fatal(err)
	}
	salted, digest := wire.SaltConfig(raw)
	if got, err := wire.OpenOwnership(salted, digest); err != nil || !got.Equal(o) {
		t.Fatalf("%+v, %v", got, err)
	}
	salted[3] ^= 1
	if _, err := wire.OpenOwnership(salted, digest); err == nil {
		t.Fatal("another salt, and opened")
	}
	for name, bad := range map[string]wire.Ownership{"no owner": {Key: o.Key}, "no key": {Owner: o.Owner}, "key of nothing": {Owner: o.Owner, Key: []byte{1}}} {
		if _, err := wire.EncodeOwnership(bad); err == nil {
			t.Errorf("%s, and written", name)
		}
	}
}

func FuzzDecodeOwnership(f *testing.F) {
	raw, err := wire.EncodeOwnership(someOwnership(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := wire.DecodeOwnership(data)
		if err != nil {
			return
		}
		again, err := wire.EncodeOwnership(o)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%x reads as %+v, which is %x: %v", data, o, again, err)
		}
		digest := wire.ConfigDigest(append(make([]byte, wire.ConfigSalt), data...))
		if _, err := wire.OpenOwnership(append(make([]byte, wire.ConfigSalt), data...), digest); err != nil {
			t.Fatal(err)
		}
	})
}
