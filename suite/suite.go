// Package suite names the versioned sets of cryptographic algorithms that everything signed or sealed refers to.
//
// Under all stages. A suite fixes signature, hash, authenticated encryption and key encapsulation together, so that a product
// allows suites and never single algorithms, and so that changing one is a campaign and not a rewrite. A suite never changes
// its meaning: what has to change gets a new name. The package trusts nobody and does no I/O; an unknown name is an error.
package suite

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"crypto/hpke"
	"fmt"
)

// ID names a suite. It is what goes on the wire.
type ID string

// The suites. P256 is the default: its signatures are what every secure element and boot loader can make and check, and its key
// encapsulation is a hybrid, because sealed data can be stored today and opened by a quantum computer later.
const (
	P256 ID = "HM-P256-1"
	P384 ID = "HM-P384-1"
)

// Suite is one set.
type Suite struct {
	ID      ID
	COSEAlg int64          // COSE algorithm of signatures (IANA): -7 is ES256, -35 ES384
	Hash    crypto.Hash    // of signatures and digests that the suite chooses
	Curve   elliptic.Curve // of signing keys
	COSEEnc int64          // COSE algorithm of content encryption: 3 is A256GCM
	KEM     uint16         // HPKE KEM (IANA): 0x0050 MLKEM768-P256, 0x0011 DHKEM(P-384, HKDF-SHA384)
	KDF     uint16         // HPKE KDF (IANA)
	AEAD    uint16         // HPKE AEAD (IANA): 0x0002 AES-256-GCM
	Note    string         // what of it can be FIPS 140-3 validated, in words for an auditor
}

// IDs lists every suite, the default first.
func IDs() []ID { return []ID{P256, P384} }

// Get gives the suite called id.
func Get(id ID) (Suite, error) {
	switch id {
	case P256:
		return Suite{
			ID: P256, COSEAlg: -7, Hash: crypto.SHA256, Curve: elliptic.P256(), COSEEnc: 3,
			KEM: hpke.MLKEM768P256().ID(), KDF: hpke.HKDFSHA256().ID(), AEAD: hpke.AES256GCM().ID(),
			Note: "ECDSA P-256, SHA-256, AES-256-GCM, HKDF-SHA256, ML-KEM-768 and ECDH P-256 are algorithms of the Go Cryptographic " +
				"Module; the hybrid combiner of HPKE is built from them and is not validated as such",
		}, nil
	case P384:
		return Suite{
			ID: P384, COSEAlg: -35, Hash: crypto.SHA384, Curve: elliptic.P384(), COSEEnc: 3,
			KEM: 0x0011, KDF: hpke.HKDFSHA384().ID(), AEAD: hpke.AES256GCM().ID(),
			Note: "ECDSA P-384, SHA-384, AES-256-GCM, HKDF-SHA384 and ECDH P-384 are algorithms of the Go Cryptographic Module; " +
				"HPKE is built from them and is not validated as such",
		}, nil
	}
	return Suite{}, fmt.Errorf("suite %q is not known; this build knows %v", id, IDs())
}

// Of gives the suite that a public key belongs to: each has its own curve.
func Of(pub crypto.PublicKey) (Suite, error) {
	k, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return Suite{}, fmt.Errorf("key type %T is in no suite, want ECDSA", pub)
	}
	switch k.Curve {
	case elliptic.P256():
		return Get(P256)
	case elliptic.P384():
		return Get(P384)
	}
	return Suite{}, fmt.Errorf("curve %s is in no suite", k.Curve.Params().Name)
}

// Validated says whether the algorithms of s run inside a FIPS 140-3 module in this process, and the sentence an auditor reads.
// It is true only when the process runs in FIPS mode: a module that is there but not in use validates nothing.
func (s Suite) Validated() (bool, string) {
	if !fips140.Enabled() {
		return false, fmt.Sprintf("%s: this process does not run in FIPS 140-3 mode (start with GODEBUG=fips140=on)", s.ID)
	}
	return true, fmt.Sprintf("%s: Go Cryptographic Module %s; %s", s.ID, fips140.Version(), s.Note)
}
