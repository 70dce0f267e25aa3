package isolated_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/isolated"
	"github.com/hallmark-iot/hallmark/agent/hw/keystest"
	"github.com/hallmark-iot/hallmark/suite"
)

// The child process is a key store; with something to try, it is one that somebody has taken over.
func TestMain(m *testing.M) {
	if dir := os.Getenv("HALLMARK_TEST_KEYS"); dir != "" {
		if err := store(dir, os.Getenv("HALLMARK_TEST_TRY")); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func store(dir, attempt string) error {
	uid, err := strconv.ParseUint(os.Getenv("HALLMARK_TEST_UID"), 10, 32)
	if err != nil {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "socket")})
	if err != nil {
		return err
	}
	if err := isolated.Confine(dir); err != nil {
		return err
	}
	if attempt != "" {
		err := attempts[attempt].do()
		fmt.Println("came through:", err)
		return nil
	}
	fmt.Println("ready")
	return isolated.Serve(context.Background(), l, dir, uint32(uid))
}

// start starts a key store on dir and gives its socket, and what kills it.
func start(t *testing.T, dir string, uid int) (socket string, kill func()) {
	t.Helper()
	cmd := child(t, dir, uid, "")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = os.Remove(filepath.Join(dir, "socket")) }
	t.Cleanup(kill)
	var word string
	if _, err := fmt.Fscanln(out, &word); err != nil || word != "ready" {
		t.Fatalf("the key store says %q, %v", word, err)
	}
	return filepath.Join(dir, "socket"), kill
}

func child(t *testing.T, dir string, uid int, attempt string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "HALLMARK_TEST_KEYS="+dir, "HALLMARK_TEST_UID="+strconv.Itoa(uid), "HALLMARK_TEST_TRY="+attempt)
	cmd.Stderr = os.Stderr
	return cmd
}

func open(t *testing.T, socket string) *isolated.Keys {
	t.Helper()
	k, err := isolated.Open(socket)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAProcessKeepsKeys(t *testing.T) {
	socket, _ := start(t, t.TempDir(), os.Getuid())
	keystest.Run(t, keystest.Store{Open: func(t *testing.T) hw.KeyStore { return open(t, socket) }, Suites: suite.IDs(), Hard: true})
}

// Keys are on the disk when Generate has returned, and off it when Destroy has.
func TestKeysOutliveAKill(t *testing.T) {
	dir := t.TempDir()
	var socket string
	kill := func() {}
	keystest.Survives(t, suite.P256, func() hw.KeyStore {
		socket, kill = start(t, dir, os.Getuid())
		return open(t, socket)
	}, func() { kill() })
	kill()
	if _, err := isolated.Open(socket); err == nil {
		t.Error("a store that is not there was opened")
	}
}

func TestAnotherUserIsRefused(t *testing.T) {
	socket, _ := start(t, t.TempDir(), os.Getuid()+1)
	if _, err := isolated.Open(socket); err == nil || !strings.Contains(err.Error(), "may not ask") {
		t.Errorf("%v", err)
	}
}

// attempts are what somebody who has taken the process over tries. killed: it is the last that it does; else an error comes of it.
var attempts = map[string]struct {
	killed bool
	do     func() error
}{
	"read another file":           {false, func() error { _, err := os.ReadFile("/etc/hostname"); return err }},
	"list another directory":      {false, func() error { _, err := os.ReadDir("/"); return err }},
	"write another file":          {false, func() error { return os.WriteFile("/tmp/hallmark-was-here", nil, 0o600) }},
	"read another's memory":       {false, func() error { _, err := os.Open(fmt.Sprintf("/proc/%d/mem", os.Getppid())); return err }},
	"start a program":             {true, func() error { return syscall.Exec("/bin/true", []string{"true"}, nil) }},
	"call somebody":               {true, func() error { _, err := net.Dial("tcp", "127.0.0.1:1"); return err }},
	"call somebody on this board": {true, func() error { _, err := net.Dial("unix", "/run/x"); return err }},
	"trace another process":       {true, func() error { return syscall.PtraceAttach(os.Getppid()) }},
	"cut another file":            {false, func() error { return os.Truncate(other(), 0) }},
	"let others at a file":        {true, func() error { return os.Chmod(other(), 0o666) }},
	"end another process":         {true, func() error { return syscall.Kill(os.Getppid(), 0) }},
	"signal another's thread":     {true, func() error { return unix.Tgkill(os.Getppid(), os.Getppid(), 0) }},
	"signal by a handle":          {true, func() error { return unix.PidfdSendSignal(0, 0, nil, 0) }},
	"take another's memory limit": {true, func() error { return unix.Prlimit(os.Getppid(), unix.RLIMIT_AS, nil, &unix.Rlimit{}) }},
}

// other is a file of somebody else, as far as the key store goes, that the same user may write.
func other() string {
	return filepath.Join(os.TempDir(), "hallmark-other-"+os.Getenv("HALLMARK_TEST_UID"))
}

func TestWhoTakesTheKeyStoreOverGetsNowhere(t *testing.T) {
	t.Setenv("HALLMARK_TEST_UID", strconv.Itoa(os.Getuid()))
	if err := os.WriteFile(other(), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if b, err := os.ReadFile(other()); err != nil || string(b) != "x" {
			t.Errorf("another's file: %q, %v", b, err)
		}
		_ = os.Remove(other())
	})
	for name, attempt := range attempts {
		t.Run(name, func(t *testing.T) {
			if name == "read another file" && attempt.do() != nil {
				t.Fatal("it fails anywhere")
			}
			if abi, err := ll.LandlockGetABIVersion(); name == "cut another file" && (err != nil || abi < 3) {
				t.Skip("not installed: a kernel whose Landlock knows of truncate (Linux 6.2)")
			}
			out, err := child(t, t.TempDir(), os.Getuid(), name).Output()
			var exit *exec.ExitError
			switch {
			case attempt.killed && (!errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGSYS):
				t.Errorf("it goes on: %s %v", out, err)
			case !attempt.killed && (err != nil || !strings.Contains(string(out), "permission denied")):
				t.Errorf("%s %v", out, err)
			}
		})
	}
}

// What comes by the socket is read by bounds: garbage gets no answer, and stops nothing.
func TestGarbageStopsNothing(t *testing.T) {
	socket, _ := start(t, t.TempDir(), os.Getuid())
	for _, b := range [][]byte{{}, {0}, {0xff, 0xff, 0xff, 0xff}, {0, 0, 0, 1, 0xff}, {0, 0, 0, 2, 0xa1, 0x01}, append([]byte{0, 1, 0, 0}, make([]byte, 100)...)} {
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(b); err != nil {
			t.Error(err)
		}
		_ = c.(*net.UnixConn).CloseWrite()
		if n, _ := c.Read(make([]byte, 100)); n != 0 {
			t.Errorf("%x: answered", b)
		}
		_ = c.Close()
	}
	open(t, socket)
}
