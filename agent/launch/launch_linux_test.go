package launch

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hallmark-iot/hallmark/wire"
)

func TestMain(m *testing.M) {
	Confine()
	goleak.VerifyTestMain(m)
}

// options are those of a device of this test alone.
func options(t *testing.T) Options {
	t.Helper()
	return Options{Dir: t.TempDir(), Device: t.Name(), Self: "/proc/self/exe", Output: io.Discard}
}

// shared is what a program linked with the system's libraries has to read.
var shared = &wire.Capabilities{Read: []string{"/bin", "/etc/ld.so.cache", "/lib", "/lib64", "/usr/bin", "/usr/lib"}}

// build makes the demo's firmware.
func build(t *testing.T, flags string) ([]byte, wire.Component) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "fw")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w "+flags, "-o", out, "../../internal/demo/firmware")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	code, c := component(t, out, wire.HealthSocket)
	c.Capabilities = &wire.Capabilities{Read: []string{"/proc/loadavg"}}
	return code, c
}

func component(t *testing.T, path string, h wire.HealthCheck, args ...string) ([]byte, wire.Component) {
	t.Helper()
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(code)
	return code, wire.Component{Name: "app", Kind: wire.KindExec, Version: "1.0.0", Size: uint64(len(code)), Digest: sum[:], Health: h, Args: args, Capabilities: shared}
}

func known(t *testing.T, p *Process) (bool, string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if good, ok, text := p.Health(t.Context()); ok {
			return good, text
		}
	}
	t.Fatal("never known")
	return false, ""
}

func TestAProgramRunsAndSaysHowItIs(t *testing.T) {
	for _, c := range []struct {
		flags string
		good  bool
		says  string
	}{{"-X main.version=1.2.3", true, "version 1.2.3"}, {"-X main.version=1.2.4 -X main.behaviour=sick", false, "pressure sensor"}} {
		code, comp := build(t, c.flags)
		p, err := Start(bytes.NewReader(code), comp, options(t))
		if err != nil {
			t.Fatal(err)
		}
		good, text := known(t, p)
		if good != c.good || !strings.Contains(text, c.says) {
			t.Errorf("%s: good %v, %q", c.flags, good, text)
		}
		if s, err := p.Ask(t.Context(), "sample"); err != nil || !strings.HasPrefix(s, "load ") {
			t.Errorf("sample %q, %v", s, err)
		}
		p.Stop()
		if good, _, text := p.Health(t.Context()); good {
			t.Errorf("stopped, and good: %s", text)
		}
	}
}

func TestAnyExecutableStarts(t *testing.T) {
	for path, want := range map[string]bool{"/bin/true": true, "/bin/false": false} {
		code, comp := component(t, path, wire.HealthAlive)
		p, err := Start(bytes.NewReader(code), comp, options(t))
		if err != nil {
			t.Fatal(err)
		}
		if good, text := known(t, p); good != want {
			t.Errorf("%s: good %v, %s", path, good, text)
		}
		p.Stop()
	}
}

// A script runs by the program it names, and reads nothing but what was granted, and itself.
func TestAScriptStarts(t *testing.T) {
	code := []byte("#!/bin/sh\n(cat /etc/passwd && exit 1) || exec true\n")
	sum := sha256.Sum256(code)
	comp := wire.Component{
		Name: "app", Kind: wire.KindExec, Version: "1.0.0", Size: uint64(len(code)), Digest: sum[:], Health: wire.HealthAlive, Capabilities: shared,
	}
	p, err := Start(bytes.NewReader(code), comp, options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	if good, text := known(t, p); !good {
		t.Error(text)
	}
}

func TestOtherBytesDoNotStart(t *testing.T) {
	code, good := component(t, "/bin/true", wire.HealthAlive)
	change := func(at int, b byte) []byte { out := bytes.Clone(code); out[at] ^= b; return out }
	for name, c := range map[string]struct {
		code []byte
		comp func(c *wire.Component)
	}{
		"a bit":       {change(len(code)/2, 1), nil},
		"the last":    {change(len(code)-1, 0x80), nil},
		"a part":      {code[:len(code)-1], nil},
		"nothing":     {nil, nil},
		"less signed": {code, func(c *wire.Component) { c.Size-- }},
		"more signed": {code, func(c *wire.Component) { c.Size++ }},
	} {
		o, comp := options(t), good
		if c.comp != nil {
			c.comp(&comp)
		}
		p, err := Start(bytes.NewReader(c.code), comp, o)
		if err == nil {
			p.Stop()
		}
		if err == nil || !strings.Contains(err.Error(), "start app") || !strings.Contains(err.Error(), "not those that were signed") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What follows the component in flash is not part of it.
	p, err := Start(bytes.NewReader(append(bytes.Clone(code), "next component"...)), good, options(t))
	if err != nil {
		t.Fatal(err)
	}
	p.Stop()
	junk := []byte("no program")
	sum := sha256.Sum256(junk)
	good.Size, good.Digest = uint64(len(junk)), sum[:]
	if _, err := Start(bytes.NewReader(junk), good, options(t)); err == nil || !strings.Contains(err.Error(), "exec format") {
		t.Errorf("signed bytes that are no program: %v", err)
	}
}

// Nothing of what runs is a file that could be changed: the image is sealed memory.
func TestWhatRunsCannotBeChanged(t *testing.T) {
	code, comp := component(t, "/bin/sleep", wire.HealthAlive, "60")
	p, err := Start(bytes.NewReader(code), comp, options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	exe := filepath.Join("/proc", pid(p), "exe")
	if target, err := os.Readlink(exe); err != nil || !strings.Contains(target, "memfd:app (deleted)") {
		t.Errorf("it runs from %s, %v", target, err)
	}
	f, err := os.OpenFile(exe, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt([]byte{0}, 0)
		f.Close()
	}
	if err == nil {
		t.Error("the running image was written to")
	}
	environ, err := os.ReadFile(filepath.Join("/proc", pid(p), "environ"))
	if err != nil || bytes.Count(environ, []byte{0}) > 4 {
		t.Errorf("it has more of the environment than it was given: %q, %v", environ, err)
	}
}

func pid(p *Process) string { return strconv.Itoa(p.cmd.Process.Pid) }

// A program that is killed, or that ends by itself, is not well; why is said. Stop takes all that it started along.
func TestTheEndOfAProgramIsReported(t *testing.T) {
	for name, c := range map[string]struct {
		health wire.HealthCheck
		args   []string
		kill   syscall.Signal
		good   bool
		says   string
	}{
		"killed":                    {wire.HealthAlive, []string{"-c", "sleep 60; true"}, syscall.SIGKILL, false, "killed"},
		"killed, by socket":         {wire.HealthSocket, []string{"-c", "sleep 60; true"}, syscall.SIGKILL, false, "killed"},
		"ended badly":               {wire.HealthAlive, []string{"-c", "exit 3"}, 0, false, "exit status 3"},
		"left something running":    {wire.HealthAlive, []string{"-c", "sleep 60 & exit 0"}, 0, true, "ended well"},
		"ended well":                {wire.HealthAlive, []string{"-c", "exit 0"}, 0, true, "ended well"},
		"ended well, but by socket": {wire.HealthSocket, []string{"-c", "exit 0"}, 0, false, "it ended"},
	} {
		code, comp := component(t, "/bin/sh", c.health, c.args...)
		p, err := Start(bytes.NewReader(code), comp, options(t))
		if err != nil {
			t.Fatal(err)
		}
		if c.kill != 0 {
			if err := syscall.Kill(p.cmd.Process.Pid, c.kill); err != nil {
				t.Fatal(err)
			}
		}
		<-p.done
		if good, ok, text := p.Health(t.Context()); !ok || good != c.good || !strings.Contains(text, c.says) {
			t.Errorf("%s: good %v, known %v, %q", name, good, ok, text)
		}
		p.Stop() // again is nothing
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	code, comp := component(t, "/bin/sh", wire.HealthAlive, "-c", "sleep 600 & sleep 600")
	o := options(t)
	o.Output = in
	p, err := Start(bytes.NewReader(code), comp, o)
	if err != nil {
		t.Fatal(err)
	}
	p.Stop()
	in.Close()
	if _, err := io.ReadAll(out); err != nil { // ends only when nobody of its family holds the other side any more
		t.Error(err)
	}
	out.Close()
}

// old makes p as old as a program whose silence counts.
func old(p *Process) *Process { p.started = time.Now().Add(-time.Minute); return p }

// What a program says on its socket is bounded, and what is no answer is no health.
func TestAnAnswerIsBoundedAndWhole(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		good   bool
		says   string
	}{
		"good":       {"ok version 1\n", true, "version 1"},
		"bare":       {"ok\n", true, ""},
		"sick":       {"fail pump is hot\n", false, "pump is hot"},
		"other word": {"okay\n", false, ""},
		"shouting":   {"OK\n", false, ""},
		"empty":      {"\n", false, ""},
		"cut off":    {"ok version", false, "no whole answer"},
		"nothing":    {"", false, "no whole answer"},
		"endless":    {strings.Repeat("ok ", 10<<10), false, "no whole answer"},
		"not UTF-8":  {"ok \xff\n", true, "?"},
	} {
		path := filepath.Join(t.TempDir(), "app.sock")
		l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			if _, err := io.ReadFull(conn, make([]byte, len("health\n"))); err == nil {
				_, _ = io.WriteString(conn, c.answer) // it may not be read to its end
			}
		}()
		p := old(&Process{component: wire.Component{Health: wire.HealthSocket}, socket: path})
		if good, ok, text := p.Health(t.Context()); !ok || good != c.good || !strings.Contains(text, c.says) {
			t.Errorf("%s: good %v, known %v, %.100q", name, good, ok, text)
		}
		l.Close()
		<-served
	}
	p := &Process{component: wire.Component{Health: wire.HealthSocket}, socket: filepath.Join(t.TempDir(), "none"), started: time.Now()}
	if good, ok, _ := p.Health(t.Context()); good || ok {
		t.Error("a program that has hardly begun is judged by its silence")
	}
	if good, ok, text := old(p).Health(t.Context()); good || !ok || !strings.Contains(text, "does not answer") {
		t.Errorf("a silent program: good %v, known %v, %q", good, ok, text)
	}
}
