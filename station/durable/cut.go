package durable

import (
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// What tests do to the disk, by HALLMARK_FAILPOINTS as elsewhere; without it, nothing here has an effect. Every place between two
// effects on the disk is a step.
//
//	station.kill=N  the process ends at the N-th step with SIGKILL: nothing deferred runs, and a write may be half there
//	station.full=N  from the N-th write on the disk has no space: of that one half is written
//	station.gone=N  from the N-th step on nothing can be done any more: a stick was pulled, a disk died
type cuts struct {
	kind string
	left atomic.Int64
}

var armed = parse(os.Getenv("HALLMARK_FAILPOINTS"))

func parse(s string) *cuts {
	name, n, ok := strings.Cut(s, "=")
	count, err := strconv.ParseInt(n, 10, 64)
	kind, ours := strings.CutPrefix(name, "station.")
	if !ok || !ours || err != nil || count < 1 {
		return nil
	}
	c := &cuts{kind: kind}
	c.left.Store(count)
	return c
}

// due counts one occasion of a kind and says whether its time has come.
func due(kind string) bool { return armed != nil && armed.kind == kind && armed.left.Add(-1) <= 0 }

// step is a place between two effects.
func step() error {
	if due("kill") {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
	if due("gone") {
		return syscall.EIO
	}
	return nil
}

// write writes data; a cut may come in the middle.
func write(w io.Writer, data []byte) error {
	if armed == nil {
		_, err := w.Write(data)
		return err
	}
	if err := step(); err != nil {
		return err
	}
	half := len(data) / 2
	if _, err := w.Write(data[:half]); err != nil {
		return err
	}
	if due("full") {
		return syscall.ENOSPC
	}
	if err := step(); err != nil {
		return err
	}
	_, err := w.Write(data[half:])
	return err
}
