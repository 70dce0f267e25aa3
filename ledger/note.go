package ledger

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/hallmark-iot/hallmark/wire"
)

// Signature types of a note (c2sp.org/signed-note).
const (
	typeEd25519     = 0x01
	typeCosignature = 0x04
)

// Signer signs as one of a note's keys: Ed25519 over text. A crypto.Signer of an Ed25519 key with options of hash 0 is one.
type Signer interface {
	Sign(text []byte) ([]byte, error)
	Public() ed25519.PublicKey
}

// signatureLine writes one signature of a note: em dash, name, base64 of key hash and signature.
func signatureLine(name string, typ byte, key ed25519.PublicKey, sig []byte) string {
	b := binary.BigEndian.AppendUint32(nil, wire.NoteKeyID(name, typ, key))
	return "\u2014 " + name + " " + base64.StdEncoding.EncodeToString(append(b, sig...)) + "\n"
}

// SignCheckpoint makes the log-signed note of a tree.
func SignCheckpoint(origin string, s State, key Signer) ([]byte, error) {
	body := wire.CheckpointText(origin, s.Size, s.Root)
	sig, err := key.Sign([]byte(body))
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint %s at size %d: %w", origin, s.Size, err)
	}
	return []byte(body + "\n" + signatureLine(origin, typeEd25519, key.Public(), sig)), nil
}

// CosignLine makes a witness's signature line for a checkpoint's body (c2sp.org/tlog-cosignature, cosignature/v1).
func CosignLine(name string, at uint64, body string, key Signer) (string, error) {
	sig, err := key.Sign([]byte(wire.CosignatureText(at, body)))
	if err != nil {
		return "", fmt.Errorf("cosign as %s: %w", name, err)
	}
	return signatureLine(name, typeCosignature, key.Public(), append(binary.BigEndian.AppendUint64(nil, at), sig...)), nil
}

// noteLine is one signature line, taken apart.
type noteLine struct {
	name string
	hash uint32
	sig  []byte
}

var errNote = errors.New("malformed checkpoint note")

// splitNote takes a note apart: its body, and its signatures in order.
func splitNote(note []byte) (body string, lines []noteLine, err error) {
	body, rest, ok := strings.Cut(string(note), "\n\n")
	if !ok || len(note) > 64<<10 {
		return "", nil, errNote
	}
	body += "\n"
	for line := range strings.Lines(rest) {
		name, b64, ok := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(line, "\u2014 "), "\n"), " ")
		raw, err := base64.StdEncoding.DecodeString(b64)
		if !ok || name == "" || err != nil || base64.StdEncoding.EncodeToString(raw) != b64 || len(raw) < 5 || !strings.HasPrefix(line, "\u2014 ") || !strings.HasSuffix(line, "\n") {
			return "", nil, fmt.Errorf("%w: signature line %q", errNote, line)
		}
		lines = append(lines, noteLine{name: name, hash: binary.BigEndian.Uint32(raw), sig: raw[4:]})
	}
	if len(lines) == 0 {
		return "", nil, fmt.Errorf("%w: no signature", errNote)
	}
	return body, lines, nil
}

// parseBody reads origin, size and root of a checkpoint's body; extension lines are refused.
func parseBody(body string) (origin string, s State, err error) {
	parts := strings.Split(body, "\n")
	if len(parts) != 4 || parts[3] != "" || parts[0] == "" {
		return "", State{}, errNote
	}
	size, err := strconv.ParseUint(parts[1], 10, 63)
	root, err2 := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || err2 != nil || len(root) != 32 {
		return "", State{}, errNote
	}
	s = State{Size: size, Root: [32]byte(root)}
	if wire.CheckpointText(parts[0], s.Size, s.Root) != body { // one text for one state: devices rebuild it
		return "", State{}, errNote
	}
	return parts[0], s, nil
}

// ParseCheckpoint reads a note's body, and verifies that key signed it as the log of that origin.
func ParseCheckpoint(note []byte, origin string, key ed25519.PublicKey) (State, error) {
	body, lines, err := splitNote(note)
	if err != nil {
		return State{}, err
	}
	got, s, err := parseBody(body)
	if err != nil {
		return State{}, err
	}
	if got != origin {
		return State{}, fmt.Errorf("checkpoint of %q, want %q", got, origin)
	}
	want := wire.NoteKeyID(origin, typeEd25519, key)
	for _, l := range lines {
		if l.name == origin && l.hash == want && len(key) == ed25519.PublicKeySize && ed25519.Verify(key, []byte(body), l.sig) {
			return s, nil
		}
	}
	return State{}, fmt.Errorf("checkpoint of %q: %w", origin, wire.ErrLogSignature)
}

// SplitNote gives the log's signature, which comes first, and the cosignatures of a published note.
func SplitNote(note []byte) (logSig []byte, cosigs []wire.Cosignature, err error) {
	_, lines, err := splitNote(note)
	if err != nil {
		return nil, nil, err
	}
	cosigs = []wire.Cosignature{}
	for _, l := range lines[1:] {
		if len(l.sig) != 8+ed25519.SignatureSize {
			continue // another kind of signature: not for devices
		}
		cosigs = append(cosigs, wire.Cosignature{Witness: l.name, Time: binary.BigEndian.Uint64(l.sig), Signature: l.sig[8:]})
	}
	return lines[0].sig, cosigs, nil
}

// NoteOrigin gives the origin a note claims, and its signed body. Nothing is verified.
func NoteOrigin(note []byte) (origin, body string, err error) {
	body, _, err = splitNote(note)
	if err != nil {
		return "", "", err
	}
	origin, _, err = parseBody(body)
	return origin, body, err
}
