//go:build cgo

package pkcs11

import (
	"crypto"
	"crypto/elliptic"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/ThalesGroup/crypto11"
	p11 "github.com/miekg/pkcs11"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/suite"
)

// sessions is how many signatures may be under way at once.
const sessions = 4

// Keys is a key store in a token.
type Keys struct {
	token *crypto11.Context
	path  string
	mu    sync.Mutex // makes and destroys one key at a time, and guards agree

	agree *agreement // nil: not used yet
	pin   string
	label string
}

// Open opens a token.
func Open(c Config) (*Keys, error) {
	token, err := crypto11.Configure(&crypto11.Config{Path: c.Path, TokenLabel: c.Label, Pin: c.PIN, MaxSessions: sessions + 1})
	if err != nil {
		return nil, fmt.Errorf("token %q in %s: %w", c.Label, c.Path, err)
	}
	return &Keys{token: token, path: c.Path, pin: c.PIN, label: c.Label}, nil
}

// Close closes the token. The keys stay.
func (k *Keys) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.agree != nil {
		k.agree.close()
		k.agree = nil
	}
	return k.token.Close()
}

// Origin implements hw.KeyStore.
func (k *Keys) Origin() string { return "pkcs11" }

// label is what the objects of a key are labelled.
func label(name string) ([]byte, error) {
	if !slices.Contains(hw.Signing(), name) {
		return nil, fmt.Errorf("key %q: a token keeps the keys %v", name, hw.AllNames())
	}
	return []byte("hallmark-" + name), nil
}

// find gives the key of a name. Two of one name are an attack or an accident, and neither is used.
func (k *Keys) find(name string) (crypto11.Signer, error) {
	l, err := label(name)
	if err != nil {
		return nil, err
	}
	found, err := k.token.FindKeyPairs(nil, l)
	if err != nil {
		return nil, fmt.Errorf("token: look for key %s: %w", name, err)
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%q: %w", name, hw.ErrNoKey)
	case 1:
		return found[0], k.stays(name, found[0])
	}
	return nil, fmt.Errorf("token: %d keys are labelled %q, want one", len(found), l)
}

// stays refuses a key that could be taken out, or was brought in.
func (k *Keys) stays(name string, key crypto11.Signer) error {
	for attribute, want := range map[crypto11.AttributeType]byte{crypto11.CkaSensitive: 1, crypto11.CkaExtractable: 0, crypto11.CkaLocal: 1} {
		a, err := k.token.GetAttribute(key, attribute)
		if err != nil {
			return fmt.Errorf("token: key %s: %w", name, err)
		}
		if len(a.Value) != 1 || a.Value[0] != want {
			return fmt.Errorf("token: key %s could leave it, or was not made in it: it is nobody's identity", name)
		}
	}
	return nil
}

// Generate implements hw.KeyStore. The token makes both objects by one command.
func (k *Keys) Generate(name string, id suite.ID) (crypto.PublicKey, error) {
	curve, ok := map[suite.ID]elliptic.Curve{suite.P256: elliptic.P256(), suite.P384: elliptic.P384()}[id]
	if !ok {
		return nil, fmt.Errorf("suite %s: %w: a token has none of it", id, hw.ErrSuite)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := k.find(name); !errors.Is(err, hw.ErrNoKey) {
		return nil, errors.Join(fmt.Errorf("%q: %w", name, hw.ErrKeyExists), err)
	}
	l, err := label(name)
	if err != nil {
		return nil, err
	}
	made, err := k.token.GenerateECDSAKeyPairWithLabel([]byte(name), l, curve)
	if err != nil {
		return nil, fmt.Errorf("token: make key %s: %w", name, err)
	}
	return made.Public(), nil
}

// Signer implements hw.KeyStore.
func (k *Keys) Signer(name string) (crypto.Signer, error) {
	key, err := k.find(name)
	if err != nil {
		return nil, err
	}
	return &signer{name, key}, nil
}

// Destroy implements hw.KeyStore.
func (k *Keys) Destroy(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if name == hw.KeyCode {
		a, err := k.agreement()
		if err != nil {
			return err
		}
		return a.destroy()
	}
	l, err := label(name)
	if err != nil {
		return err
	}
	found, err := k.token.FindKeyPairs(nil, l)
	if err != nil {
		return fmt.Errorf("token: look for key %s: %w", name, err)
	}
	for _, key := range found {
		if err := key.Delete(); err != nil {
			return fmt.Errorf("token: destroy key %s: %w", name, err)
		}
	}
	return nil
}

type signer struct {
	name string
	key  crypto11.Signer
}

func (s *signer) Public() crypto.PublicKey { return s.key.Public() }

// Sign signs a digest; the random numbers are the token's own.
func (s *signer) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := s.key.Sign(random, digest, opts)
	var why p11.Error
	if errors.As(err, &why) && (why == p11.CKR_KEY_HANDLE_INVALID || why == p11.CKR_OBJECT_HANDLE_INVALID) {
		return nil, fmt.Errorf("%q: %w", s.name, hw.ErrNoKey)
	}
	if err != nil {
		return nil, fmt.Errorf("token: sign with key %s: %w", s.name, err)
	}
	return sig, nil
}
