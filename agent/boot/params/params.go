// Package params keeps a device's parameters: those the factory gave it, and those it is told in the field.
//
// Stage 3, field, on the device. Basic parameters are laid down once and never change; operational ones are replaced as a whole. Both lie in flash under
// AES-256-GCM, with a key that only the boot manager can derive, bound to the device's name. What it guarantees:
//   - A write is old or new after a power cut, never a mixture, and durable when Set returns.
//   - What was replaced does not come back: each write has a number, and a hardware counter says which is the newest. A board without such a counter
//     is told apart by Guarded.
//   - What is damaged, put back, or of another device is not read: there are then no operational parameters, and Fault says why. They can be set anew.
//
// It trusts whoever holds the key, and the counter. A program reads what it is given; it never sees the key.
package params

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/agent/boot/nvm"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// KeySize is the length of the key in bytes.
const KeySize = 32

// Sizes of the two records in flash, bytes.
const (
	BasicSize       = 48 << 10
	OperationalSize = 80 << 10 // as many entries as there can be, of the longest values
)

// What is wrong, for errors.Is.
var (
	// ErrNotFound says that there is no parameter of that name.
	ErrNotFound = errors.New("no such parameter")
	// ErrBasic says that a parameter was laid down in the factory, and is not changed in the field.
	ErrBasic = errors.New("a basic parameter: the factory laid it down, and it does not change in the field")
	// ErrNotBelieved says that what is in flash is damaged, of another device, or older than what was there.
	ErrNotBelieved = errors.New("the parameters in flash are not believed")
)

// Parameter is one of them. Whoever reads it says of what type it has to be.
type Parameter struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Basic  bool   `json:"basic"`            // of the factory: it does not change in the field
	Secret bool   `json:"secret,omitempty"` // its value is for programs alone
}

// Hide gives what may be shown of all: of one that is secret, by itself or by the schema, only that it is there.
func Hide(all []Parameter, schema wire.Schema) []Parameter {
	out := slices.Clone(all)
	for i := range out {
		if p, ok := schema.Find(out[i].Name); ok && p.Secret || out[i].Secret {
			out[i].Secret, out[i].Value = true, ""
		}
	}
	return out
}

// Number reads it as a decimal number.
func (p Parameter) Number() (int64, error) {
	n, err := strconv.ParseInt(p.Value, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parameter %s is no number", p.Name)
	}
	return n, nil
}

// Truth reads it as true or false.
func (p Parameter) Truth() (bool, error) {
	switch p.Value {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("parameter %s is neither true nor false", p.Name)
}

// Span reads it as a length of time, such as 1m30s.
func (p Parameter) Span() (time.Duration, error) {
	d, err := time.ParseDuration(p.Value)
	if err != nil {
		return 0, fmt.Errorf("parameter %s is no length of time", p.Name)
	}
	return d, nil
}

// Config is what a Store needs.
type Config struct {
	Basic, Operational *nvm.Cell
	Counter            hw.Counter // number of the newest operational record; nil: the board has none
	Key                []byte     // KeySize bytes
	Sealer             hw.Sealer  // its secret is the other half of the operational record's key; nil: there is none
	Device             string
}

// Store holds the parameters of one device. It is for one goroutine at a time.
type Store struct {
	c       Config
	key     []byte // of the operational record; nil: it is sealed to another state, or was never made
	basic   map[string]string
	entries []wire.ConfigEntry
	seq     uint64
	fault   error
}

// box is a record in flash.
type box struct {
	Seq    uint64 `cbor:"1,keyasint"` // 0: basic
	Sealed []byte `cbor:"2,keyasint"`
}

// contents is what is sealed in it.
type contents struct {
	Basic   map[string]string  `cbor:"1,keyasint,omitempty"`
	Entries []wire.ConfigEntry `cbor:"2,keyasint,omitempty"`
}

// Open reads both records. The error is of the hardware; what is not believed is Fault's to tell.
func Open(c Config) (*Store, error) {
	s := &Store{c: c}
	if err := s.unseal(); err != nil && !errors.Is(err, hw.ErrNoKey) && !errors.Is(err, hw.ErrOtherState) {
		return nil, err
	}
	switch raw, err := c.Basic.Load(); {
	case errors.Is(err, nvm.ErrEmpty):
	case err != nil:
		return nil, err
	default:
		in, err := s.open(c.Key, raw, 0, BasicSize)
		if err != nil {
			s.fault = fmt.Errorf("basic: %w", err)
		}
		s.basic = in.Basic
	}
	return s, s.load()
}

// unseal joins the two halves of the operational record's key.
func (s *Store) unseal() (err error) {
	if s.c.Sealer == nil {
		s.key = s.c.Key
		return nil
	}
	if s.key != nil {
		return nil
	}
	half, err := s.c.Sealer.Unseal()
	if err != nil {
		return err
	}
	defer clear(half)
	s.key, err = hkdf.Key(sha256.New, slices.Concat(s.c.Key, half), nil, "hallmark-params-1 sealed", KeySize)
	return err
}

func (s *Store) load() error {
	newest := uint64(0)
	if s.c.Counter != nil {
		var err error
		if newest, err = s.c.Counter.Value(); err != nil {
			return err
		}
	}
	raw, err := s.c.Operational.Load()
	if errors.Is(err, nvm.ErrEmpty) {
		if s.seq = newest; newest > 0 {
			s.blame(errors.New("they are gone"))
		}
		return nil
	}
	if err != nil {
		return err
	}
	var b box
	if err := wire.Unmarshal(raw, &b, OperationalSize); err != nil {
		s.seq = newest
		s.blame(err)
		return nil
	}
	guarded := s.c.Counter != nil
	in, err := contents{}, s.unseal()
	if err == nil {
		in, err = s.open(s.key, raw, b.Seq, OperationalSize)
	}
	switch {
	case err != nil:
	case guarded && b.Seq < newest:
		err = fmt.Errorf("record %d was put back, %d was written since", b.Seq, newest)
	case guarded && b.Seq > newest+1:
		err = fmt.Errorf("record %d, and the counter is at %d", b.Seq, newest)
	case guarded && b.Seq > newest: // the power went between the two
		if err := s.c.Counter.Raise(b.Seq); err != nil {
			return err
		}
	}
	if err != nil {
		s.seq = newest
		s.blame(err)
		return nil
	}
	s.seq, s.entries = b.Seq, in.Entries
	return nil
}

func (s *Store) blame(err error) {
	s.fault = errors.Join(s.fault, fmt.Errorf("operational: %w: %w", ErrNotBelieved, err))
}

// Fault says what was not believed when the store was opened; nil: everything was.
func (s *Store) Fault() error { return s.fault }

// Guarded reports whether the board has a counter against old records.
func (s *Store) Guarded() bool { return s.c.Counter != nil }

// List gives all parameters, by name.
func (s *Store) List() []Parameter {
	var out []Parameter
	for _, name := range slices.Sorted(maps.Keys(s.basic)) {
		out = append(out, Parameter{Name: name, Value: s.basic[name], Basic: true})
	}
	for _, e := range s.entries {
		if _, ok := s.basic[e.Name]; !ok {
			out = append(out, Parameter{Name: e.Name, Value: e.Value, Secret: e.Secret})
		}
	}
	slices.SortFunc(out, func(x, y Parameter) int { return strings.Compare(x.Name, y.Name) })
	return out
}

// Get gives one; ErrNotFound.
func (s *Store) Get(name string) (Parameter, error) {
	for _, p := range s.List() {
		if p.Name == name {
			return p, nil
		}
	}
	return Parameter{}, fmt.Errorf("%q: %w", name, ErrNotFound)
}

// Operational gives what the device was told, by name.
func (s *Store) Operational() []wire.ConfigEntry { return slices.Clone(s.entries) }

// May says whether Set would take the entries.
func (s *Store) May(entries []wire.ConfigEntry) error {
	if len(entries) > wire.MaxConfigEntries {
		return fmt.Errorf("%d parameters, at most %d", len(entries), wire.MaxConfigEntries)
	}
	for _, e := range entries {
		if _, ok := s.basic[e.Name]; ok {
			return fmt.Errorf("%q: %w", e.Name, ErrBasic)
		}
	}
	return nil
}

// Set makes entries the operational parameters, all of them. Whatever fails, those of before or the new ones are there at the next start.
func (s *Store) Set(entries []wire.ConfigEntry) error {
	if err := s.May(entries); err != nil {
		return err
	}
	if slices.Equal(entries, s.entries) && s.fault == nil {
		return nil
	}
	if s.key == nil { // what lies there cannot be read any more, and goes
		if err := s.c.Sealer.Renew(); err != nil {
			return err
		}
		if err := s.unseal(); err != nil {
			return err
		}
	}
	raw, err := seal(s.key, s.c.Device, s.seq+1, contents{Entries: entries})
	if err != nil {
		return err
	}
	if err := s.c.Operational.Save(raw); err != nil {
		return err
	}
	if s.c.Counter != nil {
		if err := s.c.Counter.Raise(s.seq + 1); err != nil {
			return err
		}
	}
	s.seq, s.entries, s.fault = s.seq+1, slices.Clone(entries), nil
	return nil
}

// LayBasic lays down what the factory gives a device. It may be repeated until the device leaves.
func LayBasic(cell *nvm.Cell, key []byte, device string, values map[string]string) error {
	raw, err := seal(key, device, 0, contents{Basic: values})
	if err != nil {
		return err
	}
	return cell.Save(raw)
}

// aad binds a record to its device, its kind and its number.
func aad(device string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte("hallmark-params-1\x00"), device+"\x00"...), seq)
}

func gcm(key []byte) (cipher.AEAD, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("key of %d bytes, want %d", len(key), KeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func seal(key []byte, device string, seq uint64, in contents) ([]byte, error) {
	aead, err := gcm(key)
	if err != nil {
		return nil, err
	}
	plain, err := wire.Marshal(in)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return wire.Marshal(box{Seq: seq, Sealed: aead.Seal(nil, nil, plain, aad(device, seq))})
}

func (s *Store) open(key, raw []byte, seq uint64, limit int) (contents, error) {
	var b box
	var in contents
	if err := wire.Unmarshal(raw, &b, limit); err != nil {
		return in, fmt.Errorf("%w: %w", ErrNotBelieved, err)
	}
	if b.Seq != seq {
		return in, fmt.Errorf("%w: record %d in the place of %d", ErrNotBelieved, b.Seq, seq)
	}
	aead, err := gcm(key)
	if err != nil {
		return in, err
	}
	plain, err := aead.Open(nil, nil, b.Sealed, aad(s.c.Device, seq))
	if err != nil {
		return in, fmt.Errorf("%w: they were not sealed by this device, or in another state of it", ErrNotBelieved)
	}
	defer clear(plain)
	if err := wire.Unmarshal(plain, &in, limit); err != nil {
		return contents{}, fmt.Errorf("%w: %w", ErrNotBelieved, err)
	}
	return in, nil
}
