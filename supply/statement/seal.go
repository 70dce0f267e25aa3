package statement

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
)

// Envelope is a DSSE envelope as it is written.
type Envelope struct {
	Payload     []byte      `json:"payload"`
	PayloadType string      `json:"payloadType"`
	Signatures  []Signature `json:"signatures" nullable:"false"`
}

// Signature is one of an envelope's. The key's ID is a hint, and nothing that is signed. It is left empty: programs have ways of their own to make one, and pass over a signature with another.
type Signature struct {
	KeyID string `json:"keyid" doc:"empty"`
	Sig   []byte `json:"sig"`
}

// Seal signs a payload of a media type. Keys are those that ReadSigned takes.
func Seal(k crypto.Signer, kind string, payload []byte) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	m := messageOf(kind, payload)
	signed, opts := m.sum256[:], crypto.SHA256
	switch pub := k.Public().(type) {
	case ed25519.PublicKey:
		signed, opts = m.data, crypto.Hash(0)
	case *ecdsa.PublicKey:
		if pub.Curve == elliptic.P384() {
			signed, opts = m.sum384[:], crypto.SHA384
		}
	}
	sig, err := k.Sign(rand.Reader, signed, opts)
	if err != nil {
		return nil, err
	}
	if !m.verify(spki, sig) { // also a key of another kind, which nobody could check it with
		return nil, errors.New("the signature does not hold: want a key of ECDSA over P-256 or P-384, or of Ed25519")
	}
	return json.Marshal(Envelope{Payload: payload, PayloadType: kind, Signatures: []Signature{{Sig: sig}}})
}
