package witnessd

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/mldsa"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/failpoint"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/witness"
)

// Vault is the directory of keys of a witness; keys/soft is one.
type Vault interface {
	Signer(name string) (crypto.Signer, error)
	GenerateEd25519(name string) (crypto.Signer, error)
	PutSecret(name string, secret []byte) error
	Secret(name string) ([]byte, error)
}

// Names of the keys in it.
const (
	keyEd25519 = "ed25519"
	keyMLDSA44 = "ml-dsa-44" // its seed
)

// Dir is the directory of a witness: witness.json, keys/, and memory/ with a file for each log that was ever added.
type Dir struct{ Path string }

// Keys holds the private keys.
func (d Dir) Keys() string { return filepath.Join(d.Path, "keys") }

func (d Dir) settings() string { return filepath.Join(d.Path, "witness.json") }

func (d Dir) memory(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return filepath.Join(d.Path, "memory", hex.EncodeToString(sum[:])+".json")
}

// Settings are witness.json.
type Settings struct {
	Keys []ledger.VerifierKey `json:"keys"` // its own, by which others know it
	Logs []Log                `json:"logs"`
}

// Log is a log it knows.
type Log struct {
	Origin string               `json:"origin"`
	Keys   []ledger.VerifierKey `json:"keys"` // any of them signs it
}

// Name is the witness's.
func (s Settings) Name() string { return s.Keys[0].Name }

// Origins are those of the logs.
func (s Settings) Origins() (out []string) {
	for _, l := range s.Logs {
		out = append(out, l.Origin)
	}
	return out
}

// Init makes the keys of a new witness. witness.json is written last: what was interrupted is no witness.
func (d Dir) Init(name string, keys Vault) (Settings, error) {
	if _, err := os.Stat(d.settings()); !errors.Is(err, fs.ErrNotExist) {
		return Settings{}, fmt.Errorf("%s holds a witness already: choose another directory", d.Path)
	}
	ed, err := keys.GenerateEd25519(keyEd25519)
	if err != nil {
		return Settings{}, err
	}
	seed := make([]byte, mldsa.PrivateKeySize)
	if _, err := rand.Read(seed); err != nil {
		return Settings{}, err
	}
	pq, err := mldsa.NewPrivateKey(mldsa.MLDSA44(), seed)
	if err != nil {
		return Settings{}, err
	}
	if err := keys.PutSecret(keyMLDSA44, seed); err != nil {
		return Settings{}, err
	}
	s := Settings{Logs: []Log{}}
	for _, k := range []ledger.CosignerKey{ledger.Ed25519Cosigner(name, signer{ed}), ledger.MLDSA44Cosigner(name, pq)} {
		s.Keys = append(s.Keys, k.VerifierKey)
	}
	return s, d.save(s)
}

// CheckName says what is wrong with a witness's name, before anything is made.
func CheckName(name string) error {
	probe := ledger.VerifierKey{Name: name, Type: ledger.TypeCosignature, Key: make([]byte, ed25519.PublicKeySize)}
	if _, err := ledger.ParseVerifierKey(probe.String()); err != nil {
		return fmt.Errorf("name %q: want one without spaces and '+', of at most 255 bytes, such as witness.example.com/w1", name)
	}
	return nil
}

// Load reads witness.json. Unknown members are refused.
func (d Dir) Load() (Settings, error) {
	var s Settings
	data, err := os.ReadFile(d.settings())
	if errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("%s is no directory of a witness; `hallmark witness init --dir %s --name NAME` makes one", d.Path, d.Path)
	}
	if err != nil {
		return s, err
	}
	j := json.NewDecoder(bytes.NewReader(data))
	j.DisallowUnknownFields()
	if err := j.Decode(&s); err != nil {
		return s, fmt.Errorf("%s: %w; restore it", d.settings(), err)
	}
	if j.More() || len(s.Keys) == 0 {
		return s, fmt.Errorf("%s: no keys, or too much; restore it", d.settings())
	}
	return s, nil
}

func (d Dir) save(s Settings) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(d.settings(), append(data, '\n'), 0o600)
}

// AddLog makes a log known, or a further key of one that is. Its memory is made first and once: one that is lost later is missed.
func (d Dir) AddLog(origin string, key ledger.VerifierKey) error {
	s, err := d.Load()
	if err != nil {
		return err
	}
	if origin == "" || len(origin) > 255 || strings.ContainsFunc(origin, func(r rune) bool { return r < ' ' }) {
		return fmt.Errorf("origin %q: want a line of at most 255 bytes", origin)
	}
	for i, l := range s.Logs {
		if l.Origin != origin {
			continue
		}
		if slices.ContainsFunc(l.Keys, func(k ledger.VerifierKey) bool { return k.String() == key.String() }) {
			return fmt.Errorf("the log %s is known by this key already", origin)
		}
		s.Logs[i].Keys = append(l.Keys, key)
		return d.save(s)
	}
	if _, err := os.Stat(d.memory(origin)); errors.Is(err, fs.ErrNotExist) { // one that was removed is still remembered
		blank, err := witness.Blank(origin)
		if err != nil {
			return err
		}
		if err := durable.WriteFile(d.memory(origin), blank, 0o600); err != nil {
			return err
		}
	}
	s.Logs = append(s.Logs, Log{Origin: origin, Keys: []ledger.VerifierKey{key}})
	return d.save(s)
}

// RemoveLog makes a log unknown. What is remembered of it stays, for the day it is added again.
func (d Dir) RemoveLog(origin string) error {
	s, err := d.Load()
	if err != nil {
		return err
	}
	n := len(s.Logs)
	if s.Logs = slices.DeleteFunc(s.Logs, func(l Log) bool { return l.Origin == origin }); len(s.Logs) == n {
		return fmt.Errorf("the log %s is not known; see `hallmark witness log list`", origin)
	}
	return d.save(s)
}

// Open opens the witness. It refuses when a key or a memory is not what it was.
func (d Dir) Open(ctx context.Context, keys Vault, rate float64) (*witness.Witness, Settings, error) {
	s, err := d.Load()
	if err != nil {
		return nil, s, err
	}
	ed, err := keys.Signer(keyEd25519)
	if err != nil {
		return nil, s, err
	}
	seed, err := keys.Secret(keyMLDSA44)
	if err != nil {
		return nil, s, err
	}
	pq, err := mldsa.NewPrivateKey(mldsa.MLDSA44(), seed)
	if err != nil {
		return nil, s, fmt.Errorf("key %s: %w", keyMLDSA44, err)
	}
	own := []ledger.CosignerKey{ledger.Ed25519Cosigner(s.Name(), signer{ed}), ledger.MLDSA44Cosigner(s.Name(), pq)}
	c := witness.Config{Rate: rate, Failpoint: failpoint.Hit}
	for i, k := range own {
		if len(s.Keys) != len(own) || k.String() != s.Keys[i].String() {
			return nil, s, fmt.Errorf("the keys in %s are not those of %s: restore the one or the other", d.Keys(), d.settings())
		}
		c.Keys = append(c.Keys, k)
	}
	for _, l := range s.Logs {
		c.Logs = append(c.Logs, witness.Log{Origin: l.Origin, Keys: l.Keys, Memory: kept{durable.File{Path: d.memory(l.Origin)}}})
	}
	w, err := witness.Open(ctx, c)
	return w, s, err
}

// kept is a memory that was made when its log was added: it is never missing.
type kept struct{ durable.File }

// Load implements witness.Storage.
func (k kept) Load(ctx context.Context) ([]byte, error) {
	data, err := k.File.Load(ctx)
	if err == nil && data == nil {
		err = fmt.Errorf("%s is missing: restore it; an empty memory would sign a fork. If it is lost for good, this witness has to begin anew under another name", k.Path)
	}
	return data, err
}

// signer signs texts with an Ed25519 key.
type signer struct{ crypto.Signer }

// Sign implements ledger.Signer.
func (s signer) Sign(text []byte) ([]byte, error) {
	return s.Signer.Sign(rand.Reader, text, crypto.Hash(0))
}

// Public implements ledger.Signer; of a key that is no Ed25519 key it is none, and no signature will hold.
func (s signer) Public() ed25519.PublicKey {
	k, _ := s.Signer.Public().(ed25519.PublicKey)
	return k
}
