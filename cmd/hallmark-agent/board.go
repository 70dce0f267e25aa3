package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/linux"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/agent/machine"
)

// place is where a device's files are.
type place struct {
	dir   string // its sockets, and a virtual board
	board string // the file that describes the board; empty: board.json in dir
}

// flags are what every command of a device has.
func (p *place) flags(c *cobra.Command, what string) {
	dirFlag(c, &p.dir, what)
	c.Flags().StringVar(&p.board, "board", "", "file that describes the board; empty: board.json in the directory")
}

func (p place) file() string {
	if p.board != "" {
		return p.board
	}
	return filepath.Join(p.dir, "board.json")
}

// powered is a board with its key store.
type powered struct {
	*hw.Board
	uid   []byte
	real  bool                            // a reset is the machine's, and not this program's to play
	arm   func() (*linux.Watchdog, error) // nil: it has none
	ready func() error                    // makes room for what a device will burn
	close func() error
}

// config reads a Linux board's description; ok is false when what is there is another board, or none.
func (p place) config() (c linux.Config, ok bool, err error) {
	data, err := os.ReadFile(p.file())
	if errors.Is(err, os.ErrNotExist) && p.board == "" {
		return c, false, nil
	}
	if err != nil {
		return c, false, err
	}
	var kind struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(data, &kind); err != nil || kind.Kind == "" || kind.Kind == "virtual" {
		if p.board != "" {
			return c, false, errors.Join(fmt.Errorf("%s describes no board: want \"kind\": %q", p.board, linux.Kind), err)
		}
		return c, false, nil // the virtual board's own reader says what is wrong
	}
	c, err = linux.ParseConfig(data)
	if err == nil {
		err = checkKeys(c.Keys)
	}
	if err != nil {
		return c, false, fmt.Errorf("%s: %w", p.file(), err)
	}
	return c, true, nil
}

// rom opens what the first stage of a start has of a board: its flash, fuses and counters; the machine's banks, which it clears when a wipe broke off; and its key store as long as it is no device yet, because what
// a probe has laid down is taken up then.
func (p place) rom() (*powered, error) {
	c, ok, err := p.config()
	if err != nil {
		return nil, err
	}
	var b *powered
	if ok {
		bare := c
		bare.SealPCRs = nil
		l, err := linux.Open(bare)
		if err != nil {
			return nil, err
		}
		b = &powered{Board: &l.Board, real: true, close: l.Close}
	} else {
		v, off, err := p.virtual()
		if err != nil {
			return nil, err
		}
		v.Keys = nil
		b = &powered{Board: &v.Board, close: off}
	}
	begun, err := b.Trust.Value()
	if err == nil && begun > 0 {
		return b, nil
	}
	if err = errors.Join(err, b.close()); err != nil {
		return nil, err
	}
	return p.powerOn()
}

// lock closes what only the first stage of a start may use, of a board that it could not open.
func (p place) lock() error {
	data, err := os.ReadFile(p.file())
	if err != nil {
		return nil //nolint:nilerr // without it nobody knows where that is; and that it is not there was reported
	}
	return linux.Lock(data)
}

// virtual opens the virtual board, for this process alone. A power cut that is still to come when it is closed comes to whoever has the board next.
func (p place) virtual() (*virtual.Board, func() error, error) {
	b, err := openBoard(p.dir, virtual.Open)
	if err != nil {
		return nil, nil, err
	}
	lock, err := p.take()
	if err != nil {
		return nil, nil, errors.Join(err, b.Close())
	}
	return b, func() error { return errors.Join(b.Power.Leave(), b.Close(), lock.Close()) }, nil
}

// powerOn opens a board with its key store.
func (p place) powerOn() (*powered, error) {
	c, ok, err := p.config()
	if err != nil {
		return nil, err
	}
	if ok {
		return powerLinux(c)
	}
	b, off, err := p.virtual()
	if err != nil {
		return nil, err
	}
	uid, err := hex.DecodeString(b.Spec.ChipUID)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("chip UID: %w", err), off())
	}
	out := &powered{Board: &b.Board, uid: uid, ready: func() error { return nil }, close: off}
	if b.Spec.Keys == "" {
		return out, nil
	}
	keys, done, err := openKeys(b.Spec.Keys)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("board.json in %s: %w", p.dir, err), off())
	}
	b.Keys, out.close = keys, func() error { return errors.Join(done(), off()) }
	return out, nil
}

// take takes a virtual board for this process, until it is closed or the process ends: a board is powered on once.
func (p place) take() (*os.File, error) {
	d, err := os.Open(p.dir)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("the board in %s is powered on already: stop that hallmark-agent, or use another directory", p.dir)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func powerLinux(c linux.Config) (*powered, error) {
	uid, err := c.UID()
	if err != nil {
		return nil, err
	}
	b, err := linux.Open(c)
	if err != nil {
		return nil, err
	}
	out := &powered{Board: &b.Board, uid: uid, real: true, arm: c.Arm, ready: b.Prepare, close: b.Close}
	if word, at, _ := strings.Cut(c.Keys, ":"); word == "tpm" && b.Chip != nil && at == b.ChipPath {
		b.Keys = b.Chip
		return out, nil
	}
	keys, done, err := openKeys(c.Keys)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	b.Keys, out.close = keys, func() error { return errors.Join(done(), b.Close()) }
	return out, nil
}

// openKeys opens a key store, and gives what closes it.
func openKeys(keys string) (hw.KeyStore, func() error, error) {
	word, at, _ := strings.Cut(keys, ":")
	open, ok := stores[word]
	if !ok {
		return nil, nil, fmt.Errorf("keys %q: %s", keys, wantKeys)
	}
	return open(at)
}

// look opens a copy of the board in memory.
func (p place) look() (*hw.Board, func() error, error) {
	if _, ok, err := p.config(); err != nil {
		return nil, nil, err
	} else if ok {
		b, err := p.powerOn()
		if err != nil {
			return nil, nil, err
		}
		return hw.Shadow(b.Board), b.close, nil
	}
	b, err := openBoard(p.dir, virtual.Snapshot)
	if err != nil {
		return nil, nil, err
	}
	return &b.Board, b.Close, nil
}

// make makes what is missing of a board before it is made into a device.
func (p place) make(s shape) error {
	spec, err := s.spec()
	if err != nil {
		return err
	}
	c, ok, err := p.config()
	if err != nil {
		return err
	}
	if ok {
		_, err := linux.Create(c)
		return err
	}
	if _, err := os.Stat(p.file()); errors.Is(err, os.ErrNotExist) {
		return virtual.Create(p.dir, spec)
	}
	return nil
}

// watch kicks the board's watchdog as often as the agent answers to itself, until ctx ends. Whoever calls says how it goes on: a device that is to be reset
// leaves it armed.
func watch(ctx context.Context, b *powered, d *machine.Device, log *slog.Logger) (disarm func() error, err error) {
	disarm = func() error { return nil }
	if b.arm == nil {
		return disarm, nil
	}
	w, err := b.arm()
	if err != nil || w == nil {
		return disarm, err
	}
	log.Info("watchdog is armed", "seconds", w.Time.Seconds())
	go func() {
		for d.Alive(ctx) {
			if err := w.Kick(); err != nil {
				log.Error("watchdog", "error", err)
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(w.Time / 4):
			}
		}
	}()
	return w.Stop, nil
}
