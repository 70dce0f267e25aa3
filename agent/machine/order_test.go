package machine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/wire"
)

// shop is where the programs of these tests run: each is well when it is told that it is ready.
type shop struct {
	t    *testing.T
	code []byte
	o    launch.Options
	p    *Programs

	mu   sync.Mutex // guards said
	said []string
	hold map[string]chan struct{} // what a program says is not taken until its own is closed, and it has not ended before
}

func newShop(t *testing.T) *shop {
	t.Helper()
	path := filepath.Join(t.TempDir(), "patient")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-o", path, "./testdata/patient")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &shop{t: t, code: code, p: &Programs{stir: make(chan struct{}, 1)}}
	s.o = launch.Options{Dir: t.TempDir(), Device: t.Name(), Self: "/proc/self/exe", Output: s}
	t.Cleanup(s.p.Stop)
	return s
}

// Write takes what a program says.
func (s *shop) Write(b []byte) (int, error) {
	s.mu.Lock()
	words := strings.Fields(string(b))
	s.said = append(s.said, words...)
	hold := s.hold[append(words, "")[0]]
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
	return len(b), nil
}

// set makes the programs of a release, each of a name, what it comes after, and arguments.
func (s *shop) set(parts ...wire.Component) (all []*program) {
	sum := sha256.Sum256(s.code)
	r := wire.Release{}
	for _, c := range parts {
		c.Kind, c.Version, c.Size, c.Digest, c.Health, c.Args = wire.KindExec, "1.0.0", uint64(len(s.code)), sum[:], wire.HealthSocket, append([]string{c.Name}, c.Args...)
		r.Components = append(r.Components, c)
	}
	for _, c := range r.Programs() {
		all = append(all, &program{name: c.Name, what: c, start: func() (*launch.Process, error) { return launch.Start(bytes.NewReader(s.code), c, s.o) }})
	}
	return all
}

// three are radio, motor, and control, which comes after both, and motor after radio.
func (s *shop) three(args ...string) []*program {
	return s.set(wire.Component{Name: "control", After: []string{"motor", "radio"}}, wire.Component{Name: "lamp"}, wire.Component{Name: "motor", After: []string{"radio"}}, wire.Component{Name: "radio", Args: args})
}

func (s *shop) ready(names ...string) {
	s.t.Helper()
	for _, name := range names {
		own := filepath.Join(s.o.Dir, "programs", name)
		if err := os.MkdirAll(own, 0o700); err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(own, "ready"), nil, 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
}

// runs are the programs that run, by name.
func (s *shop) runs() (names []string) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	for _, x := range s.p.list {
		if x.proc != nil && !x.proc.Ended() {
			names = append(names, x.name)
		}
	}
	slices.Sort(names)
	return names
}

// until looks, as the programs' own work does, until as many run, and says in which order they began since it was asked last.
func (s *shop) until(names ...string) (began []string) {
	s.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !slices.Equal(s.runs(), names); time.Sleep(10 * time.Millisecond) {
		if s.p.look(s.t.Context()); time.Now().After(end) {
			_, text := s.p.Health()
			s.t.Fatalf("%v run, want %v: %s", s.runs(), names, text)
		}
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) { // each says its first words
		s.mu.Lock()
		said := slices.DeleteFunc(slices.Clone(s.said), func(w string) bool { return w == "begins" })
		s.mu.Unlock()
		if !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(said, n) }) {
			return said
		}
		if time.Now().After(end) {
			s.t.Fatalf("%v began, want %v", said, names)
		}
	}
}

// rest looks some times more, and nothing comes of it.
func (s *shop) rest() {
	s.t.Helper()
	before := s.runs()
	for range 5 {
		s.p.look(s.t.Context())
	}
	if now := s.runs(); !slices.Equal(now, before) {
		s.t.Fatalf("%v run, before their time: it was %v", now, before)
	}
}

// A program is started when all that it comes after were found well, and no sooner; until then the device is not well, and says who waits for whom.
func TestProgramsStartInOrder(t *testing.T) {
	s := newShop(t)
	s.p.replace(s.three())
	s.ready("lamp", "control")
	s.until("lamp", "radio")
	s.rest()
	if h, text := s.p.Health(); h != agent.HealthSick || !strings.Contains(text, "motor is not started: it waits for radio") || !strings.Contains(text, "it is not ready") {
		t.Errorf("health %v, %q", h, text)
	}
	if i := slices.IndexFunc(s.p.processes(), func(x agent.Process) bool { return x.Name == "motor" && x.Fault == "it waits for radio" }); i < 0 {
		t.Errorf("%+v", s.p.processes())
	}
	s.ready("radio")
	s.until("lamp", "motor", "radio")
	s.rest() // control comes after both
	s.ready("motor")
	began := s.until("control", "lamp", "motor", "radio")
	if got := slices.DeleteFunc(began, func(n string) bool { return n == "lamp" }); !slices.Equal(got, []string{"radio", "motor", "control"}) {
		t.Errorf("they began as %v", got)
	}
	if h, text := s.p.Health(); h != agent.HealthGood {
		t.Errorf("health %v, %q", h, text)
	}
}

// The programs' own work starts them, without being asked; one that gets well late too.
func TestProgramsAreStartedByTheirOwnWork(t *testing.T) {
	s := newShop(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.p.over = cancel
	s.p.work.Go(func() { s.p.tend(ctx) })
	s.p.mu.Lock()
	s.p.replace(s.three())
	s.p.mu.Unlock()
	s.ready("lamp", "radio")
	for _, next := range []string{"motor", "control"} {
		for end := time.Now().Add(2 * time.Minute); !slices.Contains(s.runs(), next); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				_, text := s.p.Health()
				t.Fatalf("%s is not started: %s", next, text)
			}
		}
		s.ready(next)
	}
}

// Programs end in the other order: none is stopped before each that comes after it has ended.
func TestProgramsStopInTheOtherOrder(t *testing.T) {
	s := newShop(t)
	order := []string{"control", "motor", "radio"}
	s.hold = map[string]chan struct{}{}
	for _, name := range order {
		s.hold[name] = make(chan struct{})
	}
	s.ready("control", "lamp", "motor", "radio")
	s.p.replace(s.three())
	s.until("control", "lamp", "motor", "radio")
	pid := map[string]int{}
	for _, x := range s.p.list {
		pid[x.name] = x.proc.Pid()
	}
	alive := func(name string) bool { return syscall.Kill(pid[name], 0) == nil }
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.p.Stop()
	}()
	for i, name := range order { // the end of each is not over before its words are taken
		for end := time.Now().Add(2 * time.Minute); alive(name) && !t.Failed(); time.Sleep(10 * time.Millisecond) {
			if slices.ContainsFunc(order[i+1:], func(later string) bool { return !alive(later) }) || time.Now().After(end) {
				t.Errorf("%s is not the next that is stopped", name)
			}
		}
		for _, later := range order[i+1:] {
			if !alive(later) {
				t.Errorf("%s was stopped before %s, which comes after it, had ended", later, name)
			}
		}
		close(s.hold[name])
	}
	<-stopped
}

// Who comes after a program that is exchanged is started anew behind it; the others go on. What comes first goes on when what comes after it is exchanged.
func TestWhoComesAfterWhatIsExchangedBeginsAnew(t *testing.T) {
	s := newShop(t)
	all := []string{"control", "lamp", "motor", "radio"}
	s.ready(all...)
	s.p.replace(s.three())
	s.until(all...)
	procs := func() map[string]*launch.Process {
		out := map[string]*launch.Process{}
		for _, x := range s.p.list {
			out[x.name] = x.proc
		}
		return out
	}
	for _, c := range []struct {
		name string
		next []*program
		anew []string
	}{
		{"nothing", s.three(), nil},
		{"radio", s.three("other"), []string{"control", "motor", "radio"}},
		{"control", func() []*program {
			next := s.three("other")
			next[slices.IndexFunc(next, func(x *program) bool { return x.name == "control" })].what.Args = []string{"control", "more"}
			return next
		}(), []string{"control"}},
	} {
		before := procs()
		s.mu.Lock()
		s.said = nil
		s.mu.Unlock()
		s.p.replace(c.next)
		for name, was := range before {
			if anew := slices.Contains(c.anew, name); was.Ended() != anew {
				t.Errorf("%s changes: %s has ended %v", c.name, name, was.Ended())
			}
		}
		for end := time.Now().Add(2 * time.Minute); !slices.Equal(s.runs(), all); time.Sleep(10 * time.Millisecond) {
			if s.p.look(t.Context()); time.Now().After(end) {
				t.Fatalf("%s changes: %v run", c.name, s.runs())
			}
		}
		for name, now := range procs() {
			if anew := slices.Contains(c.anew, name); (now != before[name]) != anew {
				t.Errorf("%s changes: %s was started anew: %v, want %v", c.name, name, !anew, anew)
			}
		}
	}
}

// A program that does not isolate itself is stopped, with all that come after it; nothing that waits is started meanwhile, and then all begin in order.
func TestAnIsolationKeepsTheOrder(t *testing.T) {
	s := newShop(t)
	all := []string{"control", "lamp", "motor", "radio"}
	s.ready(all...)
	s.p.replace(s.three("stubborn"))
	s.until(all...)
	if err := s.p.Isolate(true); err != nil {
		t.Fatal(err)
	}
	if got := s.runs(); !slices.Equal(got, []string{"lamp"}) {
		t.Fatalf("%v run in isolation", got)
	}
	s.rest()
	s.mu.Lock()
	s.said = nil
	s.mu.Unlock()
	if err := s.p.Isolate(false); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(2 * time.Minute); !slices.Equal(s.runs(), all); time.Sleep(10 * time.Millisecond) {
		if s.p.look(t.Context()); time.Now().After(end) {
			t.Fatalf("%v run behind the isolation", s.runs())
		}
	}
}

// A program that has done what was wanted of it, and ended, talks to nobody: an isolation does not begin it anew, nor those that come after it.
func TestAnIsolationLeavesWhatHasEndedWell(t *testing.T) {
	s := newShop(t)
	code, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(code)
	prepare := wire.Component{
		Name: "prepare", Kind: wire.KindExec, Version: "1.0.0", Size: uint64(len(code)), Digest: sum[:], Health: wire.HealthAlive, Capabilities: shared,
	}
	all := s.set(wire.Component{Name: "prepare"}, wire.Component{Name: "app", After: []string{"prepare"}})
	all[0].what, all[0].start = prepare, func() (*launch.Process, error) { return launch.Start(bytes.NewReader(code), prepare, s.o) }
	s.ready("app")
	s.p.replace(all)
	s.until("app")
	before := []*launch.Process{all[0].proc, all[1].proc}
	for _, on := range []bool{true, false} {
		if err := s.p.Isolate(on); err != nil {
			t.Fatal(err)
		}
	}
	if all[0].proc != before[0] || all[1].proc != before[1] || before[1].Ended() {
		t.Error("they were started anew")
	}
}

// Nothing changes for programs that nobody told to be quiet when they are told that they need not be: one that has no ears goes on.
func TestTheEndOfNoIsolationChangesNothing(t *testing.T) {
	code, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	p := programOf(t, code, wire.HealthAlive, "600")
	first := p.list[0].proc
	if err := p.Isolate(false); err != nil {
		t.Fatal(err)
	}
	if p.list[0].proc != first || first.Ended() {
		t.Error("it was started anew")
	}
}
