package desk_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/desk"
	"github.com/hallmark-iot/hallmark/internal/keys/pkcs11"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
)

// ofMaster wraps an order of a master's file.
func ofMaster(d *desk.Desk, keys desk.Keys, file string, spec factory.OrderSpec, out string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	spec.Payload = nil
	_, err = d.WrapMaster(context.Background(), keys, spec, f, out, time.Now())
	return err
}

// master builds one of a revision, and gives its file.
func (m *maker) master(revision uint32, to []byte) string {
	m.Helper()
	sum, spec := sha256.Sum256([]byte("document")), m.spec("")
	b, err := factory.BuildMaster(context.Background(), factory.MasterSpec{
		OEM: "acme", Product: "pump", Hardware: "A", Revision: revision, Bundle: m.bundle, Release: m.release, Params: spec.Params, SBOM: sum[:], Provenance: sum[:],
		Payload: spec.Payload, To: [][]byte{to},
	}, m.people, m.now)
	if err != nil {
		m.Fatal(err)
	}
	f, err := os.Create(filepath.Join(m.TempDir(), "master"))
	if err == nil {
		err = errors.Join(b.WriteFile(context.Background(), f), f.Close())
	}
	if err != nil {
		m.Fatal(err)
	}
	return f.Name()
}

// A desk whose keys are in a token opens masters that are sealed to it, after it was closed too; its key for them lies nowhere open, and another token does
// not have it.
func TestADeskWithATokenOpensMasters(t *testing.T) {
	const softHSM = "/usr/lib/softhsm/libsofthsm2.so"
	if _, err := os.Stat(softHSM); err != nil {
		t.Skip("SoftHSM is not installed: apt-get install softhsm2")
	}
	tokens := t.TempDir()
	t.Setenv("SOFTHSM2_CONF", filepath.Join(tokens, "conf"))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(filepath.Join(tokens, "conf"), []byte("directories.tokendir = "+tokens+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600))
	token := func(label string) *pkcs11.Store {
		t.Helper()
		s, err := pkcs11.Open(pkcs11.Config{Path: softHSM, Label: label, PIN: []byte("12345678")})
		must(err)
		return s
	}
	for _, label := range []string{"desk", "thief"} {
		if out, err := exec.CommandContext(t.Context(), "softhsm2-util", "--init-token", "--free", "--label", label, "--pin", "12345678", "--so-pin", "87654321").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	m, dir := newMaker(t), filepath.Join(t.TempDir(), "desk")
	keys := token("desk")
	d, err := desk.Begin(dir, desk.Config{Name: "desk-1", Of: m.of()}, keys, []string{"pump"}, m.now)
	must(err)
	request, err := os.ReadFile(d.RequestFile("pump"))
	must(err)
	_, _, err = d.Install(keys, m.grant(request), m.now)
	must(err)
	_, err = d.Pin(m.bundle, ceremony.Fingerprint(sha256.Sum256(m.bundle)))
	must(err)
	own, err := d.MasterFile(keys)
	must(err)
	must(keys.Close())
	keys = token("desk")
	if again, err := d.MasterFile(keys); err != nil || again.Fingerprint() != own.Fingerprint() {
		t.Fatalf("it has another key when it is opened again: %v", err)
	}
	master, out := m.master(3, own.SealKey), filepath.Join(t.TempDir(), "order")
	if err := ofMaster(d, keys, m.master(3, m.of().SealKey), m.spec("ord-others"), out); err == nil {
		t.Error("a master that is sealed to somebody else was opened")
	}
	must(ofMaster(d, keys, master, m.spec("ord-1"), out))
	m.order(d, "ord-1")
	must(keys.Close())
	keys = token("thief")
	defer func() { must(keys.Close()) }()
	if _, err := d.MasterFile(keys); err == nil {
		t.Error("another token opens the desk's key for masters")
	}
}

// A desk orders from masters that are sealed to it, never from an older one than it did before, also when the power is cut between.
func TestADeskRemembersTheNewestMaster(t *testing.T) {
	m := newMaker(t)
	dir, with := filepath.Join(t.TempDir(), "desk"), filepath.Join(t.TempDir(), "given")
	g := given{Of: m.of(), Bundle: m.bundle, Print: ceremony.Fingerprint(sha256.Sum256(m.bundle)), Station: m.station, Pin: m.pin[:], Release: m.release}
	if err := step("begin", dir, g); err != nil {
		t.Fatal(err)
	}
	request, err := os.ReadFile(filepath.Join(dir, "requests", "pump.request"))
	if err != nil {
		t.Fatal(err)
	}
	g.Grant = m.grant(request)
	if err := errors.Join(step("install", dir, g), step("trust", dir, g)); err != nil {
		t.Fatal(err)
	}
	d, err := desk.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	own, err := d.MasterFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := d.MasterFile(keys); err != nil || again.Fingerprint() != own.Fingerprint() || own.Fingerprint() == g.Of.Fingerprint() {
		t.Fatalf("the desk has another key when it is asked again: %v", err)
	}
	g.Master = m.master(3, own.SealKey)
	data, err := json.Marshal(g)
	if err == nil {
		err = os.WriteFile(with, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !cut(t, "desk.master=1", "master", dir, with) {
		t.Fatal("it never remembered")
	}
	for _, c := range []struct {
		id, file, code string
	}{
		{"ord-older", m.master(2, own.SealKey), "master.old"},
		{"ord-twin", m.master(3, own.SealKey), "master.twice"},
		{"ord-others", m.master(9, m.of().SealKey), "master.sealed"},
		{"ord-same", g.Master, ""},
		{"ord-newer", m.master(4, own.SealKey), ""},
		{"ord-third", g.Master, "master.old"},
	} {
		out := filepath.Join(t.TempDir(), "order")
		err := ofMaster(d, keys, c.file, m.spec(c.id), out)
		f, is := errors.AsType[*fault.Fault](err)
		if is != (c.code != "") || is && f.Code != c.code || err != nil && !is {
			t.Errorf("%s: %v, want %q", c.id, err, c.code)
		}
		if _, err := os.Stat(out); errors.Is(err, os.ErrNotExist) != is {
			t.Errorf("%s: its file: %v", c.id, err)
		}
		if !is {
			m.order(d, c.id)
		}
	}
}
