package linux_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/linux"
)

const (
	envSize  = 16 << 10
	bankSize = 4 << 20
)

// ubootMachine is files for a machine's banks, with a real environment of U-Boot's.
type ubootMachine struct {
	dir string
	c   linux.Config
}

func tools(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			t.Skipf("%s is not installed: scripts/setup-test.sh", n)
		}
	}
}

func command(t *testing.T, in string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}

func put(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newUboot(t *testing.T) *ubootMachine {
	t.Helper()
	tools(t, "fw_setenv", "mkenvimage", "swupdate", "cpio", "openssl")
	dir := t.TempDir()
	m := &ubootMachine{dir: dir, c: files(dir)}
	text := put(t, filepath.Join(dir, "env.txt"), []byte("bootcmd=run start_${hallmark_bank}\nbootlimit=3\n"))
	one := filepath.Join(dir, "one.img")
	command(t, "", "mkenvimage", "-r", "-s", fmt.Sprint(envSize), "-o", one, text)
	img, err := os.ReadFile(one)
	if err != nil {
		t.Fatal(err)
	}
	both := put(t, filepath.Join(dir, "env.img"), append(bytes.Clone(img), img...))
	m.c.Banks = linux.BanksConfig{
		A: put(t, filepath.Join(dir, "a.img"), make([]byte, bankSize)), B: put(t, filepath.Join(dir, "b.img"), make([]byte, bankSize)),
		Environment: put(t, filepath.Join(dir, "fw_env.config"), fmt.Appendf(nil, "# a comment\n%s 0x0 %#x\n%s %#x %#x\n", both, envSize, both, envSize, envSize)),
		Cmdline:     put(t, filepath.Join(dir, "cmdline"), []byte("console=ttyS0 hallmark.bank=a\n")),
		Installer:   []string{"swupdate", "-M", "-m", "-H", "board:1.0", "-k", filepath.Join(dir, "maker.pem"), "-e", "stable,{bank}", "-i", "/dev/stdin"},
	}
	command(t, "", "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", filepath.Join(dir, "maker.key"), "-out", filepath.Join(dir, "maker.pem"), "-days", "3650",
		"-subj", "/CN=maker", "-addext", "extendedKeyUsage=emailProtection,codeSigning", "-addext", "keyUsage=digitalSignature")
	create(t, m.c)
	return m
}

func (m *ubootMachine) banks(t *testing.T) hw.Banks {
	t.Helper()
	b, err := linux.Open(m.c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b.Banks
}

// image makes what swupdate installs: system is laid into either bank.
func (m *ubootMachine) image(t *testing.T, name string, system []byte, key string) []byte {
	t.Helper()
	dir := filepath.Join(m.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "root.img"), system)
	one := func(path string) string {
		return fmt.Sprintf(`{ images: ( { filename = "root.img"; device = "%s"; type = "raw"; sha256 = "%x"; installed-directly = true; } ); };`, path, sha256.Sum256(system))
	}
	put(t, filepath.Join(dir, "sw-description"), fmt.Appendf(nil, "software = { version = \"2.0.0\"; hardware-compatibility: [ \"1.0\" ];\n stable = { a: %s\n b: %s };\n};\n", one(m.c.Banks.A), one(m.c.Banks.B)))
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", `openssl cms -sign -in sw-description -out sw-description.sig -signer "$1.pem" -inkey "$1.key" -outform DER -nosmimecap -binary
		printf 'sw-description\nsw-description.sig\nroot.img\n' | cpio -o -H crc --quiet`, "sh", key)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func begins(t *testing.T, banks hw.Banks, b hw.Bank, n int) []byte {
	t.Helper()
	r, err := banks.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out := make([]byte, n)
	if _, err := r.ReadAt(out, 0); err != nil {
		t.Fatal(err)
	}
	return out
}

// What the boot loader is told stands in a real environment as U-Boot reads it, beside what was there; and of a write that was torn, in whatever
// place, the one before is left.
func TestUBootIsTold(t *testing.T) {
	m := newUboot(t)
	b := m.banks(t)
	if told, err := b.Told(); err != nil || told != (hw.Told{Bank: hw.BankA}) {
		t.Fatalf("before it was told anything: %+v %v", told, err)
	}
	if err := b.Tell(hw.BankB, true); err != nil {
		t.Fatal(err)
	}
	if told, err := b.Told(); err != nil || told != (hw.Told{Bank: hw.BankB, Trial: true, Here: true}) {
		t.Fatalf("%+v %v", told, err)
	}
	env := command(t, "", "fw_printenv", "-c", m.c.Banks.Environment)
	for _, want := range []string{"bootcmd=run start_${hallmark_bank}\n", "hallmark_bank=b\n", "upgrade_available=1\n", "bootcount=0\n", "bootlimit=3\n"} {
		if !strings.Contains(env, want) {
			t.Errorf("the environment lacks %q: %s", want, env)
		}
	}
	path := filepath.Join(m.dir, "env.img")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Tell(hw.BankA, false); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first := 0
	for before[first] == after[first] {
		first++
	}
	copyAt := first / envSize * envSize
	if !bytes.Equal(before[:copyAt], after[:copyAt]) || !bytes.Equal(before[copyAt+envSize:], after[copyAt+envSize:]) {
		t.Fatal("both copies were written at once")
	}
	olds, news := 0, 0
	for n := 0; n <= envSize; n += 97 {
		torn := bytes.Clone(before)
		copy(torn[copyAt:copyAt+n], after[copyAt:])
		put(t, path, torn)
		told, err := b.Told()
		switch {
		case err != nil:
			t.Fatalf("torn after %d bytes: %v", n, err)
		case told.Says(hw.BankB, true):
			olds++
		case told.Says(hw.BankA, false):
			news++
		default:
			t.Fatalf("torn after %d bytes it says %+v", n, told)
		}
	}
	if olds == 0 || news == 0 {
		t.Errorf("%d times the one before, %d times the new one", olds, news)
	}
	put(t, path, make([]byte, 2*envSize))
	if told, err := b.Told(); err == nil {
		t.Errorf("an environment that is gone says %+v", told)
	}
}

func TestSWUpdateLaysAnImage(t *testing.T) {
	m := newUboot(t)
	b := m.banks(t)
	system := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(system)
	image := m.image(t, "good", system, filepath.Join(m.dir, "maker"))
	told, err := b.Told()
	if err != nil {
		t.Fatal(err)
	}
	temporary := filepath.Join(m.dir, "tmp")
	if err := os.Mkdir(temporary, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", temporary)

	// Killed wherever it is: the bank that runs is as it was, the boot loader was told nothing, and the next time it succeeds.
	for _, at := range []int{0, 100, 700, 4000, len(image) / 3, len(image) - 70000, len(image) - 1} {
		ctx, kill := context.WithCancel(t.Context())
		err := b.Install(ctx, hw.BankB, &watched{Reader: bytes.NewReader(image), at: at, then: kill})
		kill()
		if err == nil {
			t.Fatalf("killed after %d bytes of %d, it says that it is done", at, len(image))
		}
		if now, err := b.Told(); err != nil || now != told {
			t.Errorf("killed after %d bytes: the boot loader was told %+v, %v", at, now, err)
		}
	}
	if !bytes.Equal(begins(t, b, hw.BankA, bankSize), make([]byte, bankSize)) {
		t.Error("the bank that runs was written")
	}
	// It has no copy of its own: what it keeps beside the bank does not grow with the image.
	most := int64(0)
	err = b.Install(t.Context(), hw.BankB, &watched{Reader: bytes.NewReader(image), each: func() {
		_ = filepath.Walk(temporary, func(_ string, i os.FileInfo, err error) error {
			if err == nil && i.Mode().IsRegular() {
				most = max(most, i.Size())
			}
			return nil
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	if most > 64<<10 {
		t.Errorf("the installer had a file of %d bytes beside the bank, of an image of %d", most, len(image))
	}
	if !bytes.Equal(begins(t, b, hw.BankB, len(system)), system) {
		t.Error("the bank does not have the system")
	}
	if err := b.Install(t.Context(), hw.BankA, bytes.NewReader(image)); err == nil || !bytes.Equal(begins(t, b, hw.BankA, bankSize), make([]byte, bankSize)) {
		t.Errorf("the bank that the machine runs from is written: %v", err)
	}
}

func TestSWUpdateRefusesWhatItsMakerDidNotSign(t *testing.T) {
	m := newUboot(t)
	command(t, "", "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", filepath.Join(m.dir, "thief.key"), "-out", filepath.Join(m.dir, "thief.pem"), "-days", "3650",
		"-subj", "/CN=thief", "-addext", "extendedKeyUsage=emailProtection,codeSigning", "-addext", "keyUsage=digitalSignature")
	image := m.image(t, "thief's", bytes.Repeat([]byte("another system"), 1000), filepath.Join(m.dir, "thief"))
	b := m.banks(t)
	err := b.Install(t.Context(), hw.BankB, bytes.NewReader(image))
	if err == nil || !strings.Contains(err.Error(), "swupdate") {
		t.Errorf("it says %v", err)
	}
	if !bytes.Equal(begins(t, b, hw.BankB, bankSize), make([]byte, bankSize)) {
		t.Error("the bank was written")
	}
}

// watched tells of a read behind byte at, and of every read.
type watched struct {
	io.Reader
	at, read int
	then     func()
	each     func()
}

func (w *watched) Read(p []byte) (int, error) {
	if w.each != nil {
		w.each()
	}
	if w.then != nil && w.read >= w.at {
		w.then()
		return 0, errors.New("killed")
	}
	if w.then != nil {
		p = p[:min(len(p), w.at-w.read)]
	}
	n, err := w.Reader.Read(p)
	w.read += n
	return n, err
}

func TestWhatIsWrongWithBanks(t *testing.T) {
	dir := t.TempDir()
	one := put(t, filepath.Join(dir, "one"), []byte("/dev/mtd0 0 0x4000\n"))
	two := put(t, filepath.Join(dir, "two"), []byte("/dev/mtd0 0 0x4000\n#\n/dev/mtd1 0 0x4000\n"))
	good := linux.BanksConfig{A: filepath.Join(dir, "a"), B: filepath.Join(dir, "b"), Environment: two, Installer: []string{"swupdate", "-e", "stable,{bank}"}}
	for want, change := range map[string]func(*linux.BanksConfig){
		"":                   func(*linux.BanksConfig) {},
		"two places":         func(c *linux.BanksConfig) { c.B = c.A },
		"banks.environment:": func(c *linux.BanksConfig) { c.Environment = "" },
		"{bank}":             func(c *linux.BanksConfig) { c.Installer = []string{"swupdate"} },
		"banks.installer":    func(c *linux.BanksConfig) { c.Installer = nil },
		"1 copies":           func(c *linux.BanksConfig) { c.Environment = one },
		"no such file":       func(c *linux.BanksConfig) { c.Environment = filepath.Join(dir, "none") },
	} {
		c := files(filepath.Join(dir, "board"))
		create(t, c)
		c.Banks = good
		change(&c.Banks)
		b, err := linux.Open(c)
		if err == nil {
			err = b.Close()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

// A bank is cleared whole, what lies behind its last whole sector too, and the other is left alone.
func TestABankIsClearedWhole(t *testing.T) {
	m := newUboot(t)
	banks := m.banks(t)
	full := bytes.Repeat([]byte("system"), 50_001) // no multiple of anything
	for _, path := range []string{m.c.Banks.A, m.c.Banks.B} {
		put(t, path, full)
	}
	for _, again := range []string{"", "again"} {
		if err := banks.Clear(hw.BankB); err != nil {
			t.Fatal(again, err)
		}
		a, err := os.ReadFile(m.c.Banks.A)
		if err != nil || !bytes.Equal(a, full) {
			t.Errorf("the other bank was touched: %v", err)
		}
		b, err := os.ReadFile(m.c.Banks.B)
		if err != nil || len(b) != len(full) || bytes.Count(b, []byte{0xff}) != len(b) {
			t.Errorf("%d bytes of %d are erased, %v", bytes.Count(b, []byte{0xff}), len(full), err)
		}
	}
	if err := os.Remove(m.c.Banks.B); err != nil {
		t.Fatal(err)
	}
	if err := banks.Clear(hw.BankB); err == nil {
		t.Error("a bank that is not there was cleared")
	}
}
