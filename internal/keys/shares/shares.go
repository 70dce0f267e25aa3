// Package shares cuts a key's passphrase into shares, one for each of n people, any m of whom have it again.
//
// Under all stages. For keys that no single person may use, the OEM root before all: the key lies in a directory of keys/soft under a
// passphrase that nobody has ever seen. Fewer than m shares say nothing of it, however much their holders compute. Each share is sealed
// under its holder's own passphrase, so that a sheet of paper that is found, or copied in the safe, is not a share.
//
// The cutting is Feldman's verifiable secret sharing over P-256 (package circl/secretsharing): beside its share each holder has the
// commitments to all, so that a wrong one is named before it spoils the secret. Shares are printed as lines with a checksum each, so that
// a slip of the hand is found in the line where it is.
package shares

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"

	"github.com/hallmark-iot/hallmark/wire"
)

// Iterations of PBKDF2 for new shares: OWASP's figure for HMAC-SHA-256.
const Iterations = 600_000

// Bounds on what a share may ask for, and on how many there are.
const (
	minIterations = 1_000
	maxIterations = 10_000_000
	maxHolders    = 16
	maxShare      = 4 << 10
)

// Errors, for errors.Is.
var (
	ErrPassphrase = errors.New("wrong passphrase, or the share is damaged")
	ErrTooFew     = errors.New("too few shares")
	ErrWrong      = errors.New("not a share of this key")
)

// Share is one person's part, sealed under a passphrase of that person.
type Share struct {
	Version    uint64   `cbor:"1,keyasint"` // 1
	Key        string   `cbor:"2,keyasint"` // name of the key it is a share of
	Holder     string   `cbor:"3,keyasint"`
	Index      uint64   `cbor:"4,keyasint"` // 1 to Of
	Need       uint64   `cbor:"5,keyasint"` // how many have the secret
	Of         uint64   `cbor:"6,keyasint"`
	Commit     [][]byte `cbor:"7,keyasint"` // Need compressed points of P-256: the same on each share of a key
	Iterations uint64   `cbor:"8,keyasint"`
	Salt       []byte   `cbor:"9,keyasint"`
	Sealed     []byte   `cbor:"10,keyasint"` // AES-256-GCM of the scalar, under PBKDF2 of the passphrase; all of the above is authenticated with it
	Rehearsal  bool     `cbor:"11,keyasint,omitempty"`
}

// Opened is a share that its holder has opened.
type Opened struct {
	Share
	value group.Scalar
}

var curve = group.P256

// Cut makes a new secret for the key called key, and a share of it for each holder, under the passphrase that passphrase gives for him;
// any need of them have the secret again. The secret is a passphrase for keys/soft.
func Cut(key string, holders []string, need, iterations int, rehearsal bool, passphrase func(holder string) (string, error)) (secret string, out []Share, err error) {
	if need < 2 || need > len(holders) || len(holders) > maxHolders {
		return "", nil, fmt.Errorf("key %s: %d of %d holders: want 2 to %d of at most %d, because nobody has it alone", key, need, len(holders), len(holders), maxHolders)
	}
	if iterations < minIterations || iterations > maxIterations {
		return "", nil, fmt.Errorf("%d PBKDF2 iterations: want %d to %d", iterations, minIterations, maxIterations)
	}
	s := curve.RandomNonZeroScalar(rand.Reader)
	cut := secretsharing.New(rand.Reader, uint(need-1), s)
	var commit [][]byte
	for _, e := range cut.CommitSecret() {
		b, err := e.MarshalBinaryCompress()
		if err != nil {
			return "", nil, err
		}
		commit = append(commit, b)
	}
	for i, part := range cut.Share(uint(len(holders))) {
		value, err := part.Value.MarshalBinary()
		if err != nil {
			return "", nil, err
		}
		pass, err := passphrase(holders[i])
		if err != nil {
			return "", nil, err
		}
		if pass == "" {
			return "", nil, fmt.Errorf("share of %s: it needs a passphrase", holders[i])
		}
		sh := Share{
			Version: 1, Key: key, Holder: holders[i], Index: uint64(i + 1), Need: uint64(need), Of: uint64(len(holders)), Commit: commit,
			Iterations: uint64(iterations), Salt: make([]byte, 16), Rehearsal: rehearsal,
		}
		if _, err := rand.Read(sh.Salt); err != nil {
			return "", nil, err
		}
		if err := sh.seal(pass, value); err != nil {
			return "", nil, err
		}
		out = append(out, sh)
	}
	secret, err = passphraseOf(s)
	return secret, out, err
}

// passphraseOf writes a secret as text: 256 bits.
func passphraseOf(s group.Scalar) (string, error) {
	b, err := s.MarshalBinary()
	return hex.EncodeToString(b), err
}

// header is what is authenticated with the sealed value: the share without it.
func (s Share) header() ([]byte, error) {
	s.Sealed = nil
	return wire.Marshal(s)
}

func (s Share) aead(passphrase string) (cipher.AEAD, error) {
	key, err := pbkdf2.Key(sha256.New, passphrase, s.Salt, int(s.Iterations), 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (s *Share) seal(passphrase string, value []byte) error {
	aead, err := s.aead(passphrase)
	if err != nil {
		return err
	}
	h, err := s.header()
	if err != nil {
		return err
	}
	s.Sealed = aead.Seal(nil, nil, value, h)
	return nil
}

// Open opens a share with its holder's passphrase, and checks it against the commitments.
func (s Share) Open(passphrase string) (Opened, error) {
	if err := s.check(); err != nil {
		return Opened{}, err
	}
	aead, err := s.aead(passphrase)
	if err != nil {
		return Opened{}, err
	}
	h, err := s.header()
	if err != nil {
		return Opened{}, err
	}
	plain, err := aead.Open(nil, nil, s.Sealed, h)
	if err != nil {
		return Opened{}, fmt.Errorf("share %d (%s) of %s: %w", s.Index, s.Holder, s.Key, ErrPassphrase)
	}
	value := curve.NewScalar()
	if err := value.UnmarshalBinary(plain); err != nil {
		return Opened{}, fmt.Errorf("share %d (%s) of %s: %w", s.Index, s.Holder, s.Key, ErrWrong)
	}
	o := Opened{Share: s, value: value}
	commit, err := o.commitment()
	if err != nil {
		return Opened{}, err
	}
	if !secretsharing.Verify(uint(s.Need-1), o.part(), commit) {
		return Opened{}, fmt.Errorf("share %d (%s) of %s: %w", s.Index, s.Holder, s.Key, ErrWrong)
	}
	return o, nil
}

func (o Opened) part() secretsharing.Share {
	return secretsharing.Share{ID: curve.NewScalar().SetUint64(o.Index), Value: o.value}
}

func (s Share) commitment() (out secretsharing.SecretCommitment, err error) {
	for i, b := range s.Commit {
		e := curve.NewElement()
		if err := e.UnmarshalBinary(b); err != nil || e.IsIdentity() {
			return nil, fmt.Errorf("share %d (%s) of %s: commitment %d is no point: %w", s.Index, s.Holder, s.Key, i+1, ErrWrong)
		}
		out = append(out, e)
	}
	return out, nil
}

// Set names what shares of one cut have in common: a short digest, for people to compare.
func (s Share) Set() string {
	h := sha256.New()
	for _, b := range s.Commit {
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// Join has the secret again. Shares of another key, or of another cut, are named.
func Join(opened []Opened) (secret string, err error) {
	if len(opened) == 0 {
		return "", ErrTooFew
	}
	first := opened[0]
	var parts []secretsharing.Share
	seen := map[uint64]bool{}
	for _, o := range opened {
		if o.Key != first.Key || o.Set() != first.Set() || o.Need != first.Need || o.Rehearsal != first.Rehearsal {
			return "", fmt.Errorf("share %d (%s) of %s, set %s, beside one of %s, set %s: %w", o.Index, o.Holder, o.Key, o.Set(), first.Key, first.Set(), ErrWrong)
		}
		if seen[o.Index] {
			continue
		}
		seen[o.Index] = true
		parts = append(parts, o.part())
	}
	if uint64(len(parts)) < first.Need {
		return "", fmt.Errorf("%w of %s: %d, and %d are needed", ErrTooFew, first.Key, len(parts), first.Need)
	}
	s, err := secretsharing.Recover(uint(first.Need-1), parts)
	if err != nil {
		return "", err
	}
	commit, err := first.commitment()
	if err != nil {
		return "", err
	}
	if !curve.NewElement().MulGen(s).IsEqual(commit[0]) {
		return "", fmt.Errorf("%s: %w", first.Key, ErrWrong)
	}
	return passphraseOf(s)
}

func (s Share) check() error {
	switch {
	case s.Version != 1 || s.Key == "" || len(s.Key) > 64 || s.Holder == "" || len(s.Holder) > 64:
		return errors.New("share: no name of key or holder, or of another version")
	case s.Need < 2 || s.Need > s.Of || s.Of > maxHolders || s.Index == 0 || s.Index > s.Of || uint64(len(s.Commit)) != s.Need:
		return fmt.Errorf("share %d of %d, %d needed, %d commitments", s.Index, s.Of, s.Need, len(s.Commit))
	case s.Iterations < minIterations || s.Iterations > maxIterations || len(s.Salt) != 16 || len(s.Sealed) != 12+32+16:
		return errors.New("share: damaged, or of another version")
	}
	for _, c := range s.Commit {
		if len(c) != 33 {
			return errors.New("share: a commitment is no compressed point of P-256")
		}
	}
	return nil
}

// Encode writes a share's bytes.
func (s Share) Encode() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return wire.Marshal(s)
}

// Decode reads a share's bytes.
func Decode(data []byte) (Share, error) {
	var s Share
	if err := wire.Unmarshal(data, &s, maxShare); err != nil {
		return Share{}, err
	}
	return s, s.check()
}

// The printed form: numbered lines of 20 bytes as base32 in groups of four, and eight characters of checksum over line number and bytes.
const (
	lineBytes = 20
	sumBytes  = 5 // of SHA-256; eight characters
)

var letters = base32.NewEncoding("abcdefghijkmnpqrstuvwxyz23456789").WithPadding(base32.NoPadding) // without l, o, 0 and 1, which look alike

// Print writes a share for paper. Parse reads it.
func (s Share) Print() (string, error) {
	data, err := s.Encode()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	kind := "share"
	if s.Rehearsal {
		kind = "REHEARSAL share"
	}
	fmt.Fprintf(&b, "# Hallmark: %s %d of %d of key %s, for %s. Any %d of them have it. Set %s.\n", kind, s.Index, s.Of, s.Key, s.Holder, s.Need, s.Set())
	fmt.Fprintf(&b, "# Sealed under the passphrase of %s. Type the lines below, or keep this file; letters are small, and there is no l, o, 0 or 1.\n", s.Holder)
	total := (len(data) + lineBytes - 1) / lineBytes
	for i := range total {
		part := data[i*lineBytes : min((i+1)*lineBytes, len(data))]
		fmt.Fprintf(&b, "%02d/%02d", i+1, total)
		for text := letters.EncodeToString(part); text != ""; {
			n := min(4, len(text))
			fmt.Fprintf(&b, " %s", text[:n])
			text = text[n:]
		}
		fmt.Fprintf(&b, " . %s\n", lineSum(i+1, total, part))
	}
	return b.String(), nil
}

func lineSum(i, total int, part []byte) string {
	h := sha256.New()
	var n [4]byte
	binary.BigEndian.PutUint16(n[:2], uint16(i))
	binary.BigEndian.PutUint16(n[2:], uint16(total))
	h.Write(n[:])
	h.Write(part)
	return letters.EncodeToString(h.Sum(nil)[:sumBytes])
}

// Parse reads what Print wrote, or what somebody has typed from it: lines in their order, comments and space between are nothing.
func Parse(text []byte) (Share, error) {
	if len(text) > 4*maxShare {
		return Share{}, errors.New("share: too long")
	}
	var data []byte
	next, total := 1, 0
	for line := range strings.SplitSeq(string(text), "\n") {
		line = strings.ToLower(strings.TrimSpace(line))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		part, of, err := parseLine(line, next)
		if err != nil {
			return Share{}, err
		}
		if total != 0 && of != total {
			return Share{}, fmt.Errorf("share: line %d is of %d lines, the others of %d", next, of, total)
		}
		data, total = append(data, part...), of
		next++
	}
	if next-1 != total || total == 0 {
		return Share{}, fmt.Errorf("share: %d lines of %d", next-1, total)
	}
	return Decode(data)
}

func parseLine(line string, want int) (part []byte, total int, err error) {
	var i int
	number, rest, _ := strings.Cut(line, " ")
	if n, err := fmt.Sscanf(number, "%d/%d", &i, &total); err != nil || n != 2 || i != want || total < want || total > maxShare/lineBytes {
		return nil, 0, fmt.Errorf("share: line %q: want line %d", number, want)
	}
	body, sum, ok := strings.Cut(rest, ".")
	part, err = letters.DecodeString(strings.Join(strings.Fields(body), ""))
	if err != nil || !ok || len(part) == 0 || len(part) > lineBytes || strings.Join(strings.Fields(sum), "") != lineSum(i, total, part) {
		return nil, 0, fmt.Errorf("share: line %d is mistyped", i)
	}
	return part, total, nil
}
