// Package soft keeps a station's keys in a file, encrypted under the PIN.
//
// Stage 2, birth, at the programming centre, for trials and for machines without an HSM. It writes and reads the same orders
// as an HSM does. It guarantees that the file is of no use without the PIN; it does not guarantee what an HSM does: while the
// station runs, the unwrapped order key is in its memory, and the descriptor says so (module "soft", not templated).
package soft

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // OAEP as modules have it that have nothing newer
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/tink-crypto/tink-go/v2/kwp/subtle"

	"github.com/hallmark-iot/hallmark/station/durable"
	"github.com/hallmark-iot/hallmark/station/module"
	"github.com/hallmark-iot/hallmark/wire"
)

// FileName is the key file in the station's directory.
const FileName = "keys.sealed"

// iterations of PBKDF2-HMAC-SHA256, OWASP's figure of 2023; in the file, so that it can grow.
const iterations = 600_000

// Module is the soft module.
type Module struct {
	path string

	mu   sync.Mutex // guards everything below
	kek  []byte
	salt []byte
	iter int
	keys contents
}

var _ module.Module = (*Module)(nil)

// contents is what the file holds once decrypted: PKCS#8 keys.
type contents struct {
	Serial  string            `json:"serial"`
	Record  []byte            `json:"record"`
	Wrap    map[string][]byte `json:"wrap"`    // by OEM
	Content map[string][]byte `json:"content"` // by OEM
}

// sealedFile is the file.
type sealedFile struct {
	Format string `json:"format"`
	Iter   int    `json:"iterations"`
	Salt   []byte `json:"salt"`
	Nonce  []byte `json:"nonce"`
	Data   []byte `json:"data"`
}

const format = "hallmark-station-keys-1"

// Create makes the record key and the file in dir. An existing file is never touched.
func Create(dir string, pin []byte) (*Module, error) {
	if len(pin) < 8 {
		return nil, errors.New("soft module: the PIN protects the keys and must have at least 8 characters")
	}
	path := filepath.Join(dir, FileName)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("soft module: %s exists already", path)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	var id [8]byte
	_, _ = rand.Read(id[:])
	m := &Module{path: path, salt: make([]byte, 16), iter: iterations}
	_, _ = rand.Read(m.salt)
	m.keys = contents{
		Serial: "soft-" + hex.EncodeToString(id[:]), Record: der, Wrap: map[string][]byte{}, Content: map[string][]byte{},
	}
	if m.kek, err = pbkdf2.Key(sha256.New, string(pin), m.salt, m.iter, 32); err != nil {
		return nil, err
	}
	return m, m.save()
}

// Open reads the file in dir with the PIN.
func Open(dir string, pin []byte) (*Module, error) {
	path := filepath.Join(dir, FileName)
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("soft module: %w", err)
	}
	var f sealedFile
	if err := json.Unmarshal(raw, &f); err != nil || f.Format != format {
		return nil, fmt.Errorf("soft module: %s is not a key file of this program", path)
	}
	if f.Iter < 100_000 || f.Iter > 100_000_000 {
		return nil, fmt.Errorf("soft module: %s: %d iterations", path, f.Iter)
	}
	m := &Module{path: path, salt: f.Salt, iter: f.Iter}
	if m.kek, err = pbkdf2.Key(sha256.New, string(pin), f.Salt, f.Iter, 32); err != nil {
		return nil, err
	}
	aead, err := m.aead()
	if err != nil {
		return nil, err
	}
	if len(f.Nonce) != aead.NonceSize() {
		return nil, fmt.Errorf("soft module: %s is damaged", path)
	}
	plain, err := aead.Open(nil, f.Nonce, f.Data, []byte(format))
	if err != nil {
		return nil, errors.New("soft module: wrong PIN, or the key file was changed")
	}
	if err := json.Unmarshal(plain, &m.keys); err != nil {
		return nil, fmt.Errorf("soft module: %s: %w", path, err)
	}
	return m, nil
}

func (m *Module) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(m.kek)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (m *Module) save() error {
	plain, err := json.Marshal(m.keys)
	if err != nil {
		return err
	}
	aead, err := m.aead()
	if err != nil {
		return err
	}
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce)
	out, err := json.Marshal(sealedFile{
		Format: format, Iter: m.iter, Salt: m.salt, Nonce: nonce, Data: aead.Seal(nil, nonce, plain, []byte(format)),
	})
	if err != nil {
		return err
	}
	return durable.WriteFile(m.path, out)
}

// Info implements module.Module.
func (m *Module) Info() module.Info {
	m.mu.Lock()
	defer m.mu.Unlock()
	return module.Info{
		Name: "soft", Serial: m.keys.Serial, WrapAlg: wire.WrapOAEPSHA256, ContentAlg: wire.WrapOAEPSHA256,
	}
}

// RecordKey implements module.Module.
func (m *Module) RecordKey() (crypto.Signer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return parse[*ecdsa.PrivateKey](m.keys.Record)
}

func parse[K crypto.Signer](der []byte) (K, error) {
	var none K
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return none, fmt.Errorf("soft module: %w", err)
	}
	key, ok := k.(K)
	if !ok {
		return none, fmt.Errorf("soft module: key is a %T", k)
	}
	return key, nil
}

// OEMKeys implements module.Module.
func (m *Module) OEMKeys(oem string) (*rsa.PublicKey, *rsa.PublicKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.keys.Wrap[oem]; !ok {
		for _, set := range []map[string][]byte{m.keys.Wrap, m.keys.Content} {
			key, err := rsa.GenerateKey(rand.Reader, module.RSABits)
			if err != nil {
				return nil, nil, err
			}
			if set[oem], err = x509.MarshalPKCS8PrivateKey(key); err != nil {
				return nil, nil, err
			}
		}
		if err := m.save(); err != nil {
			delete(m.keys.Wrap, oem)
			delete(m.keys.Content, oem)
			return nil, nil, err
		}
	}
	wrap, err := parse[*rsa.PrivateKey](m.keys.Wrap[oem])
	if err != nil {
		return nil, nil, err
	}
	content, err := parse[*rsa.PrivateKey](m.keys.Content[oem])
	if err != nil {
		return nil, nil, err
	}
	return &wrap.PublicKey, &content.PublicKey, nil
}

func (m *Module) decrypt(set map[string][]byte, oem string, alg wire.WrapAlg, blob []byte) ([]byte, error) {
	der, ok := set[oem]
	if !ok {
		return nil, fmt.Errorf("soft module: no keys for OEM %q", oem)
	}
	key, err := parse[*rsa.PrivateKey](der)
	if err != nil {
		return nil, err
	}
	hash, err := alg.Hash()
	if err != nil {
		return nil, fmt.Errorf("soft module: %w", err)
	}
	bad := errors.New("soft module: the blob is not wrapped to this station's key")
	if alg != wire.WrapRSAAES {
		out, err := rsa.DecryptOAEP(hash.New(), nil, key, blob, nil)
		if err != nil {
			return nil, bad
		}
		return out, nil
	}
	if len(blob) <= key.Size() {
		return nil, bad
	}
	kek, err := rsa.DecryptOAEP(hash.New(), nil, key, blob[:key.Size()], nil)
	if err != nil {
		return nil, bad
	}
	defer clear(kek)
	kwp, err := subtle.NewKWP(kek)
	if err != nil {
		return nil, bad
	}
	out, err := kwp.Unwrap(blob[key.Size():])
	if err != nil {
		return nil, bad
	}
	return out, nil
}

// UnwrapSigner implements module.Unwrapper. It takes every algorithm that there is, so that what an HSM is sent can be tried without one.
func (m *Module) UnwrapSigner(oem string, key wire.WrappedKey) (module.OrderKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	der, err := m.decrypt(m.keys.Wrap, oem, key.Alg, key.Blob)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	priv, err := parse[*ecdsa.PrivateKey](der)
	if err != nil {
		return nil, err
	}
	spki, err := wire.SPKIOf(priv.Public())
	if err != nil {
		return nil, err
	}
	if string(spki) != string(key.SPKI) {
		return nil, errors.New("soft module: the unwrapped key is not the one the order names")
	}
	return &orderKey{key: priv}, nil
}

// OpenContentKey implements module.Unwrapper.
func (m *Module) OpenContentKey(oem string, r wire.Recipient) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.decrypt(m.keys.Content, oem, r.Alg, r.Blob)
}

// Close implements module.Module.
func (m *Module) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.kek)
	m.keys = contents{}
	return nil
}

// orderKey forgets its key on Destroy; Go may have left copies, which is one reason why soft is not for production.
type orderKey struct {
	mu  sync.RWMutex
	key *ecdsa.PrivateKey
}

func (k *orderKey) Public() crypto.PublicKey {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.key == nil {
		return nil
	}
	return k.key.Public()
}

func (k *orderKey) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.key == nil {
		return nil, errors.New("soft module: the order key was destroyed")
	}
	return k.key.Sign(r, digest, opts)
}

func (k *orderKey) Destroy() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.key = nil
	return nil
}
