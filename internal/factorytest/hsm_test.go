//go:build cgo

package factorytest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/station/module/pkcs11"
	"github.com/hallmark-iot/hallmark/wire"
)

const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// token makes a SoftHSM token, or skips.
func token(t testing.TB) pkcs11.Config {
	t.Helper()
	if _, err := os.Stat(softHSM); err != nil {
		t.Skip("SoftHSM is not installed: apt-get install softhsm2")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.Mkdir(filepath.Join(dir, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, fmt.Appendf(nil, "directories.tokendir = %s/tokens\nlog.level = ERROR\n", dir), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	out, err := exec.CommandContext(t.Context(), "softhsm2-util", "--init-token", "--free", "--label", "st", "--pin", "12345678", "--so-pin", "87654321").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return pkcs11.Config{Path: softHSM, Label: "st", PIN: []byte("12345678")}
}

func TestFlowSoftHSM(t *testing.T) {
	c := token(t)
	o := factorytest.NewOEM(t, "acme")
	dir := t.TempDir()
	if err := station.WriteConfig(dir, station.Config{Name: "st-1", Module: c.Path, Token: c.Label}); err != nil {
		t.Fatal(err)
	}
	m, err := pkcs11.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	if !m.Info().Templated {
		t.Error("a PKCS#11 module that does not hold keys to the template")
	}
	wholeFlow(t, o, openStation(t, dir, m, o))
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if m, err = pkcs11.Create(c); err == nil {
		t.Error("a token was taken by two stations")
		_ = m.Close()
	}
	if m, err = pkcs11.Open(c); err != nil { // the keys are on the token
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTheModuleGoesAway takes the token away while a piece is being made: the run ends, and the piece is told of when the token is back.
func TestTheModuleGoesAway(t *testing.T) {
	c := token(t)
	tokens := filepath.Join(filepath.Dir(os.Getenv("SOFTHSM2_CONF")), "tokens")
	o := factorytest.NewOEM(t, "acme")
	dir := t.TempDir()
	if err := station.WriteConfig(dir, station.Config{Name: "st-1", Module: c.Path, Token: c.Label}); err != nil {
		t.Fatal(err)
	}
	m, err := pkcs11.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	s := openStation(t, dir, m, o)
	imported(t, o, s, "ord-1", 5)
	victim := factorytest.NewPiece()
	victim.OnFuse = func() {
		if err := os.Rename(tokens, tokens+".away"); err != nil {
			t.Error(err)
		}
	}
	rep, line, err := run(t, o, s, "ord-1", 3, factorytest.NewPiece(), victim)
	if err == nil || rep.Made != 1 || len(line.Done) != 2 {
		t.Fatalf("a run without its module: %+v, %d pieces, %v", rep, len(line.Done), err)
	}
	if err := errors.Join(s.Close(), m.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tokens+".away", tokens); err != nil {
		t.Fatal(err)
	}
	if m, err = pkcs11.Open(c); err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	s = openStation(t, dir, m, o)
	if rep, _, err := run(t, o, s, "ord-1", 2); err != nil || rep.Made != 2 || rep.Left != 1 {
		t.Fatalf("with the module back: %+v, %v", rep, err)
	}
	got := take(t, o, "ord-1", export(t, o, s, "ord-1"))
	if got.Accepted != 3 || got.NotMade != 1 || len(got.Alarms) != 0 {
		t.Fatalf("%+v", got)
	}
}

// TestExtraction tries, with the PIN and raw PKCS#11, to read an order key that was wrapped to the token.
func TestExtraction(t *testing.T) {
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
	attack(t, c, blob)
	absent(t, filepath.Dir(os.Getenv("SOFTHSM2_CONF")), secret)
}

func wrapped(t *testing.T, pub *rsa.PublicKey, key *ecdsa.PrivateKey) (blob, secret []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if blob, err = rsa.EncryptOAEP(sha1.New(), rand.Reader, pub, der, nil); err != nil {
		t.Fatal(err)
	}
	secret, err = key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return blob, secret
}

// attack is a host that holds the PIN.
func attack(t *testing.T, c pkcs11.Config, blob []byte) {
	t.Helper()
	ctx := p11.New(c.Path)
	if err := ctx.Initialize(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ctx.Finalize(); ctx.Destroy() }()
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
	at := p11.NewAttribute
	if err := ctx.FindObjectsInit(s, []*p11.Attribute{at(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY), at(p11.CKA_LABEL, "hallmark-wrap-acme")}); err != nil {
		t.Fatal(err)
	}
	found, _, err := ctx.FindObjects(s, 2)
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	if err := ctx.FindObjectsFinal(s); err != nil {
		t.Fatal(err)
	}
	w := found[0]
	oaep := func() []*p11.Mechanism {
		return []*p11.Mechanism{p11.NewMechanism(p11.CKM_RSA_PKCS_OAEP, p11.NewOAEPParams(p11.CKM_SHA_1, p11.CKG_MGF1_SHA1, p11.CKZ_DATA_SPECIFIED, nil))}
	}
	base := []*p11.Attribute{at(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY), at(p11.CKA_KEY_TYPE, p11.CKK_EC), at(p11.CKA_TOKEN, false), at(p11.CKA_PRIVATE, true)}
	for name, extra := range map[string][]*p11.Attribute{
		"extractable":             {at(p11.CKA_SENSITIVE, false), at(p11.CKA_EXTRACTABLE, true), at(p11.CKA_SIGN, true)},
		"extractable, else exact": {at(p11.CKA_SENSITIVE, true), at(p11.CKA_EXTRACTABLE, true), at(p11.CKA_SIGN, true), at(p11.CKA_DECRYPT, false), at(p11.CKA_UNWRAP, false)},
		"no template":             {},
		"as an AES key": {
			at(p11.CKA_CLASS, p11.CKO_SECRET_KEY), at(p11.CKA_KEY_TYPE, p11.CKK_GENERIC_SECRET), at(p11.CKA_SENSITIVE, false), at(p11.CKA_EXTRACTABLE, true),
		},
	} {
		tmpl := append(append([]*p11.Attribute{}, base...), extra...)
		if name == "as an AES key" {
			tmpl = extra
		}
		if h, err := ctx.UnwrapKey(s, oaep(), w, blob, tmpl); err == nil {
			t.Errorf("%s: the key was unwrapped as object %d", name, h)
		}
	}
	if err := ctx.DecryptInit(s, oaep(), w); err == nil {
		if plain, err := ctx.Decrypt(s, blob); err == nil {
			t.Errorf("the wrapping key decrypted %d bytes", len(plain))
		}
	}
	if err := ctx.SetAttributeValue(s, w, []*p11.Attribute{at(p11.CKA_DECRYPT, true)}); err == nil {
		t.Error("the wrapping key was given the right to decrypt")
	}
	if err := ctx.SetAttributeValue(s, w, []*p11.Attribute{at(p11.CKA_UNWRAP_TEMPLATE, []byte{})}); err == nil {
		t.Error("the wrapping key's template was taken away")
	}
	if _, err := ctx.CopyObject(s, w, []*p11.Attribute{at(p11.CKA_DECRYPT, true)}); err == nil {
		t.Error("the wrapping key was copied")
	}
}

// absent looks for a secret's raw bytes in every file under dir.
func absent(t *testing.T, dir string, secret []byte) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, secret) {
			t.Errorf("%s holds the order key", path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
