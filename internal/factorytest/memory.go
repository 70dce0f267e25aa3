//go:build linux

package factorytest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// largest is the most that is read of one mapping: a Go process of these tests reserves more, and uses less.
const largest = 1 << 28

// Memory gives fn what a core dump of a process would hold, in parts that overlap by 64 bytes; in says whether a mapping is looked at.
func Memory(t testing.TB, pid int, in func(from, to int64, mode string) bool, fn func(part []byte)) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Skipf("the memory of a child cannot be read here: %v", err)
	}
	defer mem.Close()
	read, part := int64(0), make([]byte, 1<<20)
	for l := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(l, "%x-%x %s", &from, &to, &mode); err != nil || mode[0] != 'r' || !in(from, to, mode) {
			continue
		}
		to = min(to, from+largest)
		for at := from; at < to; at += int64(len(part)) - 64 {
			n, err := mem.ReadAt(part[:min(int64(len(part)), to-at)], at)
			if n == 0 && err != nil {
				break // reserved, and nothing there; or the kernel's
			}
			read += int64(n)
			fn(part[:n])
		}
	}
	if read < 1<<16 {
		t.Fatalf("only %d bytes of memory were read", read)
	}
}

// Everything looks at everything that a process has mapped and may read.
func Everything(int64, int64, string) bool { return true }

// GoHeap looks at what a Go process has in its own heap, which is what our code works in. at is an address in it: arenas of 64 MiB lie together,
// and the first begins anywhere (Go 1.26 draws the heap's place), so that a mapping counts that reaches into where they are.
func GoHeap(at int64) func(int64, int64, string) bool {
	return func(from, to int64, mode string) bool {
		return strings.HasPrefix(mode, "rw") && to > at&^(1<<26-1) && from < at+1<<30
	}
}

// Family are a process and its children; none for 0.
func Family(t testing.TB, pid int) (all []int) {
	t.Helper()
	if pid == 0 {
		return nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Fatal(err)
	}
	for f := range strings.FieldsSeq(string(b)) {
		child, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, Family(t, child)...)
	}
	return append(all, pid)
}
