package rom_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/boardtest"
	"github.com/hallmark-iot/hallmark/agent/hw/tpm"
	"github.com/hallmark-iot/hallmark/agent/rom"
)

// The roles that this program plays for its tests, by this variable: the first stage, which has what is at the path give way to it, or again after a reset.
const (
	role     = "ROM_TEST_ROLE"
	roleTPM  = "ROM_TEST_TPM"
	secretIs = "ROM_TEST_SECRET"
	hold     = "ROM_TEST_HOLD" // where the thief has the secret all the same, for the search of his memory to find: heap, stack or data
)

func TestMain(m *testing.M) {
	if os.Getenv(role) == "" {
		os.Exit(m.Run())
	}
	if err := play(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// play is the first stage, and then whoever is in the boot manager's place.
func play() error {
	stage, err := rom.Inherited()
	if err != nil {
		return err
	}
	if stage != nil {
		return takeOver(stage)
	}
	image, err := rom.Seal(os.Getenv(role))
	if err != nil {
		return err
	}
	if socket := os.Getenv(roleTPM); socket != "" {
		k, err := tpm.Open(socket)
		if err != nil {
			return err
		}
		f := hw.NewFuses(k.Parts().Fuses())
		if _, err := f.Secret(); err != nil {
			return fmt.Errorf("the first stage: %w", err)
		}
		f.LockFixed()
		if err := k.Close(); err != nil {
			return err
		}
	}
	return image.Become(handoff(image.Digest))
}

func handoff(code [32]byte) boot.Handoff {
	return boot.Handoff{
		Version: 2, Code: code[:], CDI: make([]byte, 32), MarkKey: make([]byte, 32), ParamsKey: make([]byte, 32), Root: make([]byte, 32), Lifecycle: hw.Secured,
	}
}

// got is what a thief in the boot manager's place has found out.
type got struct {
	Exe      string
	Files    []string // open, beyond the standard three
	Code     []byte
	Digest   []byte // of what is executed
	Written  string // why his own image cannot be written
	Secret   string // why the secret is not read
	Root     string // why the root is not burned
	Sealed   string // why the secret is not burned
	Counter  string // why the security counter is not raised; empty: it is
	InMemory bool   // the secret is somewhere in his memory
}

func word(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func takeOver(stage *rom.Stage) error {
	if os.Getenv("ROM_TEST_AGAIN") == "" {
		if err := os.Setenv("ROM_TEST_AGAIN", "1"); err != nil {
			return err
		}
		return stage.Reset()
	}
	g := got{Code: stage.Handoff.Code}
	var err error
	if g.Exe, err = os.Readlink("/proc/self/exe"); err != nil {
		return err
	}
	code, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	sum := sha256.Sum256(code)
	g.Digest = sum[:]
	f, err := os.OpenFile("/proc/self/exe", os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt([]byte{0}, 0)
	}
	g.Written = word(err)
	if g.Files, err = files(); err != nil {
		return err
	}
	runtime.KeepAlive(stage)
	if socket := os.Getenv(roleTPM); socket != "" {
		if err := g.attack(socket); err != nil {
			return err
		}
	}
	inverse, err := hex.DecodeString(os.Getenv(secretIs))
	if err != nil {
		return err
	}
	if len(inverse) > 0 {
		if g.InMemory, err = holding(os.Getenv(hold), inverse); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(g)
}

// files are those that this process has open, but what its runtime opens for itself.
func files() (out []string, err error) {
	fds, err := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		to, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if n, bad := strconv.Atoi(fd.Name()); err == nil && bad == nil && n > 2 && !slices.ContainsFunc([]string{"anon_inode:", "/proc/", "/sys/fs/cgroup/"}, func(of string) bool {
			return strings.HasPrefix(to, of)
		}) {
			out = append(out, to)
		}
	}
	return out, err
}

// attack tries the parts, as whoever has root would: by a line of his own to the TPM.
func (g *got) attack(socket string) error {
	k, err := tpm.Open(socket)
	if err != nil {
		return err
	}
	bank := k.Parts().Fuses()
	_, err = hw.NewFuses(bank).Secret()
	g.Secret = word(err)
	g.Root, g.Sealed = word(bank.Blow(0, 1)), word(bank.Blow(hw.FirstSecret, 1))
	g.Counter = word(hw.NewFuses(bank).RaiseSecurityCounter(2))
	return k.Close()
}

// held is of this program's data.
var held [32]byte

// holding looks through this process' memory while the secret lies in a place of it; in none where that is empty.
func holding(where string, inverse []byte) (found bool, err error) {
	var local [32]byte
	var here []byte
	switch where {
	case "heap":
		here = make([]byte, 1<<20)[1<<19:]
	case "stack":
		here = local[:]
	case "data":
		here = held[:]
	default:
		return inMemory(inverse)
	}
	for i, b := range inverse {
		here[i] = ^b
	}
	found, err = inMemory(inverse)
	runtime.KeepAlive(here)
	return found, err
}

// inMemory looks through what this process has that it can write: its heap, its stacks, its data. It looks for something by its inverse, and so holds none itself.
func inMemory(inverse []byte) (bool, error) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return false, err
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		return false, err
	}
	defer mem.Close()
	found := 0
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); n != 3 || !strings.HasPrefix(mode, "rw") || to-from > 64<<20 { // what the race detector reserves is larger
			continue
		}
		buf := make([]byte, 1<<20)
		for at := from; at < to; at += int64(len(buf)) {
			n, _ := mem.ReadAt(buf[:min(int64(len(buf)), to-at)], at)
			for i := range buf[:n] {
				buf[i] ^= 0xff
			}
			found += bytes.Count(buf[:n], inverse)
			clear(buf)
		}
	}
	return found > 0, nil
}

func start(t *testing.T, image string, env ...string) got {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(append(os.Environ(), role+"="+image), env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	var g got
	if err := json.Unmarshal(out, &g); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return g
}

func copied(t *testing.T) (path string, digest [32]byte) {
	t.Helper()
	code, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "manager")
	if err := os.WriteFile(path, code, 0o700); err != nil {
		t.Fatal(err)
	}
	return path, sha256.Sum256(code)
}

// What was measured is what runs, from memory that nobody changes; nothing of the stage before is open but the file that a reset begins with, and that reset
// comes to the same.
func TestWhatWasMeasuredIsWhatRuns(t *testing.T) {
	path, digest := copied(t)
	g := start(t, path)
	if !strings.HasPrefix(g.Exe, "/memfd:") || !bytes.Equal(g.Code, digest[:]) || !bytes.Equal(g.Digest, digest[:]) {
		t.Errorf("%s runs with digest %x, %x was handed over, want %x", g.Exe, g.Digest, g.Code, digest)
	}
	if g.Written == "" {
		t.Error("it writes its own image")
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	mine, err := files() // what this process was started with goes on to those that it starts
	if err != nil {
		t.Fatal(err)
	}
	open := slices.DeleteFunc(g.Files, func(f string) bool { return slices.Contains(mine, f) })
	if len(open) != 1 || open[0] != self {
		t.Errorf("open are %q", open)
	}
}

// Who is in the boot manager's place, as root, has neither the unique secret nor the way to burn what the factory burned, until the TPM is reset. What
// is his to raise, he raises.
func TestWhoIsInTheBootManagersPlaceDoesNotHaveTheSecret(t *testing.T) {
	dir := t.TempDir()
	socket, off := boardtest.TPM(t, dir)
	k, err := tpm.Open(socket)
	if err != nil {
		t.Fatal(err)
	}
	secret := sha256.Sum256([]byte("the secret of this test"))
	inverse := make([]byte, len(secret))
	for i, b := range secret {
		inverse[i] = ^b
	}
	f := hw.NewFuses(k.Parts().Fuses())
	if err := errors.Join(k.Parts().Define(), f.BurnSecret(secret), f.BurnRoot([32]byte{0xf0}), k.Close()); err != nil {
		t.Fatal(err)
	}
	path, _ := copied(t)
	for _, where := range []string{"heap", "stack", "data"} { // a search that finds nothing is one that would find it
		if g := start(t, path, secretIs+"="+hex.EncodeToString(inverse), hold+"="+where, "ROM_TEST_AGAIN=1"); !g.InMemory {
			t.Errorf("the search does not find the secret on the %s", where)
		}
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), role+"="+path, roleTPM+"="+socket, secretIs+"="+hex.EncodeToString(inverse), "ROM_TEST_AGAIN=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var g got
	if err := json.Unmarshal(out, &g); err != nil {
		t.Fatal(err)
	}
	for what, why := range map[string]string{"reads the secret": g.Secret, "burns the root": g.Root, "burns the secret": g.Sealed} {
		if !strings.Contains(why, hw.ErrLocked.Error()) {
			t.Errorf("he %s: %q", what, why)
		}
	}
	if g.Counter != "" {
		t.Errorf("the security counter: %s", g.Counter)
	}
	if g.InMemory {
		t.Error("the secret is in his memory")
	}
	// A second start without a reset is none.
	again := exec.CommandContext(t.Context(), "/proc/self/exe")
	again.Env = cmd.Env
	if said, err := again.CombinedOutput(); err == nil || !strings.Contains(string(said), hw.ErrLocked.Error()) {
		t.Errorf("a second start: %v: %s", err, said)
	}
	off()
	socket, _ = boardtest.TPM(t, dir)
	if k, err = tpm.Open(socket); err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	f = hw.NewFuses(k.Parts().Fuses())
	if d, err := f.Secret(); err != nil || d != secret {
		t.Errorf("after a reset: %x, %v", d, err)
	}
	if d, err := f.Root(); err != nil || d != [32]byte{0xf0} {
		t.Errorf("the root: %x, %v", d, err)
	}
}

func TestWhatIsNoBootManager(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{empty, filepath.Join(t.TempDir(), "none"), t.TempDir()} {
		if i, err := rom.Seal(path); err == nil {
			_ = i.Close()
			t.Errorf("%s was taken", path)
		}
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	i, err := rom.Seal(text)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if err := i.Become(handoff(i.Digest)); !errors.Is(err, unix.ENOEXEC) {
		t.Errorf("a text is started: %v", err)
	}
}

func TestAStageIsHandedDescriptorsOrBeginsTheStart(t *testing.T) {
	for _, bad := range []string{"", "3", "1,2", "a,b", "-3,4", "3,4,5", "4000,4001"} {
		t.Setenv("HALLMARK_STAGE", bad)
		if s, err := rom.Inherited(); err == nil {
			t.Errorf("%q: %v", bad, s)
		}
	}
	if s, err := rom.Inherited(); s != nil || err != nil {
		t.Errorf("without: %v, %v", s, err)
	}
}
