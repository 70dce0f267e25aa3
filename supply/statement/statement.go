// Package statement reads what is said under a signature about software: DSSE envelopes (github.com/secure-systems-lab/dsse, protocol 1.0), and in them in-toto statements (0.1 and 1)
// with SLSA provenance (0.2 and 1). It writes one kind of them, SLSA's summary of a verification (1).
//
// Stage 0, before build. What it guarantees: nothing of an envelope is given back before as many distinct keys as are asked for have signed it, its type among it; what is read is
// bounded, and a statement that lacks its builder, its source or the SHA-256 of a subject is an error. It trusts the keys that it is given, and nothing that an envelope says
// about its keys. The primitives are the standard library's.
package statement

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Bounds of an envelope.
const (
	MaxSize       = 8 << 20 // bytes
	maxSignatures = 16
	maxSubjects   = 1024
	maxText       = 2048 // bytes of a name or URI
)

// ErrFormat is what cannot be read; ErrSignature is what too few of the keys have signed.
var (
	ErrFormat    = errors.New("no signed statement that can be read")
	ErrSignature = errors.New("not signed by those who have to")
)

// Signed is what was signed.
type Signed struct {
	Type    string // the payload's media type
	Payload []byte
	By      [][]byte // keys that have signed it, of those that were given
}

// ReadSigned reads an envelope and gives what threshold of keys (SubjectPublicKeyInfo, DER) have signed. Keys are ECDSA over P-256 or P-384 with the hash of that size, or Ed25519.
func ReadSigned(envelope []byte, keys [][]byte, threshold int) (Signed, error) {
	if len(envelope) > MaxSize {
		return Signed{}, fmt.Errorf("%w: %d bytes, at most %d are read", ErrFormat, len(envelope), MaxSize)
	}
	var e struct {
		Payload    string `json:"payload"`
		Type       string `json:"payloadType"`
		Signatures []struct {
			Sig string `json:"sig"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(envelope, &e); err != nil {
		return Signed{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	payload, err := decode64(e.Payload)
	if err != nil || len(payload) == 0 || e.Type == "" || len(e.Type) > maxText || len(e.Signatures) > maxSignatures {
		return Signed{}, fmt.Errorf("%w: no DSSE envelope", ErrFormat)
	}
	if threshold < 1 {
		return Signed{}, fmt.Errorf("%w: nobody was asked for", ErrSignature)
	}
	m := messageOf(e.Type, payload)
	out := Signed{Type: e.Type, Payload: payload}
	has := func(k []byte) bool {
		return slices.ContainsFunc(out.By, func(b []byte) bool { return bytes.Equal(b, k) })
	}
	for _, s := range e.Signatures {
		sig, err := decode64(s.Sig)
		if err != nil {
			return Signed{}, fmt.Errorf("%w: a signature that is no base64", ErrFormat)
		}
		for _, k := range keys {
			if !has(k) && m.verify(k, sig) {
				out.By = append(out.By, k)
			}
		}
	}
	if len(out.By) < threshold {
		return Signed{}, fmt.Errorf("%w: %d of the %d keys that are known have signed it, %d have to", ErrSignature, len(out.By), len(keys), threshold)
	}
	return out, nil
}

// message is what is signed (DSSE 1.0, "PAE"), hashed once for all keys that it is held to.
type message struct {
	data   []byte
	sum256 [32]byte
	sum384 [48]byte
}

func messageOf(kind string, payload []byte) message {
	data := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(payload), payload)
	return message{data, sha256.Sum256(data), sha512.Sum384(data)}
}

// decode64 takes both alphabets, as DSSE asks.
func decode64(s string) ([]byte, error) {
	s = strings.TrimRight(s, "=")
	if out, err := base64.RawStdEncoding.DecodeString(s); err == nil {
		return out, nil
	}
	return base64.RawURLEncoding.DecodeString(s)
}

func (m message) verify(key, sig []byte) bool {
	pub, err := ParseKey(key)
	if err != nil {
		return false
	}
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(k, m.data, sig)
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P384() {
			return ecdsa.VerifyASN1(k, m.sum384[:], sig)
		}
		return ecdsa.VerifyASN1(k, m.sum256[:], sig)
	}
	return false
}

// ParseKey reads a public key that statements may be signed with.
func ParseKey(spki []byte) (crypto.PublicKey, error) {
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return k, nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return k, nil
		}
	}
	return nil, errors.New("public key: want ECDSA over P-256 or P-384, or Ed25519")
}
