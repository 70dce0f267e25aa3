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

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/station/module/pkcs11"
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

// TestRollbackOfTheTokenAndTheDisk restores the token's files and the station's after a run, over-produces, and brings both histories to the OEM:
// as many devices are accepted as were ordered, and all else is an alarm.
func TestRollbackOfTheTokenAndTheDisk(t *testing.T) {
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
	again := func(between func()) { // switched off, and on again
		t.Helper()
		if err := errors.Join(s.Close(), m.Close()); err != nil {
			t.Fatal(err)
		}
		between()
		if m, err = pkcs11.Open(c); err != nil {
			t.Fatal(err)
		}
		if s, err = station.Open(dir, m); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { _ = m.Close() }()
	imported(t, o, s, "ord-1", 3)
	if _, _, err := run(t, o, s, "ord-1", 1); err != nil {
		t.Fatal(err)
	}
	snapshot := t.TempDir()
	swap := func(from, to string) {
		t.Helper()
		for _, d := range []string{"tokens", "station"} {
			at := map[string]string{"tokens": tokens, "station": dir}[d]
			if from == "" {
				if err := os.CopyFS(filepath.Join(to, d), os.DirFS(at)); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if err := errors.Join(os.RemoveAll(at), os.CopyFS(at, os.DirFS(filepath.Join(from, d)))); err != nil {
				t.Fatal(err)
			}
		}
	}
	again(func() { swap("", snapshot) })
	if rep, _, err := run(t, o, s, "ord-1", 2); err != nil || rep.Made != 2 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if _, err := s.CloseOrder("ord-1", o.Now); err != nil { // the key is destroyed, and the snapshot has the order yet
		t.Fatal(err)
	}
	history := export(t, o, s, "ord-1")
	const rounds = 3
	var forks [][]byte
	for range rounds {
		again(func() { swap(snapshot, "") })
		if rep, _, err := run(t, o, s, "ord-1", 2); err != nil || rep.Made != 2 {
			t.Fatalf("the rolled-back station: %+v, %v", rep, err)
		}
		forks = append(forks, export(t, o, s, "ord-1"))
	}
	accepted, alarms := 0, 0
	for _, file := range append(forks[:1:1], append([][]byte{history}, forks[1:]...)...) { // a fork comes first
		rep := take(t, o, "ord-1", file)
		accepted, alarms = accepted+rep.Accepted, alarms+len(rep.Alarms)
	}
	if got := registered(t, o); accepted != 3 || len(got) != 3 {
		t.Errorf("%d accepted, %d registered, ordered 3", accepted, len(got))
	}
	if r, err := o.Service.Reconcile(t.Context(), o.Caller, "ord-1"); err != nil || r.Made != 3 || int(r.Alarms) < 2*rounds || alarms < 2*rounds {
		t.Errorf("%d devices were made too many, %d alarms; reconcile: %+v, %v", 2*rounds, alarms, r, err)
	}
	if n := len(asked(t, o, "ord-1", factory.OverProduction)); n < 2*rounds {
		t.Errorf("%d of them are listed", n)
	}
}
