package station

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Listener takes pieces as they connect to a unix socket: a fixture, a serial multiplexer, or virtual devices started by hand.
type Listener struct {
	l net.Listener
}

// Listen opens the socket at path, for the owner only.
func Listen(ctx context.Context, path string) (*Listener, error) {
	l, err := listenUnix(ctx, path)
	if err != nil {
		return nil, err
	}
	return &Listener{l: l}, nil
}

func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if len(path) > 100 {
		return nil, fmt.Errorf("socket path %s is too long for a unix socket: use a shorter directory", path)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("programming socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("programming socket: %w", err), l.Close())
	}
	return l, nil
}

// Next implements Source.
func (l *Listener) Next(ctx context.Context) (Programmer, error) {
	conn, err := accept(ctx, l.l)
	if err != nil {
		return nil, err
	}
	return NewPort(conn), nil
}

// Close closes the socket.
func (l *Listener) Close() error { return l.l.Close() }

// accept waits for one connection or for ctx.
func accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	got := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		got <- result{c, err}
	}()
	select {
	case r := <-got:
		if r.err != nil {
			return nil, fmt.Errorf("wait for a piece: %w", r.err)
		}
		return r.conn, nil
	case <-ctx.Done():
		_ = l.Close() // ends the goroutine
		if r := <-got; r.conn != nil {
			_ = r.conn.Close()
		}
		return nil, fmt.Errorf("wait for a piece: %w", ctx.Err())
	}
}

// Spawner makes virtual devices: one process for each, in a directory of its own, speaking over a socket of its own.
type Spawner struct {
	Command []string  // argv; {dir} and {socket} are replaced in every word
	Dir     string    // the devices' directories are made here
	Stderr  io.Writer // what devices say; nil: nothing

	mu   sync.Mutex // guards next
	next int
}

// ParseCommand splits a device command at spaces. There is no quoting and no shell.
func ParseCommand(s string) ([]string, error) {
	words := strings.Fields(s)
	if len(words) == 0 || !strings.Contains(s, "{socket}") || !strings.Contains(s, "{dir}") {
		return nil, fmt.Errorf("device command %q: it must name {dir} and {socket}", s)
	}
	return words, nil
}

// stopWait is how long a device process may take to end by itself.
const stopWait = 10 * time.Second

// Next implements Source: it starts a process and waits until it has connected.
func (s *Spawner) Next(ctx context.Context) (Programmer, error) {
	dir, err := s.newDir()
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "hm-port-")
	if err != nil {
		return nil, fmt.Errorf("programming socket: %w", err)
	}
	sock := filepath.Join(tmp, "p")
	l, err := listenUnix(ctx, sock)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(tmp))
	}
	r := strings.NewReplacer("{dir}", dir, "{socket}", sock)
	argv := make([]string, len(s.Command))
	for i, w := range s.Command {
		argv[i] = r.Replace(w)
	}
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // the operator's own command; it ends in Close
	cmd.Stderr = s.Stderr
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the device: %w", err), l.Close(), os.RemoveAll(tmp))
	}
	p := &process{cmd: cmd, tmp: tmp, exited: make(chan struct{})}
	go p.wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-p.exited:
			cancel(errors.New("the device process ended before it connected"))
		case <-ctx.Done():
		}
	}()
	conn, err := accept(ctx, l)
	if err != nil {
		return nil, errors.Join(err, context.Cause(ctx), p.stop(0), l.Close())
	}
	_ = l.Close()
	p.Port = NewPort(conn)
	return p, nil
}

func (s *Spawner) newDir() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return "", fmt.Errorf("devices: %w", err)
	}
	for {
		s.next++
		dir := filepath.Join(s.Dir, fmt.Sprintf("dev-%06d", s.next))
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, os.ErrExist) {
			return "", fmt.Errorf("devices: %w", err)
		}
	}
}

// process is a spawned device: a Port, and the process at its other end.
type process struct {
	*Port
	cmd    *exec.Cmd
	tmp    string
	exited chan struct{}
	err    error // set before exited closes
}

func (p *process) wait() {
	p.err = p.cmd.Wait()
	close(p.exited)
}

// Close ends the work on the piece and waits for its process.
func (p *process) Close(made bool) error {
	return errors.Join(p.Port.Close(made), p.stop(stopWait))
}

// stop gives the process some time to end, ends it, and cleans up.
func (p *process) stop(patience time.Duration) error {
	select {
	case <-p.exited:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	if err := os.RemoveAll(p.tmp); err != nil {
		return fmt.Errorf("programming socket: %w", err)
	}
	return nil
}
