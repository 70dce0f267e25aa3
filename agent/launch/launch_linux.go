// Package launch starts the programs of a release as processes of their own.
//
// Stage 3, field, on the device. The bytes come from flash, are hashed again as they lie in sealed memory, and that memory is
// what the kernel executes: nothing can change between the check and the start, and nothing is left on a disk. It trusts the
// kernel. What root could do beside it is in the threat model.
package launch

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/wire"
)

// SocketEnv names the variable that tells a program where to listen for questions: a unix socket. A question is a line, and so
// is the answer: "health" → "ok TEXT" or "fail TEXT"; "sample" → a reading; "isolate on|off" → "ok".
const SocketEnv = "HALLMARK_HEALTH_SOCKET"

// grace is how long a program may take before its silence counts; answer how long one answer may take.
const (
	grace  = 5 * time.Second
	answer = 2 * time.Second
)

// linger is how long what a program started may hold its output open after the program itself has ended.
const linger = time.Second

const maxAnswer = 4 << 10

// Process is a started program.
type Process struct {
	component wire.Component
	socket    string
	cmd       *exec.Cmd
	started   time.Time

	mu    sync.Mutex // guards ended, err
	ended bool
	err   error
	done  chan struct{}
}

// Start runs component c, whose bytes are read from code, with the socket in dir.
func Start(code io.Reader, c wire.Component, dir string, out io.Writer) (*Process, error) {
	image, err := seal(code, c)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	defer image.Close()
	socket, err := filepath.Abs(filepath.Join(dir, c.Name+".sock"))
	if err != nil {
		return nil, err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	p := &Process{component: c, socket: socket, started: time.Now(), done: make(chan struct{})}
	p.cmd = exec.Command("/proc/self/fd/3", c.Args...) //nolint:noctx // the sealed image; its life is Stop's, not a context's
	p.cmd.Args[0] = c.Name
	p.cmd.ExtraFiles = []*os.File{image}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, out, out
	p.cmd.Env = []string{SocketEnv + "=" + socket, "PATH=/usr/bin:/bin"}
	p.cmd.WaitDelay = linger
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	go p.wait()
	return p, nil
}

// seal copies code into memory that cannot change any more, and hashes what is there.
func seal(code io.Reader, c wire.Component) (*os.File, error) {
	fd, err := unix.MemfdCreate(c.Name, unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), c.Name)
	fail := func(err error) (*os.File, error) { return nil, errors.Join(err, f.Close()) }
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, io.LimitReader(code, int64(c.Size)), make([]byte, 64<<10))
	if err != nil {
		return fail(err)
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return fail(err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, int64(c.Size)+1)); err != nil {
		return fail(err)
	}
	if uint64(n) != c.Size || !bytes.Equal(h.Sum(nil), c.Digest) {
		return fail(errors.New("its bytes are not those that were signed"))
	}
	return f, nil
}

// wait takes note of the end, whatever of the program's family is still there.
func (p *Process) wait() {
	err := p.cmd.Wait()
	if errors.Is(err, exec.ErrWaitDelay) { // it ended well, and left something running
		err = nil
	}
	p.mu.Lock()
	p.ended, p.err = true, err
	p.mu.Unlock()
	close(p.done)
}

// Health asks the program, or looks at its process: good, or not with the reason; known is false while it is too early to say.
func (p *Process) Health(ctx context.Context) (good, known bool, text string) {
	p.mu.Lock()
	ended, err := p.ended, p.err
	p.mu.Unlock()
	young := time.Since(p.started) < grace
	if ended {
		if p.component.Health == wire.HealthAlive && err == nil {
			return true, true, "ended well"
		}
		return false, true, fmt.Sprintf("it ended: %v", err)
	}
	if p.component.Health == wire.HealthAlive {
		return !young, !young, "runs"
	}
	said, err := p.Ask(ctx, "health")
	switch {
	case err != nil && young:
		return false, false, "starting"
	case err != nil:
		return false, true, "does not answer: " + err.Error()
	}
	word, text, _ := strings.Cut(said, " ")
	return word == "ok", true, text
}

// Ended reports whether the program has ended.
func (p *Process) Ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// Ask sends one line to the program and gives its answer.
func (p *Process) Ask(ctx context.Context, question string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", p.socket)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return "", err
		}
	}
	if _, err := io.WriteString(conn, question+"\n"); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(io.LimitReader(conn, maxAnswer)).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("no whole answer to %q: %w", question, err)
	}
	return strings.ToValidUTF8(strings.TrimSuffix(line, "\n"), "?"), nil
}

// Stop ends the program and everything it started.
func (p *Process) Stop() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended by itself
	<-p.done
}
