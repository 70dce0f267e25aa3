// Package soft keeps private keys in files, encrypted under a passphrase.
//
// Under all stages. For a start, and for keys that are kept on a stick in a safe: whoever has both the files and the
// passphrase, or reads this process's memory, has the keys. A running service with something to lose uses PKCS#11 instead.
//
// master.json holds a random master key, sealed by a key that PBKDF2-HMAC-SHA-256 makes of the passphrase; each key is a file
// of its own, sealed with AES-256-GCM by the master key, with its name as additional data, so that no file stands in for
// another. All of it is in Go's validated cryptographic module.
package soft

import (
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/suite"
)

// Iterations of PBKDF2 for new stores: OWASP's figure for HMAC-SHA-256.
const Iterations = 600_000

// Bounds on what a master.json may ask for.
const (
	minIterations = 1_000
	maxIterations = 10_000_000
	maxFile       = 64 << 10
)

const masterFile = "master.json"

// Errors, for errors.Is.
var (
	ErrPassphrase = errors.New("wrong passphrase, or the file is damaged")
	ErrNoKey      = errors.New("no such key")
	ErrKeyExists  = errors.New("key exists")
)

type master struct {
	KDF        string `json:"kdf"` // pbkdf2-hmac-sha256
	Iterations int    `json:"iterations"`
	Salt       []byte `json:"salt"`
	Sealed     []byte `json:"sealed"`
}

// Store is an open directory of keys. It is safe for concurrent use.
type Store struct {
	dir  string
	aead cipher.AEAD

	mu     sync.Mutex // guards loaded
	loaded map[string]crypto.Signer
}

// Create makes a new store in dir, which must not hold one.
func Create(dir, passphrase string, iterations int) (*Store, error) {
	path := filepath.Join(dir, masterFile)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: choose another directory", path, ErrKeyExists)
	}
	if passphrase == "" {
		return nil, errors.New("keys need a passphrase: give one")
	}
	if iterations < minIterations || iterations > maxIterations {
		return nil, fmt.Errorf("%d PBKDF2 iterations: want %d to %d, or nobody opens the keys again", iterations, minIterations, maxIterations)
	}
	m := master{KDF: "pbkdf2-hmac-sha256", Iterations: iterations, Salt: make([]byte, 16)}
	key := make([]byte, 32)
	for _, b := range [][]byte{m.Salt, key} {
		if _, err := rand.Read(b); err != nil {
			return nil, err
		}
	}
	wrap, err := m.wrapper(passphrase)
	if err != nil {
		return nil, err
	}
	m.Sealed = wrap.Seal(nil, nil, key, []byte(m.KDF))
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := durable.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return nil, err
	}
	return open(dir, key)
}

// Open opens the store in dir.
func Open(dir, passphrase string) (*Store, error) {
	path := filepath.Join(dir, masterFile)
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is no key directory: %s is missing", dir, masterFile)
	}
	if err != nil {
		return nil, err
	}
	m, err := decodeMaster(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; restore it from a backup", path, err)
	}
	wrap, err := m.wrapper(passphrase)
	if err != nil {
		return nil, err
	}
	key, err := wrap.Open(nil, nil, m.Sealed, []byte(m.KDF))
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("%s: %w", path, ErrPassphrase)
	}
	return open(dir, key)
}

// decodeMaster reads a master.json, bounded in what it may ask of us.
func decodeMaster(data []byte) (master, error) {
	var m master
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("damaged: %w", err)
	}
	if m.KDF != "pbkdf2-hmac-sha256" || m.Iterations < minIterations || m.Iterations > maxIterations || len(m.Salt) < 16 || len(m.Sealed) != 12+32+16 {
		return m, errors.New("damaged, or of another version")
	}
	return m, nil
}

func (m master) wrapper(passphrase string) (cipher.AEAD, error) {
	kek, err := pbkdf2.Key(sha256.New, passphrase, m.Salt, m.Iterations, 32)
	if err != nil {
		return nil, err
	}
	return gcm(kek)
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func open(dir string, key []byte) (*Store, error) {
	aead, err := gcm(key)
	return &Store{dir: dir, aead: aead, loaded: map[string]crypto.Signer{}}, err
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s: %d bytes, at most %d", path, info.Size(), maxFile)
	}
	return os.ReadFile(path)
}

// path of a key's file; names are chosen by programs, but a bad one must not leave the directory.
func (s *Store) path(name string) (string, error) {
	if name == "" || len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_@") != "" ||
		strings.HasPrefix(name, ".") {
		return "", fmt.Errorf("key name %q: letters, digits and .-_@ only", name)
	}
	return filepath.Join(s.dir, name+".key"), nil
}

func (s *Store) put(name string, plain []byte) error {
	path, err := s.path(name)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", path, ErrKeyExists)
	}
	return durable.WriteFile(path, s.aead.Seal(nil, nil, plain, []byte("hallmark-key\x00"+name)), 0o600)
}

func (s *Store) get(name string) ([]byte, error) {
	path, err := s.path(name)
	if err != nil {
		return nil, err
	}
	data, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, ErrNoKey)
	}
	if err != nil {
		return nil, err
	}
	plain, err := s.aead.Open(nil, nil, data, []byte("hallmark-key\x00"+name))
	if err != nil {
		return nil, fmt.Errorf("%s: damaged, or another key's file: restore it from a backup", path)
	}
	return plain, nil
}

// GenerateP256 makes an ECDSA key on P-256.
func (s *Store) GenerateP256(name string) (crypto.Signer, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return s.keep(name, k)
}

// Generate makes a signing key of a suite.
func (s *Store) Generate(name string, id suite.ID) (crypto.Signer, error) {
	set, err := suite.Get(id)
	if err != nil {
		return nil, err
	}
	k, err := set.Generate()
	if err != nil {
		return nil, err
	}
	return s.keep(name, k)
}

// GenerateEd25519 makes an Ed25519 key.
func (s *Store) GenerateEd25519(name string) (crypto.Signer, error) {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return s.keep(name, k)
}

func (s *Store) keep(name string, k crypto.Signer) (crypto.Signer, error) {
	der, err := suite.MarshalPrivate(k)
	if err != nil {
		return nil, err
	}
	return k, s.put(name, der)
}

// Signer finds a key.
func (s *Store) Signer(name string) (crypto.Signer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, ok := s.loaded[name]; ok {
		return k, nil
	}
	der, err := s.get(name)
	if err != nil {
		return nil, err
	}
	k, err := suite.ParsePrivate(der)
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", name, err)
	}
	s.loaded[name] = k
	return k, nil
}

// PutSecret keeps a secret that is no signing key.
func (s *Store) PutSecret(name string, secret []byte) error { return s.put(name, secret) }

// Secret gives one.
func (s *Store) Secret(name string) ([]byte, error) { return s.get(name) }

// Destroy removes a key for good, as far as a file system can. Destroying what is not there is nothing.
func (s *Store) Destroy(_ context.Context, name string) error {
	path, err := s.path(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.loaded, name)
	s.mu.Unlock()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.SyncDir(s.dir)
}

// Names lists the keys and secrets.
func (s *Store) Names() (out []string, err error) {
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".key"); ok {
			out = append(out, name)
		}
	}
	return out, err
}

// Import keeps a key that was made elsewhere.
func (s *Store) Import(name string, key crypto.Signer) error {
	_, err := s.keep(name, key)
	return err
}
