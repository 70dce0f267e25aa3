//go:build !nowasm

package launch

import (
	"bytes"
	"crypto/sha256"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// limited skips what limits the memory of modules, when the tests themselves need more for the race detector than any module may have.
func limited(t *testing.T) {
	t.Helper()
	if raceDetector {
		t.Skip("a process with the race detector takes more memory than a module's host may")
	}
}

// module builds the WebAssembly asset of the tests.
func module(t *testing.T) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "module.wasm")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, "./testdata/module")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	code, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

func moduleComponent(code []byte, c wire.Capabilities, args ...string) wire.Component {
	sum := sha256.Sum256(code)
	c.Runtime = wire.RuntimeWASM
	return wire.Component{
		Name: "app", Kind: wire.KindExec, Version: "1.0.0", Size: uint64(len(code)), Digest: sum[:], Health: wire.HealthSocket, Args: args, Capabilities: &c,
	}
}

// A module says how it is, and one that loops, takes more memory than it may, talks without end or ends is not well.
func TestAModuleRunsWithinItsLimits(t *testing.T) {
	limited(t)
	code := module(t)
	for how, want := range map[string]struct {
		good bool
		says string
	}{
		"well":    {true, "app well"},
		"sick":    {false, "pressure sensor"},
		"looping": {false, ""},
		"greedy":  {false, ""},
		"ending":  {false, ""},
		"silent":  {false, ""},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			said := new(buffer)
			o := options(t)
			o.Output, o.thinking = said, time.Second
			p, err := Start(bytes.NewReader(code), moduleComponent(code, wire.Capabilities{Memory: 32 << 20}, how), o)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Stop()
			if want.says != "" {
				if good, text := known(t, p); good != want.good || !strings.Contains(text, want.says) {
					t.Errorf("good %v, %q: %s", good, text, said)
				}
				return
			}
			_, _ = p.Ask(t.Context(), "health") // what ends it
			<-p.done
			if good, ok, text := p.Health(t.Context()); good || !ok || !strings.Contains(text, "it ended: exit status") {
				t.Errorf("good %v, known %v, %q: %s", good, ok, text, said)
			}
		})
	}
}

// A module reaches its own directory, and the files that it was granted, and nothing else.
func TestAModuleReachesWhatWasGrantedAndNoMore(t *testing.T) {
	limited(t)
	code := module(t)
	o := options(t)
	o.Output = os.Stderr
	given, err := dataFor(t, "table", "what it reads").Give()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(bytes.NewReader(code), moduleComponent(code, wire.Capabilities{Read: []string{"/etc/hostname"}}), o, given)
	given.File.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for question, good := range map[string]bool{
		"read /data/table": true, "list /data": true, "write /data/table": false, "write /data/other": false, "read /data/other": false, "read /data/../../keys": false,
		"read /etc/hostname": true, "write own": true, "list .": true, "read /etc/passwd": false, "list /etc": false, "list /proc": false, "read ../../keys": false,
		"write /etc/hostname": false, "link /etc/passwd": false, "link ../../keys": false, "call " + l.Addr().String(): false,
	} {
		end := time.Now().Add(30 * time.Second)
		said, err := p.Ask(t.Context(), question)
		for err != nil && time.Now().Before(end) && !p.Ended() { // it may be compiling
			said, err = p.Ask(t.Context(), question)
		}
		if err != nil || strings.HasPrefix(said, "ok") != good {
			t.Errorf("%s: %q, %v", question, said, err)
		}
		if want, ok := map[string]string{"read /data/table": "ok what it reads", "list /data": "ok 1 [- table]"}[question]; ok && strings.TrimSpace(said) != want {
			t.Errorf("%s: %q, want %q", question, said, want)
		}
	}
}

// What is no module does not start, and the reason is told at once.
func TestWhatIsNoModuleDoesNotStart(t *testing.T) {
	limited(t)
	for name, code := range map[string][]byte{"junk": []byte("no module"), "the head of one": []byte("\x00asm\x01\x00\x00\x00\x01"), "machine code": exploitBinary(t, "program")} {
		p, err := Start(bytes.NewReader(code), moduleComponent(code, wire.Capabilities{}), options(t))
		if err == nil {
			p.Stop()
		}
		if err == nil || !strings.Contains(err.Error(), "no WebAssembly module") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A module has what comes over its channel as questions, between those on its health socket, and its answers are sent back.
func TestAModuleAnswersOverItsChannel(t *testing.T) {
	limited(t)
	code := module(t)
	c := channelFor(t, "orders")
	start := func() *Process {
		given, err := c.Give(1)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Start(bytes.NewReader(code), moduleComponent(code, wire.Capabilities{Channels: []string{"orders"}}), options(t), given...)
		for _, g := range given {
			g.File.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := start()
	from, to := hold(t, c, 0)
	sends(t, to, "open\n")
	hears(t, from, "orders has heard open")
	if good, text := known(t, p); !good {
		t.Error(text)
	}
	sends(t, to, "two\nlines")
	hears(t, from, "orders has heard open, two lines")
	p.Stop()
	p = start()
	defer p.Stop()
	hears(t, from, string(Anew))
	sends(t, to, "close")
	hears(t, from, "orders has heard close")
}
