package ledger

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hallmark-iot/hallmark/wire"
)

// Signer signs as one of a note's keys: Ed25519 over text. A crypto.Signer of an Ed25519 key with options of hash 0 is one.
type Signer interface {
	Sign(text []byte) ([]byte, error)
	Public() ed25519.PublicKey
}

// signatureLine writes one signature of a note: em dash, name, base64 of key hash and signature.
func signatureLine(name string, id uint32, sig []byte) string {
	b := binary.BigEndian.AppendUint32(nil, id)
	return "\u2014 " + name + " " + base64.StdEncoding.EncodeToString(append(b, sig...)) + "\n"
}

// SignCheckpoint makes the log-signed note of a tree. While a log's key is being replaced, the others sign too.
func SignCheckpoint(origin string, s State, key Signer, others ...Signer) ([]byte, error) {
	body := wire.CheckpointText(origin, s.Size, s.Root)
	note := []byte(body + "\n")
	for _, k := range append([]Signer{key}, others...) {
		sig, err := k.Sign([]byte(body))
		if err != nil {
			return nil, fmt.Errorf("sign checkpoint %s at size %d: %w", origin, s.Size, err)
		}
		note = append(note, signatureLine(origin, wire.NoteKeyID(origin, TypeEd25519, k.Public()), sig)...)
	}
	return note, nil
}

// MaxNote bounds a note: at least 16 signatures fit, of the largest kind.
const MaxNote = 64 << 10

// noteLine is one signature line, taken apart.
type noteLine struct {
	name string
	id   uint32
	sig  []byte
}

var errNote = errors.New("malformed checkpoint note")

// validKeyName says whether a note's key may be called so (c2sp.org/signed-note).
func validKeyName(name string) bool {
	return name != "" && utf8.ValidString(name) && !strings.ContainsFunc(name, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || r == '+'
	})
}

// splitNote takes a note apart: its body, and its signatures in order.
func splitNote(note []byte) (body string, lines []noteLine, err error) {
	body, rest, ok := strings.Cut(string(note), "\n\n")
	if !ok || len(note) > MaxNote {
		return "", nil, errNote
	}
	lines, err = splitLines(rest)
	if err == nil && len(lines) == 0 {
		err = fmt.Errorf("%w: no signature", errNote)
	}
	return body + "\n", lines, err
}

// splitLines takes signature lines apart.
func splitLines(text string) (lines []noteLine, err error) {
	for line := range strings.Lines(text) {
		rest, begun := strings.CutPrefix(line, "\u2014 ")
		rest, ended := strings.CutSuffix(rest, "\n")
		name, b64, _ := strings.Cut(rest, " ")
		raw, err := base64.StdEncoding.DecodeString(b64)
		if !begun || !ended || !validKeyName(name) || err != nil || base64.StdEncoding.EncodeToString(raw) != b64 || len(raw) < 5 {
			return nil, fmt.Errorf("%w: signature line %.100q", errNote, line)
		}
		lines = append(lines, noteLine{name: name, id: binary.BigEndian.Uint32(raw), sig: raw[4:]})
	}
	return lines, nil
}

// parseBody reads origin, size and root of a checkpoint's body. Extension lines, which logs of others may have, are passed over.
func parseBody(body string) (origin string, s State, err error) {
	parts := strings.Split(body, "\n")
	if len(parts) < 4 || parts[len(parts)-1] != "" || !utf8.ValidString(body) {
		return "", State{}, errNote
	}
	for _, p := range parts[:len(parts)-1] {
		if p == "" || strings.ContainsFunc(p, func(r rune) bool { return r < ' ' }) {
			return "", State{}, errNote
		}
	}
	size, err := strconv.ParseUint(parts[1], 10, 63)
	root, err2 := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || err2 != nil || len(root) != hashSize {
		return "", State{}, errNote
	}
	s = State{Size: size, Root: [hashSize]byte(root)}
	if !strings.HasPrefix(body, wire.CheckpointText(parts[0], s.Size, s.Root)) { // one text for one state
		return "", State{}, errNote
	}
	return parts[0], s, nil
}

// ParseCheckpoint reads a note of one of our logs, and verifies that key signed it as the log of that origin. It has no extension
// lines: devices rebuild its text.
func ParseCheckpoint(note []byte, origin string, key ed25519.PublicKey) (State, error) {
	n, err := ParseNote(note)
	if err != nil {
		return State{}, err
	}
	if n.Origin != origin {
		return State{}, fmt.Errorf("checkpoint of %q, want %q", n.Origin, origin)
	}
	if n.Body != wire.CheckpointText(origin, n.State.Size, n.State.Root) {
		return State{}, fmt.Errorf("%w: extension lines", errNote)
	}
	signed, err := n.SignedBy(VerifierKey{Name: origin, Type: TypeEd25519, Key: key})
	if err != nil || !signed {
		return State{}, fmt.Errorf("checkpoint of %q: %w", origin, wire.ErrLogSignature)
	}
	return n.State, nil
}

// Note is a checkpoint (c2sp.org/tlog-checkpoint), taken apart. Nothing of it is verified.
type Note struct {
	Origin string
	State  State
	Body   string // what is signed
	lines  []noteLine
}

// ParseNote reads a checkpoint of any log.
func ParseNote(note []byte) (Note, error) {
	body, lines, err := splitNote(note)
	if err != nil {
		return Note{}, err
	}
	origin, state, err := parseBody(body)
	return Note{Origin: origin, State: state, Body: body, lines: lines}, err
}

// SignedBy says whether the note has a signature by key. One that claims to be by it and is not is an error: such a note is to be
// rejected as a whole (c2sp.org/signed-note).
func (n Note) SignedBy(key VerifierKey) (bool, error) {
	signed := false
	for _, l := range n.lines {
		if l.name != key.Name || l.id != key.ID() {
			continue
		}
		if _, err := key.verify(n, l.sig); err != nil {
			return false, err
		}
		signed = true
	}
	return signed, nil
}

// signature gives what the log signed with one of its keys; nil when it did not.
func (n Note) signature(key ed25519.PublicKey) []byte {
	id := wire.NoteKeyID(n.Origin, TypeEd25519, key)
	for _, l := range n.lines {
		if l.name == n.Origin && l.id == id && len(l.sig) == ed25519.SignatureSize && ed25519.Verify(key, []byte(n.Body), l.sig) {
			return l.sig
		}
	}
	return nil
}

// By gives the note with nothing but the signatures of keys.
func (n Note) By(keys ...VerifierKey) string {
	var out strings.Builder
	out.WriteString(n.Body + "\n")
	for _, l := range n.lines {
		for _, k := range keys {
			if l.name == k.Name && l.id == k.ID() {
				out.WriteString(signatureLine(l.name, l.id, l.sig))
			}
		}
	}
	return out.String()
}

// SplitNote gives the log's signature, which comes first, and the Ed25519 cosignatures of a published note: those that devices verify.
func SplitNote(note []byte) (logSig []byte, cosigs []wire.Cosignature, err error) {
	_, lines, err := splitNote(note)
	if err != nil {
		return nil, nil, err
	}
	cosigs = []wire.Cosignature{}
	for _, l := range lines[1:] { // other keys of the log are among them: theirs have no time
		if len(l.sig) != 8+ed25519.SignatureSize {
			continue // another kind of signature: not for devices
		}
		cosigs = append(cosigs, wire.Cosignature{Witness: l.name, Time: binary.BigEndian.Uint64(l.sig), Signature: l.sig[8:]})
	}
	return lines[0].sig, cosigs, nil
}
