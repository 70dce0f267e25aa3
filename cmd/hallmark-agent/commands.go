package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/boot/nvm"
	"github.com/hallmark-iot/hallmark/agent/factoryport"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/agent/machine"
	"github.com/hallmark-iot/hallmark/agent/rom"
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
	payload   int64
	rev, keys string
}

func (s *shape) flags(c *cobra.Command) {
	c.Flags().Int64Var(&s.payload, "payload-bytes", 8<<20, "largest release the board can take, bytes")
	c.Flags().StringVar(&s.rev, "hardware", "A", "hardware revision of the board")
	c.Flags().StringVar(&s.keys, "keys", "", "where its keys are made and stay: tpm:PATH, isolated:SOCKET, or a token by its PKCS #11 URI; empty: files beside the board")
}

func (s shape) spec() (virtual.Spec, error) {
	if s.payload < 1 || s.payload > maxPayload {
		return virtual.Spec{}, &usageError{fmt.Sprintf("--payload-bytes %d: want 1 to %d", s.payload, maxPayload)}
	}
	if err := checkKeys(s.keys); err != nil {
		return virtual.Spec{}, &usageError{"--" + err.Error()}
	}
	return virtual.Spec{
		Revision: s.rev, Keys: s.keys, Flash: hw.Geometry{Size: boot.FlashFor(s.payload, sector, page), Sector: sector, Page: page},
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

// unborn says of a board that was not made into a device how it becomes one.
func unborn(dir string, err error) error {
	if errors.Is(err, boot.ErrDead) && errors.Is(err, nvm.ErrEmpty) {
		return fmt.Errorf("%w: have a programming station make it, with `hallmark-agent factory --dir %s --socket SOCKET`", err, dir)
	}
	return err
}

// start reads what is on a board, with all stages in this process: for looking.
func start(dir string, b *hw.Board) (*machine.Machine, error) {
	image, err := rom.Seal("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	m, err := machine.Start(b, image.Digest)
	return m, errors.Join(unborn(dir, err), image.Close())
}

func newFactory() *cobra.Command {
	var at place
	var socket string
	var s shape
	c := &cobra.Command{
		Use:   "factory --dir DIR --socket SOCKET",
		Short: "Be made into a device by a programming station",
		Long: `Answers a programming station on its unix socket, until the board is a device. A directory without a board gets a blank one first,
as big and of the revision that the flags say.`,
		Example: "  hallmark-station run ORDER --device-exec 'hallmark-agent factory --dir {dir} --socket {socket}'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return factory(cmd.Context(), at, socket, s)
		},
	}
	at.flags(c, "the board's directory")
	c.Flags().StringVar(&socket, "socket", "", "the station's unix socket (required)")
	_ = c.MarkFlagRequired("socket") // it exists
	s.flags(c)
	return c
}

func factory(ctx context.Context, at place, socket string, s shape) (err error) {
	if err := at.make(s); err != nil {
		return err
	}
	b, err := at.powerOn()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.ready(); err != nil {
		return err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("the station's socket: %w: start a station with `hallmark-station run`, which makes one for each device", err)
	}
	defer conn.Close()
	return factoryport.Serve(ctx, conn, &machine.Piece{Board: b.Board, UID: b.uid})
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
	var at place
	c := &cobra.Command{
		Use:     "inspect --dir DIR",
		Short:   "Say what is on a device that is powered off",
		Long:    "Says, as JSON, what a device would start and how it stands. It starts a copy of the board in memory: looking changes nothing.",
		Example: "  hallmark-agent inspect --dir board1",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return inspect(at) },
	}
	at.flags(c, "the device's directory")
	return c
}

func inspect(at place) (err error) {
	b, off, err := at.look()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, off()) }()
	m, err := start(at.dir, b)
	if errors.Is(err, hw.ErrLocked) {
		return fmt.Errorf("it was started since the machine was: ask it with `hallmark-agent local status`, or look before it starts: %w", err)
	}
	if err != nil {
		return err
	}
	r := m.Boot().Report()
	out := found{
		Device: r.Identity.Device, Product: r.Identity.Product, Slot: r.Slot.String(), Version: "recovery", Trial: r.Trial,
		Life: r.Lifecycle.String(), Counter: r.Counter, Bundle: r.Bundle.Version, Boots: r.BootCount - 1, Notes: r.Notes,
		POST:    slices.DeleteFunc(r.POST, func(t wire.TestResult) bool { return t.Name == boot.TestKeys }), // it looks at no keys
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
		Use:   "local --dir DIR status|nonce|deliver FILE|consent yes|consent no",
		Short: "Talk to the running device on its own socket",
		Long: `Talks to the running device on its own socket, as somebody who stands beside it.

  status        how it stands
  nonce         a nonce, for a delivery that is made elsewhere and brought by hand
  deliver FILE  bring it that delivery; it decides itself whether to act on it
  consent yes   agree to the install that it waits with; consent no declines it`,
		Example: "  hallmark-agent local --dir board1 status\n  hallmark-agent local --dir board1 consent yes",
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
	case req.Op == "consent" && len(args) == 2:
		req.Answer = args[1]
	case (req.Op == "status" || req.Op == "nonce") && len(args) == 1:
	default:
		return &usageError{"local: want status, nonce, deliver FILE, consent yes or consent no"}
	}
	reply, err := ask(ctx, dir, req)
	if err != nil {
		return err
	}
	return print(reply)
}

// ask puts one question to the running device.
func ask(ctx context.Context, dir string, req agent.LocalRequest) (reply agent.LocalReply, err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "local.sock"))
	if err != nil {
		return reply, fmt.Errorf("the device does not run: %w: start it with `hallmark-agent run --dir %s`", err, dir)
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return reply, err
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	if err != nil {
		return reply, fmt.Errorf("the device hung up before it answered: %w", err)
	}
	if err := json.Unmarshal(line, &reply); err != nil {
		return reply, err
	}
	if reply.Error != "" {
		return reply, fmt.Errorf("the device answered: %s", reply.Error)
	}
	return reply, nil
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
