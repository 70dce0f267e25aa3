package soft

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

const few = minIterations

func TestKeysComeBackUnderTheirPassphraseOnly(t *testing.T) {
	dir := t.TempDir()
	s, err := Create(dir, "right", few)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := s.GenerateP256("ca")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.GenerateEd25519("log"); err != nil {
		t.Fatal(err)
	}
	if err := s.PutSecret("vault", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GenerateP256("ca"); !errors.Is(err, ErrKeyExists) {
		t.Errorf("made a key twice: %v", err)
	}
	if _, err := Open(dir, "wrong"); !errors.Is(err, ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if _, err := Create(dir, "right", few); err == nil {
		t.Error("a store was made over another")
	}
	s, err = Open(dir, "right")
	if err != nil {
		t.Fatal(err)
	}
	k, err := s.Signer("ca")
	if err != nil || !ec.Public().(*ecdsa.PublicKey).Equal(k.Public()) {
		t.Fatalf("another key came back: %v", err)
	}
	l, err := s.Signer("log")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Sign(rand.Reader, []byte("x"), &ed25519.Options{}); err != nil {
		t.Error(err)
	}
	if b, err := s.Secret("vault"); err != nil || string(b) != "secret" {
		t.Errorf("%q %v", b, err)
	}
	if _, err := s.Signer("none"); !errors.Is(err, ErrNoKey) {
		t.Errorf("a key that is not there: %v", err)
	}
	if err := s.Destroy(t.Context(), "ca"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Signer("ca"); !errors.Is(err, ErrNoKey) {
		t.Errorf("a destroyed key: %v", err)
	}
}

func TestFilesAreBoundToTheirNamesAndBytes(t *testing.T) {
	dir := t.TempDir()
	s, err := Create(dir, "p", few)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"a", "b"} {
		if _, err := s.GenerateP256(n); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "a.key"))
	if err != nil {
		t.Fatal(err)
	}
	fresh := func() *Store {
		s, err := Open(dir, "p")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if err := os.WriteFile(filepath.Join(dir, "b.key"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := fresh().Signer("b"); err == nil {
		t.Error("one key's file stood in for another's")
	}
	for _, n := range []int{0, 5, len(data) - 1} {
		if err := os.WriteFile(filepath.Join(dir, "a.key"), data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := fresh().Signer("a"); err == nil {
			t.Errorf("cut to %d bytes, and read", n)
		}
	}
	for _, name := range []string{"", "../x", "a/b", ".hidden", "a\x00"} {
		if _, err := s.Signer(name); err == nil || errors.Is(err, ErrNoKey) {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func FuzzDecodeMaster(f *testing.F) {
	f.Add([]byte(`{"kdf":"pbkdf2-hmac-sha256","iterations":600000,"salt":"AAAAAAAAAAAAAAAAAAAAAA==","sealed":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeMaster(b); err == nil && m.Iterations > maxIterations {
			t.Fatal("asks for too much")
		}
	})
}
