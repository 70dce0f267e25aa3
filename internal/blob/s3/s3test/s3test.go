// Package s3test runs a real S3 service for tests: versitygw, over a directory.
//
// Under all stages.
package s3test

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Keys of the service.
const (
	access = "hallmark-test"
	secret = "hallmark-test-secret"
)

// Start starts a service with one bucket until the test ends, gives the bucket's address, to which folders may be added before the
// question mark, and sets the environment's credentials to the service's.
func Start(t *testing.T) (bucket, query string) {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	tool := filepath.Join(filepath.Dir(file), "..", "..", "..", "..", "scripts", "tool.sh")
	out, err := exec.CommandContext(t.Context(), tool, "versitygw").Output()
	if err != nil {
		t.Skipf("versitygw is not installed: %v", err)
	}
	dir, meta := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "logs"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(strings.TrimSpace(string(out)), "--port", address, "--access", access, "--secret", secret, "--quiet", "posix", "--sidecar", meta, dir) //nolint:noctx // ended below
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Setenv("AWS_ACCESS_KEY_ID", access)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	wait(t, "http://"+address)
	return "s3://logs", "?endpoint=http://" + address + "&region=us-east-1"
}

// wait returns when the service answers, whatever it is.
func wait(t *testing.T, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			return
		}
		if ctx.Err() != nil {
			t.Fatal("the S3 service does not answer: ", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}
