package machine

import (
	"bytes"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/agent/line"
	"github.com/hallmark-iot/hallmark/wire"
)

func TestMain(m *testing.M) {
	launch.Confine()
	line.Become()
	os.Exit(m.Run())
}

// shared is what the programs of these tests read: libraries, and what the demo's firmware measures.
var shared = &wire.Capabilities{Read: []string{"/etc/ld.so.cache", "/lib", "/lib64", "/proc/loadavg", "/usr/lib"}}

// programOf is one program of a release, running.
func programOf(t *testing.T, code []byte, health wire.HealthCheck, args ...string) *Programs {
	t.Helper()
	sum := sha256.Sum256(code)
	dir := t.TempDir()
	x := &program{name: "app", start: func() (*launch.Process, error) {
		return launch.Start(bytes.NewReader(code), wire.Component{
			Name: "app", Kind: wire.KindExec, Version: "1.0.0", Size: uint64(len(code)), Digest: sum[:], Health: health, Args: args,
			Capabilities: shared,
		}, launch.Options{Dir: dir, Device: t.Name(), Self: "/proc/self/exe", Output: os.Stderr})
	}}
	var err error
	if x.proc, err = x.start(); err != nil {
		t.Fatal(err)
	}
	p := &Programs{list: []*program{x}}
	t.Cleanup(p.Stop)
	return p
}

// A program that cannot be told to be quiet is stopped for as long as it has to be, and runs again afterwards.
func TestAProgramThatDoesNotIsolateItselfIsStopped(t *testing.T) {
	code, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	p := programOf(t, code, wire.HealthAlive, "600")
	first := p.list[0].proc
	if err := p.Isolate(true); err != nil {
		t.Fatal(err)
	}
	if !first.Ended() {
		t.Fatal("it goes on, and was reported isolated")
	}
	if h, text := p.Health(); h == agent.HealthGood || !strings.Contains(text, "stopped") {
		t.Errorf("health %v, %q", h, text)
	}
	if err := p.Isolate(true); err != nil { // again changes nothing
		t.Fatal(err)
	}
	if err := p.Isolate(false); err != nil {
		t.Fatal(err)
	}
	if x := p.list[0].proc; x == nil || x == first || x.Ended() {
		t.Error("after the isolation it does not run again")
	}
}

// A program that says that it is quiet goes on.
func TestAProgramThatIsolatesItselfGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "firmware")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", path, "../../internal/demo/firmware")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := programOf(t, code, wire.HealthSocket)
	for _, on := range []bool{true, false} { // asked just after the start, when it may not listen yet
		if err := p.Isolate(on); err != nil {
			t.Fatal(err)
		}
		if p.list[0].proc == nil || p.list[0].proc.Ended() {
			t.Fatalf("isolation %v stopped it", on)
		}
	}
	if got := p.Sample(t.Context()); len(got) != 1 {
		t.Errorf("it gives %q", got)
	}
}

// When one set of assets takes the place of another, a program that is in both goes on in its process; one that changed, or was damaged, is another
// process, one that is gone ends, and one that does not start is sick, with the reason.
func TestProgramsThatDoNotChangeGoOn(t *testing.T) {
	code, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(code)
	o := launch.Options{Dir: t.TempDir(), Device: t.Name(), Self: "/proc/self/exe", Output: os.Stderr}
	asset := func(name, arg string, bytesOf []byte) *program {
		c := wire.Component{Name: name, Kind: wire.KindExec, Version: "1.0.0", Size: uint64(len(code)), Digest: sum[:], Health: wire.HealthAlive, Args: []string{arg}, Capabilities: shared}
		return &program{name: name, what: c, start: func() (*launch.Process, error) { return launch.Start(bytes.NewReader(bytesOf), c, o) }}
	}
	p := &Programs{}
	t.Cleanup(p.Stop)
	p.replace([]*program{asset("same", "600", code), asset("changed", "600", code), asset("gone", "600", code), asset("ended", "0", code)})
	before := map[string]*launch.Process{}
	for _, x := range p.list {
		if x.fault != nil {
			t.Fatal(x.fault)
		}
		before[x.name] = x.proc
	}
	for !before["ended"].Ended() {
		runtime.Gosched()
	}
	p.replace([]*program{asset("same", "600", code), asset("changed", "601", code), asset("ended", "0", code), asset("broken", "600", code[1:])})
	for _, x := range p.list {
		switch x.name {
		case "same":
			if x.proc != before["same"] || x.proc.Ended() {
				t.Error("what did not change was started again")
			}
		case "ended": // well, which is all that was wanted of it
			if x.proc != before["ended"] {
				t.Error("what had ended well was started again")
			}
		case "changed":
			if x.proc == before["changed"] || x.proc.Ended() || !before["changed"].Ended() {
				t.Error("what changed is not the one that runs, or runs twice")
			}
		case "broken":
			if x.proc != nil || x.fault == nil {
				t.Error("other bytes were started")
			}
		}
	}
	if !before["gone"].Ended() {
		t.Error("what is not in the set goes on")
	}
	if h, text := p.Health(); h != agent.HealthSick || !strings.Contains(text, "broken was not started") {
		t.Errorf("health %v, %q", h, text)
	}
}

// A channel is a name and the two that it is between: a program whose own component is the same, and whose channel leads to another peer than before, is started
// anew, and so is that peer; the one that it led to ends with its component, and whoever talks to the same one goes on.
func TestAProgramThatTalksToAnotherPeerIsStartedAnew(t *testing.T) {
	code, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(code)
	component := func(name string, channels ...string) wire.Component {
		can := *shared
		can.Channels = channels
		return wire.Component{
			Name: name, Kind: wire.KindExec, Version: "1.0.0", Size: uint64(len(code)), Digest: sum[:], Health: wire.HealthAlive, Args: []string{"600"}, Capabilities: &can,
		}
	}
	o := launch.Options{Dir: t.TempDir(), Device: t.Name(), Self: "/proc/self/exe", Output: os.Stderr}
	m := &Machine{}
	set := func(components ...wire.Component) (all []*program) {
		r := wire.Release{Components: components}
		for _, c := range components {
			all = append(all, &program{name: c.Name, what: c, data: reads(r, c), talks: talks(r, c), start: func() (*launch.Process, error) {
				given, err := m.give(r, c)
				if err != nil {
					return nil, err
				}
				return launch.Start(bytes.NewReader(code), c, o, given...)
			}})
		}
		return all
	}
	p := &Programs{}
	t.Cleanup(p.Stop)
	p.replace(set(component("control", "orders"), component("left", "same"), component("motor", "orders"), component("right", "same")))
	before := map[string]*launch.Process{}
	for _, x := range p.list {
		if x.fault != nil {
			t.Fatalf("%s: %v", x.name, x.fault)
		}
		before[x.name] = x.proc
	}
	p.replace(set(component("control", "orders"), component("left", "same"), component("pump", "orders"), component("right", "same")))
	for _, x := range p.list {
		if x.fault != nil || x.proc == nil || x.proc.Ended() {
			t.Fatalf("%s does not run: %v", x.name, x.fault)
		}
		switch anew := x.proc != before[x.name]; x.name {
		case "left", "right":
			if anew {
				t.Errorf("%s talks to whom it talked to, and was started anew", x.name)
			}
		case "control":
			if !anew || !before["control"].Ended() {
				t.Error("control goes on, with a channel to who is not there any more")
			}
		}
	}
	if !before["motor"].Ended() {
		t.Error("motor goes on")
	}
}

// What a program has kept is gone when it was cleared, and it is not there any more to write it again; the next start of it finds nothing.
func TestWhatProgramsKeepIsCleared(t *testing.T) {
	code := []byte("#!/bin/sh\nif test -e diary; then echo before > was; fi\nwhile true; do echo more >> diary; sleep 0.01; done\n")
	sum := sha256.Sum256(code)
	o := launch.Options{Dir: t.TempDir(), Device: t.Name(), Self: "/proc/self/exe", Output: os.Stderr}
	c := wire.Component{
		Name: "app", Kind: wire.KindExec, Version: "1.0.0", Size: uint64(len(code)), Digest: sum[:], Health: wire.HealthAlive,
		Capabilities: &wire.Capabilities{Read: append([]string{"/bin", "/usr/bin"}, shared.Read...)},
	}
	x := &program{name: "app", start: func() (*launch.Process, error) { return launch.Start(bytes.NewReader(code), c, o) }}
	m := &Machine{launch: &o, programs: &Programs{list: []*program{x}}}
	t.Cleanup(m.programs.Stop)
	own := filepath.Join(o.Dir, "programs", "app")
	for range 2 {
		var err error
		if x.proc, err = x.start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if _, err := os.Stat(filepath.Join(own, "diary")); err == nil {
				break
			} else if time.Now().After(end) {
				t.Fatal(err)
			}
		}
		if _, err := os.Stat(filepath.Join(own, "was")); err == nil {
			t.Fatal("it found what was before")
		}
		if err := m.Clear(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		if _, err := os.Stat(own); !os.IsNotExist(err) || !x.proc.Ended() {
			t.Fatalf("its directory: %v, ended: %v", err, x.proc.Ended())
		}
	}
}
