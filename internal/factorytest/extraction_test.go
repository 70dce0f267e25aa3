//go:build cgo

package factorytest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"
	"github.com/tink-crypto/tink-go/v2/kwp/subtle"

	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/station/module/pkcs11"
	"github.com/hallmark-iot/hallmark/wire"
)

// thief is a host that holds the PIN: all that is done with it could be done by a programming centre.
type thief struct {
	*testing.T
	ctx *p11.Ctx
	s   p11.SessionHandle
}

func at(typ uint, v any) *p11.Attribute { return p11.NewAttribute(typ, v) }

func mechanism(typ uint, p any) []*p11.Mechanism {
	return []*p11.Mechanism{p11.NewMechanism(typ, p)}
}

func oaepSHA1() []*p11.Mechanism {
	return mechanism(p11.CKM_RSA_PKCS_OAEP, p11.NewOAEPParams(p11.CKM_SHA_1, p11.CKG_MGF1_SHA1, p11.CKZ_DATA_SPECIFIED, nil))
}

// kwpMechanism is CKM_AES_KEY_WRAP_PAD: RFC 5649.
const kwpMechanism = 0x210A

func newThief(t *testing.T, c pkcs11.Config) *thief {
	t.Helper()
	ctx := p11.New(c.Path)
	if err := ctx.Initialize(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ctx.Finalize(); ctx.Destroy() })
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ctx.OpenSession(slots[0], p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	if err := ctx.Login(s, p11.CKU_USER, string(c.PIN)); err != nil {
		t.Fatal(err)
	}
	return &thief{t, ctx, s}
}

func (h *thief) find(class uint, label string) p11.ObjectHandle {
	h.Helper()
	if err := h.ctx.FindObjectsInit(h.s, []*p11.Attribute{at(p11.CKA_CLASS, class), at(p11.CKA_LABEL, label)}); err != nil {
		h.Fatal(err)
	}
	found, _, err := h.ctx.FindObjects(h.s, 2)
	if err != nil || len(found) != 1 {
		h.Fatalf("%v, %v", found, err)
	}
	if err := h.ctx.FindObjectsFinal(h.s); err != nil {
		h.Fatal(err)
	}
	return found[0]
}

// wrapper is an RSA key that unwraps, and one OEM's signing key wrapped to it, in one hop and in two.
type wrapper struct {
	h    p11.ObjectHandle
	pub  *rsa.PublicKey
	one  []byte // PKCS#8 under RSA
	kek  []byte // an AES key under RSA
	two  []byte // PKCS#8 under the AES key
	want *ecdsa.PrivateKey
}

// to wraps a fresh signing key to the key h.
func (h *thief) to(key p11.ObjectHandle, public p11.ObjectHandle) *wrapper {
	h.Helper()
	a, err := h.ctx.GetAttributeValue(h.s, public, []*p11.Attribute{at(p11.CKA_MODULUS, nil), at(p11.CKA_PUBLIC_EXPONENT, nil)})
	if err != nil {
		h.Fatal(err)
	}
	w := &wrapper{h: key, pub: &rsa.PublicKey{N: new(big.Int).SetBytes(a[0].Value), E: int(new(big.Int).SetBytes(a[1].Value).Int64())}, want: factorytest.Key(h)}
	w.one, _ = wrapped(h.T, w.pub, w.want)
	der, err := x509.MarshalPKCS8PrivateKey(w.want)
	if err != nil {
		h.Fatal(err)
	}
	kek := make([]byte, 32)
	_, _ = rand.Read(kek)
	w.kek = h.seal(w.pub, kek)
	if w.two, err = h.kwp(kek).Wrap(der); err != nil {
		h.Fatal(err)
	}
	return w
}

func (h *thief) seal(pub *rsa.PublicKey, plain []byte) []byte {
	h.Helper()
	b, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, pub, plain, nil)
	if err != nil {
		h.Fatal(err)
	}
	return b
}

func (h *thief) kwp(key []byte) *subtle.KWP {
	h.Helper()
	k, err := subtle.NewKWP(key)
	if err != nil {
		h.Fatal(err)
	}
	return k
}

// naive makes the wrapping key of a station that was built as tutorials say: it may unwrap, and nothing says what comes of it.
func (h *thief) naive() *wrapper {
	h.Helper()
	pub, priv, err := h.ctx.GenerateKeyPair(h.s, mechanism(p11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil),
		[]*p11.Attribute{at(p11.CKA_TOKEN, false), at(p11.CKA_WRAP, true), at(p11.CKA_MODULUS_BITS, 3072), at(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})},
		[]*p11.Attribute{at(p11.CKA_TOKEN, false), at(p11.CKA_PRIVATE, true), at(p11.CKA_SENSITIVE, true), at(p11.CKA_EXTRACTABLE, false), at(p11.CKA_UNWRAP, true), at(p11.CKA_DECRYPT, false)})
	if err != nil {
		h.Fatal(err)
	}
	w := h.to(priv, pub)
	// The honest import works, and looks safe: nothing of what it leaves in the token can be read.
	kek, err := h.ctx.UnwrapKey(h.s, oaepSHA1(), priv, w.kek, append(aesKey(), at(p11.CKA_SENSITIVE, true), at(p11.CKA_EXTRACTABLE, false), at(p11.CKA_UNWRAP, true)))
	if err != nil {
		h.Fatal(err)
	}
	key, err := h.ctx.UnwrapKey(h.s, mechanism(kwpMechanism, nil), kek, w.two, append(ecKey(), at(p11.CKA_SENSITIVE, true), at(p11.CKA_EXTRACTABLE, false), at(p11.CKA_SIGN, true)))
	if err != nil {
		h.Fatal(err)
	}
	for _, o := range []p11.ObjectHandle{kek, key} {
		if v, err := h.value(o); err == nil {
			h.Fatalf("not even looks safe: %x", v)
		}
	}
	return w
}

// ours is the station's own wrapping key for an OEM.
func (h *thief) ours() *wrapper {
	const label = "hallmark-wrap-acme"
	return h.to(h.find(p11.CKO_PRIVATE_KEY, label), h.find(p11.CKO_PUBLIC_KEY, label))
}

func aesKey() []*p11.Attribute {
	return []*p11.Attribute{at(p11.CKA_CLASS, p11.CKO_SECRET_KEY), at(p11.CKA_KEY_TYPE, p11.CKK_AES), at(p11.CKA_TOKEN, false)}
}

func ecKey() []*p11.Attribute {
	return []*p11.Attribute{at(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY), at(p11.CKA_KEY_TYPE, p11.CKK_EC), at(p11.CKA_TOKEN, false), at(p11.CKA_PRIVATE, true)}
}

// exact is what our wrapping key insists on.
func exact() []*p11.Attribute {
	return append(ecKey(), at(p11.CKA_SENSITIVE, true), at(p11.CKA_EXTRACTABLE, false), at(p11.CKA_SIGN, true), at(p11.CKA_DECRYPT, false), at(p11.CKA_UNWRAP, false))
}

func open() []*p11.Attribute {
	return []*p11.Attribute{at(p11.CKA_SENSITIVE, false), at(p11.CKA_EXTRACTABLE, true)}
}

func (h *thief) value(o p11.ObjectHandle) ([]byte, error) {
	a, err := h.ctx.GetAttributeValue(h.s, o, []*p11.Attribute{at(p11.CKA_VALUE, nil)})
	if err != nil {
		return nil, err
	}
	if len(a) != 1 || len(a[0].Value) == 0 {
		return nil, errors.New("no value")
	}
	return a[0].Value, nil
}

// got says whether a scalar or a PKCS#8 structure is the key.
func (w *wrapper) got(b []byte) bool {
	raw, err := w.want.Bytes()
	return err == nil && bytes.Contains(b, raw)
}

// readTheKEK: the key that wraps the key is unwrapped again, this time to be read; the rest is arithmetic outside of the token.
func (h *thief) readTheKEK(w *wrapper) ([]byte, error) {
	kek, err := h.ctx.UnwrapKey(h.s, oaepSHA1(), w.h, w.kek, append(aesKey(), open()...))
	if err != nil {
		return nil, fmt.Errorf("unwrap the KEK to be read: %w", err)
	}
	raw, err := h.value(kek)
	if err != nil {
		return nil, fmt.Errorf("read the KEK: %w", err)
	}
	return h.kwp(raw).Unwrap(w.two)
}

// unwrapItLoosely: the KEK never leaves the token, but is unwrapped again without the template that was to bind it; what is unwrapped with it is
// then whatever the host says.
func (h *thief) unwrapItLoosely(w *wrapper) ([]byte, error) {
	kek, err := h.ctx.UnwrapKey(h.s, oaepSHA1(), w.h, w.kek, append(aesKey(), at(p11.CKA_SENSITIVE, true), at(p11.CKA_EXTRACTABLE, false), at(p11.CKA_UNWRAP, true)))
	if err != nil {
		return nil, fmt.Errorf("unwrap the KEK again: %w", err)
	}
	key, err := h.ctx.UnwrapKey(h.s, mechanism(kwpMechanism, nil), kek, w.two, append(ecKey(), open()...))
	if err != nil {
		return nil, fmt.Errorf("unwrap the key with it: %w", err)
	}
	return h.value(key)
}

// wrapItOut: the host brings a KEK that it knows, wrapped to the public key that everybody has, and has the token wrap the signing key, which stays
// sensitive all the while, under it.
func (h *thief) wrapItOut(w *wrapper) ([]byte, error) {
	known := make([]byte, 32)
	_, _ = rand.Read(known)
	planted, err := h.ctx.UnwrapKey(h.s, oaepSHA1(), w.h, h.seal(w.pub, known), append(aesKey(), at(p11.CKA_WRAP, true)))
	if err != nil {
		return nil, fmt.Errorf("plant a KEK: %w", err)
	}
	kek, err := h.ctx.UnwrapKey(h.s, oaepSHA1(), w.h, w.kek, append(aesKey(), at(p11.CKA_SENSITIVE, true), at(p11.CKA_EXTRACTABLE, false), at(p11.CKA_UNWRAP, true)))
	if err != nil {
		return nil, fmt.Errorf("unwrap the KEK again: %w", err)
	}
	key, err := h.ctx.UnwrapKey(h.s, mechanism(kwpMechanism, nil), kek, w.two, append(ecKey(), at(p11.CKA_SENSITIVE, true), at(p11.CKA_EXTRACTABLE, true), at(p11.CKA_SIGN, true)))
	if err != nil {
		return nil, fmt.Errorf("unwrap the key with it: %w", err)
	}
	out, err := h.ctx.WrapKey(h.s, mechanism(kwpMechanism, nil), planted, key)
	if err != nil {
		return nil, fmt.Errorf("wrap the key out: %w", err)
	}
	return h.kwp(known).Unwrap(out)
}

// combinedMechanism is CKM_RSA_AES_KEY_WRAP, for tokens that have it.
func combinedMechanism() []*p11.Mechanism {
	return mechanism(p11.CKM_RSA_AES_KEY_WRAP, &p11.RSAAESKeyWrapParams{AESKeyBits: 256, OAEPParams: *p11.NewOAEPParams(p11.CKM_SHA_1, p11.CKG_MGF1_SHA1, p11.CKZ_DATA_SPECIFIED, nil)})
}

// oneHop is each attack where there is no second hop: on the blob that the station really gets.
func (h *thief) oneHop(w *wrapper, by []*p11.Mechanism, blob []byte) map[string]func() ([]byte, error) {
	unwrapped := func(template []*p11.Attribute) ([]byte, error) {
		key, err := h.ctx.UnwrapKey(h.s, by, w.h, blob, template)
		if err != nil {
			return nil, err
		}
		return h.value(key)
	}
	return map[string]func() ([]byte, error){
		"read as a secret": func() ([]byte, error) { return unwrapped(append(aesKey(), open()...)) },
		"read as generic": func() ([]byte, error) {
			return unwrapped(append([]*p11.Attribute{at(p11.CKA_CLASS, p11.CKO_SECRET_KEY), at(p11.CKA_KEY_TYPE, p11.CKK_GENERIC_SECRET)}, open()...))
		},
		"unwrapped loosely": func() ([]byte, error) { return unwrapped(append(ecKey(), append(open(), at(p11.CKA_SIGN, true))...)) },
		"loose, else exact": func() ([]byte, error) {
			return unwrapped(append(ecKey(), at(p11.CKA_SENSITIVE, true), at(p11.CKA_EXTRACTABLE, true), at(p11.CKA_SIGN, true), at(p11.CKA_DECRYPT, false), at(p11.CKA_UNWRAP, false)))
		},
		"without a template": func() ([]byte, error) { return unwrapped(ecKey()) },
		"decrypted": func() ([]byte, error) {
			if err := h.ctx.DecryptInit(h.s, oaepSHA1(), w.h); err != nil {
				return nil, err
			}
			return h.ctx.Decrypt(h.s, blob)
		},
	}
}

// directly tries the attacks of one hop.
func (h *thief) directly(naive, ours *wrapper, by []*p11.Mechanism, blob func(*wrapper) []byte) {
	worked := 0
	for _, attack := range h.oneHop(naive, by, blob(naive)) {
		if got, err := attack(); err == nil && naive.got(got) {
			worked++
		}
	}
	if worked == 0 {
		h.Error("none works against a naive station")
	}
	for name, attack := range h.oneHop(ours, by, blob(ours)) {
		if got, err := attack(); err == nil {
			h.Errorf("%s: %d bytes, the key: %v", name, len(got), ours.got(got))
		}
	}
	if _, err := h.ctx.UnwrapKey(h.s, by, ours.h, blob(ours), exact()); err != nil {
		h.Errorf("the station's own way: %v", err)
	}
}

func (h *thief) list() []*p11.Mechanism {
	h.Helper()
	slots, err := h.ctx.GetSlotList(true)
	if err != nil {
		h.Fatal(err)
	}
	list, err := h.ctx.GetMechanismList(slots[0])
	if err != nil {
		h.Fatal(err)
	}
	return list
}

// ourKeyWrappedOut takes the key as the station has it, and a wrapping key that the host made in the token, and knows.
func (h *thief) ourKeyWrappedOut(w *wrapper) {
	key, err := h.ctx.UnwrapKey(h.s, oaepSHA1(), w.h, w.one, exact())
	if err != nil {
		h.Fatalf("the station's own way: %v", err)
	}
	known := make([]byte, 32)
	_, _ = rand.Read(known)
	mine, err := h.ctx.CreateObject(h.s, append(aesKey(), at(p11.CKA_VALUE, known), at(p11.CKA_WRAP, true), at(p11.CKA_UNWRAP, true)))
	if err != nil {
		h.Fatal(err)
	}
	h.wrapsOut(mine, known)
	if out, err := h.ctx.WrapKey(h.s, mechanism(kwpMechanism, nil), mine, key); err == nil {
		h.Errorf("the order key was wrapped out: %d bytes", len(out))
	}
	for name, a := range map[string]*p11.Attribute{"extractable": at(p11.CKA_EXTRACTABLE, true), "not sensitive": at(p11.CKA_SENSITIVE, false)} {
		if err := h.ctx.SetAttributeValue(h.s, key, []*p11.Attribute{a}); err == nil {
			h.Errorf("the order key was made %s", name)
		}
		if _, err := h.ctx.CopyObject(h.s, key, []*p11.Attribute{a}); err == nil {
			h.Errorf("a copy of the order key is %s", name)
		}
	}
	if v, err := h.value(key); err == nil {
		h.Errorf("the order key was read: %d bytes", len(v))
	}
}

// wrapsOut shows that the host's wrapping key does wrap out what may be.
func (h *thief) wrapsOut(mine p11.ObjectHandle, known []byte) {
	p256, err := asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7})
	if err != nil {
		h.Fatal(err)
	}
	_, priv, err := h.ctx.GenerateKeyPair(h.s, mechanism(p11.CKM_EC_KEY_PAIR_GEN, nil), []*p11.Attribute{at(p11.CKA_TOKEN, false), at(p11.CKA_EC_PARAMS, p256)},
		[]*p11.Attribute{at(p11.CKA_TOKEN, false), at(p11.CKA_SENSITIVE, true), at(p11.CKA_EXTRACTABLE, true), at(p11.CKA_SIGN, true)})
	if err != nil {
		h.Fatal(err)
	}
	out, err := h.ctx.WrapKey(h.s, mechanism(kwpMechanism, nil), mine, priv)
	if err != nil {
		h.Fatal(err)
	}
	der, err := h.kwp(known).Unwrap(out)
	if err != nil {
		h.Fatal(err)
	}
	if k, err := x509.ParsePKCS8PrivateKey(der); err != nil {
		h.Fatalf("what was wrapped out is %T, %v", k, err)
	}
}

// ourWrapperChanged tries to make our wrapping key into a naive one.
func (h *thief) ourWrapperChanged(w *wrapper) {
	for name, a := range map[string]*p11.Attribute{
		"given the right to decrypt": at(p11.CKA_DECRYPT, true), "rid of its template": at(p11.CKA_UNWRAP_TEMPLATE, []byte{}), "made extractable": at(p11.CKA_EXTRACTABLE, true),
	} {
		if err := h.ctx.SetAttributeValue(h.s, w.h, []*p11.Attribute{a}); err == nil {
			h.Errorf("the wrapping key was %s", name)
		}
		if _, err := h.ctx.CopyObject(h.s, w.h, []*p11.Attribute{a}); err == nil {
			h.Errorf("a copy of the wrapping key was %s", name)
		}
	}
}

// TestExtraction is the programming centre against its own module, with the PIN and raw PKCS#11: three ways to get a signing key out that was wrapped in two
// hops, and what becomes of each against the station's wrapping key. Each is shown to work first, against a wrapping key that was made the naive way.
func TestExtraction(t *testing.T) {
	c := token(t)
	m, err := pkcs11.Create(c)
	if err == nil {
		_, _, err = m.OEMKeys("acme")
	}
	if err = errors.Join(err, m.Close()); err != nil {
		t.Fatal(err)
	}
	secrets := map[string]*wrapper{}
	for name, attack := range map[string]func(*thief, *wrapper) ([]byte, error){
		"the KEK is unwrapped again and read":                          (*thief).readTheKEK,
		"the KEK is unwrapped again and the key loosely with it":       (*thief).unwrapItLoosely,
		"the key is wrapped out under a KEK that the host has planted": (*thief).wrapItOut,
	} {
		t.Run(name, func(t *testing.T) {
			h := newThief(t, c)
			naive := h.naive()
			if got, err := attack(h, naive); err != nil || !naive.got(got) {
				t.Fatalf("it does not even work against a naive station: %v", err)
			}
			ours := h.ours()
			if got, err := attack(h, ours); err == nil {
				t.Errorf("it works: %d bytes, the key: %v", len(got), ours.got(got))
			} else {
				t.Log("refused:", err)
			}
			secrets[name] = ours
		})
	}
	t.Run("one hop", func(t *testing.T) {
		h := newThief(t, c)
		naive, ours := h.naive(), h.ours()
		h.directly(naive, ours, oaepSHA1(), func(w *wrapper) []byte { return w.one })
		if slices.ContainsFunc(h.list(), func(m *p11.Mechanism) bool { return m.Mechanism == p11.CKM_RSA_AES_KEY_WRAP }) {
			h.directly(naive, ours, combinedMechanism(), func(w *wrapper) []byte { return append(bytes.Clone(w.kek), w.two...) })
		}
		h.ourKeyWrappedOut(ours)
		h.ourWrapperChanged(ours)
		secrets["one hop"] = ours
	})
	for _, w := range secrets {
		raw, err := w.want.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		absent(t, filepath.Dir(os.Getenv("SOFTHSM2_CONF")), raw)
	}
}

// The descriptor says what the token's own list of mechanisms says, and what it does not list is not tried.
func TestADescriptorNamesWhatTheTokenHas(t *testing.T) {
	c := token(t)
	m, err := pkcs11.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	wrap, _, err := m.OEMKeys("acme")
	if err != nil {
		t.Fatal(err)
	}
	info := m.Info()
	blob, _ := wrapped(t, wrap, factorytest.Key(t))
	for _, alg := range []wire.WrapAlg{wire.WrapRSAAES, wire.WrapOAEPSHA256} {
		if alg == info.WrapAlg {
			continue
		}
		if _, err := m.UnwrapSigner("acme", wire.WrappedKey{Role: wire.RoleOrderCA, Alg: alg, Blob: blob}); err == nil || !strings.Contains(err.Error(), "this token has") {
			t.Errorf("%s: %v", alg, err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	h := newThief(t, c)
	want := wire.WrapOAEPSHA1
	if slices.ContainsFunc(h.list(), func(m *p11.Mechanism) bool { return m.Mechanism == p11.CKM_RSA_AES_KEY_WRAP }) {
		want = wire.WrapRSAAES
	}
	if info.WrapAlg != want || info.ContentAlg != wire.WrapOAEPSHA1 {
		t.Errorf("the descriptor says %q and %q, the token's list %q", info.WrapAlg, info.ContentAlg, want)
	}
}

// TestAnOrderKeyInTheToken: what was wrapped to the station signs, for its OEM and its order only, and until it is destroyed.
func TestAnOrderKeyInTheToken(t *testing.T) {
	c := token(t)
	m, err := pkcs11.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	wrap, _, err := m.OEMKeys("acme")
	if err != nil {
		t.Fatal(err)
	}
	key := factorytest.Key(t)
	blob, secret := wrapped(t, wrap, key)
	spki, err := wire.SPKIOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	good := wire.WrappedKey{Role: wire.RoleOrderCA, SPKI: spki, Alg: wire.WrapOAEPSHA1, Blob: blob}
	k, err := m.UnwrapSigner("acme", good)
	if err != nil {
		t.Fatalf("the honest way: %v", err)
	}
	digest := make([]byte, 32)
	sig, err := k.Sign(rand.Reader, digest, nil)
	if err != nil || !ecdsa.VerifyASN1(&key.PublicKey, digest, sig) {
		t.Fatalf("the unwrapped key does not sign: %v", err)
	}
	other := good
	if other.SPKI, err = wire.SPKIOf(factorytest.Key(t).Public()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.UnwrapSigner("acme", other); err == nil {
		t.Error("a key was taken for another's")
	}
	if _, err := m.UnwrapSigner("evil", good); err == nil {
		t.Error("a key was unwrapped for an OEM without keys")
	}
	if err := k.Destroy(); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Sign(rand.Reader, digest, nil); err == nil {
		t.Error("a destroyed key signs")
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	absent(t, filepath.Dir(os.Getenv("SOFTHSM2_CONF")), secret)
}
