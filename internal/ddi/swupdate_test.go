package ddi_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

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
	run  *exec.Cmd
	done chan error
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
	b.out, b.done = &safeBuffer{}, make(chan error, 1)
	b.run = exec.CommandContext(ctx, "swupdate", "-v", "-f", b.at("swupdate.cfg"), "-M", "-H", "board:1.0", "-p", "touch "+b.at("restarts"), "-u", strings.Join(args, " "))
	b.run.Dir, b.run.Stdout, b.run.Stderr = b.dir, b.out, b.out
	b.run.Env = append(os.Environ(), "TMPDIR="+b.dir, "RUNTIME_DIRECTORY="+b.dir)
	b.run.Cancel = func() error { return b.run.Process.Signal(os.Interrupt) }
	b.w.must(b.run.Start())
	go func() { b.done <- b.run.Wait() }()
	b.t.Cleanup(cancel)
	b.t.Cleanup(func() {
		if b.t.Failed() {
			b.t.Logf("SWUpdate %v: %s", args, b.out)
		}
	})
}

// stop ends SWUpdate, as a restart does.
func (b *board) stop() {
	b.t.Helper()
	b.w.must(b.run.Process.Signal(os.Interrupt))
	<-b.done
}

func (b *board) installed() string {
	data, err := os.ReadFile(b.at("installed"))
	if err != nil {
		return ""
	}
	return string(data)
}

func TestInteropSWUpdateByToken(t *testing.T) {
	needSWUpdate(t)
	w := newWorld(t, false)
	id, token := w.admit(legacy.Admission{Name: "pump-0042"})
	b := newBoard(w, "pump-0042", `targettoken = "`+token+`";`)
	old := w.publish("1.0.0", "system", b.image("1.0.0", []byte("program 1.0.0")))
	next := w.publish("1.1.0", "system", b.image("1.1.0", []byte("program 1.1.0")), old)
	b.start("1.0.0", w.base)
	w.runs(id, "1.0.0")
	w.roll("r1", next, id)
	w.until("SWUpdate has installed it", func() (bool, string) { return b.installed() == "program 1.1.0", b.out.String() })
	w.until("it wants to restart", func() (bool, string) {
		_, err := os.Stat(b.at("restarts"))
		return err == nil, b.out.String()
	})
	b.stop()
	b.start("1.1.0", w.base, "-c 2")
	w.runs(id, "1.1.0")
	r := w.rolled("r1", rollout.Completed)
	if r.Rollout.Last.Good != 1 || r.Rollout.Last.ByWord != 1 {
		t.Errorf("counts %+v", r.Rollout.Last)
	}
}
