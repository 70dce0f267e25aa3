// Package launch starts the programs of a release, each confined in a process of its own.
//
// Stage 3, field, on the device. The bytes come from flash, are hashed again as they lie in sealed memory, and that memory is
// what the kernel executes: nothing can change between the check and the start, and nothing is left on a disk. A program has its own directory and
// its health socket, and beyond that what the release's capabilities name. Which of the layers that hold it there are in force is measured as it is
// confined, and reported; one that was required and is not in force is an error, and the program does not start.
//
// It trusts the kernel. What root could do beside it is in the threat model.
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

	"github.com/hallmark-iot/hallmark/agent/memfile"
	"github.com/hallmark-iot/hallmark/wire"
)

// A program finds open what it is given from file descriptor 3 on, by systemd's protocol: LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES. With the health check
// "socket" the first is its health socket, listening, by the name "health". A question is a line, and so is the answer: "health" → "ok TEXT" or "fail TEXT"; "sample" → a reading; "isolate on|off" → "ok".

// grace is how long a program may take before its silence counts; answer how long one answer may take.
const (
	grace  = 5 * time.Second
	answer = 2 * time.Second
)

// linger is how long what a program started may hold its output open after the program itself has ended.
const linger = time.Second

const maxAnswer = 4 << 10

// maxQuestion holds every parameter there can be.
const maxQuestion = 192 << 10

// Options are what a start needs beside the program.
type Options struct {
	Dir     string       // the agent's: sockets, and below it a directory for each program. Nothing else in it is ever granted
	Device  string       // the device's ID: programs of two devices on one machine are two users
	Self    string       // a program whose main calls Confine before anything else: this one
	Output  io.Writer    // of the program
	Require []wire.Layer // layers without which no program starts; nil: what the kernel has

	thinking time.Duration // a test's: how long a module may take for an answer; 0: as long as any
	older    int           // a test's: as a kernel with no namespaces and this version of Landlock
}

// Process is a started program.
type Process struct {
	component wire.Component
	socket    string // empty: it has none
	own       string // its directory
	cmd       *exec.Cmd
	group     *group // nil: it has no control group
	layers    Report
	started   time.Time

	mu    sync.Mutex // guards ended, err
	ended bool
	err   error
	done  chan struct{}
}

// Start runs component c, whose bytes are read from code.
func Start(code io.Reader, c wire.Component, o Options, given ...Given) (*Process, error) {
	p, err := start(code, c, o, given)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	return p, nil
}

func start(code io.Reader, c wire.Component, o Options, given []Given) (*Process, error) {
	if err := Check(c, o); err != nil {
		return nil, err
	}
	image, script, err := seal(code, c)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	own, uid, err := ownDirectory(c, o)
	if err != nil {
		return nil, err
	}
	p := &Process{component: c, own: own, started: time.Now(), done: make(chan struct{})}
	if c.Health == wire.HealthSocket {
		if p.socket, err = filepath.Abs(filepath.Join(o.Dir, c.Name+".sock")); err != nil {
			return nil, err
		}
		l, err := listen(p.socket)
		if err != nil {
			return nil, err
		}
		defer l.Close() // the program's is another
		given = append([]Given{{health, l}}, given...)
	}
	d := orderOf(c, own, uid, o)
	d.Script = script
	if err := p.begin(d, o, image, given); err != nil {
		return nil, err
	}
	go p.wait()
	return p, nil
}

// listen opens the health socket, so that the program needs no socket of its own making.
func listen(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	return l.File()
}

// health is the name of the health socket.
const health = "health"

// seal copies code into memory that cannot change any more, and hashes what is there. Nobody may read it: a process whose image cannot be read
// leaves no core, and cannot be looked into by another of its user. A script is read by what executes it.
func seal(code io.Reader, c wire.Component) (f *os.File, script bool, err error) {
	if f, err = fill(code, c); err != nil {
		return nil, false, err
	}
	var head [2]byte
	n, _ := f.ReadAt(head[:], 0)
	script = string(head[:n]) == "#!"
	mode := os.FileMode(0o111)
	if script {
		mode = 0o555
	}
	if err := f.Chmod(mode); err != nil {
		return nil, false, errors.Join(err, f.Close())
	}
	return f, script, nil
}

func fill(code io.Reader, c wire.Component) (*os.File, error) {
	f, err := memfile.New(c.Name)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*os.File, error) { return nil, errors.Join(err, f.Close()) }
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, io.LimitReader(code, int64(c.Size)), make([]byte, 64<<10))
	if err != nil {
		return fail(err)
	}
	if err := memfile.Seal(f); err != nil {
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
	p.group.remove()
	p.mu.Lock()
	p.ended, p.err = true, err
	p.mu.Unlock()
	close(p.done)
}

// Layers says what held the program as it started.
func (p *Process) Layers() Report { return p.layers }

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
	if p.socket == "" {
		return "", fmt.Errorf("%s has no health socket", p.component.Name)
	}
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
		return "", fmt.Errorf("no whole answer to %q: %w", verb(question), err)
	}
	return strings.ToValidUTF8(strings.TrimSuffix(line, "\n"), "?"), nil
}

// verb is what a question asks, without what it tells: that may be a secret.
func verb(question string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(question), " ")
	return word
}

// Stop ends the program and everything it started.
func (p *Process) Stop() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended by itself
	p.group.kill()
	<-p.done
}
