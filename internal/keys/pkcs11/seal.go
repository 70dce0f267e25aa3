//go:build cgo

package pkcs11

import (
	"crypto/rand"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"
)

const (
	nonceSize = 12
	tagBits   = 128
)

// Seal encrypts what a token cannot keep (keys of a kind that it does not know) under a secret key of the token, AES-256-GCM, for a file beside it. The
// key is made when there is none of that name, and never leaves the token; it opens nothing under another name.
func (s *Store) Seal(name string, plain []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, err := s.sealKey(name)
	if errors.Is(err, ErrNoKey) {
		key, err = s.newSealKey(name)
	}
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, nonceSize)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	with := p11.NewGCMParams(nonce, []byte(name), tagBits)
	defer with.Free()
	if err := s.ctx.EncryptInit(s.main, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_GCM, with)}, key); err != nil {
		return nil, fmt.Errorf("pkcs11: seal %q: %w", name, err)
	}
	sealed, err := s.ctx.Encrypt(s.main, plain)
	if err != nil {
		return nil, fmt.Errorf("pkcs11: seal %q: %w", name, err)
	}
	if used := with.IV(); len(used) == nonceSize { // there are tokens that take their own
		nonce = used
	}
	return append(nonce, sealed...), nil
}

// Unseal decrypts what Seal gave; ErrNoKey when this token has no such key.
func (s *Store) Unseal(name string, sealed []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, err := s.sealKey(name)
	if err != nil {
		return nil, err
	}
	if len(sealed) < nonceSize+tagBits/8 {
		return nil, fmt.Errorf("pkcs11: %q: %d bytes are nothing that was sealed", name, len(sealed))
	}
	with := p11.NewGCMParams(sealed[:nonceSize], []byte(name), tagBits)
	defer with.Free()
	if err := s.ctx.DecryptInit(s.main, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_GCM, with)}, key); err != nil {
		return nil, fmt.Errorf("pkcs11: unseal %q: %w", name, err)
	}
	plain, err := s.ctx.Decrypt(s.main, sealed[nonceSize:])
	if err != nil {
		return nil, fmt.Errorf("pkcs11: unseal %q: it was sealed by another token, or changed: %w", name, err)
	}
	return plain, nil
}

// sealKey finds the key of a name. The caller holds mu.
func (s *Store) sealKey(name string) (p11.ObjectHandle, error) {
	key, err := s.one(p11.CKO_SECRET_KEY, name)
	if err != nil {
		return 0, err
	}
	return key, s.held(key, name)
}

// newSealKey makes it. The caller holds mu.
func (s *Store) newSealKey(name string) (p11.ObjectHandle, error) {
	key, err := s.ctx.GenerateKey(s.main, mech(p11.CKM_AES_KEY_GEN), []*p11.Attribute{
		attr(p11.CKA_CLASS, p11.CKO_SECRET_KEY), attr(p11.CKA_KEY_TYPE, p11.CKK_AES), attr(p11.CKA_VALUE_LEN, 32), attr(p11.CKA_LABEL, name),
		attr(p11.CKA_TOKEN, true), attr(p11.CKA_PRIVATE, true), attr(p11.CKA_SENSITIVE, true), attr(p11.CKA_EXTRACTABLE, false),
		attr(p11.CKA_ENCRYPT, true), attr(p11.CKA_DECRYPT, true), attr(p11.CKA_WRAP, false), attr(p11.CKA_UNWRAP, false),
	})
	if err != nil {
		return 0, fmt.Errorf("pkcs11: make secret key %q: %w", name, err)
	}
	return key, nil
}
