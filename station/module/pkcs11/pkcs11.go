//go:build cgo

package pkcs11

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"sync"

	p11 "github.com/miekg/pkcs11"

	"github.com/hallmark-iot/hallmark/station/module"
	"github.com/hallmark-iot/hallmark/wire"
)

const recordLabel = "hallmark-record"

// sessions is how many signatures may be under way at once, where the Config does not say.
const sessions = 4

// Module is a token.
type Module struct {
	ctx  *p11.Ctx
	slot uint
	info module.Info
	can  []wire.WrapAlg // how it unwraps signing keys; the first is what it asks for

	free chan p11.SessionHandle // sessions for signing, one per goroutine at a time

	mu   sync.Mutex // serialises the making of objects (SoftHSMv2#573, #688) and guards main
	main p11.SessionHandle
}

var _ module.Module = (*Module)(nil)

// Create makes the record key on a token that has none. The token must hold no other key that could unwrap.
func Create(c Config) (module.Module, error) {
	m, err := open(c)
	if err != nil {
		return nil, err
	}
	if err := m.create(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// Open opens a token that Create has prepared.
func Open(c Config) (module.Module, error) {
	m, err := open(c)
	if err != nil {
		return nil, err
	}
	if _, err := m.RecordKey(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func open(c Config) (*Module, error) {
	ctx := p11.New(c.Path)
	if ctx == nil {
		return nil, fmt.Errorf("pkcs11: cannot load %s", c.Path)
	}
	if err := ctx.Initialize(); err != nil {
		ctx.Destroy()
		return nil, fmt.Errorf("pkcs11: initialise %s: %w", c.Path, err)
	}
	m := &Module{ctx: ctx, free: make(chan p11.SessionHandle, cmp.Or(c.Sessions, sessions))}
	if err := m.login(c); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *Module) login(c Config) error {
	slots, err := m.ctx.GetSlotList(true)
	if err != nil {
		return fmt.Errorf("pkcs11: slots: %w", err)
	}
	for _, slot := range slots {
		ti, err := m.ctx.GetTokenInfo(slot)
		if err != nil || strings.TrimRight(ti.Label, " \x00") != c.Label {
			continue
		}
		m.slot = slot
		if m.can, err = unwraps(m.ctx, slot); err != nil {
			return err
		}
		m.info = module.Info{
			Name: "pkcs11:" + strings.TrimSpace(ti.Model), Serial: strings.TrimSpace(ti.SerialNumber),
			WrapAlg: m.can[0], ContentAlg: wire.WrapOAEPSHA1, Templated: true,
		}
		return m.openSessions(c.PIN)
	}
	return fmt.Errorf("pkcs11: no token labelled %q in %s", c.Label, c.Path)
}

// unwraps gives the ways in which the token takes a private key in, by its own list of mechanisms. The combined mechanism is made for private keys and
// comes first; OAEP is for secret keys by the standard, and tokens that have nothing else take private keys by it.
func unwraps(ctx *p11.Ctx, slot uint) (can []wire.WrapAlg, err error) {
	for _, k := range []struct {
		mechanism uint
		alg       wire.WrapAlg
	}{{p11.CKM_RSA_AES_KEY_WRAP, wire.WrapRSAAES}, {p11.CKM_RSA_PKCS_OAEP, wire.WrapOAEPSHA1}} {
		info, err := ctx.GetMechanismInfo(slot, mech(k.mechanism, nil))
		var none p11.Error
		if errors.As(err, &none) && none == p11.CKR_MECHANISM_INVALID {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("pkcs11: mechanisms: %w", err)
		}
		if info.Flags&p11.CKF_UNWRAP != 0 {
			can = append(can, k.alg)
		}
	}
	if len(can) == 0 {
		return nil, errors.New("pkcs11: the token unwraps neither by CKM_RSA_AES_KEY_WRAP nor by CKM_RSA_PKCS_OAEP: it cannot be a station's")
	}
	return can, nil
}

// unwrapping is the mechanism of an algorithm.
func unwrapping(alg wire.WrapAlg) []*p11.Mechanism {
	if alg == wire.WrapRSAAES {
		return mech(p11.CKM_RSA_AES_KEY_WRAP, &p11.RSAAESKeyWrapParams{AESKeyBits: 256, OAEPParams: *oaepSHA1()})
	}
	return mech(p11.CKM_RSA_PKCS_OAEP, oaepSHA1())
}

func (m *Module) openSessions(pin []byte) error {
	const flags = p11.CKF_SERIAL_SESSION | p11.CKF_RW_SESSION
	var err error
	if m.main, err = m.ctx.OpenSession(m.slot, flags); err != nil {
		return fmt.Errorf("pkcs11: open session: %w", err)
	}
	if err := m.ctx.Login(m.main, p11.CKU_USER, string(pin)); err != nil {
		return fmt.Errorf("pkcs11: log in: %w", err)
	}
	for range cap(m.free) {
		s, err := m.ctx.OpenSession(m.slot, flags)
		if err != nil {
			return fmt.Errorf("pkcs11: open session: %w", err)
		}
		m.free <- s
	}
	return nil
}

// Close implements module.Module.
func (m *Module) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx == nil {
		return nil
	}
	_ = m.ctx.CloseAllSessions(m.slot) // logs out and drops session objects; finalising does the same
	err := m.ctx.Finalize()
	m.ctx.Destroy()
	m.ctx = nil
	if err != nil {
		return fmt.Errorf("pkcs11: finalise: %w", err)
	}
	return nil
}

// Info implements module.Module.
func (m *Module) Info() module.Info { return m.info }

func (m *Module) create() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if found, err := m.find(attr(p11.CKA_UNWRAP, true)); err != nil || len(found) > 0 {
		return errors.Join(err, fmt.Errorf("pkcs11: the token holds %d key(s) that can unwrap: use a token of its own for the station", len(found)))
	}
	if found, err := m.find(attr(p11.CKA_LABEL, recordLabel)); err != nil || len(found) > 0 {
		return errors.Join(err, errors.New("pkcs11: the token belongs to a station already"))
	}
	p256, err := asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7})
	if err != nil {
		return err
	}
	pub := []*p11.Attribute{attr(p11.CKA_TOKEN, true), attr(p11.CKA_VERIFY, true), attr(p11.CKA_EC_PARAMS, p256), attr(p11.CKA_LABEL, recordLabel)}
	priv := []*p11.Attribute{
		attr(p11.CKA_TOKEN, true), attr(p11.CKA_PRIVATE, true), attr(p11.CKA_SENSITIVE, true), attr(p11.CKA_EXTRACTABLE, false),
		attr(p11.CKA_SIGN, true), attr(p11.CKA_UNWRAP, false), attr(p11.CKA_DECRYPT, false), attr(p11.CKA_LABEL, recordLabel),
	}
	_, _, err = m.ctx.GenerateKeyPair(m.main, mech(p11.CKM_EC_KEY_PAIR_GEN, nil), pub, priv)
	if err != nil {
		return fmt.Errorf("pkcs11: make the record key: %w", err)
	}
	return nil
}

func attr(t uint, v any) *p11.Attribute   { return p11.NewAttribute(t, v) }
func mech(t uint, p any) []*p11.Mechanism { return []*p11.Mechanism{p11.NewMechanism(t, p)} }
func class(c uint) *p11.Attribute         { return attr(p11.CKA_CLASS, c) }
func labelled(c uint, l string) []*p11.Attribute {
	return []*p11.Attribute{class(c), attr(p11.CKA_LABEL, l)}
}

func labels(oem string) (wrap, content string) {
	return "hallmark-wrap-" + oem, "hallmark-content-" + oem
}

func oaepSHA1() *p11.OAEPParams {
	return p11.NewOAEPParams(p11.CKM_SHA_1, p11.CKG_MGF1_SHA1, p11.CKZ_DATA_SPECIFIED, nil)
}

// find lists objects; the caller holds mu.
func (m *Module) find(template ...*p11.Attribute) ([]p11.ObjectHandle, error) {
	if m.ctx == nil {
		return nil, errors.New("pkcs11: closed")
	}
	if err := m.ctx.FindObjectsInit(m.main, template); err != nil {
		return nil, fmt.Errorf("pkcs11: find: %w", err)
	}
	found, _, err := m.ctx.FindObjects(m.main, 16)
	if err = errors.Join(err, m.ctx.FindObjectsFinal(m.main)); err != nil {
		return nil, fmt.Errorf("pkcs11: find: %w", err)
	}
	return found, nil
}

// one finds the one object with a label; two are an attack or an accident, and neither is used.
func (m *Module) one(c uint, label string) (p11.ObjectHandle, error) {
	found, err := m.find(labelled(c, label)...)
	if err != nil {
		return 0, err
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("pkcs11: %d objects labelled %q on the token, want one", len(found), label)
	}
	return found[0], nil
}

// RecordKey implements module.Module.
func (m *Module) RecordKey() (crypto.Signer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	priv, err := m.one(p11.CKO_PRIVATE_KEY, recordLabel)
	if err != nil {
		return nil, fmt.Errorf("%w: prepare the token with `hallmark-station init`", err)
	}
	pub, err := m.one(p11.CKO_PUBLIC_KEY, recordLabel)
	if err != nil {
		return nil, err
	}
	a, err := m.ctx.GetAttributeValue(m.main, pub, []*p11.Attribute{attr(p11.CKA_EC_POINT, nil)})
	if err != nil {
		return nil, fmt.Errorf("pkcs11: record key: %w", err)
	}
	var point []byte
	if rest, err := asn1.Unmarshal(a[0].Value, &point); err != nil || len(rest) != 0 {
		return nil, errors.New("pkcs11: record key: the point is not an octet string")
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, fmt.Errorf("pkcs11: record key: %w", err)
	}
	return &signer{m: m, key: priv, pub: key}, nil
}

// OEMKeys implements module.Module.
func (m *Module) OEMKeys(oem string) (*rsa.PublicKey, *rsa.PublicKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w, c := labels(oem)
	tmpl := unwrapTemplate()
	defer tmpl.free()
	wrap, err := m.rsaKey(w, []*p11.Attribute{
		attr(p11.CKA_UNWRAP, true), attr(p11.CKA_DECRYPT, false), attr(p11.CKA_UNWRAP_TEMPLATE, tmpl.bytes()),
	}, attr(p11.CKA_WRAP, true), attr(p11.CKA_ENCRYPT, false))
	if err != nil {
		return nil, nil, err
	}
	content, err := m.rsaKey(c, []*p11.Attribute{attr(p11.CKA_UNWRAP, false), attr(p11.CKA_DECRYPT, true)},
		attr(p11.CKA_WRAP, false), attr(p11.CKA_ENCRYPT, true))
	return wrap, content, err
}

// rsaKey gives the public half of the key pair with label, and makes the pair if there is none. The caller holds mu.
func (m *Module) rsaKey(label string, may []*p11.Attribute, pubMay ...*p11.Attribute) (*rsa.PublicKey, error) {
	found, err := m.find(labelled(p11.CKO_PRIVATE_KEY, label)...)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		priv := append([]*p11.Attribute{
			attr(p11.CKA_TOKEN, true), attr(p11.CKA_PRIVATE, true), attr(p11.CKA_SENSITIVE, true), attr(p11.CKA_EXTRACTABLE, false),
			attr(p11.CKA_SIGN, false), attr(p11.CKA_DERIVE, false), attr(p11.CKA_MODIFIABLE, false), attr(p11.CKA_COPYABLE, false),
			attr(p11.CKA_LABEL, label),
		}, may...)
		pub := append([]*p11.Attribute{
			attr(p11.CKA_TOKEN, true), attr(p11.CKA_VERIFY, false), attr(p11.CKA_MODULUS_BITS, module.RSABits),
			attr(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}), attr(p11.CKA_LABEL, label),
		}, pubMay...)
		if _, _, err := m.ctx.GenerateKeyPair(m.main, mech(p11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil), pub, priv); err != nil {
			return nil, fmt.Errorf("pkcs11: make key %q: %w", label, err)
		}
	}
	h, err := m.one(p11.CKO_PUBLIC_KEY, label)
	if err != nil {
		return nil, err
	}
	a, err := m.ctx.GetAttributeValue(m.main, h, []*p11.Attribute{attr(p11.CKA_MODULUS, nil), attr(p11.CKA_PUBLIC_EXPONENT, nil)})
	if err != nil {
		return nil, fmt.Errorf("pkcs11: read key %q: %w", label, err)
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(a[0].Value), E: int(new(big.Int).SetBytes(a[1].Value).Int64())}, nil
}

// UnwrapSigner implements module.Unwrapper. The token takes the key out of the blob; this process never sees it.
func (m *Module) UnwrapSigner(oem string, key wire.WrappedKey) (module.OrderKey, error) {
	if !slices.Contains(m.can, key.Alg) {
		return nil, fmt.Errorf("pkcs11: algorithm %q, this token has %q", key.Alg, m.can)
	}
	pub, err := parseP256(key.SPKI)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	w, _ := labels(oem)
	unwrapper, err := m.one(p11.CKO_PRIVATE_KEY, w)
	if err != nil {
		return nil, err
	}
	template := []*p11.Attribute{attr(p11.CKA_KEY_TYPE, uint(p11.CKK_EC)), attr(p11.CKA_TOKEN, false), attr(p11.CKA_PRIVATE, true)}
	for _, e := range held() {
		template = append(template, attr(e.typ, e.value))
	}
	h, err := m.ctx.UnwrapKey(m.main, unwrapping(key.Alg), unwrapper, key.Blob, template)
	if err != nil {
		return nil, fmt.Errorf("pkcs11: the blob is not a key wrapped to this station: %w", err)
	}
	s := &signer{m: m, key: h, pub: pub}
	if err := s.prove(); err != nil {
		return nil, errors.Join(err, m.ctx.DestroyObject(m.main, h))
	}
	return s, nil
}

// OpenContentKey implements module.Unwrapper.
func (m *Module) OpenContentKey(oem string, r wire.Recipient) ([]byte, error) {
	if r.Alg != wire.WrapOAEPSHA1 {
		return nil, fmt.Errorf("pkcs11: algorithm %q, this token has %q", r.Alg, wire.WrapOAEPSHA1)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, c := labels(oem)
	h, err := m.one(p11.CKO_PRIVATE_KEY, c)
	if err != nil {
		return nil, err
	}
	if err := m.ctx.DecryptInit(m.main, mech(p11.CKM_RSA_PKCS_OAEP, oaepSHA1()), h); err != nil {
		return nil, fmt.Errorf("pkcs11: content key: %w", err)
	}
	out, err := m.ctx.Decrypt(m.main, r.Blob)
	if err != nil {
		return nil, fmt.Errorf("pkcs11: the content key is not wrapped to this station: %w", err)
	}
	return out, nil
}

// signer is an EC key on the token.
type signer struct {
	m   *Module
	key p11.ObjectHandle
	pub *ecdsa.PublicKey
}

// Public implements crypto.Signer.
func (s *signer) Public() crypto.PublicKey { return s.pub }

// Sign implements crypto.Signer: ECDSA, ASN.1.
func (s *signer) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	session := <-s.m.free
	defer func() { s.m.free <- session }()
	if err := s.m.ctx.SignInit(session, mech(p11.CKM_ECDSA, nil), s.key); err != nil {
		return nil, fmt.Errorf("pkcs11: sign: %w", err)
	}
	raw, err := s.m.ctx.Sign(session, digest)
	if err != nil {
		return nil, fmt.Errorf("pkcs11: sign: %w", err)
	}
	if len(raw) != 64 {
		return nil, fmt.Errorf("pkcs11: sign: signature of %d bytes", len(raw))
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])})
}

// Destroy implements module.OrderKey.
func (s *signer) Destroy() error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.m.ctx == nil {
		return nil // closing the sessions destroyed it
	}
	if err := s.m.ctx.DestroyObject(s.m.main, s.key); err != nil {
		return fmt.Errorf("pkcs11: destroy the order key: %w", err)
	}
	return nil
}

// prove signs a random digest and checks it with the public key the order names: a blob taken from another order fails here.
func (s *signer) prove() error {
	nonce := make([]byte, 32)
	_, _ = rand.Read(nonce)
	sum := sha256.Sum256(nonce)
	sig, err := s.Sign(nil, sum[:], crypto.SHA256)
	if err != nil {
		return err
	}
	if !ecdsa.VerifyASN1(s.pub, sum[:], sig) {
		return errors.New("pkcs11: the unwrapped key is not the one the order names")
	}
	return nil
}
