package demo

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// atDesk has the desk's people type a command: with the desk's passphrase, and without an instance to call.
func (d *demo) atDesk(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), d.bin.hallmark, args...)
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+d.dir, "HALLMARK_PASSPHRASE="+d.pass, "HALLMARK_URL=", "HALLMARK_TOKEN=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("hallmark %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// beginDesk makes a desk, has a ceremony grant its CA, and two people take it in.
func (d *demo) beginDesk(t *testing.T) {
	t.Helper()
	at := func(name string) string { return filepath.Join(d.dir, name) }
	d.types(t, "key", "rotate", "desk", "--reason", "the first desk")
	d.types(t, "desk", "instance", "--out", at("acme.json"))
	data, err := os.ReadFile(at("acme.json"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := factory.DecodeDeskFile(data)
	if err != nil {
		t.Fatal(err)
	}
	d.types(t, "bundle", "show", productID, "--out", at("bundle"))
	bundle, err := os.ReadFile(at("bundle"))
	if err != nil {
		t.Fatal(err)
	}
	d.types(t, "release", "export", productID+"@"+v1, "--out", at("v1.release"))
	d.atDesk(t, "desk", "init", at("desk"), "--name", "desk-1", "--instance", at("acme.json"), "--fingerprint", f.Fingerprint(), "--product", productID, "--kdf-iterations", "1000")
	d.atDesk(t, "ceremony", "answer", at("desk/requests/"+productID+".request"), "--root-key", filepath.Join(d.layout.Offline(), "oem-root.key"),
		"--root", filepath.Join(d.layout.Dir, "certs", "oem-root.der"), "--out", at("grant"))
	d.atDesk(t, "desk", "install", at("desk"), at("grant"))
	d.atDesk(t, "desk", "trust", at("desk"), at("bundle"), "--fingerprint", fmt.Sprintf("%x", sha256.Sum256(bundle)))
	told, err := os.ReadFile(at("desk/desk-1.desk"))
	if err != nil {
		t.Fatal(err)
	}
	token, err := d.people["admin"].Token(t.Context(), httpapi.TokenSpec{
		Caller: "person:sue", Kind: access.Person, Roles: []access.Role{access.Security, access.Viewer}, Use: signin.UseToken, Seconds: 3600,
	})
	if err != nil {
		t.Fatal(err)
	}
	agreed := func(p proposal.Proposal) {
		if _, err := d.people["admin"].As(token).DecideProposal(t.Context(), p.ID, true, "compared"); err != nil {
			t.Error(err)
		}
	}
	if _, err := d.people["sam"].Proposing("the works in the east have no line", agreed).AddDesk(t.Context(), told, 10); err != nil {
		t.Fatal(err)
	}
}

// A device's whole way from a desk: an order that is wrapped without an instance is taken to a station, which is a process with its keys in SoftHSM; the real
// agent is made there, and comes into the field before anybody has registered the order. It gets no certificate until its order and its record have come; then it
// enrols by EST and proves what it runs, and its history names the desk.
func TestADeviceComesFromADesk(t *testing.T) {
	if testing.Short() {
		t.Skip("plays whole lives")
	}
	w := plan(Options{Devices: 1, Out: io.Discard, programs: programs(t)})
	w.begins(t, w.build, w.instance, w.firstRelease)
	w.beginDesk(t)
	at := func(name string) string { return filepath.Join(w.dir, name) }
	if err := w.initStation(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.types(t, "order", "oem", "--out", at("oem.json")) // with the desk's order key
	station := func(args ...string) {
		t.Helper()
		if out, err := w.atStation(t.Context(), args...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	station("trust", at("oem.json"))
	station("descriptor", "--oem", oemID, "-o", at("station.hmd"))
	if err := os.WriteFile(at("app"), w.images[v1], 0o600); err != nil {
		t.Fatal(err)
	}
	w.order = "from-the-desk"
	w.atDesk(t, "order", "wrap", "--desk", at("desk"), "--product", productID, "--hardware", hardware, "--quota", "1", "--release", at("v1.release"), "--file", "app="+at("app"),
		"--descriptor", at("station.hmd"), "--station", w.station.fingerprint, "--server", strings.Replace(w.devURL, "127.0.0.1", "localhost", 1),
		"--slot-size", fmt.Sprint(w.payload()), "--id", w.order, "--out", at("order.hmo"))
	station("import", at("order.hmo"))
	if out, err := w.runStation(t.Context(), 1); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	station("export", w.order, "-o", at("records.hmr"))
	if err := w.meet(t.Context()); err != nil {
		t.Fatal(err)
	}
	records, err := os.ReadFile(at("records.hmr"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.people["frank"].ImportRecords(t.Context(), w.order, bytes.NewReader(records), int64(len(records))); client.Code(err) != "order.unregistered" {
		t.Fatalf("records of an order that is not here: %v", err)
	}
	a := w.agents[0]
	if err := a.on(); err != nil {
		t.Fatal(err)
	}
	if ok, saw := wait(t.Context(), patience, func() (bool, string) {
		log, err := os.ReadFile(filepath.Join(a.dir, "agent.log"))
		return err == nil && bytes.Contains(log, []byte("enrol")), fmt.Sprintf("%s, %v", log, err)
	}); !ok {
		t.Fatalf("it does not ask to be let in: %s", saw)
	}
	if v, err := w.seen(t.Context(), a.id); err == nil {
		t.Fatalf("nobody has registered its order, and it is here: %+v", v.Device)
	}
	a.run.stop(os.Interrupt)

	registration, err := os.ReadFile(at("order.hmo.registration"))
	if err != nil {
		t.Fatal(err)
	}
	if o, err := w.people["frank"].RegisterOrder(t.Context(), registration); err != nil || o.Desk != "desk-1" {
		t.Fatalf("%+v, %v", o, err)
	}
	if r, err := w.people["frank"].ImportRecords(t.Context(), w.order, bytes.NewReader(records), int64(len(records))); err != nil || r.Accepted != 1 || len(r.Alarms) > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := w.field(t.Context()); err != nil { // it enrols, and proves what it runs
		t.Fatalf("%v\n%s", err, tail(filepath.Join(a.dir, "agent.log")))
	}
	v, err := w.seen(t.Context(), a.id)
	if err != nil || v.Device.Order != w.order || v.Device.Release != w.releases[v1] {
		t.Errorf("it is of order %q and runs %s, %v", v.Device.Order, v.Device.Release, err)
	}
	told := w.types(t, "log", "trace", a.id, "--trust", filepath.Join(w.layout.Logs(), "trust.json"))
	for _, want := range []string{"desk.added", "order.created", "Every proof, signature and link that could be checked holds"} {
		if !strings.Contains(told, want) {
			t.Errorf("its history does not tell of %s:\n%s", want, told)
		}
	}
}
