package ledger

import (
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"filippo.io/mldsa"

	"github.com/hallmark-iot/hallmark/wire"
)

// Signature types of a note (c2sp.org/signed-note).
const (
	TypeEd25519     = 0x01 // a log's
	TypeCosignature = 0x04 // cosignature/v1, Ed25519, with its time
	TypeMLDSA44     = 0x06 // subtree/v1, ML-DSA-44, with its time
)

// VerifierKey is a public key with the name and the kind of signature that it is for (c2sp.org/signed-note, "verifier keys").
type VerifierKey struct {
	Name string
	Type byte
	Key  []byte // 32 bytes of Ed25519, or 1,312 of ML-DSA-44
}

// ID is the key's hash in signature lines.
func (k VerifierKey) ID() uint32 { return wire.NoteKeyID(k.Name, k.Type, k.Key) }

// String is the key in the form in which it is passed on: <name>+<hash>+<base64 of type and key>.
func (k VerifierKey) String() string {
	return fmt.Sprintf("%s+%08x+%s", k.Name, k.ID(), base64.StdEncoding.EncodeToString(append([]byte{k.Type}, k.Key...)))
}

// MarshalText implements encoding.TextMarshaler.
func (k VerifierKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *VerifierKey) UnmarshalText(text []byte) (err error) {
	*k, err = ParseVerifierKey(string(text))
	return err
}

// Cosigns says whether the key is one that witnesses sign with.
func (k VerifierKey) Cosigns() bool { return k.Type == TypeCosignature || k.Type == TypeMLDSA44 }

// maxName bounds names in a message of ML-DSA-44 (one byte of length).
const maxName = math.MaxUint8

// ParseVerifierKey reads a key of one of the three kinds.
func ParseVerifierKey(s string) (VerifierKey, error) {
	bad := func(why string) (VerifierKey, error) {
		return VerifierKey{}, fmt.Errorf("verifier key %.80q: %s; want NAME+HASH+KEY, as `hallmark witness keys` or `hallmark log keys` prints it", s, why)
	}
	name, rest, _ := strings.Cut(s, "+")
	_, b64, ok := strings.Cut(rest, "+")
	raw, err := base64.StdEncoding.DecodeString(b64)
	if !ok || err != nil || len(raw) == 0 || !validKeyName(name) || len(name) > maxName {
		return bad("malformed")
	}
	k := VerifierKey{Name: name, Type: raw[0], Key: raw[1:]}
	switch k.Type {
	case TypeEd25519, TypeCosignature:
		ok = len(k.Key) == ed25519.PublicKeySize
	case TypeMLDSA44:
		_, err := mldsa.NewPublicKey(mldsa.MLDSA44(), k.Key)
		ok = err == nil
	default:
		return bad(fmt.Sprintf("signatures of type %#02x are not known here", k.Type))
	}
	if !ok {
		return bad("no key of its type")
	}
	if k.String() != s {
		return bad("the hash is another key's")
	}
	return k, nil
}

var errSignature = errors.New("signature is wrong")

// verify checks a signature of the key on a note, and gives its time; a log's Ed25519 signature has none.
func (k VerifierKey) verify(n Note, sig []byte) (time.Time, error) {
	bad := fmt.Errorf("%s: %w", k.Name, errSignature)
	if k.Type == TypeEd25519 {
		if len(k.Key) != ed25519.PublicKeySize || !ed25519.Verify(k.Key, []byte(n.Body), sig) {
			return time.Time{}, bad
		}
		return time.Time{}, nil
	}
	if len(sig) < 8 {
		return time.Time{}, bad
	}
	at, sig := binary.BigEndian.Uint64(sig), sig[8:]
	if at == 0 || at > math.MaxInt64 {
		return time.Time{}, bad
	}
	message, err := k.message(n, at)
	if err != nil {
		return time.Time{}, err
	}
	switch k.Type {
	case TypeCosignature:
		if len(k.Key) != ed25519.PublicKeySize || !ed25519.Verify(k.Key, message, sig) {
			return time.Time{}, bad
		}
	case TypeMLDSA44:
		pub, err := mldsa.NewPublicKey(mldsa.MLDSA44(), k.Key)
		if err != nil || mldsa.Verify(pub, message, sig, nil) != nil {
			return time.Time{}, bad
		}
	}
	return time.Unix(int64(at), 0), nil
}

// message is what a cosignature signs (c2sp.org/tlog-cosignature).
func (k VerifierKey) message(n Note, at uint64) ([]byte, error) {
	switch k.Type {
	case TypeCosignature:
		return []byte(wire.CosignatureText(at, n.Body)), nil
	case TypeMLDSA44:
		if len(k.Name) > maxName || len(n.Origin) > maxName {
			return nil, fmt.Errorf("names of more than %d bytes cannot be cosigned with ML-DSA-44", maxName)
		}
		m := append([]byte("subtree/v1\n\x00"), byte(len(k.Name)))
		m = binary.BigEndian.AppendUint64(append(m, k.Name...), at)
		m = append(append(m, byte(len(n.Origin))), n.Origin...)
		m = binary.BigEndian.AppendUint64(m, 0) // from the first leaf on: the whole tree
		m = binary.BigEndian.AppendUint64(m, n.State.Size)
		return append(m, n.State.Root[:]...), nil
	}
	return nil, fmt.Errorf("keys of type %#02x do not cosign", k.Type)
}

// CosignerKey makes cosignatures of one kind, under one name.
type CosignerKey struct {
	VerifierKey
	sign func(message []byte) ([]byte, error)
}

// Ed25519Cosigner cosigns as cosignature/v1: 72 bytes, the kind that devices verify.
func Ed25519Cosigner(name string, key Signer) CosignerKey {
	return CosignerKey{VerifierKey: VerifierKey{Name: name, Type: TypeCosignature, Key: key.Public()}, sign: key.Sign}
}

// MLDSA44Cosigner cosigns as subtree/v1: 2,428 bytes, safe against quantum computers.
func MLDSA44Cosigner(name string, key *mldsa.PrivateKey) CosignerKey {
	return CosignerKey{
		VerifierKey: VerifierKey{Name: name, Type: TypeMLDSA44, Key: key.PublicKey().Bytes()},
		sign:        func(message []byte) ([]byte, error) { return key.Sign(nil, message, crypto.Hash(0)) },
	}
}

// Line makes the key's signature line for a checkpoint.
func (k CosignerKey) Line(n Note, at time.Time) (string, error) {
	seconds := uint64(at.Unix())
	message, err := k.message(n, seconds)
	if err != nil {
		return "", err
	}
	sig, err := k.sign(message)
	if err != nil {
		return "", fmt.Errorf("cosign as %s: %w", k.Name, err)
	}
	return signatureLine(k.Name, k.ID(), append(binary.BigEndian.AppendUint64(nil, seconds), sig...)), nil
}
