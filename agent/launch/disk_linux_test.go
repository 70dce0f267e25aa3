package launch

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What is put by for the agent is there when the disk is full of what others wrote.
func TestAFullDiskLeavesTheAgentItsReserve(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root mounts a small disk")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, 0) }()
	write := func(name string, n int) error { return os.WriteFile(filepath.Join(dir, name), make([]byte, n), 0o600) }
	for range 2 { // again is the same
		if err := Reserve(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := write("hog", 16<<20); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if err := write("record", 4096); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if err := Reserve(dir); err != nil {
		t.Fatal(err)
	}
	if err := write("record", reserve/2); err != nil {
		t.Errorf("the agent finds no room: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "hog")); err != nil {
		t.Fatal(err)
	}
	if err := Reserve(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "reserve")); err != nil || info.Size() != reserve {
		t.Errorf("it is not put by again: %v, %v", info, err)
	}
}

// What a folder takes is counted by blocks, files without any content too; holes are not.
func TestWhatAProgramKeepsIsCounted(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int64{"empty": 0, "hole": 100 << 20} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "full"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := kept(dir, 1<<40); err != nil || n < 1<<20+2*perFile || n > 2<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n, err := kept(dir, 1<<20); err != nil || n <= 1<<20 { // it stops behind what is too much
		t.Errorf("%d bytes, %v", n, err)
	}
}
