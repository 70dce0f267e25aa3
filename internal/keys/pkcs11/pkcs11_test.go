//go:build cgo

package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/hallmark-iot/hallmark/suite"
)

const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// token makes a SoftHSM token, or skips.
func token(t *testing.T) Config {
	t.Helper()
	if _, err := os.Stat(softHSM); err != nil {
		t.Skip("SoftHSM is not installed: apt-get install softhsm2")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", dir), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	another(t, "ca")
	return Config{Path: softHSM, Label: "ca", PIN: []byte("12345678")}
}

// another makes one more token.
func another(t *testing.T, label string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "softhsm2-util", "--init-token", "--free", "--label", label, "--pin", "12345678", "--so-pin", "87654321").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func open(t *testing.T, c Config) *Store {
	t.Helper()
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestKeysStayInTheToken(t *testing.T) {
	c := token(t)
	s := open(t, c)
	for name, make := range map[string]func(string) (crypto.Signer, error){"operational-ca": s.GenerateP256, "ca-product-00": func(name string) (crypto.Signer, error) { return s.Generate(name, suite.P384) }} {
		k, err := make(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := make(name); err == nil {
			t.Errorf("%s was made twice", name)
		}
		digest := sha256.Sum256([]byte(name))
		var wg sync.WaitGroup
		for range 20 { // more than there are sessions
			wg.Go(func() {
				sig, err := k.Sign(rand.Reader, digest[:], crypto.SHA256)
				if err != nil || !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), digest[:], sig) {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		wg.Wait()
		h, err := s.one(p11.CKO_PRIVATE_KEY, name)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := s.ctx.GetAttributeValue(s.main, h, []*p11.Attribute{attr(p11.CKA_VALUE, nil)}); err == nil && len(v[0].Value) > 0 {
			t.Errorf("the token gave out key %s", name)
		}
	}
	if _, err := s.Signer("nobody"); !errors.Is(err, ErrNoKey) {
		t.Errorf("a key that is not there: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, c)
	if _, err := again.Signer("operational-ca"); err != nil {
		t.Errorf("after it was closed and opened: %v", err)
	}
}

// A key that could be taken out may have a copy somewhere; one of two of a name may be somebody's own.
func TestKeysThatAreNotUsed(t *testing.T) {
	s := open(t, token(t))
	params := []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07} // P-256
	put := func(name string, extractable bool) {
		t.Helper()
		pub := []*p11.Attribute{attr(p11.CKA_TOKEN, true), attr(p11.CKA_VERIFY, true), attr(p11.CKA_EC_PARAMS, params), attr(p11.CKA_LABEL, name)}
		priv := []*p11.Attribute{
			attr(p11.CKA_TOKEN, true), attr(p11.CKA_PRIVATE, true), attr(p11.CKA_SENSITIVE, true), attr(p11.CKA_EXTRACTABLE, extractable),
			attr(p11.CKA_SIGN, true), attr(p11.CKA_LABEL, name),
		}
		if _, _, err := s.ctx.GenerateKeyPair(s.main, mech(p11.CKM_EC_KEY_PAIR_GEN), pub, priv); err != nil {
			t.Fatal(err)
		}
	}
	put("loose", true)
	put("twice", false)
	put("twice", false)
	for _, name := range []string{"loose", "twice"} {
		if _, err := s.Signer(name); err == nil {
			t.Errorf("key %q is used", name)
		}
	}
}

func TestADestroyedKeyIsGoneAndTheOthersAreNot(t *testing.T) {
	c := token(t)
	s := open(t, c)
	for _, name := range []string{"goes", "stays"} {
		if _, err := s.GenerateP256(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Destroy(t.Context(), "goes"); err != nil {
		t.Fatal(err)
	}
	for name, again := range map[string]func() error{
		"sign":    func() error { _, err := s.Signer("goes"); return err },
		"destroy": func() error { return s.Destroy(t.Context(), "goes") },
	} {
		if err := again(); !errors.Is(err, ErrNoKey) {
			t.Errorf("%s what was destroyed: %v", name, err)
		}
	}
	if _, err := s.Signer("stays"); err != nil {
		t.Error(err)
	}
	if _, err := s.GenerateP256("goes"); err != nil {
		t.Errorf("the name is not free again: %v", err)
	}
}

func TestTokensOfOneLibraryAreOpenTogether(t *testing.T) {
	c := token(t)
	another(t, "second")
	l, err := Load(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	one, err := l.Open("ca", c.PIN)
	if err != nil {
		t.Fatal(err)
	}
	two, err := l.Open("second", c.PIN)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := one.GenerateP256("k"); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Signer("k"); !errors.Is(err, ErrNoKey) {
		t.Errorf("a key of the first token in the second: %v", err)
	}
	if one.About() == two.About() || one.About() == "" {
		t.Errorf("both are told as %q", one.About())
	}
	if err := one.Close(); err != nil {
		t.Error(err)
	}
	if _, err := two.GenerateP256("k"); err != nil {
		t.Errorf("after the first token was closed: %v", err)
	}
	if err := errors.Join(two.Close(), l.Close()); err != nil {
		t.Error(err)
	}
}

func TestOfTwoTokensOfOneLabelNoneIsUsed(t *testing.T) {
	c := token(t)
	another(t, "ca")
	if s, err := Open(c); err == nil {
		_ = s.Close()
		t.Error("one of them is open")
	}
}

func TestAWrongPINOrTokenIsSaid(t *testing.T) {
	c := token(t)
	for name, change := range map[string]func(*Config){
		"PIN": func(c *Config) { c.PIN = []byte("0000") }, "token": func(c *Config) { c.Label = "other" }, "library": func(c *Config) { c.Path = "/nowhere.so" },
	} {
		other := c
		change(&other)
		if s, err := Open(other); err == nil {
			_ = s.Close()
			t.Errorf("with a wrong %s it opened", name)
		}
	}
}

// What is sealed comes back under its name, from the token that sealed it, unchanged; or not at all.
func TestWhatATokenSealsNobodyElseOpens(t *testing.T) {
	c := token(t)
	s := open(t, c)
	secret := bytes.Repeat([]byte("secret"), 20)
	sealed, err := s.Seal("master", secret)
	if err != nil || bytes.Contains(sealed, []byte("secretsecret")) {
		t.Fatalf("%x, %v", sealed, err)
	}
	other, err := s.Seal("other", secret)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Seal("master", secret); err != nil || bytes.Equal(again, sealed) {
		t.Errorf("the same again: %x, %v", again, err)
	}
	h, err := s.one(p11.CKO_SECRET_KEY, "master")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := s.ctx.GetAttributeValue(s.main, h, []*p11.Attribute{attr(p11.CKA_VALUE, nil)}); err == nil && len(v[0].Value) > 0 {
		t.Error("the token gave the key out")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, c)
	if got, err := s.Unseal("master", sealed); err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("after it was closed and opened: %q, %v", got, err)
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		if _, err := s.Unseal("master", changed); err == nil {
			t.Errorf("changed at %d: opened", i)
		}
	}
	for name, b := range map[string][]byte{"nothing": nil, "cut": sealed[:len(sealed)-1], "another name's": other} {
		if _, err := s.Unseal("master", b); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	if _, err := s.Unseal("nobody", sealed); !errors.Is(err, ErrNoKey) {
		t.Errorf("a key that is not there: %v", err)
	}
}
