//go:build cgo

package pkcs11

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"sync"

	p11 "github.com/miekg/pkcs11"

	"github.com/hallmark-iot/hallmark/suite"
)

// sessions is how many signatures may be under way at once.
const sessions = 8

// Library is a PKCS#11 library that is loaded. A process loads each once, however many of its tokens it uses.
type Library struct {
	path string
	ctx  *p11.Ctx
}

// Load loads a library.
func Load(path string) (*Library, error) {
	ctx := p11.New(path)
	if ctx == nil {
		return nil, fmt.Errorf("pkcs11: cannot load %s", path)
	}
	if err := ctx.Initialize(); err != nil {
		ctx.Destroy()
		return nil, fmt.Errorf("pkcs11: initialise %s: %w", path, err)
	}
	return &Library{path, ctx}, nil
}

// Close unloads it, after its tokens were closed. It may be called twice.
func (l *Library) Close() error {
	if l.ctx == nil {
		return nil
	}
	err := l.ctx.Finalize()
	l.ctx.Destroy()
	l.ctx = nil
	if err != nil {
		return fmt.Errorf("pkcs11: finalise %s: %w", l.path, err)
	}
	return nil
}

// Store is an open token. It is safe for concurrent use.
type Store struct {
	ctx   *p11.Ctx
	slot  uint
	about string
	end   func() error // unloads the library, where nobody else uses it

	free chan p11.SessionHandle // sessions for signing, one per goroutine at a time

	mu   sync.Mutex // serialises the finding and making of objects (SoftHSMv2#573, #688) and guards main
	main p11.SessionHandle
	by   map[string]*signer // guarded by mu
}

// Open loads the library for one token, and logs in to that.
func Open(c Config) (*Store, error) {
	l, err := Load(c.Path)
	if err != nil {
		return nil, err
	}
	s, err := l.Open(c.Label, c.PIN)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s.end = l.Close
	return s, nil
}

// Open logs in to the token with a label; the PIN is not kept. Of two with one label none is opened.
func (l *Library) Open(label string, pin []byte) (*Store, error) {
	s := &Store{ctx: l.ctx, end: func() error { return nil }, free: make(chan p11.SessionHandle, sessions), by: map[string]*signer{}}
	if err := s.find(l.path, label); err != nil {
		return nil, err
	}
	if err := s.open(pin); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) find(path, label string) error {
	slots, err := s.ctx.GetSlotList(true)
	if err != nil {
		return fmt.Errorf("pkcs11: slots: %w", err)
	}
	found := 0
	for _, slot := range slots {
		ti, err := s.ctx.GetTokenInfo(slot)
		if err != nil || trimmed(ti.Label) != label {
			continue
		}
		found++
		s.slot, s.about = slot, fmt.Sprintf("%s %s, serial number %s", trimmed(ti.ManufacturerID), trimmed(ti.Model), trimmed(ti.SerialNumber))
	}
	switch found {
	case 0:
		return fmt.Errorf("pkcs11: no token labelled %q in %s", label, path)
	case 1:
		return nil
	}
	return fmt.Errorf("pkcs11: %d tokens are labelled %q in %s: none of them is used", found, label, path)
}

func trimmed(s string) string { return strings.TrimRight(s, " \x00") }

// About names the token: its maker, model and serial number.
func (s *Store) About() string { return s.about }

func (s *Store) open(pin []byte) error {
	const flags = p11.CKF_SERIAL_SESSION | p11.CKF_RW_SESSION
	var err error
	if s.main, err = s.ctx.OpenSession(s.slot, flags); err != nil {
		return fmt.Errorf("pkcs11: open session: %w", err)
	}
	if err := s.ctx.Login(s.main, p11.CKU_USER, string(pin)); err != nil {
		return fmt.Errorf("pkcs11: log in: %w; check the PIN before the token locks itself", err)
	}
	for range sessions {
		h, err := s.ctx.OpenSession(s.slot, flags)
		if err != nil {
			return fmt.Errorf("pkcs11: open session: %w", err)
		}
		s.free <- h
	}
	return nil
}

// Close logs out. Signatures under way must have ended.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil {
		return nil
	}
	err := s.ctx.CloseAllSessions(s.slot) // logs out
	s.ctx = nil
	if err != nil {
		err = fmt.Errorf("pkcs11: log out: %w", err)
	}
	return errors.Join(err, s.end())
}

func attr(t uint, v any) *p11.Attribute { return p11.NewAttribute(t, v) }
func mech(t uint) []*p11.Mechanism      { return []*p11.Mechanism{p11.NewMechanism(t, nil)} }

// one finds the one object of a class with a label. The caller holds mu.
func (s *Store) one(class uint, name string) (p11.ObjectHandle, error) {
	if s.ctx == nil {
		return 0, errors.New("pkcs11: closed")
	}
	if err := s.ctx.FindObjectsInit(s.main, []*p11.Attribute{attr(p11.CKA_CLASS, class), attr(p11.CKA_LABEL, name)}); err != nil {
		return 0, fmt.Errorf("pkcs11: find %q: %w", name, err)
	}
	found, _, err := s.ctx.FindObjects(s.main, 2)
	if err = errors.Join(err, s.ctx.FindObjectsFinal(s.main)); err != nil {
		return 0, fmt.Errorf("pkcs11: find %q: %w", name, err)
	}
	switch len(found) {
	case 0:
		return 0, fmt.Errorf("pkcs11: %q: %w", name, ErrNoKey)
	case 1:
		return found[0], nil
	}
	return 0, fmt.Errorf("pkcs11: %d keys called %q on the token: none of them is used", len(found), name)
}

// curves are those of the suites, with their object identifiers.
func curves() map[string]elliptic.Curve {
	return map[string]elliptic.Curve{"1.2.840.10045.3.1.7": elliptic.P256(), "1.3.132.0.34": elliptic.P384()}
}

// Signer finds a key by its label.
func (s *Store) Signer(name string) (crypto.Signer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.by[name]; k != nil {
		return k, nil
	}
	priv, err := s.one(p11.CKO_PRIVATE_KEY, name)
	if err != nil {
		return nil, err
	}
	if err := s.held(priv, name); err != nil {
		return nil, err
	}
	public, err := s.one(p11.CKO_PUBLIC_KEY, name)
	if err != nil {
		return nil, err
	}
	pub, err := s.public(public, name)
	if err != nil {
		return nil, err
	}
	k := &signer{s: s, key: priv, pub: pub}
	if err := k.prove(); err != nil {
		return nil, fmt.Errorf("pkcs11: key %q: %w", name, err)
	}
	s.by[name] = k
	return k, nil
}

// held refuses a key that could leave the token: somebody put it there who may have a copy. The caller holds mu.
func (s *Store) held(key p11.ObjectHandle, name string) error {
	a, err := s.ctx.GetAttributeValue(s.main, key, []*p11.Attribute{attr(p11.CKA_EXTRACTABLE, nil), attr(p11.CKA_SENSITIVE, nil)})
	if err != nil {
		return fmt.Errorf("pkcs11: key %q: %w", name, err)
	}
	yes := func(a *p11.Attribute) bool { return len(a.Value) == 1 && a.Value[0] != 0 }
	if yes(a[0]) || !yes(a[1]) {
		return fmt.Errorf("pkcs11: key %q can be taken out of the token: make one in it", name)
	}
	return nil
}

func (s *Store) public(h p11.ObjectHandle, name string) (*ecdsa.PublicKey, error) {
	a, err := s.ctx.GetAttributeValue(s.main, h, []*p11.Attribute{attr(p11.CKA_EC_PARAMS, nil), attr(p11.CKA_EC_POINT, nil)})
	if err != nil {
		return nil, fmt.Errorf("pkcs11: key %q: %w", name, err)
	}
	var oid asn1.ObjectIdentifier
	var point []byte
	if _, err := asn1.Unmarshal(a[0].Value, &oid); err != nil {
		return nil, fmt.Errorf("pkcs11: key %q: curve: %w", name, err)
	}
	if rest, err := asn1.Unmarshal(a[1].Value, &point); err != nil || len(rest) != 0 {
		return nil, fmt.Errorf("pkcs11: key %q: the point is not an octet string", name)
	}
	curve := curves()[oid.String()]
	if curve == nil {
		return nil, fmt.Errorf("pkcs11: key %q: curve %s is in no suite", name, oid)
	}
	return ecdsa.ParseUncompressedPublicKey(curve, point)
}

// GenerateP256 makes a key of suite HM-P256-1 in the token.
func (s *Store) GenerateP256(name string) (crypto.Signer, error) {
	return s.generate(name, asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7})
}

// Generate makes a key of a suite in the token: tokens have no post-quantum keys.
func (s *Store) Generate(name string, id suite.ID) (crypto.Signer, error) {
	switch id {
	case suite.P256:
		return s.GenerateP256(name)
	case suite.P384:
		return s.generate(name, asn1.ObjectIdentifier{1, 3, 132, 0, 34})
	case suite.MLDSA44:
	}
	return nil, fmt.Errorf("pkcs11: key %q: no token makes keys of suite %s: keep it in files", name, id)
}

func (s *Store) generate(name string, curve asn1.ObjectIdentifier) (crypto.Signer, error) {
	if name == "" || len(name) > 64 {
		return nil, fmt.Errorf("pkcs11: key name %q: want 1 to 64 bytes", name)
	}
	params, err := asn1.Marshal(curve)
	if err != nil {
		return nil, err
	}
	if err := s.create(name, params); err != nil {
		return nil, err
	}
	return s.Signer(name)
}

func (s *Store) create(name string, params []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.one(p11.CKO_PRIVATE_KEY, name); !errors.Is(err, ErrNoKey) {
		return errors.Join(err, fmt.Errorf("pkcs11: the token has a key called %q", name))
	}
	pub := []*p11.Attribute{attr(p11.CKA_TOKEN, true), attr(p11.CKA_VERIFY, true), attr(p11.CKA_EC_PARAMS, params), attr(p11.CKA_LABEL, name)}
	priv := []*p11.Attribute{
		attr(p11.CKA_TOKEN, true), attr(p11.CKA_PRIVATE, true), attr(p11.CKA_SENSITIVE, true), attr(p11.CKA_EXTRACTABLE, false),
		attr(p11.CKA_SIGN, true), attr(p11.CKA_UNWRAP, false), attr(p11.CKA_DECRYPT, false), attr(p11.CKA_DERIVE, false), attr(p11.CKA_LABEL, name),
	}
	if _, _, err := s.ctx.GenerateKeyPair(s.main, mech(p11.CKM_EC_KEY_PAIR_GEN), pub, priv); err != nil {
		return fmt.Errorf("pkcs11: make key %q: %w", name, err)
	}
	return nil
}

// Destroy destroys a key. One that is not there is ErrNoKey.
func (s *Store) Destroy(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, class := range []uint{p11.CKO_PRIVATE_KEY, p11.CKO_PUBLIC_KEY} { // the private one first: a half that is left signs nothing
		h, err := s.one(class, name)
		if errors.Is(err, ErrNoKey) && class == p11.CKO_PUBLIC_KEY {
			break
		}
		if err != nil {
			return err
		}
		if err := s.ctx.DestroyObject(s.main, h); err != nil {
			return fmt.Errorf("pkcs11: destroy key %q: %w", name, err)
		}
		delete(s.by, name)
	}
	return nil
}

// signer is an EC key on the token.
type signer struct {
	s   *Store
	key p11.ObjectHandle
	pub *ecdsa.PublicKey
}

// Public implements crypto.Signer.
func (k *signer) Public() crypto.PublicKey { return k.pub }

// Sign implements crypto.Signer: ECDSA, ASN.1.
func (k *signer) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	session := <-k.s.free
	defer func() { k.s.free <- session }()
	if err := k.s.ctx.SignInit(session, mech(p11.CKM_ECDSA), k.key); err != nil {
		return nil, fmt.Errorf("pkcs11: sign: %w", err)
	}
	raw, err := k.s.ctx.Sign(session, digest)
	if err != nil {
		return nil, fmt.Errorf("pkcs11: sign: %w", err)
	}
	half := (k.pub.Curve.Params().BitSize + 7) / 8
	if len(raw) != 2*half {
		return nil, fmt.Errorf("pkcs11: sign: signature of %d bytes", len(raw))
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
}

// prove signs a random digest and checks it: a public key that lies beside a private one need not be its half.
func (k *signer) prove() error {
	digest := make([]byte, 32)
	_, _ = rand.Read(digest)
	sig, err := k.Sign(rand.Reader, digest, crypto.SHA256)
	if err != nil {
		return err
	}
	if !ecdsa.VerifyASN1(k.pub, digest, sig) {
		return errors.New("the public key beside it is not its own")
	}
	return nil
}
