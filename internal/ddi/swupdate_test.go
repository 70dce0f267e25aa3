package ddi_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/rollout"
)

// board is a machine with SWUpdate on it, as Debian has it.
type board struct {
	t    *testing.T
	w    *world
	dir  string // short: sockets are in it
	name string
	auth string // of suricatta's section: targettoken = "…"
	end  func() // SWUpdate, and waits until it has
	out  *safeBuffer
}

// safeBuffer takes a process' words while others read them.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
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

func newBoard(w *world, name, auth string) *board {
	w.t.Helper()
	dir, err := os.MkdirTemp("", "swu")
	w.must(err)
	w.t.Cleanup(func() { w.must(os.RemoveAll(dir)) })
	b := &board{t: w.t, w: w, dir: dir, name: name, auth: auth}
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
	b.w.must(os.WriteFile(b.at(name), data, 0o600))
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
	b.w.must(err)
	return data
}

// start runs SWUpdate on a system of a version; after an update it is told by -c what came of that.
func (b *board) start(version, url string, args ...string) {
	b.t.Helper()
	b.put("swupdate.cfg", fmt.Appendf(nil, `globals : { public-key-file = "%s"; };
suricatta : { tenant = "%s"; id = "%s"; url = "%s"; cafile = "%s"; retry = 20; retrywait = 1; %s };
identify : ( { name = "%s"; value = "%s"; }, { name = "board"; value = "b1"; } );
`, b.at("maker.pem"), tenant, b.name, url, b.w.roots, b.auth, legacy.VersionAttribute, version))
	ctx, cancel := context.WithCancel(context.Background())
	out, done := &safeBuffer{}, make(chan struct{})
	run := exec.CommandContext(ctx, "swupdate", "-v", "-f", b.at("swupdate.cfg"), "-M", "-H", "board:1.0", "-p", "touch "+b.at("restarts"), "-u", strings.Join(args, " "))
	run.Dir, run.Stdout, run.Stderr = b.dir, out, out
	run.Env = append(os.Environ(), "TMPDIR="+b.dir, "RUNTIME_DIRECTORY="+b.dir)
	run.Cancel, run.WaitDelay = func() error { return run.Process.Signal(os.Interrupt) }, time.Minute
	b.w.must(run.Start())
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
	b.w.roll(rolloutID, digest, id)
	b.w.until("SWUpdate has installed it, and wants to restart", func() (bool, string) {
		_, err := os.Stat(b.at("restarts"))
		return err == nil, b.out.String()
	})
	if got, want := b.installed(), "program "+version; !strings.HasPrefix(got, want) {
		b.t.Fatalf("%.40q is installed, want %q", got, want)
	}
	b.stop()
	if r, err := b.w.people["olga"].Rollout(b.t.Context(), rolloutID); err != nil || r.Rollout.Phase != rollout.Running {
		b.t.Fatalf("before the restart it is %s: %v", r.Rollout.Phase, err)
	}
	b.start(version, b.w.base, "-c 2")
	b.w.runs(id, version)
	if r := b.w.rolled(rolloutID, rollout.Completed); r.Rollout.Last.Good != 1 || r.Rollout.Last.ByWord != 1 {
		b.t.Errorf("counts %+v", r.Rollout.Last)
	}
}

// releases publishes two that SWUpdate can install, and gives the second.
func (b *board) releases() string {
	b.t.Helper()
	old := b.w.publish("1.0.0", "system", b.image("1.0.0", []byte("program 1.0.0")))
	return b.w.publish("1.1.0", "system", b.image("1.1.0", []byte("program 1.1.0")), old)
}

func TestInteropSWUpdateByTokenGatewayAndCertificate(t *testing.T) {
	needSWUpdate(t)
	w := newWorld(t)
	id, token := w.admit(legacy.Admission{Name: "pump-0042"})
	b := newBoard(w, "pump-0042", `targettoken = "`+token+`";`)
	next := b.releases()
	b.start("1.0.0", w.base)
	w.runs(id, "1.0.0")
	b.update(id, "r1", next, "1.1.0")
	b.stop()

	g, err := w.people["frank"].AddLegacyGateway(t.Context(), tenant, "hall-3")
	w.must(err)
	behind, _ := w.admit(legacy.Admission{Name: "pump-0043"})
	b = newBoard(w, "pump-0043", `gatewaytoken = "`+g.Token+`";`)
	third := w.publish("1.2.0", "system", b.image("1.2.0", []byte("program 1.2.0")))
	b.start("1.0.0", w.base)
	w.runs(behind, "1.0.0")
	b.update(behind, "r2", third, "1.2.0")
	b.stop()

	b = newBoard(w, "pump-0044", "")
	b.auth = fmt.Sprintf("sslkey = %q; sslcert = %q;", b.at("client.key"), b.at("client.pem"))
	held, _ := w.admit(legacy.Admission{Name: "pump-0044", Key: b.key()})
	fourth := w.publish("1.3.0", "system", b.image("1.3.0", []byte("program 1.3.0")))
	b.start("1.0.0", w.base)
	w.runs(held, "1.0.0")
	b.update(held, "r3", fourth, "1.3.0")
	b.stop()

	d := w.device(id)
	if d.Device.Assurance != "says" || d.Device.Legitimacy != "imported" || d.Device.Verdict != "unknown" || d.Device.Health != "healthy" {
		t.Errorf("it is shown as %+v", d.Device)
	}
}

// key is the digest of the key of the board's certificate.
func (b *board) key() []byte {
	b.t.Helper()
	data, err := os.ReadFile(b.at("client.pem"))
	b.w.must(err)
	block, _ := pem.Decode(data)
	cert, err := x509.ParseCertificate(block.Bytes)
	b.w.must(err)
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return sum[:]
}

func TestInteropSWUpdateBrokenLineAndTranscript(t *testing.T) {
	needSWUpdate(t)
	l := &line{}
	w := newWorldBehind(t, l)
	id, token := w.admit(legacy.Admission{Name: "pump-0042"})
	b := newBoard(w, "pump-0042", `targettoken = "`+token+`";`)
	old := w.publish("1.0.0", "system", b.image("1.0.0", []byte("program 1.0.0")))
	large := make([]byte, 4<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(large)
	next := w.publish("1.1.0", "system", b.image("1.1.0", append([]byte("program 1.1.0"), large...)), old)
	b.start("1.0.0", w.base)
	w.runs(id, "1.0.0")
	// It has said what it is, and is not asked again, or it would say so for ever and do nothing else.
	before := l.count(polls)
	w.until("it polls on", func() (bool, string) { return l.count(polls) > before+3, b.out.String() })
	if n := l.count(func(e exchange) bool { return strings.HasSuffix(e.path, "/configData") }); n > 2 {
		t.Errorf("it said %d times what it is", n)
	}
	l.breakAfter(1 << 20)
	b.update(id, "r1", next, "1.1.0")
	if n := l.count(func(e exchange) bool {
		return strings.HasPrefix(e.ranged, "bytes=") && e.status == http.StatusPartialContent
	}); n == 0 {
		t.Error("it did not go on where the line broke")
	}
	golden(t, "swupdate.txt", l.transcript())
}

var update = flag.Bool("update", false, "write testdata anew; then read what has changed")

// golden compares with what is kept, which the guide shows.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("it said\n%s\nand before\n%s", got, want)
	}
	guide, err := os.ReadFile(filepath.Join("..", "..", "docs", "guide", "swupdate.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(guide), strings.TrimSpace(string(want))) {
		t.Errorf("docs/guide/swupdate.md does not show %s", path)
	}
}

func TestInteropSWUpdateCorruptImage(t *testing.T) {
	needSWUpdate(t)
	w := newWorld(t)
	id, token := w.admit(legacy.Admission{Name: "pump-0042"})
	b := newBoard(w, "pump-0042", `targettoken = "`+token+`";`)
	old := w.publish("1.0.0", "system", b.image("1.0.0", []byte("program 1.0.0")))
	image := b.image("1.1.0", []byte("program 1.1.0"))
	bad := bytes.Replace(image, []byte("program 1.1.0"), []byte("program 6.6.6"), 1)
	if bytes.Equal(bad, image) {
		t.Fatal("nothing was changed")
	}
	next := w.publish("1.1.0", "system", bad, old)
	b.start("1.0.0", w.base)
	w.runs(id, "1.0.0")
	w.roll("r1", next, id)
	r := w.rolled("r1", rollout.RolledBack)
	if !strings.Contains(r.Rollout.Reason, "failed") || b.installed() == "program 6.6.6" {
		t.Errorf("halted because %q, and %q is installed", r.Rollout.Reason, b.installed())
	}
	if d := w.device(id); d.Device.Version != "1.0.0" {
		t.Errorf("it runs %s", d.Device.Version)
	}
}

func TestInteropSWUpdateLeavesOff(t *testing.T) {
	needSWUpdate(t)
	w := newWorldBehind(t, &line{})
	id, token := w.admit(legacy.Admission{Name: "pump-0042"})
	b := newBoard(w, "pump-0042", `targettoken = "`+token+`";`)
	next := b.releases()
	rhu{w, "pump-0042", "TargetToken " + token}.config("1.0.0")
	w.roll("r1", next, id)
	path := "/" + tenant + "/controller/v1/pump-0042"
	w.until("it is offered", func() (bool, string) {
		_, body, _ := w.call(http.MethodGet, path, "TargetToken "+token, "")
		return strings.Contains(string(body), "deploymentBase"), string(body)
	})
	_, err := w.people["olga"].ControlRollout(t.Context(), "r1", "abort", "another comes first")
	w.must(err)
	w.rolled("r1", rollout.Aborted)
	b.start("1.0.0", w.base)
	w.until("it has left off", func() (bool, string) {
		_, body, _ := w.call(http.MethodGet, path, "TargetToken "+token, "")
		return !strings.Contains(string(body), "cancelAction"), b.out.String()
	})
	w.runs(id, "1.0.0")
	if b.installed() != "" {
		t.Errorf("%q is installed", b.installed())
	}
	w.roll("r2", next, id) // what it left off is offered again, as something else
	w.until("it has installed it", func() (bool, string) { return b.installed() == "program 1.1.0", b.out.String() })
}
