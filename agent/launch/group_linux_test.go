package launch

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// groupFile reads a file of a program's control group: a number, or the one behind a name.
func groupFile(t *testing.T, p *Process, file, name string) (n int64) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(p.group.path, file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			_, _ = fmt.Sscan(rest, &n)
		}
	}
	return n
}

// What a program's processes may have together is held by its control group: memory, of which it ends all of them, how many they are, and processor time. Each is
// tried beside a program that may have it. systemd gives the controllers (Delegate=yes); `make interop` runs it so, in a machine of its own.
func TestAControlGroupHoldsItsProgram(t *testing.T) {
	code, comp := component(t, "/bin/sh", wire.HealthAlive, "-c", "true")
	p, err := Start(bytes.NewReader(code), comp, options(t))
	if err != nil {
		t.Fatal(err)
	}
	layers := p.Layers()
	p.Stop()
	for _, l := range []wire.Layer{wire.LayerMemory, wire.LayerTasks, wire.LayerCPU} {
		if !slices.Contains(layers.InForce, l) && os.Getenv("HALLMARK_GROUPS") == "" {
			t.Skipf("no controller here for %s: %s", l, layers.Missing[l])
		} else if !slices.Contains(layers.InForce, l) {
			t.Fatalf("%s is not in force: %s", l, layers.Missing[l])
		}
	}
	start := func(script string, may wire.Capabilities) *Process {
		t.Helper()
		code, comp := component(t, "/bin/sh", wire.HealthAlive, "-c", script)
		may.Read = shared.Read
		comp.Capabilities = &may
		p, err := Start(bytes.NewReader(code), comp, options(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
		return p
	}
	ended := func(p *Process) bool {
		for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if p.Ended() {
				return true
			}
		}
		return false
	}
	holds := "for i in 1 2 3 4; do { head -c 8000000 /dev/zero; sleep 600; } | tail -c 8000000 >/dev/null & done; wait" // 32 MB, no process more than 8
	if p := start(holds, wire.Capabilities{Memory: 16 << 20}); !ended(p) {
		t.Error("four processes have twice the memory that their program may have")
	}
	p = start(holds, wire.Capabilities{Memory: 64 << 20})
	most := int64(0)
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end) && most < 28<<20; time.Sleep(100 * time.Millisecond) {
		data, err := os.ReadFile(filepath.Join(p.group.path, "memory.current"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Sscan(string(data), &most)
	}
	if p.Ended() || most < 28<<20 {
		t.Errorf("a program that may have the memory has %d bytes, ended %v", most, p.Ended())
	}
	p.Stop()

	many := "i=0; while [ $i -lt 30 ]; do sleep 600 & i=$((i+1)); done; wait"
	if p := start(many, wire.Capabilities{Tasks: 16}); !ended(p) {
		t.Error("thirty processes run where sixteen may")
	}
	p = start(many, wire.Capabilities{Tasks: 64})
	time.Sleep(3 * time.Second)
	if p.Ended() || groupFile(t, p, "pids.events", "max") != 0 {
		t.Errorf("where sixty-four may, ended %v, refused %d times", p.Ended(), groupFile(t, p, "pids.events", "max"))
	}
	p.Stop()

	const spell = 5 * time.Second
	for percent, within := range map[uint32][2]float64{10: {0.01, 0.2}, 80: {0.3, 0.95}} {
		p := start("while :; do :; done", wire.Capabilities{CPU: percent})
		before, began := groupFile(t, p, "cpu.stat", "usage_usec"), time.Now()
		time.Sleep(spell)
		used := float64(groupFile(t, p, "cpu.stat", "usage_usec")-before) / float64(time.Since(began).Microseconds())
		if used < within[0] || used > within[1] {
			t.Errorf("a loop that may have %d %% of a processor had %.2f of one", percent, used)
		}
		p.Stop()
	}
}
