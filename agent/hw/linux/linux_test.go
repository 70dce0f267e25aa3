package linux_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/boardtest"
	"github.com/hallmark-iot/hallmark/agent/hw/linux"
)

const flashSize = 1 << 20

// files is a board whose flash and parts are files in dir.
func files(dir string) linux.Config {
	return linux.Config{
		Kind: linux.Kind, Revision: "A", ChipUID: "00112233445566778899aabbccddeeff", Parts: "file:" + filepath.Join(dir, "parts"),
		Keys: "isolated:none", Flash: linux.FlashConfig{Path: filepath.Join(dir, "flash"), Size: flashSize},
	}
}

func create(t *testing.T, c linux.Config) {
	t.Helper()
	if _, err := linux.Create(c); err != nil {
		t.Fatal(err)
	}
}

// starts is what opens a board as a reset does.
func starts(c linux.Config) func(t *testing.T) (*hw.Board, func()) {
	return func(t *testing.T) (*hw.Board, func()) {
		t.Helper()
		b, err := linux.Open(c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() }) // may be closed already
		return &b.Board, func() { _ = b.Close() }
	}
}

func TestABoardOfFiles(t *testing.T) {
	boardtest.Run(t, boardtest.Board{Blank: func(t *testing.T) func(t *testing.T) (*hw.Board, func()) {
		t.Helper()
		c := files(t.TempDir())
		create(t, c)
		return starts(c)
	}})
}

// withTPM is a board whose fuses and counters are in a TPM that loses its power with it.
func withTPM(t *testing.T) (start func(t *testing.T) (*linux.Board, func())) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hm") // short: a socket's path has an end
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := files(dir)
	c.Parts = "tpm:" + filepath.Join(dir, "tpm.sock")
	create(t, c)
	return func(t *testing.T) (*linux.Board, func()) {
		t.Helper()
		_, off := boardtest.TPM(t, dir)
		b, err := linux.Open(c)
		if err != nil {
			t.Fatal(err)
		}
		return b, func() { off(); _ = b.Close() }
	}
}

func TestSWTPMHasABoardsFuses(t *testing.T) {
	boardtest.Run(t, boardtest.Board{Blank: func(t *testing.T) func(t *testing.T) (*hw.Board, func()) {
		t.Helper()
		start := withTPM(t)
		return func(t *testing.T) (*hw.Board, func()) {
			t.Helper()
			b, off := start(t)
			return &b.Board, off
		}
	}})
}

// What was burned in a TPM whose platform lets us is there for good, and its evidence says so; a lock holds for as long as the TPM has power, whoever opens
// it again.
func TestSWTPMLocksUntilItsReset(t *testing.T) {
	start := withTPM(t)
	b, off := start(t)
	if b.Parts != "tpm-owner" {
		t.Errorf("parts for which there is no room yet are %q", b.Parts)
	}
	if err := errors.Join(b.Prepare(), b.Prepare(), b.Fuses.BurnSecret([32]byte{1}), b.Fuses.Advance(hw.Secured)); err != nil {
		t.Fatal(err)
	}
	b.Fuses.LockFixed()
	if b.Parts != "tpm" {
		t.Errorf("parts are %q", b.Parts)
	}
	again := b.Chip.Parts().Fuses() // as another process would
	if _, err := again.Read(hw.FirstSecret); !errors.Is(err, hw.ErrLocked) {
		t.Errorf("the secret is read again: %v", err)
	}
	if _, err := again.Read(0); err != nil {
		t.Errorf("what is no secret is hidden too: %v", err)
	}
	off()
	b, off = start(t)
	defer off()
	if d, err := b.Fuses.Secret(); err != nil || d != [32]byte{1} {
		t.Errorf("%x, %v", d, err)
	}
}

func TestWhatIsNoFlash(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path  string
		erase int64
		says  string
	}{
		"nothing":                  {filepath.Join(dir, "none"), 0, "no such file"},
		"a directory":              {dir, 0, "want a block device, an MTD, or a file"},
		"a terminal":               {"/dev/null", 0, "it is no MTD"},
		"too small":                {path, 0, "flash geometry"},
		"sectors that are no page": {path, 700, "want a multiple of 512"},
	} {
		if f, err := linux.OpenFlash(c.path, c.erase); err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), c.path) {
			t.Errorf("%s: %v, %v; want it to say %q", name, f, err, c.says)
		}
	}
}

func TestAFlashHasOneUser(t *testing.T) {
	c := files(t.TempDir())
	create(t, c)
	b, off := starts(c)(t)
	if _, err := linux.OpenFlash(c.Flash.Path, 0); err == nil || !strings.Contains(err.Error(), "another program has it") {
		t.Errorf("a second user: %v", err)
	}
	if g := b.Flash.Geometry(); g != (hw.Geometry{Size: flashSize, Sector: 64 << 10, Page: 512}) {
		t.Errorf("%+v", g)
	}
	off()
	starts(c)(t)
}

// A block device is one as a file is, under its own size.
func TestABlockDeviceIsFlash(t *testing.T) {
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, make([]byte, flashSize+512), 0o600); err != nil { // half a sector more
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", image).CombinedOutput()
	if err != nil {
		t.Skipf("a loop device is not installed here: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", device).Run() })
	c := files(dir)
	c.Flash = linux.FlashConfig{Path: device}
	create(t, c)
	boardtest.Run(t, boardtest.Board{Blank: func(t *testing.T) func(t *testing.T) (*hw.Board, func()) {
		t.Helper()
		parts := filepath.Join(t.TempDir(), "parts")
		c.Parts = "file:" + parts
		create(t, c)
		return starts(c)
	}})
}

func TestCountersAndFusesInAFileThatWasDamaged(t *testing.T) {
	dir := t.TempDir()
	c := files(dir)
	create(t, c)
	b, off := starts(c)(t)
	for n := range uint64(3) {
		if err := b.Boots.Raise(n + 1); err != nil {
			t.Fatal(err)
		}
	}
	off()
	path := filepath.Join(dir, "parts")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	spoil := func(at ...int) {
		t.Helper()
		bad := bytes.Clone(data)
		for _, i := range at {
			bad[i] ^= 1
		}
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	spoil(4096 + 20) // the newest: written in turn, the third is in the first bank
	b, off = starts(c)(t)
	if v, err := b.Boots.Value(); err != nil || v != 2 {
		t.Errorf("a write that was torn: %d, %v; want the value before", v, err)
	}
	if err := b.Boots.Raise(7); err != nil {
		t.Fatal(err)
	}
	off()
	spoil(4096+20, 2*4096+20)
	b, off = starts(c)(t)
	if _, err := b.Boots.Value(); err == nil {
		t.Error("neither bank is whole, and it has a value")
	}
	off()
	spoil(0)
	if _, err := linux.Open(c); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a file of something else: %v", err)
	}
}

func TestABoardIsMadeOnce(t *testing.T) {
	c := files(t.TempDir())
	for i, want := range []bool{true, false} {
		if made, err := linux.Create(c); err != nil || made != want {
			t.Errorf("call %d: %v, %v", i, made, err)
		}
	}
}

func TestUIDs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "serial")
	if err := os.WriteFile(path, []byte("0000000012345678\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := linux.Config{ChipUID: "file:" + path}.UID()
	if err != nil || len(a) != 16 {
		t.Errorf("%x, %v", a, err)
	}
	for _, bad := range []string{"", "00", "zz112233445566778899", "file:/none", "file:/dev/null"} {
		if _, err := (linux.Config{ChipUID: bad}).UID(); err == nil || !strings.Contains(err.Error(), "chip_uid") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

const good = `{"kind":"linux","revision":"A","chip_uid":"00","flash":{"path":"/dev/vda"},"parts":"tpm:/dev/tpm0","keys":"tpm:/dev/tpm0"}`

func TestWhatIsWrongWithABoardsFile(t *testing.T) {
	if _, err := linux.ParseConfig([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for was, c := range map[string]struct{ is, says string }{
		`"kind":"linux"`:           {`"kind":"virtual"`, "kind"},
		`"revision":"A"`:           {`"revision":""`, "revision"},
		`"path":"/dev/vda"`:        {`"erase":512`, "flash.path"},
		`"parts":"tpm:/dev/tpm0"`:  {`"parts":"hope:"`, "parts"},
		`,"keys":"tpm:/dev/tpm0"}`: {`}`, "keys"},
		`"chip_uid":"00"`:          {`"chip-uid":"00"`, "chip-uid"},
		`}`:                        {`} {}`, "behind it"},
		`"kind":`:                  {`"watchdog":{"path":"/dev/watchdog","seconds":2},"kind":`, "at least 30"},
	} {
		last := strings.LastIndex(good, was)
		text := good[:last] + c.is + good[last+len(was):]
		if _, err := linux.ParseConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want it to say %q", text, err, c.says)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(`{"kind":"linux"}`))
	f.Add([]byte(`{} {}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := linux.ParseConfig(b)
		if err == nil && (c.Kind != linux.Kind || c.Keys == "" || c.Flash.Path == "") {
			t.Fatalf("%q was taken", b)
		}
	})
}

// It runs where there is an MTD: in the machine that QEMU makes, over the kernel's own simulations.
func TestAnMTDIsFlash(t *testing.T) {
	path, bad := os.Getenv("HALLMARK_MTD"), os.Getenv("HALLMARK_MTD_BAD")
	if path == "" {
		t.Skip("scripts/interop-qemu.sh runs it, on a kernel that has one")
	}
	c := files(t.TempDir())
	c.Flash = linux.FlashConfig{Path: path}
	boardtest.Run(t, boardtest.Board{Blank: func(t *testing.T) func(t *testing.T) (*hw.Board, func()) {
		t.Helper()
		c.Parts = "file:" + filepath.Join(t.TempDir(), "parts")
		create(t, c)
		return starts(c)
	}})
	f, err := linux.OpenFlash(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	if g := f.Geometry(); g != (hw.Geometry{Size: flashSize, Sector: 32 << 10, Page: 256}) {
		t.Errorf("%+v", g)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]struct {
		path  string
		erase int64
		says  string
	}{
		"a part with a bad block":  {bad, 0, "the block at 49152 is bad: make a UBI volume over it"},
		"sectors that are not its": {path, 4096, "it erases 32768 bytes at once: leave the 4096 away"},
	} {
		if f, err := linux.OpenFlash(try.path, try.erase); err == nil || !strings.Contains(err.Error(), try.says) {
			t.Errorf("%s: %v, %v; want it to say %q", name, f, err, try.says)
		}
	}
}
