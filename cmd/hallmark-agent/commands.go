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
	"strings"
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
	f.SetOutput(io.Discard)
	return f, f.String("dir", "", "the device's directory")
}

// errHelp says that help was asked for and given.
var errHelp = errors.New("help")

// parse reads flags and checks that they, and as many arguments as wanted, are there. needs names flags that may not be empty.
func parse(f *flag.FlagSet, args []string, most int, needs ...string) error {
	command := strings.TrimPrefix(f.Name(), "hallmark-agent ")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		f.SetOutput(os.Stdout)
		f.Usage()
		return errHelp
	case err != nil:
		return &usageError{command + ": " + err.Error()}
	}
	for _, name := range append([]string{"dir"}, needs...) {
		if f.Lookup(name).Value.String() == "" {
			return &usageError{command + ": --" + name + " is missing"}
		}
	}
	if f.NArg() > most {
		return &usageError{fmt.Sprintf("%s: %q is not expected here", command, f.Arg(most))}
	}
	return nil
}

// maxPayload bounds what a new board can take: twice that is made as a file.
const maxPayload = 1 << 30

// boardFlags are those of a new board; check gives its shape.
func boardFlags(f *flag.FlagSet) (check func() (virtual.Spec, error)) {
	payload := f.Int64("payload-bytes", 8<<20, "largest release a new board can take")
	rev := f.String("hardware", "A", "hardware revision of a new board")
	return func() (virtual.Spec, error) {
		if *payload < 1 || *payload > maxPayload {
			return virtual.Spec{}, &usageError{fmt.Sprintf("--payload-bytes %d: want 1 to %d", *payload, maxPayload)}
		}
		return virtual.Spec{
			Revision: *rev, Flash: hw.Geometry{Size: boot.FlashFor(*payload, sector, page), Sector: sector, Page: page},
		}, nil
	}
}

func newBoard(_ context.Context, args []string) error {
	f, dir := flags("new")
	spec := boardFlags(f)
	if err := parse(f, args, 0); err != nil {
		return err
	}
	shape, err := spec()
	if err != nil {
		return err
	}
	return virtual.Create(*dir, shape)
}

// factory answers a programming station. A directory without a board gets one, as big as asked for.
func factory(ctx context.Context, args []string) (err error) {
	f, dir := flags("factory")
	socket := f.String("socket", "", "the station's unix socket")
	spec := boardFlags(f)
	if err := parse(f, args, 0, "socket"); err != nil {
		return err
	}
	shape, err := spec()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(*dir, "board.json")); errors.Is(err, os.ErrNotExist) {
		if err := virtual.Create(*dir, shape); err != nil {
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
	if err := parse(f, args, 0); err != nil {
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
	served := make(chan error, 1)
	go func() { served <- d.ServeLocal(ctx, l) }()
	err = d.Run(ctx)
	return errors.Join(err, l.Close(), <-served) // the last answer is given before the device is gone
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
	if err := parse(f, args, 0); err != nil {
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
	if err := parse(f, args, 2); err != nil {
		return err
	}
	req := agent.LocalRequest{Op: f.Arg(0)}
	switch {
	case req.Op == "deliver" && f.NArg() == 2:
		data, err := delivery(f.Arg(1))
		if err != nil {
			return err
		}
		req.Delivery = data
	case (req.Op == "status" || req.Op == "nonce") && f.NArg() == 1:
	default:
		return &usageError{"local: want status, nonce or deliver FILE"}
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
		return fmt.Errorf("the device hung up before it answered: %w", err)
	}
	var reply agent.LocalReply
	if err := json.Unmarshal(line, &reply); err != nil {
		return err
	}
	if reply.Error != "" {
		return fmt.Errorf("the device answered: %s", reply.Error)
	}
	return print(reply)
}

// delivery reads a file that a device would take.
func delivery(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, wire.MaxDelivery+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(data) > wire.MaxDelivery {
		return nil, fmt.Errorf("%s is no delivery: it has more than %d bytes", path, wire.MaxDelivery)
	}
	return data, nil
}
