//go:build cgo

package pkcs11_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/keystest"
	"github.com/hallmark-iot/hallmark/agent/hw/pkcs11"
	"github.com/hallmark-iot/hallmark/suite"
)

const library = "/usr/lib/softhsm/libsofthsm2.so"

// token makes a fresh token of SoftHSM.
func token(t *testing.T) pkcs11.Config {
	t.Helper()
	tool, err := exec.LookPath("softhsm2-util")
	if err != nil {
		t.Skip("SoftHSM is not installed: scripts/setup-test.sh")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+dir+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	if out, err := exec.CommandContext(t.Context(), tool, "--init-token", "--free", "--label", "device", "--pin", "12345678", "--so-pin", "123456").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return pkcs11.Config{Path: library, Label: "device", PIN: "12345678"}
}

func open(t *testing.T, c pkcs11.Config) *pkcs11.Keys {
	t.Helper()
	k, err := pkcs11.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

func TestATokenKeepsKeys(t *testing.T) {
	c := token(t)
	keystest.Run(t, keystest.Store{Open: func(t *testing.T) hw.KeyStore { return open(t, c) }, Suites: []suite.ID{suite.P256, suite.P384}, Hard: true})
}

func TestWhatIsNoTokenIsNotOpened(t *testing.T) {
	c := token(t)
	for what, bad := range map[string]pkcs11.Config{
		"no library": {Path: "/none.so", Label: c.Label, PIN: c.PIN}, "another token": {Path: c.Path, Label: "other", PIN: c.PIN}, "a wrong PIN": {Path: c.Path, Label: c.Label, PIN: "87654321"},
	} {
		if k, err := pkcs11.Open(bad); err == nil {
			t.Errorf("%s: opened", what)
			_ = k.Close()
		}
	}
}

// A key that somebody has put into the token, or that can be taken out, is no identity.
func TestAKeyThatCanLeaveIsNotUsed(t *testing.T) {
	c := token(t)
	k := open(t, c)
	lib := p11.New(library)
	slots, err := lib.GetSlotList(true) // open has initialised it for this process
	if err != nil {
		t.Fatal(err)
	}
	s, err := lib.OpenSession(slots[0], p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	shared := []*p11.Attribute{p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_LABEL, "hallmark-idevid"), p11.NewAttribute(p11.CKA_ID, []byte("idevid"))}
	p256 := []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}
	if _, _, err := lib.GenerateKeyPair(s, []*p11.Mechanism{p11.NewMechanism(p11.CKM_EC_KEY_PAIR_GEN, nil)},
		append(shared, p11.NewAttribute(p11.CKA_EC_PARAMS, p256), p11.NewAttribute(p11.CKA_VERIFY, true)),
		append(shared, p11.NewAttribute(p11.CKA_SENSITIVE, false), p11.NewAttribute(p11.CKA_EXTRACTABLE, true), p11.NewAttribute(p11.CKA_SIGN, true), p11.NewAttribute(p11.CKA_PRIVATE, true))); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Signer(hw.KeyIDevID); err == nil {
		t.Error("a key that can be taken out signs")
	}
	if err := k.Destroy(hw.KeyIDevID); err != nil {
		t.Error(err)
	}
	if _, err := k.Generate(hw.KeyIDevID, suite.P256); err != nil {
		t.Errorf("after it was destroyed: %v", err)
	}
}
