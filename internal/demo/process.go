package demo

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"sync"
	"time"
)

// running is a program that may be started again after it ended.
type running struct {
	mu   sync.Mutex
	life *life
}

// life is one process.
type life struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it ended
	err  error         // how; to be read after done
	shot bool          // somebody ended it to start it again; guarded by running.mu
}

func (r *running) start(cmd *exec.Cmd) error {
	l := &life{cmd: cmd, done: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		l.err = cmd.Wait()
		close(l.done)
	}()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.life = l
	return nil
}

func (r *running) now() (l *life, shot bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.life, r.life != nil && r.life.shot
}

// stop ends it for good.
func (r *running) stop(how os.Signal) {
	if l, _ := r.now(); l != nil {
		_ = l.cmd.Process.Signal(how) // it may have ended by itself
		<-l.done
	}
}

// errRuns says that a process did not end by itself in time.
var errRuns = errors.New("it still runs")

// ended waits until it ends by itself and tells how; nil is exit code 0. A process that was shot does not count: another one follows.
func (r *running) ended(ctx context.Context, limit time.Duration) error {
	end := time.After(limit)
	for {
		l, _ := r.now()
		if l == nil {
			return errRuns
		}
		select {
		case <-l.done:
		case <-end:
			return errRuns
		case <-ctx.Done():
			return ctx.Err()
		}
		if now, shot := r.now(); now == l && !shot {
			return l.err
		}
		select { // until the next one runs
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// shoot kills it, as `kill -9` does, and has again start it; false when it had ended by itself before.
func (r *running) shoot(again func() error) (bool, error) {
	r.mu.Lock()
	l := r.life
	if l == nil {
		r.mu.Unlock()
		return false, nil
	}
	select {
	case <-l.done:
		r.mu.Unlock()
		return false, nil
	default:
	}
	l.shot = true
	_ = l.cmd.Process.Kill() // it may end by itself just now
	r.mu.Unlock()
	<-l.done
	if exit, ok := errors.AsType[*exec.ExitError](l.err); l.err == nil || ok && exit.Exited() {
		r.mu.Lock()
		l.shot = false
		r.mu.Unlock()
		return false, nil
	}
	return true, again()
}
