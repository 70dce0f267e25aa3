package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
)

// What the program may take of a small board: bytes of its file, and bytes of memory while it idles.
const (
	mostFile   = 20 << 20
	mostNoWASM = 15 << 20 // of its file, where no release has WebAssembly (-tags nowasm)
	mostMemory = 20 << 20
)

func TestTheAgentWithoutWebAssemblyIsSmaller(t *testing.T) {
	program := filepath.Join(t.TempDir(), "hallmark-agent")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-trimpath", "-tags", "nowasm", "-ldflags", "-s -w", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes", info.Size())
	if info.Size() > mostNoWASM {
		t.Errorf("the program has %d bytes, at most %d", info.Size(), mostNoWASM)
	}
}

// The program, as it is shipped, fits a small board: on its flash, and in its memory with the update engine and a program running beside it. These are sizes and no times.
func TestTheAgentIsSmall(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "hallmark-agent")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > mostFile {
		t.Errorf("the program has %d bytes, at most %d", info.Size(), mostFile)
	}

	at := filepath.Join(dir, "d")
	if err := virtual.Create(at, virtual.Spec{Revision: "A", Flash: hw.Geometry{Size: boot.FlashFor(64<<20, sector, page), Sector: sector, Page: page}}); err != nil {
		t.Fatal(err)
	}
	b, err := virtual.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(birth(&b.Board), b.Close()); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "run", "--dir", at, "--poll-min", "100ms")
	log := filepath.Join(dir, "log")
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stderr = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Signal(os.Interrupt); _ = cmd.Wait() })
	tried := func() int { // it cannot reach its server, and goes on trying
		said, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(said), "check-in failed")
	}
	for end := time.Now().Add(time.Minute); tried() < 3; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not run")
		}
	}
	if c, err := net.Dial("unix", filepath.Join(at, "local.sock")); err != nil {
		t.Error(err)
	} else {
		_ = c.Close()
	}
	// What the processes share counts once: Pss is each one's part of it. Their code is in memory as a whole, whatever of it they have touched.
	together := int(info.Size() >> 10)
	for _, pid := range append(children(t, cmd.Process.Pid), cmd.Process.Pid) {
		kept := memory(t, pid)
		together += kept["Pss"] - kept["Pss_Shmem"]
		t.Logf("process %d: %d kB resident, %d kB its part, %d kB its own", pid, kept["Rss"], kept["Pss"], kept["Private_Dirty"])
	}
	t.Logf("%d bytes of file, %d kB resident in all processes", info.Size(), together)
	if together == 0 || together<<10 > mostMemory {
		t.Errorf("%d kB resident, at most %d", together, mostMemory>>10)
	}
}

// children are the processes that a process has started: of the agent's, the network's one.
func children(t *testing.T, pid int) (out []int) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range threads {
		list, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		for word := range strings.FieldsSeq(string(list)) {
			n, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, n)
		}
	}
	if len(out) == 0 {
		t.Fatal("the network's code has no process of its own")
	}
	return out
}

// memory is what a process has, in kB, by the kernel's names.
func memory(t *testing.T, pid int) map[string]int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	whole := err != nil // an ordinary user is not told of a process that lets nobody look into it: then all of it counts
	if whole {
		text, err = os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	}
	if err != nil {
		t.Fatal(err)
	}
	kept := map[string]int{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		kept[name], _ = strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
	}
	if whole {
		kept["Pss"], kept["Rss"], kept["Pss_Shmem"] = kept["VmRSS"], kept["VmRSS"], kept["RssShmem"]
	}
	return kept
}
