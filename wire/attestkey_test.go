package wire

import (
	"bytes"
	"crypto"
	"testing"

	"github.com/hallmark-iot/hallmark/suite"
)

const someDevice = "00112233445566778899aabbccddeeff"

func TestANewAttestationKeyIsVouchedForByAllThree(t *testing.T) {
	old, identity := keyOf(t, suite.P256), keyOf(t, suite.P256)
	for _, id := range []suite.ID{suite.P384, suite.MLDSA44} {
		next := keyOf(t, id)
		envelope, err := SignNewAttestKey(NewAttestKey{Device: someDevice, Origin: "soft", Bundle: 2}, old, identity, next)
		if err != nil {
			t.Fatal(err)
		}
		was, _ := SPKIOf(old.Public())
		is, _ := SPKIOf(next.Public())
		who, _ := SPKIOf(identity.Public())
		n, err := OpenNewAttestKey(envelope, was)
		if err != nil || !bytes.Equal(n.New, is) || !bytes.Equal(n.Identity, who) || n.Device != someDevice {
			t.Fatalf("%s: %+v, %v", id, n, err)
		}
		if _, err := OpenNewAttestKey(envelope, is); err != nil {
			t.Errorf("%s: said again after a lost answer: %v", id, err)
		}
		if _, err := OpenNewAttestKey(envelope, who); err == nil {
			t.Errorf("%s: it replaced a key that it does not name", id)
		}
		for i := 0; i < len(envelope); i += 7 {
			bad := bytes.Clone(envelope)
			bad[i] ^= 1
			if _, err := OpenNewAttestKey(bad, was); err == nil {
				t.Fatalf("%s: taken with a bit of byte %d flipped", id, i)
			}
		}
	}
}

func TestNewAttestationKeysThatAreNotTaken(t *testing.T) {
	old, identity, next, thief := keyOf(t, suite.P256), keyOf(t, suite.P256), keyOf(t, suite.MLDSA44), keyOf(t, suite.P256)
	was, _ := SPKIOf(old.Public())
	n := NewAttestKey{Device: someDevice, Origin: "soft", Bundle: 2}
	good, err := SignNewAttestKey(n, old, identity, next)
	if err != nil {
		t.Fatal(err)
	}
	payload, _, err := ThresholdPayload(TypeAttestKey, good)
	if err != nil {
		t.Fatal(err)
	}
	without := func(keys ...int) []byte {
		all := []crypto.Signer{old, identity, next, thief}
		var out []byte
		for _, i := range keys {
			k := all[i]
			if out == nil {
				out, err = NewThreshold(TypeAttestKey, payload, k)
			} else {
				out, err = AddSignature(TypeAttestKey, out, k)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return out
	}
	for name, envelope := range map[string][]byte{
		"the old key alone":            without(0),
		"without the factory identity": without(0, 2),
		"without the old key":          without(1, 2),
		"without the new key":          without(0, 1),
		"a stranger for the old key":   without(3, 1, 2),
		"four signatures":              without(0, 1, 2, 3),
	} {
		if _, err := OpenNewAttestKey(envelope, was); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for name, c := range map[string]func() ([]byte, error){
		"no device": func() ([]byte, error) { return SignNewAttestKey(NewAttestKey{Origin: "soft"}, old, identity, next) },
		"an origin nobody knows": func() ([]byte, error) {
			return SignNewAttestKey(NewAttestKey{Device: someDevice, Origin: "moon"}, old, identity, next)
		},
		"the key that it has":     func() ([]byte, error) { return SignNewAttestKey(n, old, identity, old) },
		"the factory identity":    func() ([]byte, error) { return SignNewAttestKey(n, old, identity, identity) },
		"an identity not in X509": func() ([]byte, error) { return SignNewAttestKey(n, old, keyOf(t, suite.MLDSA44), next) },
	} {
		if _, err := c(); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

func FuzzDecodeNewAttestKey(f *testing.F) {
	old, identity, next := keyOf(f, suite.P256), keyOf(f, suite.P256), keyOf(f, suite.MLDSA44)
	envelope, err := SignNewAttestKey(NewAttestKey{Device: someDevice, Origin: "soft", Bundle: 2}, old, identity, next)
	if err != nil {
		f.Fatal(err)
	}
	payload, _, err := ThresholdPayload(TypeAttestKey, envelope)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Add(envelope)
	was, _ := SPKIOf(old.Public())
	f.Fuzz(func(t *testing.T, data []byte) {
		if n, err := DecodeNewAttestKey(data); err == nil {
			if again, err := EncodeNewAttestKey(n); err != nil || !bytes.Equal(again, data) {
				t.Errorf("%x is written as %x (%v)", data, again, err)
			}
		}
		if n, err := OpenNewAttestKey(data, was); err == nil && n.Device != someDevice {
			t.Errorf("a change that nobody signed: %+v", n)
		}
	})
}
