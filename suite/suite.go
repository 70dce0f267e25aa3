// Package suite names the versioned sets of cryptographic algorithms that everything signed or sealed refers to.
//
// Under all stages. A suite fixes signature, hash, authenticated encryption and key encapsulation together, so that a product
// allows suites and never single algorithms, and so that changing one is a campaign and not a rewrite. A suite never changes
// its meaning: what has to change gets a new name. The package trusts nobody and does no I/O; an unknown name is an error.
package suite

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/hpke"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"filippo.io/mldsa"
	"filippo.io/mldsa/x509"
)

// ID names a suite. It is what goes on the wire.
type ID string

// The suites. P256 is the default: its signatures are what every secure element and boot loader can make and check, and its key
// encapsulation is a hybrid, because sealed data can be stored today and opened by a quantum computer later. MLDSA44 is the one whose
// signatures a quantum computer does not forge: its keys are 1,312 bytes and its signatures 2,420, the smallest parameter set, because a
// signed thing and its signatures share the 60 kB of a ledger entry. X.509 and TLS know no such keys yet, so that its certificates stay
// ECDSA; when they do, that will be another suite.
const (
	P256    ID = "HM-P256-1"
	P384    ID = "HM-P384-1"
	MLDSA44 ID = "HM-MLDSA44-1"
)

// Suite is one set.
type Suite struct {
	ID      ID
	COSEAlg int64          // COSE algorithm of signatures (IANA): -7 is ES256, -35 ES384, -48 ML-DSA-44 (RFC 9964)
	Hash    crypto.Hash    // of digests that the suite chooses, and of its ECDSA signatures
	Curve   elliptic.Curve // of the keys in X.509 certificates and TLS, which are ECDSA in every suite
	SPKI    int            // bytes of a signing key's SubjectPublicKeyInfo: each suite has its own
	Quantum bool           // signatures by COSEAlg withstand a quantum computer; those of certificates do in no suite
	COSEEnc int64          // COSE algorithm of content encryption: 3 is A256GCM
	KEM     uint16         // HPKE KEM (IANA): 0x0050 MLKEM768-P256, 0x0011 DHKEM(P-384, HKDF-SHA384)
	KDF     uint16         // HPKE KDF (IANA)
	AEAD    uint16         // HPKE AEAD (IANA): 0x0002 AES-256-GCM
	Note    string         // what of it can be FIPS 140-3 validated, and withstands a quantum computer, in words for an auditor
}

// IDs lists every suite, the default first.
func IDs() []ID { return []ID{P256, P384, MLDSA44} }

// Get gives the suite called id.
func Get(id ID) (Suite, error) {
	switch id {
	case P256:
		return Suite{
			ID: P256, SPKI: 91, COSEAlg: -7, Hash: crypto.SHA256, Curve: elliptic.P256(), COSEEnc: 3,
			KEM: hpke.MLKEM768P256().ID(), KDF: hpke.HKDFSHA256().ID(), AEAD: hpke.AES256GCM().ID(),
			Note: "ECDSA P-256, SHA-256, AES-256-GCM, HKDF-SHA256, ML-KEM-768 and ECDH P-256 are algorithms of the Go Cryptographic " +
				"Module; the hybrid combiner of HPKE is built from them and is not validated as such. A quantum computer forges its " +
				"signatures, and does not open what is sealed",
		}, nil
	case P384:
		return Suite{
			ID: P384, SPKI: 120, COSEAlg: -35, Hash: crypto.SHA384, Curve: elliptic.P384(), COSEEnc: 3,
			KEM: 0x0011, KDF: hpke.HKDFSHA384().ID(), AEAD: hpke.AES256GCM().ID(),
			Note: "ECDSA P-384, SHA-384, AES-256-GCM, HKDF-SHA384 and ECDH P-384 are algorithms of the Go Cryptographic Module; " +
				"HPKE is built from them and is not validated as such. A quantum computer forges its signatures, and opens what is sealed",
		}, nil
	case MLDSA44:
		return Suite{
			ID: MLDSA44, SPKI: 1334, COSEAlg: -48, Hash: crypto.SHA256, Curve: elliptic.P256(), COSEEnc: 3, Quantum: true,
			KEM: hpke.MLKEM768P256().ID(), KDF: hpke.HKDFSHA256().ID(), AEAD: hpke.AES256GCM().ID(),
			Note: "ML-DSA-44 (FIPS 204), SHA-256, AES-256-GCM, HKDF-SHA256, ML-KEM-768 and ECDH P-256; this build's ML-DSA is not in a " +
				"validated module, nor is the hybrid combiner of HPKE. A quantum computer neither forges its signatures nor opens what is " +
				"sealed; X.509 certificates and the signatures of TLS handshakes are ECDSA P-256 and do not withstand it",
		}, nil
	}
	return Suite{}, fmt.Errorf("suite %q is not known; this build knows %v", id, IDs())
}

// Of gives the suite that a public signing key belongs to: each has its own kind of key.
func Of(pub crypto.PublicKey) (Suite, error) {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return Get(P256)
		case elliptic.P384():
			return Get(P384)
		}
		return Suite{}, fmt.Errorf("curve %s is in no suite", k.Curve.Params().Name)
	case *mldsa.PublicKey:
		if k.Parameters() == mldsa.MLDSA44() {
			return Get(MLDSA44)
		}
		return Suite{}, fmt.Errorf("%s is in no suite", k.Parameters())
	}
	return Suite{}, fmt.Errorf("key type %T is in no suite, want ECDSA or ML-DSA", pub)
}

// Generate makes a signing key of the suite in memory.
func (s Suite) Generate() (crypto.Signer, error) {
	if s.ID == MLDSA44 {
		return mldsa.GenerateKey(mldsa.MLDSA44())
	}
	return s.GenerateX509()
}

// Certified is the suite of the keys that s has in certificates: its own, or that of the same curve when X.509 has no keys of s.
func (s Suite) Certified() ID {
	if s.Quantum {
		return P256
	}
	return s.ID
}

// GenerateX509 makes a key of the suite for a certificate.
func (s Suite) GenerateX509() (*ecdsa.PrivateKey, error) {
	if s.Curve == nil {
		return nil, errors.New("no suite makes keys without a curve")
	}
	return ecdsa.GenerateKey(s.Curve, rand.Reader)
}

// Certifies says whether a key is what the suite has in X.509 certificates.
func (s Suite) Certifies(pub crypto.PublicKey) bool {
	k, ok := pub.(*ecdsa.PublicKey)
	return ok && s.Curve != nil && k.Curve == s.Curve
}

// Newest gives the last of a list of suites that this build knows: a trust bundle lists the one that it wants last.
func Newest(ids []string) (Suite, bool) {
	for _, id := range slices.Backward(ids) {
		if s, err := Get(ID(id)); err == nil {
			return s, true
		}
	}
	return Suite{}, false
}

// ParsePublic reads a SubjectPublicKeyInfo (RFC 5280; RFC 9881 for ML-DSA) of a key that a suite has. There is one encoding of each key.
func ParsePublic(der []byte) (crypto.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, err
	}
	if _, err := Of(k); err != nil {
		return nil, err
	}
	again, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(der, again) {
		return nil, errors.New("the key is not in its one encoding")
	}
	return k, nil
}

// MarshalPublic writes a public key as SubjectPublicKeyInfo. Keys of no suite, as a log's, have one, too.
func MarshalPublic(pub crypto.PublicKey) ([]byte, error) { return x509.MarshalPKIXPublicKey(pub) }

// ParsePrivate reads a private key in PKCS #8; one of ML-DSA is its seed (RFC 9881).
func ParsePrivate(der []byte) (crypto.Signer, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T does not sign", k)
	}
	return s, nil
}

// MarshalPrivate writes a private key in PKCS #8.
func MarshalPrivate(key crypto.Signer) ([]byte, error) { return x509.MarshalPKCS8PrivateKey(key) }

// Validated says whether the algorithms of s run inside a FIPS 140-3 module in this process, and the sentence an auditor reads.
// It is true only when the process runs in FIPS mode: a module that is there but not in use validates nothing. It is never true of a suite
// with ML-DSA, which this build has from outside the module.
func (s Suite) Validated() (bool, string) {
	if !fips140.Enabled() {
		return false, fmt.Sprintf("%s: this process does not run in FIPS 140-3 mode (start with GODEBUG=fips140=on)", s.ID)
	}
	if s.Quantum {
		return false, fmt.Sprintf("%s: %s", s.ID, s.Note)
	}
	return true, fmt.Sprintf("%s: Go Cryptographic Module %s; %s", s.ID, fips140.Version(), s.Note)
}
