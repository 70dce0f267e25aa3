package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/factoryport"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/agent/machine"
	"github.com/hallmark-iot/hallmark/wire"
)

// The virtual board's flash: erased by the sector, programmed by the page.
const (
	sector = 16 << 10
	page   = 512
)

func flags(name string) (*flag.FlagSet, *string) {
	f := flag.NewFlagSet("hallmark-agent "+name, flag.ContinueOnError)
	return f, f.String("dir", "", "the device's directory")
}

func parse(f *flag.FlagSet, args []string, dir *string) error {
	if err := f.Parse(args); err != nil || *dir == "" {
		return errors.Join(errUsage, err)
	}
	return nil
}

func newBoard(_ context.Context, args []string) error {
	f, dir := flags("new")
	payload := f.Int64("payload-bytes", 8<<20, "largest release it can take")
	rev := f.String("hardware", "A", "hardware revision")
	if err := parse(f, args, dir); err != nil {
		return err
	}
	return virtual.Create(*dir, virtual.Spec{
		Revision: *rev, Flash: hw.Geometry{Size: boot.FlashFor(*payload, sector, page), Sector: sector, Page: page},
	})
}

// factory answers a programming station. A directory without a board gets one, as big as asked for.
func factory(ctx context.Context, args []string) (err error) {
	f, dir := flags("factory")
	socket := f.String("socket", "", "the station's unix socket")
	payload := f.Int64("payload-bytes", 8<<20, "largest release a new board can take")
	rev := f.String("hardware", "A", "hardware revision of a new board")
	if err := parse(f, args, dir); err != nil || *socket == "" {
		return errors.Join(errUsage, err)
	}
	if _, err := os.Stat(filepath.Join(*dir, "board.json")); errors.Is(err, os.ErrNotExist) {
		spec := virtual.Spec{Revision: *rev, Flash: hw.Geometry{Size: boot.FlashFor(*payload, sector, page), Sector: sector, Page: page}}
		if err := virtual.Create(*dir, spec); err != nil {
			return err
		}
	}
	b, err := virtual.Open(*dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	uid, err := hex.DecodeString(b.Spec.ChipUID)
	if err != nil {
		return fmt.Errorf("chip UID: %w", err)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", *socket)
	if err != nil {
		return fmt.Errorf("the station's socket: %w", err)
	}
	defer conn.Close()
	return factoryport.Serve(ctx, conn, &machine.Piece{Board: &b.Board, UID: uid})
}

// run powers the device on, and on again after each reset.
func run(ctx context.Context, args []string) error {
	f, dir := flags("run")
	once := f.Bool("once", false, "check in once and stop")
	pollMin := f.Duration("poll-min", time.Second, "never ask more often")
	asJSON := f.Bool("log-json", false, "log JSON")
	level := slog.LevelInfo
	f.TextVar(&level, "log-level", level, "debug, info, warn or error")
	if err := parse(f, args, dir); err != nil {
		return err
	}
	var h slog.Handler = slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})
	if *asJSON {
		h = slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level})
	}
	log := slog.New(h)
	self, err := machine.Self("/proc/self/exe", func(p string) (io.ReadCloser, error) { return os.Open(p) })
	if err != nil {
		return err
	}
	for {
		err := power(ctx, *dir, self, machine.Options{Dir: *dir, PollMin: *pollMin, Once: *once, Logger: log, Output: os.Stderr})
		switch {
		case errors.Is(err, agent.ErrReset) && ctx.Err() == nil:
			log.Info("reset")
		case errors.Is(err, agent.ErrOver):
			log.Info("the device's life is over")
			return nil
		default:
			return err
		}
	}
}

// power is one start of the device, until it resets or is switched off.
func power(ctx context.Context, dir string, self [32]byte, o machine.Options) (err error) {
	b, err := virtual.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	m, err := machine.Start(&b.Board, self)
	if err != nil {
		return err
	}
	d, err := m.Device(o)
	if err != nil {
		return err
	}
	defer d.Stop()
	socket := filepath.Join(dir, "local.sock")
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("local socket: %w", err)
	}
	defer l.Close()
	go func() { _ = d.ServeLocal(ctx, l) }() // ends with the listener
	return d.Run(ctx)
}

// found is what inspect tells of a device that is switched off.
type found struct {
	Device  string            `json:"device"`
	Product string            `json:"product"`
	Slot    string            `json:"slot"`
	Version string            `json:"version"`
	Trial   bool              `json:"trial"`
	Life    string            `json:"life"`
	Counter uint32            `json:"counter"`
	Bundle  uint64            `json:"bundle"`
	Boots   uint64            `json:"boots"`
	POST    []wire.TestResult `json:"post"`
	Notes   []string          `json:"notes"`
	Servers wire.Servers      `json:"servers"`
}

// inspect starts a copy of the board in memory, so that looking changes nothing.
func inspect(_ context.Context, args []string) error {
	f, dir := flags("inspect")
	if err := parse(f, args, dir); err != nil {
		return err
	}
	b, err := virtual.Snapshot(*dir)
	if err != nil {
		return err
	}
	m, err := machine.Start(&b.Board, [32]byte{})
	if err != nil {
		return err
	}
	r := m.Boot().Report()
	out := found{
		Device: r.Identity.Device, Product: r.Identity.Product, Slot: r.Slot.String(), Version: "recovery", Trial: r.Trial,
		Life: r.Lifecycle.String(), Counter: r.Counter, Bundle: r.Bundle.Version, Boots: r.BootCount - 1, POST: r.POST, Notes: r.Notes,
		Servers: r.Identity.Params.Servers,
	}
	if r.Release != nil {
		out.Version = r.Release.Version
	}
	return print(out)
}

func print(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// local asks the running device on its socket.
func local(ctx context.Context, args []string) error {
	f, dir := flags("local")
	if err := parse(f, args, dir); err != nil || f.NArg() == 0 {
		return errors.Join(errUsage, err)
	}
	req := agent.LocalRequest{Op: f.Arg(0)}
	if req.Op == "deliver" {
		if f.NArg() != 2 {
			return errUsage
		}
		data, err := os.ReadFile(f.Arg(1))
		if err != nil {
			return err
		}
		req.Delivery = data
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(*dir, "local.sock"))
	if err != nil {
		return fmt.Errorf("the device does not run: %w", err)
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		return err
	}
	var reply agent.LocalReply
	if err := json.Unmarshal(line, &reply); err != nil {
		return err
	}
	return print(reply)
}
