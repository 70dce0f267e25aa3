package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"
)

func aCA(t testing.TB) []byte {
	t.Helper()
	k, _ := newKey(t)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "product"}, NotAfter: time.Unix(1<<33, 0), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func sampleRegistration(order []byte) Registration {
	return Registration{Desk: "berlin", Order: order, Station: []byte{1}, ReleaseSum: d32(1), ParamsSum: d32(2), Key: d32(3)[:16], Sealed: []byte{1, 2, 3}, Master: &RegisteredMaster{Revision: 3, Digest: d32(4)}}
}

// sealKey is an instance's key for registrations.
func sealKey(t testing.TB) (private, public []byte) {
	t.Helper()
	k, err := sealKEM().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if private, err = k.Bytes(); err != nil {
		t.Fatal(err)
	}
	return private, k.PublicKey().Bytes()
}

func TestADeskProvesTheOrderKeyThatItNames(t *testing.T) {
	k, spki := newKey(t)
	other, _ := newKey(t)
	d := Desk{Name: "berlin", OEM: "acme", CAs: [][]byte{aCA(t)}, Issued: 1}
	env, err := SignDesk(d, k)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenDesk(env); err != nil || got.Name != "berlin" || !bytes.Equal(got.OrderKey, spki) {
		t.Fatalf("%+v, %v", got, err)
	}
	d.OrderKey = spki
	payload, err := EncodeDesk(d)
	if err != nil {
		t.Fatal(err)
	}
	for name, sign := range map[string]struct {
		typ Type
		key *ecdsa.PrivateKey
	}{"somebody else's key": {TypeDesk, other}, "another kind of message": {TypeStation, k}} {
		env, err := Sign1(sign.typ, payload, sign.key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenDesk(env); err == nil {
			t.Errorf("%s: it was believed", name)
		}
	}
	for name, change := range map[string]func(*Desk){
		"no name":                 func(d *Desk) { d.Name = "" },
		"a name for a path":       func(d *Desk) { d.Name = "../x" },
		"no CA":                   func(d *Desk) { d.CAs = nil },
		"a CA that is none":       func(d *Desk) { d.CAs = [][]byte{{1}} },
		"more CAs than there are": func(d *Desk) { d.CAs = make([][]byte, maxDeskCAs+1) },
		"no time":                 func(d *Desk) { d.Issued = 0 },
	} {
		bad := d
		change(&bad)
		if _, err := SignDesk(bad, k); err == nil {
			t.Errorf("%s: it was signed", name)
		}
	}
}

// What is secret of an order is for the instance and for that order, and nobody but the desk can say it.
func TestARegistrationIsBoundToItsOrder(t *testing.T) {
	k, _ := newKey(t)
	stranger, _ := newKey(t)
	private, public := sealKey(t)
	elsewhere, _ := sealKey(t)
	order := func(id string) []byte {
		o := testOrder(t)
		o.Header.ID = id
		payload, err := EncodeOrder(o)
		if err != nil {
			t.Fatal(err)
		}
		env, err := Sign1(TypeOrder, payload, k)
		if err != nil {
			t.Fatal(err)
		}
		return env
	}
	secret := RegistrationSecret{Seed: d32(0x77), Return: d32(0x78)}
	env, err := SignRegistration(sampleRegistration(order("ord-1")), secret, public, k)
	if err != nil {
		t.Fatal(err)
	}
	r, o, err := VerifyRegistration(env, k.Public())
	if err != nil || o.Header.ID != "ord-1" || !bytes.Equal(r.Key, SealKeyID(public)) {
		t.Fatalf("%+v, %v", o.Header, err)
	}
	if got, err := r.Open(private); err != nil || !bytes.Equal(got.Seed, secret.Seed) || !bytes.Equal(got.Return, secret.Return) {
		t.Fatalf("%+v, %v", got, err)
	}
	if bytes.Contains(env, secret.Seed) || bytes.Contains(env, secret.Return) {
		t.Error("a secret lies open in it")
	}
	if _, _, err := VerifyRegistration(env, stranger.Public()); err == nil {
		t.Error("it was taken for another desk's")
	}
	if _, err := r.Open(elsewhere); err == nil {
		t.Error("another instance opened it")
	}
	moved, renamed := r, r
	moved.Order, renamed.Desk = order("ord-2"), "paris"
	for name, bad := range map[string]Registration{"another order": moved, "another desk": renamed} {
		if _, err := bad.Open(private); err == nil || !strings.Contains(err.Error(), "this order") {
			t.Errorf("a secret was moved to %s: %v", name, err)
		}
	}
	for i := range env {
		changed := bytes.Clone(env)
		changed[i] ^= 1
		if _, _, err := VerifyRegistration(changed, k.Public()); err == nil {
			t.Fatalf("byte %d was changed, and nobody saw", i)
		}
	}
}

func FuzzDecodeDesk(f *testing.F) {
	_, spki := newKey(f)
	again(f, DecodeDesk, EncodeDesk, Desk{Name: "berlin", OEM: "acme", OrderKey: spki, CAs: [][]byte{aCA(f)}, Issued: 1})
}

func FuzzDecodeRegistration(f *testing.F) {
	again(f, DecodeRegistration, EncodeRegistration, sampleRegistration([]byte{1}))
}

func FuzzDecodeRegistrationSecret(f *testing.F) {
	again(f, DecodeRegistrationSecret, func(s RegistrationSecret) ([]byte, error) { return Marshal(s) }, RegistrationSecret{Seed: d32(1), Return: d32(2)})
}

func FuzzReadRegistration(f *testing.F) {
	k, _ := newKey(f)
	_, public := sealKey(f)
	env, err := SignRegistration(sampleRegistration([]byte{1}), RegistrationSecret{Seed: d32(1), Return: d32(2)}, public, k)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(env)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ReadRegistration(b)
		if err != nil {
			return
		}
		if err := r.check(); err != nil {
			t.Fatalf("read, and is none: %v", err)
		}
	})
}
