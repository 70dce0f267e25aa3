package agent_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/agent/machine"
	"github.com/hallmark-iot/hallmark/wire"
)

// inTurn publishes a release of three programs, each of which begins after the one before: the first two prepare something and end, the last goes on.
func (w *world) inTurn(version string, counter uint32) firmware {
	after := map[string][]string{"control": {"motor", "radio"}, "motor": {"radio"}}
	prepare := "#!/bin/sh\necho %[1]s begins %[2]s\nsleep 0.1\necho %[1]s is ready %[2]s\n"
	return w.set(version, counter, func(c *wire.Component) { c.After = after[c.Name] },
		part{"control", wire.KindExec, fmt.Sprintf("#!/bin/sh\necho control begins %s\nexec sleep 600\n", version), nil, nil},
		part{"motor", wire.KindExec, fmt.Sprintf(prepare, "motor", version), nil, nil},
		part{"radio", wire.KindExec, fmt.Sprintf(prepare, "radio", version), nil, nil})
}

// inTurn says whether the programs of a release began as it has them begin, once the last of them has.
func (s *said) inTurn(t *testing.T, version string) {
	t.Helper()
	want := fmt.Sprintf("radio begins %[1]s\nradio is ready %[1]s\nmotor begins %[1]s\nmotor is ready %[1]s\ncontrol begins %[1]s\n", version)
	s.await(t, "control begins "+version+"\n")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.b.String() != want {
		t.Errorf("the programs said %q, want %q", s.b.String(), want)
	}
	s.b.Reset()
}

// The programs of a release begin in its order: at the first start, when the release takes the place of another without a restart, and at the start after the power failed in any write of that.
func TestProgramsBeginInTheOrderOfTheirRelease(t *testing.T) {
	w := newWorld()
	v1, v2 := w.inTurn("1.0.0", 1), w.inTurn("2.0.0", 2)
	b := born(t, w, v1)
	dir := t.TempDir()
	start := func() (*machine.Machine, *machine.Programs, *said) {
		t.Helper()
		b.Reset()
		m, err := machine.Start(&b.Board, [32]byte{9})
		if err != nil {
			t.Fatal(err)
		}
		out := new(said)
		p, err := m.Launch(launch.Options{Dir: dir, Device: t.Name(), Self: "/proc/self/exe", Output: out})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
		return m, p, out
	}
	cuts := 0
	for n := uint64(1); ; n++ {
		m, p, out := start()
		out.inTurn(t, "1.0.0")
		if err := m.Stage(t.Context(), v2.envelope, w.fetch, nil); err != nil {
			t.Fatal(err)
		}
		b.Power.CutAt(n, virtual.Modes()[n%4], n)
		err := m.Activate(v2.digest)
		if err == nil {
			_, err = m.Switch()
		}
		if err == nil {
			out.inTurn(t, "2.0.0")
			p.Stop()
			break
		}
		if !errors.Is(err, hw.ErrPowerCut) {
			t.Fatal(err)
		}
		cuts++
		p.Stop()
		m, p, out = start()
		runs := m.Boot().Report().Release.Version
		out.inTurn(t, runs)
		if runs == "2.0.0" { // it is tried, and given up: the next cut has the first again
			if err := m.Revert(); err != nil {
				t.Fatal(err)
			}
		}
		p.Stop()
	}
	if cuts < 2 {
		t.Errorf("the power failed %d times", cuts)
	}
}
