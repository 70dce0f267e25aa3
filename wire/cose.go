package wire

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"filippo.io/mldsa"
	"github.com/veraison/go-cose"

	"github.com/hallmark-iot/hallmark/suite"
)

// Header labels beyond go-cose's: typ is RFC 9596; the suite is ours, from the private range.
const (
	labelTyp   int64 = 16
	labelSuite int64 = -70001
)

// Type is the `typ` of a signed message. It separates domains: a signature over one type never verifies as another.
type Type string

// The signed messages.
const (
	TypeBundle    Type = "application/hallmark-bundle+cose"
	TypeRelease   Type = "application/hallmark-release+cose"
	TypeCommand   Type = "application/hallmark-command+cose"
	TypeWarrant   Type = "application/hallmark-warrant+cose"
	TypeDirective Type = "application/hallmark-directive+cose"
	TypeOffline   Type = "application/hallmark-offline-directive+cose"
	TypeEvidence  Type = "application/eat+cose"
	TypeVerdict   Type = "application/hallmark-verdict+cose"
	TypeDeviceLog Type = "application/hallmark-device-log+cose"
	TypeReceipt   Type = "application/hallmark-wipe-receipt+cose"
	TypeOrder     Type = "application/hallmark-order+cose"
	TypeRecord    Type = "application/hallmark-production-record+cose"
	TypeJobEnd    Type = "application/hallmark-job-end+cose"
	TypeEpoch     Type = "application/hallmark-telemetry-epoch+cose"
	TypeSeries    Type = "application/hallmark-telemetry-series+cose"
	TypeSelfTest  Type = "application/hallmark-self-test+cose" // says nothing: what a device signs to see that it can
)

// MaxEnvelope bounds any signed message: what a ledger entry holds, less its own frame.
const MaxEnvelope = 60 << 10

// MaxSign1 is what one signature adds to what it signs, headers included: 2,420 bytes of ML-DSA-44 are the largest.
const MaxSign1 = 3 << 10

// maxSPKI bounds a public key: 1,334 bytes of ML-DSA-44 are the largest.
const maxSPKI = 1536

// maxSignatures bounds the work a stranger's envelope can ask for.
const maxSignatures = 16

// KeyID is the name of a public key: the first 16 bytes of SHA-256 over its SubjectPublicKeyInfo.
type KeyID [16]byte

// KeyIDOf names pub.
func KeyIDOf(pub crypto.PublicKey) (KeyID, error) {
	der, err := suite.MarshalPublic(pub)
	if err != nil {
		return KeyID{}, fmt.Errorf("key id: %w", err)
	}
	return KeyIDOfSPKI(der), nil
}

// identified is a key that knows its ID.
type identified struct {
	crypto.Signer
	id KeyID
}

// Identified is the same key for whoever signs very often: to make its ID each time takes a tenth as long as to sign.
func Identified(key crypto.Signer) (crypto.Signer, error) {
	id, err := KeyIDOf(key.Public())
	return identified{key, id}, err
}

// IDOf names a key that signs.
func IDOf(key crypto.Signer) (KeyID, error) {
	if k, ok := key.(identified); ok {
		return k.id, nil
	}
	return KeyIDOf(key.Public())
}

// KeyIDOfSPKI names the key that der is the SubjectPublicKeyInfo of.
func KeyIDOfSPKI(der []byte) KeyID {
	sum := sha256.Sum256(der)
	return KeyID(sum[:16])
}

// KeySet is a role: who may sign, and how many of them must. Keys are SubjectPublicKeyInfo (DER).
type KeySet struct {
	Keys      [][]byte `cbor:"1,keyasint" json:"keys"`
	Threshold uint     `cbor:"2,keyasint" json:"threshold"`
}

// Check refuses a role nobody, or anybody, could fill.
func (s KeySet) Check() error {
	if s.Threshold == 0 || s.Threshold > uint(len(s.Keys)) {
		return fmt.Errorf("threshold %d of %d keys", s.Threshold, len(s.Keys))
	}
	if len(s.Keys) > maxSignatures {
		return fmt.Errorf("%d keys, at most %d", len(s.Keys), maxSignatures)
	}
	seen := map[KeyID]bool{}
	for i, der := range s.Keys {
		if _, err := ParseKey(der); err != nil {
			return fmt.Errorf("key %d: %w", i, err)
		}
		if id := KeyIDOfSPKI(der); seen[id] {
			return fmt.Errorf("key %x twice", id)
		} else {
			seen[id] = true
		}
	}
	return nil
}

// ParseKey reads a SubjectPublicKeyInfo of a key that a suite has.
func ParseKey(der []byte) (crypto.PublicKey, error) { return suite.ParsePublic(der) }

// parseECDSA is ParseKey where a certificate, or what a factory's tools sign, holds the key.
func parseECDSA(der []byte) (*ecdsa.PublicKey, error) {
	k, err := ParseKey(der)
	if err != nil {
		return nil, err
	}
	pub, ok := k.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("key type %T, want ECDSA", k)
	}
	return pub, nil
}

// algOf gives the algorithm and suite of a key; the suite decides the algorithm, and each suite has one kind of key.
func algOf(pub crypto.PublicKey) (cose.Algorithm, string, error) {
	s, err := suite.Of(pub)
	return cose.Algorithm(s.COSEAlg), string(s.ID), err
}

// pq signs and verifies with ML-DSA as RFC 9964 has it: over the whole Sig_structure, with an empty context. What separates domains is in the
// structure: typ, suite and key are protected headers.
type pq struct {
	alg cose.Algorithm
	key crypto.Signer // nil in a verifier
	pub *mldsa.PublicKey
}

// Algorithm implements cose.Signer and cose.Verifier.
func (k pq) Algorithm() cose.Algorithm { return k.alg }

// Sign implements cose.Signer.
func (k pq) Sign(rand io.Reader, content []byte) ([]byte, error) {
	return k.key.Sign(rand, content, &mldsa.Options{})
}

// Verify implements cose.Verifier.
func (k pq) Verify(content, signature []byte) error {
	if mldsa.Verify(k.pub, content, signature, nil) != nil {
		return cose.ErrVerification
	}
	return nil
}

func signerFor(key crypto.Signer) (cose.Signer, string, error) {
	alg, id, err := algOf(key.Public())
	if err != nil {
		return nil, "", err
	}
	if pub, ok := key.Public().(*mldsa.PublicKey); ok {
		return pq{alg, key, pub}, id, nil
	}
	s, err := cose.NewSigner(alg, key)
	return s, id, err
}

func verifierFor(pub crypto.PublicKey) (cose.Verifier, error) {
	alg, _, err := algOf(pub)
	if err != nil {
		return nil, err
	}
	if k, ok := pub.(*mldsa.PublicKey); ok {
		return pq{alg, nil, k}, nil
	}
	return cose.NewVerifier(alg, pub)
}

// Sign1 signs payload as one signer (COSE_Sign1, RFC 9052 §4.2).
func Sign1(typ Type, payload []byte, key crypto.Signer) ([]byte, error) {
	kid, err := IDOf(key)
	if err != nil {
		return nil, err
	}
	if k, ok := key.(identified); ok {
		key = k.Signer
	}
	signer, name, err := signerFor(key)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", typ, err)
	}
	msg := cose.NewSign1Message()
	msg.Headers.Protected = cose.ProtectedHeader{
		cose.HeaderLabelAlgorithm: signer.Algorithm(),
		cose.HeaderLabelKeyID:     kid[:],
		labelTyp:                  string(typ),
		labelSuite:                name,
	}
	msg.Payload = payload
	if err := msg.Sign(rand.Reader, nil, signer); err != nil {
		return nil, fmt.Errorf("sign %s: %w", typ, err)
	}
	return msg.MarshalCBOR()
}

// Open1 is a COSE_Sign1 that has been parsed but not yet verified: who claims to have signed what.
type Open1 struct {
	Type    Type
	KeyID   KeyID
	Payload []byte
	msg     *cose.Sign1Message
}

// Parse1 reads a COSE_Sign1 of type typ. The result must be given to Verify before its payload is believed.
func Parse1(typ Type, envelope []byte) (*Open1, error) {
	if len(envelope) > MaxEnvelope {
		return nil, fmt.Errorf("%s: %w: %d bytes", typ, ErrTooLarge, len(envelope))
	}
	var msg cose.Sign1Message
	if err := msg.UnmarshalCBOR(envelope); err != nil {
		return nil, fmt.Errorf("%s: %w", typ, err)
	}
	kid, err := checkHeader(typ, msg.Headers)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", typ, err)
	}
	return &Open1{Type: typ, KeyID: kid, Payload: msg.Payload, msg: &msg}, nil
}

// Verify checks the signature by pub, and that the envelope names that key.
func (o *Open1) Verify(pub crypto.PublicKey) error {
	kid, err := KeyIDOf(pub)
	if err != nil {
		return err
	}
	if kid != o.KeyID {
		return fmt.Errorf("%s: signed by key %x, want %x", o.Type, o.KeyID, kid)
	}
	v, err := verifierFor(pub)
	if err == nil {
		err = checkSuite(o.msg.Headers.Protected, pub)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", o.Type, err)
	}
	if err := o.msg.Verify(nil, v); err != nil {
		return fmt.Errorf("%s: signature of key %x: %w", o.Type, kid, err)
	}
	return nil
}

// Verify1 parses and verifies in one step, and returns the payload.
func Verify1(typ Type, envelope []byte, pub crypto.PublicKey) ([]byte, error) {
	o, err := Parse1(typ, envelope)
	if err != nil {
		return nil, err
	}
	if err := o.Verify(pub); err != nil {
		return nil, err
	}
	return o.Payload, nil
}

// checkSuite holds the suite that a signature names against its key's: each suite has one kind of key.
func checkSuite(p cose.ProtectedHeader, pub crypto.PublicKey) error {
	_, want, err := algOf(pub)
	if err != nil {
		return err
	}
	if got, _ := p[labelSuite].(string); got != want {
		return fmt.Errorf("%w: it names suite %q, its key is of %s", ErrSuite, got, want)
	}
	return nil
}

func checkHeader(typ Type, h cose.Headers) (KeyID, error) {
	if err := checkTyp(typ, h.Protected); err != nil {
		return KeyID{}, err
	}
	return checkKeyID(h)
}

func checkTyp(typ Type, p cose.ProtectedHeader) error {
	if got, _ := p[labelTyp].(string); got != string(typ) {
		return fmt.Errorf("typ %q", got)
	}
	return nil
}

func checkKeyID(h cose.Headers) (KeyID, error) {
	if len(h.Unprotected) != 0 {
		return KeyID{}, errors.New("unprotected headers")
	}
	kid, ok := h.Protected[cose.HeaderLabelKeyID].([]byte)
	if !ok || len(kid) != len(KeyID{}) {
		return KeyID{}, errors.New("no 16-byte kid in the protected header")
	}
	return KeyID(kid), nil
}

// NewThreshold begins a message that several people sign one after another (COSE_Sign, RFC 9052 §4.1), without a signature.
// It is not valid COSE until the first AddSignature.
func NewThreshold(typ Type, payload []byte, key crypto.Signer) ([]byte, error) {
	msg := cose.NewSignMessage()
	msg.Headers.Protected = cose.ProtectedHeader{labelTyp: string(typ)}
	msg.Payload = payload
	return addSignature(typ, msg, key)
}

// AddSignature adds key's signature to a threshold message. Signing twice with one key is an error: it would add nothing.
func AddSignature(typ Type, envelope []byte, key crypto.Signer) ([]byte, error) {
	msg, err := parseThreshold(typ, envelope)
	if err != nil {
		return nil, err
	}
	kid, err := KeyIDOf(key.Public())
	if err != nil {
		return nil, err
	}
	for _, s := range msg.Signatures {
		if have, err := checkKeyID(s.Headers); err == nil && have == kid {
			return nil, fmt.Errorf("%s: key %x has signed already", typ, kid)
		}
	}
	return addSignature(typ, msg, key)
}

func addSignature(typ Type, msg *cose.SignMessage, key crypto.Signer) ([]byte, error) {
	signer, name, err := signerFor(key)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", typ, err)
	}
	kid, err := KeyIDOf(key.Public())
	if err != nil {
		return nil, err
	}
	sig := cose.NewSignature()
	sig.Headers.Protected = cose.ProtectedHeader{
		cose.HeaderLabelAlgorithm: signer.Algorithm(),
		cose.HeaderLabelKeyID:     kid[:],
		labelSuite:                name,
	}
	body, err := msg.Headers.MarshalProtected()
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", typ, err)
	}
	if err := sig.Sign(rand.Reader, signer, body, msg.Payload, nil); err != nil {
		return nil, fmt.Errorf("sign %s: %w", typ, err)
	}
	msg.Signatures = append(msg.Signatures, sig)
	out, err := msg.MarshalCBOR()
	if err == nil && len(out) > MaxEnvelope {
		return nil, fmt.Errorf("sign %s: %w: %d bytes with %d signatures, at most %d", typ, ErrTooLarge, len(out), len(msg.Signatures), MaxEnvelope)
	}
	return out, err
}

func parseThreshold(typ Type, envelope []byte) (*cose.SignMessage, error) {
	if len(envelope) > MaxEnvelope {
		return nil, fmt.Errorf("%s: %w: %d bytes", typ, ErrTooLarge, len(envelope))
	}
	var msg cose.SignMessage
	if err := msg.UnmarshalCBOR(envelope); err != nil {
		return nil, fmt.Errorf("%s: %w", typ, err)
	}
	if len(msg.Signatures) > maxSignatures {
		return nil, fmt.Errorf("%s: %d signatures, at most %d", typ, len(msg.Signatures), maxSignatures)
	}
	if err := checkTyp(typ, msg.Headers.Protected); err != nil {
		return nil, fmt.Errorf("%s: %w", typ, err)
	}
	if len(msg.Headers.Unprotected) != 0 {
		return nil, fmt.Errorf("%s: unprotected headers", typ)
	}
	return &msg, nil
}

// ThresholdPayload gives the payload and the claimed signers of a threshold message, unverified.
func ThresholdPayload(typ Type, envelope []byte) (payload []byte, signers []KeyID, err error) {
	msg, err := parseThreshold(typ, envelope)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range msg.Signatures {
		kid, err := checkKeyID(s.Headers)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", typ, err)
		}
		signers = append(signers, kid)
	}
	return msg.Payload, signers, nil
}

// ErrThreshold says that too few of the role's keys have validly signed.
var ErrThreshold = errors.New("threshold not met")

// VerifyThreshold checks that at least role.Threshold distinct keys of role have validly signed, and returns the payload.
// Signatures by keys outside the role count for nothing; one that names a role's key and does not verify is an error.
func VerifyThreshold(typ Type, envelope []byte, role KeySet) ([]byte, error) {
	if err := role.Check(); err != nil {
		return nil, fmt.Errorf("%s: role: %w", typ, err)
	}
	msg, err := parseThreshold(typ, envelope)
	if err != nil {
		return nil, err
	}
	keys := map[KeyID]crypto.PublicKey{}
	for _, der := range role.Keys {
		pub, err := ParseKey(der)
		if err != nil {
			return nil, fmt.Errorf("%s: role: %w", typ, err)
		}
		keys[KeyIDOfSPKI(der)] = pub
	}
	body, err := msg.Headers.MarshalProtected()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", typ, err)
	}
	valid := map[KeyID]bool{}
	for _, s := range msg.Signatures {
		kid, err := checkKeyID(s.Headers)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", typ, err)
		}
		pub := keys[kid]
		if pub == nil {
			continue
		}
		v, err := verifierFor(pub)
		if err == nil {
			err = checkSuite(s.Headers.Protected, pub)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", typ, err)
		}
		if err := s.Verify(v, body, msg.Payload, nil); err != nil {
			return nil, fmt.Errorf("%s: signature of key %x: %w", typ, kid, err)
		}
		valid[kid] = true
	}
	if uint(len(valid)) < role.Threshold {
		return nil, fmt.Errorf("%s: %w: %d of the %d signatures needed", typ, ErrThreshold, len(valid), role.Threshold)
	}
	return msg.Payload, nil
}

// MergeSignatures joins what two people made of one payload, each alone: a with those signatures of b whose keys have not
// signed a. It verifies nothing; a caller that keeps the result verifies both first, or a bad signature keeps out a good one.
func MergeSignatures(typ Type, a, b []byte) ([]byte, error) {
	into, err := parseThreshold(typ, a)
	if err != nil {
		return nil, err
	}
	from, err := parseThreshold(typ, b)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(into.Payload, from.Payload) {
		return nil, fmt.Errorf("%s: the signatures are over different payloads", typ)
	}
	bodyA, err := into.Headers.MarshalProtected()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", typ, err)
	}
	bodyB, err := from.Headers.MarshalProtected()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", typ, err)
	}
	if !bytes.Equal(bodyA, bodyB) {
		return nil, fmt.Errorf("%s: the signatures are over different headers", typ)
	}
	have := map[KeyID]bool{}
	for _, s := range into.Signatures {
		kid, err := checkKeyID(s.Headers)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", typ, err)
		}
		have[kid] = true
	}
	for _, s := range from.Signatures {
		kid, err := checkKeyID(s.Headers)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", typ, err)
		}
		if !have[kid] {
			have[kid] = true
			into.Signatures = append(into.Signatures, s)
		}
	}
	if len(into.Signatures) > maxSignatures {
		return nil, fmt.Errorf("%s: %d signatures, at most %d", typ, len(into.Signatures), maxSignatures)
	}
	return into.MarshalCBOR()
}
