package boardtest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TPM starts swtpm with its state in dir, and gives its socket and what switches it off.
func TPM(t *testing.T, dir string) (socket string, off func()) {
	t.Helper()
	program, err := exec.LookPath("swtpm")
	if err != nil {
		t.Skip("swtpm is not installed: scripts/setup-test.sh")
	}
	socket = filepath.Join(dir, "tpm.sock")
	cmd := exec.CommandContext(t.Context(), program, "socket", "--tpm2", "--tpmstate", "dir="+dir, "--flags", "not-need-init,startup-clear",
		"--server", "type=unixio,path="+socket, "--ctrl", "type=unixio,path="+socket+".ctrl")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	off = func() {
		_ = cmd.Process.Kill() // the power fails: nothing is shut down
		<-done
		_ = os.Remove(socket)
	}
	t.Cleanup(off)
	var dialer net.Dialer
	for {
		ready := 0 // of its two sockets, which it opens one after the other
		for _, s := range []string{socket + ".ctrl", socket} {
			if c, err := dialer.DialContext(t.Context(), "unix", s); err == nil {
				_ = c.Close()
				ready++
			}
		}
		if ready == 2 {
			return socket, off
		}
		select {
		case <-done:
			t.Fatal("swtpm has ended")
		case <-time.After(10 * time.Millisecond):
		}
	}
}
