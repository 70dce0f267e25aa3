package wire

import (
	"bytes"
	"crypto"
	"errors"
	"io"
	"testing"

	"filippo.io/mldsa"
	"github.com/veraison/go-cose"

	"github.com/hallmark-iot/hallmark/suite"
)

func keyOf(t testing.TB, id suite.ID) crypto.Signer {
	t.Helper()
	s, err := suite.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	k, err := s.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestEverySuiteSigns(t *testing.T) {
	for _, id := range suite.IDs() {
		key, other := keyOf(t, id), keyOf(t, id)
		envelope, err := Sign1(TypeEvidence, []byte("it is well"), key)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		if len(envelope) > len("it is well")+MaxSign1 {
			t.Errorf("%s: an envelope of %d bytes, MaxSign1 is %d", id, len(envelope), MaxSign1)
		}
		if der, err := SPKIOf(key.Public()); err != nil || len(der) > maxSPKI {
			t.Errorf("%s: a key of %d bytes (%v), maxSPKI is %d", id, len(der), err, maxSPKI)
		}
		if got, err := Verify1(TypeEvidence, envelope, key.Public()); err != nil || string(got) != "it is well" {
			t.Errorf("%s: %q, %v", id, got, err)
		}
		if _, err := Verify1(TypeReceipt, envelope, key.Public()); err == nil {
			t.Errorf("%s: a signature of one type passed for another", id)
		}
		if _, err := Verify1(TypeEvidence, envelope, other.Public()); err == nil {
			t.Errorf("%s: another key's signature was taken", id)
		}
		for i := range envelope {
			bad := bytes.Clone(envelope)
			bad[i] ^= 1
			if got, err := Verify1(TypeEvidence, bad, key.Public()); err == nil {
				t.Fatalf("%s: with a bit of byte %d of %d flipped it still says %q", id, i, len(envelope), got)
			}
		}
	}
}

// What says one suite, and is of another, is refused whichever part of it lies.
func TestSuitesAreNotMixed(t *testing.T) {
	ec, pqKey := keyOf(t, suite.P256), keyOf(t, suite.MLDSA44)
	forge := func(key crypto.Signer, alg cose.Algorithm, named string, sign func(tbs []byte) []byte) []byte {
		t.Helper()
		kid, err := KeyIDOf(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		msg := cose.NewSign1Message()
		msg.Headers.Protected = cose.ProtectedHeader{
			cose.HeaderLabelAlgorithm: alg, cose.HeaderLabelKeyID: kid[:], labelTyp: string(TypeEvidence), labelSuite: named,
		}
		msg.Payload = []byte("x")
		if err := msg.Sign(nil, nil, forger{alg, sign}); err != nil {
			t.Fatal(err)
		}
		out, err := msg.MarshalCBOR()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	with := func(k crypto.Signer, o crypto.SignerOpts) func([]byte) []byte {
		return func(tbs []byte) []byte {
			sig, err := k.Sign(nil, tbs, o)
			if err != nil {
				t.Fatal(err)
			}
			return sig
		}
	}
	es256 := func(tbs []byte) []byte {
		s, err := cose.NewSigner(cose.AlgorithmES256, ec)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := s.Sign(zeroes{}, tbs)
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	plain := with(pqKey, &mldsa.Options{})
	if _, err := Verify1(TypeEvidence, forge(pqKey, -48, "HM-MLDSA44-1", plain), pqKey.Public()); err != nil {
		t.Fatalf("the honest one: %v", err)
	}
	if _, err := Verify1(TypeEvidence, forge(ec, cose.AlgorithmES256, "HM-P256-1", es256), ec.Public()); err != nil {
		t.Fatalf("the honest one of P-256: %v", err)
	}
	for name, c := range map[string]struct {
		envelope []byte
		pub      crypto.PublicKey
	}{
		"ES256 signature in the name of an ML-DSA key":  {forge(pqKey, cose.AlgorithmES256, "HM-P256-1", es256), pqKey.Public()},
		"ML-DSA signature in the name of a P-256 key":   {forge(ec, -48, "HM-MLDSA44-1", plain), ec.Public()},
		"the algorithm of another suite":                {forge(pqKey, cose.AlgorithmES256, "HM-MLDSA44-1", plain), pqKey.Public()},
		"ML-DSA-65's number":                            {forge(pqKey, -49, "HM-MLDSA44-1", plain), pqKey.Public()},
		"the name of another suite":                     {forge(pqKey, -48, "HM-P256-1", plain), pqKey.Public()},
		"no suite":                                      {forge(pqKey, -48, "", plain), pqKey.Public()},
		"a signature with a context":                    {forge(pqKey, -48, "HM-MLDSA44-1", with(pqKey, &mldsa.Options{Context: "hallmark"})), pqKey.Public()},
		"a signature that is cut":                       {forge(pqKey, -48, "HM-MLDSA44-1", func(b []byte) []byte { return plain(b)[:2419] }), pqKey.Public()},
		"a signature that is longer":                    {forge(pqKey, -48, "HM-MLDSA44-1", func(b []byte) []byte { return append(plain(b), 0) }), pqKey.Public()},
		"P-256's suite name over a P-256 key's as P384": {forge(ec, cose.AlgorithmES256, "HM-P384-1", es256), ec.Public()},
	} {
		if got, err := Verify1(TypeEvidence, c.envelope, c.pub); err == nil {
			t.Errorf("%s: taken, it says %q", name, got)
		}
	}
}

// forger signs as it is told, and says what it is told.
type forger struct {
	alg  cose.Algorithm
	sign func(tbs []byte) []byte
}

func (f forger) Algorithm() cose.Algorithm { return f.alg }

func (f forger) Sign(_ io.Reader, tbs []byte) ([]byte, error) {
	return f.sign(tbs), nil
}

// zeroes is no randomness: the signature is thrown away after the test.
type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { return len(p), nil }

// A role may hold keys of two suites while a fleet moves; each counts once, by its own signature.
func TestARoleOfTwoSuites(t *testing.T) {
	ec, pqKey := keyOf(t, suite.P256), keyOf(t, suite.MLDSA44)
	role := KeySet{Threshold: 2}
	for _, k := range []crypto.Signer{ec, pqKey} {
		der, err := SPKIOf(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		role.Keys = append(role.Keys, der)
	}
	envelope, err := NewThreshold(TypeRelease, []byte("r"), ec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyThreshold(TypeRelease, envelope, role); !errors.Is(err, ErrThreshold) {
		t.Errorf("with one of two signatures: %v", err)
	}
	if envelope, err = AddSignature(TypeRelease, envelope, pqKey); err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyThreshold(TypeRelease, envelope, role); err != nil {
		t.Errorf("with both: %v", err)
	}
	only := KeySet{Keys: role.Keys[:1], Threshold: 1}
	if _, err := VerifyThreshold(TypeRelease, envelope, only); err != nil {
		t.Errorf("a device that knows the old key alone: %v", err)
	}
}

// What does not fit into a ledger entry is refused when it is signed, and not when it is to be published.
func TestSignaturesHaveToFit(t *testing.T) {
	payload := make([]byte, 40<<10)
	envelope, err := NewThreshold(TypeBundle, payload, keyOf(t, suite.MLDSA44))
	n := 1
	for ; err == nil && n < maxSignatures; n++ {
		envelope, err = AddSignature(TypeBundle, envelope, keyOf(t, suite.MLDSA44))
	}
	if !errors.Is(err, ErrTooLarge) || n < 6 {
		t.Errorf("signature %d over 40 kB: %v", n, err)
	}
}

// FuzzOpenSuites: whatever comes, it is refused or it is what the key's holder signed.
func FuzzOpenSuites(f *testing.F) {
	keys := map[suite.ID]crypto.Signer{}
	for i, id := range suite.IDs() {
		keys[id] = keyOf(f, id)
		envelope, err := Sign1(TypeEvidence, []byte("said"), keys[id])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), envelope)
	}
	f.Fuzz(func(t *testing.T, which uint8, envelope []byte) {
		if k, err := ParseKey(envelope); err == nil {
			if der, err := SPKIOf(k); err != nil || !bytes.Equal(der, envelope) {
				t.Errorf("a key has two encodings: %x and %x", envelope, der)
			}
		}
		id := suite.IDs()[int(which)%len(suite.IDs())]
		if got, err := Verify1(TypeEvidence, envelope, keys[id].Public()); err == nil && string(got) != "said" {
			t.Errorf("%s: %q was never signed", id, got)
		}
	})
}
