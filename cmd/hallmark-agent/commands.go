package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/boot/nvm"
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

// dirFlag is the flag all commands have.
func dirFlag(c *cobra.Command, dir *string, what string) {
	c.Flags().StringVar(dir, "dir", "", what+" (required)")
	_ = c.MarkFlagRequired("dir") // it exists
}

// maxPayload bounds what a new board can take: twice that is made as a file.
const maxPayload = 1 << 30

// shape is that of a blank board.
type shape struct {
	payload int64
	rev     string
}

func (s *shape) flags(c *cobra.Command) {
	c.Flags().Int64Var(&s.payload, "payload-bytes", 8<<20, "largest release the board can take, bytes")
	c.Flags().StringVar(&s.rev, "hardware", "A", "hardware revision of the board")
}

func (s shape) spec() (virtual.Spec, error) {
	if s.payload < 1 || s.payload > maxPayload {
		return virtual.Spec{}, &usageError{fmt.Sprintf("--payload-bytes %d: want 1 to %d", s.payload, maxPayload)}
	}
	return virtual.Spec{
		Revision: s.rev, Flash: hw.Geometry{Size: boot.FlashFor(s.payload, sector, page), Sector: sector, Page: page},
	}, nil
}

func newBoard() *cobra.Command {
	var dir string
	var s shape
	c := &cobra.Command{
		Use:     "new --dir DIR",
		Short:   "Make a blank virtual board",
		Example: "  hallmark-agent new --dir board1 --payload-bytes 4194304 --hardware B",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			spec, err := s.spec()
			if err != nil {
				return err
			}
			if _, err := os.Stat(filepath.Join(dir, "board.json")); err == nil {
				return fmt.Errorf("%s: a board is there already: choose another directory", filepath.Join(dir, "board.json"))
			}
			return virtual.Create(dir, spec)
		},
	}
	dirFlag(c, &dir, "directory to make the board in")
	s.flags(c)
	return c
}

// openBoard opens the board in a directory; what is none says how to get one.
func openBoard[B any](dir string, open func(string) (B, error)) (B, error) {
	b, err := open(dir)
	if errors.Is(err, os.ErrNotExist) {
		if _, stat := os.Stat(filepath.Join(dir, "board.json")); errors.Is(stat, os.ErrNotExist) {
			return b, fmt.Errorf("no virtual board in %s: make one with `hallmark-agent new --dir %s`", dir, dir)
		}
	}
	return b, err
}

// start reads what is on a board; one that was not made into a device says how it becomes one.
func start(dir string, b *virtual.Board, self [32]byte) (*machine.Machine, error) {
	m, err := machine.Start(&b.Board, self)
	if errors.Is(err, boot.ErrDead) && errors.Is(err, nvm.ErrEmpty) {
		return m, fmt.Errorf("%w: have a programming station make it, with `hallmark-agent factory --dir %s --socket SOCKET`", err, dir)
	}
	return m, err
}

func newFactory() *cobra.Command {
	var dir, socket string
	var s shape
	c := &cobra.Command{
		Use:   "factory --dir DIR --socket SOCKET",
		Short: "Be made into a device by a programming station",
		Long: `Answers a programming station on its unix socket, until the board is a device. A directory without a board gets a blank one first,
as big and of the revision that the flags say.`,
		Example: "  hallmark-station run ORDER --device-exec 'hallmark-agent factory --dir {dir} --socket {socket}'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return factory(cmd.Context(), dir, socket, s)
		},
	}
	dirFlag(c, &dir, "the board's directory")
	c.Flags().StringVar(&socket, "socket", "", "the station's unix socket (required)")
	_ = c.MarkFlagRequired("socket") // it exists
	s.flags(c)
	return c
}

func factory(ctx context.Context, dir, socket string, s shape) (err error) {
	spec, err := s.spec()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "board.json")); errors.Is(err, os.ErrNotExist) {
		if err := virtual.Create(dir, spec); err != nil {
			return err
		}
	}
	b, err := virtual.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	uid, err := hex.DecodeString(b.Spec.ChipUID)
	if err != nil {
		return fmt.Errorf("chip UID: %w", err)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("the station's socket: %w: start a station with `hallmark-station run`, which makes one for each device", err)
	}
	defer conn.Close()
	return factoryport.Serve(ctx, conn, &machine.Piece{Board: &b.Board, UID: uid})
}

func newRun() *cobra.Command {
	var dir string
	var once, asJSON bool
	var pollMin time.Duration
	var prove string
	level := slog.LevelInfo
	c := &cobra.Command{
		Use:   "run --dir DIR",
		Short: "Power the device on",
		Long: `Powers the device on, and on again after each reset, until Ctrl-C or SIGTERM switches it off. A file cut.json in its directory,
such as {"after": 700, "mode": "random"}, cuts the power at that operation of its memories.`,
		Example: "  hallmark-agent run --dir board1 --log-level debug",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var h slog.Handler = slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})
			if asJSON {
				h = slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level})
			}
			return run(cmd.Context(), prove, machine.Options{Dir: dir, PollMin: pollMin, Once: once, Logger: slog.New(h), Output: os.Stderr})
		},
	}
	dirFlag(c, &dir, "the device's directory")
	c.Flags().BoolVar(&once, "once", false, "check in once and stop")
	c.Flags().DurationVar(&pollMin, "poll-min", time.Second, "check in no more often than this")
	c.Flags().StringVar(&prove, "prove", "", "host:port at which whoever is near may have the device prove itself; empty: nowhere")
	c.Flags().TextVar(&level, "log-level", level, "debug, info, warn or error")
	c.Flags().BoolVar(&asJSON, "log-json", false, "log JSON")
	return c
}

func run(ctx context.Context, prove string, o machine.Options) error {
	self, err := machine.Self("/proc/self/exe", func(p string) (io.ReadCloser, error) { return os.Open(p) })
	if err != nil {
		return err
	}
	for {
		err := power(ctx, o.Dir, prove, self, o)
		switch {
		case errors.Is(err, agent.ErrReset) && ctx.Err() == nil:
			o.Logger.Info("reset")
		case errors.Is(err, agent.ErrOver):
			o.Logger.Info("the device's life is over")
			return nil
		default:
			return err
		}
	}
}

// power is one start of the device, until it resets or is switched off.
func power(ctx context.Context, dir, prove string, self [32]byte, o machine.Options) (err error) {
	b, err := openBoard(dir, virtual.Open)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	m, err := start(dir, b, self)
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
	listeners := []net.Listener{l}
	served := make(chan error, 2)
	go func() { served <- d.ServeLocal(ctx, l) }()
	if prove != "" {
		p, err := new(net.ListenConfig).Listen(ctx, "tcp", prove)
		if err != nil {
			return errors.Join(fmt.Errorf("--prove: %w", err), l.Close(), <-served)
		}
		o.Logger.Info("proves itself to whoever asks", "at", p.Addr())
		listeners = append(listeners, p)
		go func() { served <- d.ServeProof(ctx, p) }()
	}
	err = d.Run(ctx)
	for _, l := range listeners {
		err = errors.Join(err, l.Close(), <-served) // the last answer is given before the device is gone
	}
	return err
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

func newInspect() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:     "inspect --dir DIR",
		Short:   "Say what is on a device that is powered off",
		Long:    "Says, as JSON, what a device would start and how it stands. It starts a copy of the board in memory: looking changes nothing.",
		Example: "  hallmark-agent inspect --dir board1",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return inspect(dir) },
	}
	dirFlag(c, &dir, "the device's directory")
	return c
}

func inspect(dir string) error {
	b, err := openBoard(dir, virtual.Snapshot)
	if err != nil {
		return err
	}
	m, err := start(dir, b, [32]byte{})
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

func newLocal() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "local --dir DIR status|nonce|deliver FILE",
		Short: "Talk to the running device on its own socket",
		Long: `Talks to the running device on its own socket, as somebody who stands beside it.

  status        how it stands
  nonce         a nonce, for a delivery that is made elsewhere and brought by hand
  deliver FILE  bring it that delivery; it decides itself whether to act on it`,
		Example: "  hallmark-agent local --dir board1 status",
		Args:    cobra.ArbitraryArgs,
		RunE:    func(cmd *cobra.Command, args []string) error { return local(cmd.Context(), dir, args) },
	}
	dirFlag(c, &dir, "the device's directory")
	return c
}

func local(ctx context.Context, dir string, args []string) error {
	req := agent.LocalRequest{}
	if len(args) > 0 {
		req.Op = args[0]
	}
	switch {
	case req.Op == "deliver" && len(args) == 2:
		data, err := delivery(args[1])
		if err != nil {
			return err
		}
		req.Delivery = data
	case (req.Op == "status" || req.Op == "nonce") && len(args) == 1:
	default:
		return &usageError{"local: want status, nonce or deliver FILE"}
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "local.sock"))
	if err != nil {
		return fmt.Errorf("the device does not run: %w: start it with `hallmark-agent run --dir %s`", err, dir)
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
