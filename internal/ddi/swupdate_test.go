package ddi_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/legacytest"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/window"
)

// board is a machine with SWUpdate on it, as Debian has it.
type board struct {
	t    testing.TB
	w    *legacytest.World
	dir  string // short: sockets are in it
	name string
	auth string // of suricatta's section: targettoken = "…"
	end  func() // SWUpdate, and waits until it has
	out  *legacytest.Words
}

func needSWUpdate(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"swupdate", "cpio", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatalf("%s is not installed: scripts/setup-test.sh", tool)
			}
			t.Skipf("%s is not installed: scripts/setup-test.sh", tool)
		}
	}
}

func newBoard(w *legacytest.World, name, auth string) *board {
	w.T.Helper()
	dir, err := os.MkdirTemp("", "swu")
	w.Must(err)
	w.T.Cleanup(func() { w.Must(os.RemoveAll(dir)) })
	b := &board{t: w.T, w: w, dir: dir, name: name, auth: auth}
	b.do("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "client.key", "-out", "client.pem", "-days", "3650", "-subj", "/CN="+name)
	b.do("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "maker.key", "-out", "maker.pem", "-days", "3650", "-subj", "/CN=maker",
		"-addext", "extendedKeyUsage=emailProtection,codeSigning", "-addext", "keyUsage=digitalSignature")
	return b
}

func (b *board) at(name string) string { return filepath.Join(b.dir, name) }

func (b *board) do(name string, args ...string) {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), name, args...)
	cmd.Dir = b.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
}

func (b *board) put(name string, data []byte) {
	b.t.Helper()
	b.w.Must(os.WriteFile(b.at(name), data, 0o600))
}

// image makes what SWUpdate installs: a program, signed by its maker.
func (b *board) image(version string, program []byte) []byte {
	b.t.Helper()
	b.put("app", program)
	b.put("sw-description", fmt.Appendf(nil, "software = { version = \"%s\"; hardware-compatibility: [ \"1.0\" ];\n files: ( { filename = \"app\"; path = \"%s\"; sha256 = \"%x\"; } );\n};\n",
		version, b.at("installed"), sha256.Sum256(program)))
	b.do("sh", "-ec", `openssl cms -sign -in sw-description -out sw-description.sig -signer maker.pem -inkey maker.key -outform DER -nosmimecap -binary
		printf 'sw-description\nsw-description.sig\napp\n' | cpio -o -H crc --quiet >image.swu`)
	data, err := os.ReadFile(b.at("image.swu"))
	b.w.Must(err)
	return data
}

// start runs SWUpdate on a system of a version; after an update it is told by -c what came of that.
func (b *board) start(version, url string, args ...string) {
	b.t.Helper()
	b.put("swupdate.cfg", fmt.Appendf(nil, `globals : { public-key-file = "%s"; };
suricatta : { tenant = "%s"; id = "%s"; url = "%s"; cafile = "%s"; retry = 20; retrywait = 1; %s };
identify : ( { name = "%s"; value = "%s"; }, { name = "board"; value = "b1"; } );
`, b.at("maker.pem"), legacytest.Tenant, b.name, url, b.w.Roots, b.auth, legacy.VersionAttribute, version))
	ctx, cancel := context.WithCancel(context.Background())
	out, done := &legacytest.Words{}, make(chan struct{})
	run := exec.CommandContext(ctx, "swupdate", "-v", "-f", b.at("swupdate.cfg"), "-M", "-H", "board:1.0", "-p", "touch "+b.at("restarts"), "-u", strings.Join(args, " "))
	run.Dir, run.Stdout, run.Stderr = b.dir, out, out
	run.Env = append(os.Environ(), "TMPDIR="+b.dir, "RUNTIME_DIRECTORY="+b.dir)
	run.Cancel, run.WaitDelay = func() error { return run.Process.Signal(os.Interrupt) }, time.Minute
	b.w.Must(run.Start())
	go func() {
		_ = run.Wait() // it was told to end
		close(done)
	}()
	b.out, b.end = out, func() {
		cancel()
		<-done
	}
	b.t.Cleanup(b.end)
	b.t.Cleanup(func() {
		if b.t.Failed() {
			b.t.Logf("SWUpdate %v: %s", args, out)
		}
	})
}

// stop ends SWUpdate, as a restart does.
func (b *board) stop() {
	b.t.Helper()
	b.end()
}

func (b *board) installed() string {
	data, err := os.ReadFile(b.at("installed"))
	if err != nil {
		return ""
	}
	return string(data)
}

// update has SWUpdate bring a board to a release, restart and say so.
func (b *board) update(id, rolloutID, digest, version string) {
	b.t.Helper()
	b.w.Roll(rolloutID, digest, id)
	b.w.Until("SWUpdate has installed it, and wants to restart", func() (bool, string) {
		_, err := os.Stat(b.at("restarts"))
		return err == nil, b.out.String()
	})
	if got, want := b.installed(), "program "+version; !strings.HasPrefix(got, want) {
		b.t.Fatalf("%.40q is installed, want %q", got, want)
	}
	b.stop()
	if r, err := b.w.People["olga"].Rollout(b.t.Context(), rolloutID); err != nil || r.Rollout.Phase != rollout.Running {
		b.t.Fatalf("before the restart it is %s: %v", r.Rollout.Phase, err)
	}
	b.start(version, b.w.Base, "-c 2")
	b.w.Runs(id, version)
	if r := b.w.Rolled(rolloutID, rollout.Completed); r.Rollout.Last.Good != 1 || r.Rollout.Last.ByWord != 1 {
		b.t.Errorf("counts %+v", r.Rollout.Last)
	}
}

// releases publishes two that SWUpdate can install, and gives the second.
func (b *board) releases() string {
	b.t.Helper()
	old := b.w.Publish("1.0.0", "system", b.image("1.0.0", []byte("program 1.0.0")))
	return b.w.Publish("1.1.0", "system", b.image("1.1.0", []byte("program 1.1.0")), old)
}

func TestInteropSWUpdateByTokenGatewayAndCertificate(t *testing.T) {
	needSWUpdate(t)
	w := legacytest.New(t)
	id, token := w.Admit(legacy.Admission{Name: "pump-0042"})
	b := newBoard(w, "pump-0042", `targettoken = "`+token+`";`)
	next := b.releases()
	b.start("1.0.0", w.Base)
	w.Runs(id, "1.0.0")
	b.update(id, "r1", next, "1.1.0")
	b.stop()

	g, err := w.People["frank"].AddLegacyGateway(t.Context(), legacytest.Tenant, "hall-3")
	w.Must(err)
	behind, _ := w.Admit(legacy.Admission{Name: "pump-0043"})
	b = newBoard(w, "pump-0043", `gatewaytoken = "`+g.Token+`";`)
	third := w.Publish("1.2.0", "system", b.image("1.2.0", []byte("program 1.2.0")))
	b.start("1.0.0", w.Base)
	w.Runs(behind, "1.0.0")
	b.update(behind, "r2", third, "1.2.0")
	b.stop()

	b = newBoard(w, "pump-0044", "")
	b.auth = fmt.Sprintf("sslkey = %q; sslcert = %q;", b.at("client.key"), b.at("client.pem"))
	held, _ := w.Admit(legacy.Admission{Name: "pump-0044", Key: b.key()})
	fourth := w.Publish("1.3.0", "system", b.image("1.3.0", []byte("program 1.3.0")))
	b.start("1.0.0", w.Base)
	w.Runs(held, "1.0.0")
	b.update(held, "r3", fourth, "1.3.0")
	b.stop()

	d := w.Device(id)
	if d.Device.Assurance != "says" || d.Device.Legitimacy != "imported" || d.Device.Verdict != "unknown" || d.Device.Health != "healthy" {
		t.Errorf("it is shown as %+v", d.Device)
	}
}

// key is the digest of the key of the board's certificate.
func (b *board) key() []byte {
	b.t.Helper()
	data, err := os.ReadFile(b.at("client.pem"))
	b.w.Must(err)
	block, _ := pem.Decode(data)
	cert, err := x509.ParseCertificate(block.Bytes)
	b.w.Must(err)
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return sum[:]
}

func TestInteropSWUpdateBrokenLineAndTranscript(t *testing.T) {
	needSWUpdate(t)
	l := &legacytest.Line{}
	w := legacytest.Behind(t, l)
	id, token := w.Admit(legacy.Admission{Name: "pump-0042"})
	b := newBoard(w, "pump-0042", `targettoken = "`+token+`";`)
	old := w.Publish("1.0.0", "system", b.image("1.0.0", []byte("program 1.0.0")))
	large := make([]byte, 4<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(large)
	next := w.Publish("1.1.0", "system", b.image("1.1.0", append([]byte("program 1.1.0"), large...)), old)
	b.start("1.0.0", w.Base)
	w.Runs(id, "1.0.0")
	// It has said what it is, and is not asked again, or it would say so for ever and do nothing else.
	before := l.Count(polls)
	w.Until("it polls on", func() (bool, string) { return l.Count(polls) > before+3, b.out.String() })
	if n := l.Count(func(e legacytest.Exchange) bool { return strings.HasSuffix(e.Path, "/configData") }); n > 2 {
		t.Errorf("it said %d times what it is", n)
	}
	l.BreakAfter(1 << 20)
	b.update(id, "r1", next, "1.1.0")
	if n := l.Count(func(e legacytest.Exchange) bool {
		return strings.HasPrefix(e.Ranged, "bytes=") && e.Status == http.StatusPartialContent
	}); n == 0 {
		t.Error("it did not go on where the line broke")
	}
	legacytest.Golden(t, "swupdate", l.Transcript(), *update)
}

var update = flag.Bool("update", false, "write testdata anew; then read what has changed")

func TestInteropSWUpdateCorruptImage(t *testing.T) {
	needSWUpdate(t)
	w := legacytest.New(t)
	id, token := w.Admit(legacy.Admission{Name: "pump-0042"})
	b := newBoard(w, "pump-0042", `targettoken = "`+token+`";`)
	old := w.Publish("1.0.0", "system", b.image("1.0.0", []byte("program 1.0.0")))
	image := b.image("1.1.0", []byte("program 1.1.0"))
	bad := bytes.Replace(image, []byte("program 1.1.0"), []byte("program 6.6.6"), 1)
	if bytes.Equal(bad, image) {
		t.Fatal("nothing was changed")
	}
	next := w.Publish("1.1.0", "system", bad, old)
	b.start("1.0.0", w.Base)
	w.Runs(id, "1.0.0")
	w.Roll("r1", next, id)
	r := w.Rolled("r1", rollout.RolledBack)
	if !strings.Contains(r.Rollout.Reason, "failed") || b.installed() == "program 6.6.6" {
		t.Errorf("halted because %q, and %q is installed", r.Rollout.Reason, b.installed())
	}
	if d := w.Device(id); d.Device.Version != "1.0.0" {
		t.Errorf("it runs %s", d.Device.Version)
	}
}

func TestInteropSWUpdateLeavesOff(t *testing.T) {
	needSWUpdate(t)
	w := legacytest.Behind(t, &legacytest.Line{})
	id, token := w.Admit(legacy.Admission{Name: "pump-0042"})
	b := newBoard(w, "pump-0042", `targettoken = "`+token+`";`)
	next := b.releases()
	rhu{w, "pump-0042", "TargetToken " + token}.config("1.0.0")
	w.Roll("r1", next, id)
	path := "/" + legacytest.Tenant + "/controller/v1/pump-0042"
	w.Until("it is offered", func() (bool, string) {
		_, body, _ := w.Call(http.MethodGet, path, "TargetToken "+token, "")
		return strings.Contains(string(body), "deploymentBase"), string(body)
	})
	_, err := w.People["olga"].ControlRollout(t.Context(), "r1", "abort", "another comes first")
	w.Must(err)
	w.Rolled("r1", rollout.Aborted)
	b.start("1.0.0", w.Base)
	w.Until("it has left off", func() (bool, string) {
		_, body, _ := w.Call(http.MethodGet, path, "TargetToken "+token, "")
		return !strings.Contains(string(body), "cancelAction"), b.out.String()
	})
	w.Runs(id, "1.0.0")
	if b.installed() != "" {
		t.Errorf("%q is installed", b.installed())
	}
	w.Roll("r2", next, id) // what it left off is offered again, as something else
	w.Until("it has installed it", func() (bool, string) { return b.installed() == "program 1.1.0", b.out.String() })
}

func polls(e legacytest.Exchange) bool {
	return e.Method == http.MethodGet && strings.Count(e.Path, "/") == 4
}

// SWUpdate is offered a release in its rollout's hours, and hears nothing of it before.
func TestInteropSWUpdateInItsWindow(t *testing.T) {
	needSWUpdate(t)
	l := &legacytest.Line{}
	w := legacytest.Behind(t, l)
	id, token := w.Admit(legacy.Admission{Name: "pump-0042"})
	b := newBoard(w, "pump-0042", `targettoken = "`+token+`";`)
	next := b.releases()
	b.start("1.0.0", w.Base)
	w.Runs(id, "1.0.0")
	opens := time.Now().UTC().Add(time.Minute).Truncate(time.Minute)
	b.w.RollAs(rollout.Spec{ID: "r1", Window: &window.Hours{Window: window.Window{From: uint16(opens.Hour()*60 + opens.Minute()), Minutes: 23 * 60}}}, next, id)
	w.Until("it has installed it", func() (bool, string) { return b.installed() == "program 1.1.0", b.out.String() })
	s, err := os.Stat(b.at("installed"))
	w.Must(err)
	if s.ModTime().Before(opens) {
		t.Errorf("it installed it at %s, before %s", s.ModTime(), opens)
	}
	if n := l.Count(func(e legacytest.Exchange) bool {
		return strings.Contains(e.Path, "deploymentBase/") && e.Method == http.MethodGet && !strings.Contains(e.Got, `"maintenanceWindow":"available"`)
	}); n > 0 {
		t.Errorf("%d times it was told of no hours, or that they are not now: %s", n, l.Transcript())
	}
}

// Who declines what a rollout asks consent for is asked no more, and has not failed.
func TestARolloutAsksForConsent(t *testing.T) {
	w := legacytest.Behind(t, &legacytest.Line{})
	id, token := w.Admit(legacy.Admission{Name: "door-1"})
	other, otherToken := w.Admit(legacy.Admission{Name: "door-2"})
	yes, no := rhu{w, "door-1", "TargetToken " + token}, rhu{w, "door-2", "TargetToken " + otherToken}
	next := w.Publish("1.1.0", "bundle", []byte("bundle"))
	yes.config("1.0.0")
	no.config("1.0.0")
	w.RollAs(rollout.Spec{ID: "r1", Manner: wire.Consent}, next, id, other)
	for c, answer := range map[rhu]string{yes: "confirmed", no: "denied"} {
		var href string
		w.Until("somebody is asked", func() (bool, string) { href = c.poll().Links["confirmationBase"].Href; return href != "", "" })
		if status, body, _ := w.Call(http.MethodPost, c.path(href)+"/feedback", c.auth, `{"confirmation":"`+answer+`"}`); status != http.StatusOK {
			t.Fatalf("%s: %d %s", answer, status, body)
		}
	}
	if links := no.poll().Links; len(links) != 0 {
		t.Errorf("who declined is asked again: %v", links)
	}
	yes.installs(yes.offered())
	yes.config("1.1.0")
	if n := w.Rolled("r1", rollout.Completed).Rollout.Last; n.Good != 1 || n.Declined != 1 || n.Failed != 0 {
		t.Errorf("one agreed and one declined: %+v", n)
	}
}
