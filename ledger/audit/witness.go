package audit

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"filippo.io/mldsa"
)

// Kinds of a witness's key (c2sp.org/signed-note).
const (
	Ed25519 = 0x04 // cosignature/v1
	MLDSA44 = 0x06 // subtree/v1
)

// Witness is a key of a witness. Two of one name, of different kinds, are one witness.
type Witness struct {
	Name string
	Type byte
	Key  []byte // 32 bytes of Ed25519, or 1,312 of ML-DSA-44
}

// ParseWitness reads a verifier key (c2sp.org/signed-note): <name>+<hash>+<base64 of type and key>.
func ParseWitness(s string) (Witness, error) {
	parts := strings.Split(s, "+")
	if len(parts) < 3 {
		return Witness{}, fmt.Errorf("witness %.80q: want NAME+HASH+KEY", s)
	}
	b64 := strings.Join(parts[2:], "+") // base64 has the character too
	raw, err := base64.StdEncoding.Strict().DecodeString(b64)
	if err != nil || len(raw) < 2 || base64.StdEncoding.EncodeToString(raw) != b64 {
		return Witness{}, fmt.Errorf("witness %s: its key is no base64", parts[0])
	}
	w := Witness{Name: parts[0], Type: raw[0], Key: raw[1:]}
	if err := w.sound(); err != nil {
		return Witness{}, err
	}
	if fmt.Sprintf("%08x", keyHash(w.Name, w.Type, w.Key)) != parts[1] {
		return Witness{}, fmt.Errorf("witness %s: the hash is another key's", w.Name)
	}
	return w, nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (w *Witness) UnmarshalText(text []byte) (err error) {
	*w, err = ParseWitness(string(text))
	return err
}

func (w Witness) sound() error {
	if w.Name == "" || len(w.Name) > math.MaxUint8 || strings.ContainsAny(w.Name, " +\n") {
		return fmt.Errorf("witness %.80q: not a name", w.Name)
	}
	want := map[byte]int{Ed25519: ed25519.PublicKeySize, MLDSA44: mldsa.MLDSA44PublicKeySize}[w.Type]
	if want == 0 {
		return fmt.Errorf("the key of witness %s is of type %#02x: want 0x04 (Ed25519) or 0x06 (ML-DSA-44)", w.Name, w.Type)
	}
	if len(w.Key) != want {
		return fmt.Errorf("the key of witness %s has %d bytes, want %d", w.Name, len(w.Key), want)
	}
	return nil
}

// check verifies a timed signature over a checkpoint's body (c2sp.org/tlog-cosignature), whose form was verified.
func (w Witness) check(body string, sig []byte) error {
	size := map[byte]int{Ed25519: ed25519.SignatureSize, MLDSA44: mldsa.MLDSA44SignatureSize}[w.Type]
	if len(sig) != 8+size {
		return errors.New("malformed")
	}
	at := binary.BigEndian.Uint64(sig)
	wrong := errors.New("wrong")
	if w.Type == Ed25519 {
		text := "cosignature/v1\ntime " + strconv.FormatUint(at, 10) + "\n" + body
		if !ed25519.Verify(w.Key, []byte(text), sig[8:]) {
			return wrong
		}
		return nil
	}
	lines := strings.Split(body, "\n")
	size64, err := strconv.ParseUint(lines[1], 10, 63)
	root, err2 := base64.StdEncoding.DecodeString(lines[2])
	key, err3 := mldsa.NewPublicKey(mldsa.MLDSA44(), w.Key)
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	// struct { label[12]; name<1..255>; u64 time; origin<1..255>; u64 start; u64 end; hash[32] }
	m := append([]byte("subtree/v1\n\x00"), byte(len(w.Name)))
	m = binary.BigEndian.AppendUint64(append(m, w.Name...), at)
	m = append(append(m, byte(len(lines[0]))), lines[0]...)
	m = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(m, 0), size64)
	if len(lines[0]) > math.MaxUint8 || mldsa.Verify(key, append(m, root...), sig[8:], nil) != nil {
		return wrong
	}
	return nil
}
