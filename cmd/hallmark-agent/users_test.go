package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/isolated"
	"github.com/hallmark-iot/hallmark/suite"
)

// Users of a system that nobody has, and that a test may be.
const (
	keysUser  = 64901
	agentUser = 64902
	otherUser = 64903
)

// asUser has a command run as a user.
func asUser(cmd *exec.Cmd, uid uint32) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, NoSetGroups: false}}
	return cmd
}

// TestMainAsUser is what another user's process does in TestKeysOfAnotherUser.
func TestMainAsUser(t *testing.T) {
	socket := os.Getenv("HALLMARK_TEST_KEYS")
	if socket == "" {
		t.Skip("it is a part of another test")
	}
	k, err := isolated.Open(socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Generate(hw.KeyAttest, suite.P256); err != nil && !errors.Is(err, hw.ErrKeyExists) {
		t.Fatal(err)
	}
	if _, err := k.Signer(hw.KeyAttest); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(os.Getenv("HALLMARK_TEST_DIR"))
	fmt.Printf("signed; files of the keys: %v, %v\n", files, err)
}

// Keys that belong to one user sign for the agent of another, whose process does not read them; a third has nothing signed. It is so with a socket of their own,
// and with one that the service manager passes.
func TestKeysOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root has several users")
	}
	activate, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("there is no systemd-socket-activate here")
	}
	dir, err := os.MkdirTemp("", "hm") // short, and open to others: a test's own directory is not
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program, self := filepath.Join(dir, "hallmark-agent"), filepath.Join(dir, "self")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	exe, err := os.ReadFile("/proc/self/exe")
	if err := errors.Join(err, os.WriteFile(self, exe, 0o755), os.Chmod(dir, 0o755), os.Chmod(program, 0o755)); err != nil {
		t.Fatal(err)
	}
	for name, passed := range map[string]bool{"its own socket": false, "a passed socket": true} {
		t.Run(name, func(t *testing.T) {
			home := filepath.Join(dir, strings.Fields(name)[0])
			if err := errors.Join(os.Mkdir(home, 0o755), os.Chmod(home, 0o755), os.Chown(home, keysUser, keysUser)); err != nil {
				t.Fatal(err)
			}
			keys, socket := filepath.Join(home, "keys"), filepath.Join(home, "s")
			args := []string{program, "keys", "--dir", keys, "--user-id", fmt.Sprint(agentUser)}
			if passed {
				args = append([]string{activate, "--listen=" + socket}, args...)
			} else {
				args = append(args, "--socket", socket)
			}
			cmd := asUser(exec.CommandContext(t.Context(), args[0], args[1:]...), keysUser)
			var said strings.Builder
			cmd.Stdout, cmd.Stderr, cmd.Dir = &said, &said, home
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
			for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
				if c, err := net.Dial("unix", socket); err == nil {
					_ = c.Close()
					break
				}
				if time.Now().After(end) {
					t.Fatalf("nobody listens: %s", said.String())
				}
			}
			if passed { // systemd gives the socket to whom the unit says; here it is opened to all, as the other is
				if err := os.Chmod(socket, 0o666); err != nil {
					t.Fatal(err)
				}
			}
			for uid, works := range map[uint32]bool{agentUser: true, otherUser: false, 0: false} {
				ask := asUser(exec.CommandContext(t.Context(), self, "-test.run=^TestMainAsUser$", "-test.v"), uid)
				ask.Env, ask.Dir = append(os.Environ(), "HALLMARK_TEST_KEYS="+socket, "HALLMARK_TEST_DIR="+keys), "/"
				out, err := ask.CombinedOutput()
				if works != (err == nil) || works && !strings.Contains(string(out), "files of the keys: []") {
					t.Errorf("user %d: %v: %s\n%s", uid, err, out, said.String())
				}
			}
		})
	}
}
