package linux

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/agent/hw"
)

// BanksConfig names the places from which U-Boot starts the machine, and the program that writes them.
type BanksConfig struct {
	A string `json:"a,omitempty"` // a block device, an MTD, or a file; what is in it has to be read-only
	B string `json:"b,omitempty"`
	// Environment is U-Boot's, as fw_setenv's own configuration describes it: two copies, so that a cut leaves one.
	Environment string `json:"environment,omitempty"`
	// Installer is a program that reads an image from its standard input and lays what is in it into the bank that {bank} says, a or b.
	Installer []string `json:"installer,omitempty"`
	// Cmdline is where the kernel says with hallmark.bank=a or b from which bank it was started; empty: /proc/cmdline.
	Cmdline string `json:"cmdline,omitempty"`
}

func (c BanksConfig) check() error {
	switch {
	case c.A == "" && c.B == "" && c.Environment == "" && len(c.Installer) == 0 && c.Cmdline == "":
		return nil
	case c.A == "" || c.B == "" || c.A == c.B:
		return errors.New("banks: want a and b, two places")
	case c.Environment == "":
		return errors.New("banks.environment: want the file that describes U-Boot's environment, such as /etc/fw_env.config")
	case len(c.Installer) == 0 || !slices.ContainsFunc(c.Installer[1:], func(s string) bool { return strings.Contains(s, "{bank}") }):
		return errors.New("banks.installer: want a program and its arguments, one of them with {bank}")
	}
	return nil
}

// The variables of U-Boot's environment. bootcount, bootlimit and upgrade_available are U-Boot's own (CONFIG_BOOTCOUNT_ENV): it counts starts while an upgrade is
// available, and runs altbootcmd behind the limit. hallmark_bank is what the board's bootcmd starts, and altbootcmd the other one of.
const (
	envBank     = "hallmark_bank"
	envBoot     = "hallmark_boot" // the kernel's number of the start in which it was told
	envUpgrade  = "upgrade_available"
	envCount    = "bootcount"
	envLimit    = "bootlimit"
	bootLimit   = "3"
	maxEnv      = 1 << 20
	bootID      = "/proc/sys/kernel/random/boot_id"
	installTime = 2 * time.Hour
	// itsInput is what fw_setenv reads its script from. /dev/stdin would be a link that udev or systemd makes: where neither runs there is none, and fw_setenv (libubootenv 0.3) writes
	// nothing then, and ends with 0.
	itsInput = "/proc/self/fd/0"
)

// banks are a machine's, with U-Boot.
type banks struct {
	c    BanksConfig
	boot string // the kernel's number of this start
}

func openBanks(c BanksConfig) (*banks, error) {
	if c.Cmdline == "" {
		c.Cmdline = "/proc/cmdline"
	}
	if err := redundant(c.Environment); err != nil {
		return nil, err
	}
	id, err := os.ReadFile(bootID)
	if err != nil {
		return nil, err
	}
	return &banks{c: c, boot: strings.TrimSpace(string(id))}, nil
}

// redundant makes sure that the environment has two copies: of one a cut would leave none, and U-Boot its defaults.
func redundant(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("banks.environment: %w", err)
	}
	copies := 0
	for line := range strings.Lines(string(data)) {
		if line, _, _ = strings.Cut(line, "#"); strings.TrimSpace(line) != "" {
			copies++
		}
	}
	if copies != 2 {
		return fmt.Errorf("banks.environment: %s describes %d copies of U-Boot's environment, want 2: a cut in the writing of the only one leaves none", path, copies)
	}
	return nil
}

// Started implements hw.Banks.
func (b *banks) Started() (hw.Bank, error) {
	data, err := os.ReadFile(b.c.Cmdline)
	if err != nil {
		return 0, err
	}
	return startedFrom(string(data))
}

// startedFrom reads a kernel's command line, in which the word stands once.
func startedFrom(cmdline string) (bank hw.Bank, err error) {
	found := 0
	for word := range strings.FieldsSeq(cmdline) {
		name, ok := strings.CutPrefix(word, "hallmark.bank=")
		if !ok {
			continue
		}
		if bank, ok = bankOf(name); !ok {
			return 0, fmt.Errorf("the kernel's command line says %q: want hallmark.bank=a or hallmark.bank=b", word)
		}
		found++
	}
	if found != 1 {
		return 0, fmt.Errorf("the kernel's command line says %d times from which bank it was started: have U-Boot add hallmark.bank=a or hallmark.bank=b, once", found)
	}
	return bank, nil
}

func bankOf(name string) (hw.Bank, bool) {
	switch name {
	case hw.BankA.String():
		return hw.BankA, true
	case hw.BankB.String():
		return hw.BankB, true
	}
	return 0, false
}

// Told implements hw.Banks. An environment that cannot be read is an error: whoever cannot read it cannot know where the machine starts next.
func (b *banks) Told() (hw.Told, error) {
	out, err := b.fw(context.Background(), nil, "fw_printenv", "-c", b.c.Environment)
	if err != nil {
		return hw.Told{}, err
	}
	started, err := b.Started()
	if err != nil {
		return hw.Told{}, err
	}
	return parseTold(out, started, b.boot)
}

// parseTold reads what fw_printenv prints: NAME=VALUE lines.
func parseTold(env []byte, started hw.Bank, boot string) (hw.Told, error) {
	t := hw.Told{Bank: started}
	for line := range strings.Lines(string(env)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch name {
		case envBank:
			bank, ok := bankOf(value)
			if !ok {
				return hw.Told{}, fmt.Errorf("U-Boot's environment has %s=%q: want a or b", envBank, value)
			}
			t.Bank = bank
		case envUpgrade:
			t.Trial = value != "0"
		case envBoot:
			t.Here = value == boot
		}
	}
	return t, nil
}

// Tell implements hw.Banks. fw_setenv writes all variables into the copy that is not in force, and that one is in force when it is whole.
func (b *banks) Tell(bank hw.Bank, trial bool) error {
	upgrade := "0"
	if trial {
		upgrade = "1"
	}
	script := fmt.Sprintf("%s=%s\n%s=%s\n%s=%s\n%s=0\n%s=%s\n", envBank, bank, envBoot, b.boot, envUpgrade, upgrade, envCount, envLimit, bootLimit)
	if _, err := b.fw(context.Background(), strings.NewReader(script), "fw_setenv", "-c", b.c.Environment, "-s", itsInput); err != nil {
		return err
	}
	told, err := b.Told()
	if err != nil {
		return err
	}
	if !told.Says(bank, trial) {
		return fmt.Errorf("U-Boot's environment was written, and still says bank %s, trial %t: want bank %s, trial %t; look whether %s names the environment that U-Boot reads",
			told.Bank, told.Trial, bank, trial, b.c.Environment)
	}
	return nil
}

// fw runs one of the environment's tools. They say by their exit code alone that they failed.
func (b *banks) fw(ctx context.Context, in io.Reader, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out, said limited
	out.left, said.left = maxEnv, 4<<10
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = in, &out, &said, alone()
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("%w: install libubootenv-tool", err)
		}
		return nil, fmt.Errorf("%s: %w: %s", name, err, oneLine(said.Bytes()))
	}
	if out.left == 0 {
		return nil, fmt.Errorf("%s says more than %d bytes", name, maxEnv)
	}
	return out.Bytes(), nil
}

// Open implements hw.Banks.
func (b *banks) Open(bank hw.Bank) (hw.BankReader, error) {
	return os.Open(b.path(bank))
}

func (b *banks) path(bank hw.Bank) string {
	if bank == hw.BankA {
		return b.c.A
	}
	return b.c.B
}

// Install implements hw.Banks. The image goes through a pipe: nobody has a copy of it. The installer and what it started end with the agent, and when
// ctx does.
func (b *banks) Install(ctx context.Context, bank hw.Bank, image io.Reader) error {
	if started, err := b.Started(); err != nil || started == bank {
		return errors.Join(fmt.Errorf("bank %s is what the machine runs from", bank), err)
	}
	ctx, stop := context.WithTimeout(ctx, installTime)
	defer stop()
	args := slices.Clone(b.c.Installer)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "{bank}", bank.String())
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var said limited
	said.left = 64 << 10
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = image, &said, &said, alone()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", args[0], err, oneLine(said.Bytes()))
	}
	return settle(b.path(bank))
}

// Clear implements hw.Banks. A bank that the machine runs from is mounted, and is written all the same.
func (b *banks) Clear(bank hw.Bank) (err error) {
	path := b.path(bank)
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("bank %s: %w", bank, err)
	}
	var f *Flash
	if info.Mode()&fs.ModeCharDevice != 0 {
		if f, err = openMTD(path, 0); err != nil {
			return fmt.Errorf("bank %s: %w", bank, err)
		}
	} else {
		d, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return fmt.Errorf("bank %s: %w", bank, err)
		}
		size := info.Size()
		if info.Mode()&fs.ModeDevice != 0 {
			if size, _, err = blockShape(d); err != nil {
				return errors.Join(fmt.Errorf("bank %s: %w", bank, err), d.Close())
			}
		}
		f = &Flash{geo: hw.Geometry{Size: size, Sector: defaultErase}, m: &disk{d}}
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.clear(); err != nil {
		return fmt.Errorf("bank %s: %w", bank, err)
	}
	return nil
}

// clear erases all of it, what is behind the last whole sector too, and reads it back.
func (f *Flash) clear() error {
	for off := int64(0); off < f.geo.Size; off += f.geo.Sector {
		n := min(f.geo.Sector, f.geo.Size-off)
		if is, _, err := f.blank(off, n); err != nil {
			return err
		} else if is {
			continue
		}
		if err := f.m.Erase(off, n); err != nil {
			return err
		}
	}
	if d, ok := f.m.(*disk); ok { // what is read back is to come from the medium
		if err := unix.Fadvise(int(d.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			return err
		}
	}
	if is, at, err := f.blank(0, f.geo.Size); err != nil || !is {
		return errors.Join(fmt.Errorf("it was erased, and is not blank at %d", at), err)
	}
	return nil
}

// settle has what was written on the medium before anything says so.
func settle(path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Sync(); !errors.Is(err, unix.EINVAL) { // an MTD has nothing to sync
		return err
	}
	return nil
}

// alone is a process in a group of its own that does not outlive the agent.
func alone() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// limited keeps the first bytes of what is written, and takes the rest.
type limited struct {
	bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	l.Buffer.Write(p[:n])
	return len(p), nil
}

// oneLine gives the end of what a program said.
func oneLine(b []byte) string {
	s := strings.Join(strings.Fields(string(b)), " ")
	return s[max(0, len(s)-300):]
}
