package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/machine"
	"github.com/hallmark-iot/hallmark/agent/rom"
	"github.com/hallmark-iot/hallmark/wire"
)

func newRun(p *plug) *cobra.Command {
	var at place
	var once, asJSON bool
	var pollMin time.Duration
	var prove, isolation, recovery, zone, busy string
	level := slog.LevelInfo
	c := &cobra.Command{
		Use:   "run --dir DIR",
		Short: "Power the device on",
		Long: `Powers the device on, and on again after each reset, until Ctrl-C or SIGTERM switches it off. A file cut.json in its directory,
such as {"after": 700, "mode": "random"}, cuts the power at that operation of its memories.

On a Linux board a reset is the machine's: it ends with exit code 76, and whoever started it restarts the machine. With exit code 77 no restart
helps: nothing here may start, or the board is no device.

A boot manager that was kept is started with the flags of whoever starts it, which may be of a later release: those that it does not know it leaves out, and says so.`,
		Example: "  hallmark-agent run --dir board1 --log-level debug",
		Args:    cobra.NoArgs,
		// Another file's flags: it was told them because this one is what is kept.
		FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: rom.Handed()},
		RunE: func(cmd *cobra.Command, _ []string) error {
			var h slog.Handler = slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})
			if asJSON {
				h = slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level})
			}
			require, err := wire.ParseLayers(isolation)
			if err != nil {
				return &usageError{"--isolation: " + err.Error()}
			}
			if len(zone) > wire.MaxZone {
				return &usageError{fmt.Sprintf("--zone: a name of %d bytes, at most %d", len(zone), wire.MaxZone)}
			}
			log := slog.New(h)
			if left := unknown(cmd.Flags(), os.Args[1:]); len(left) > 0 {
				log.Warn("this boot manager does not know some of the flags that it was started with, and leaves them out", "flags", left)
			}
			return run(cmd.Context(), p, at, prove, recovery, machine.Options{
				Dir: at.dir, Self: "/proc/self/exe", Require: require, PollMin: pollMin, Zone: zone, Busy: busy, Once: once, Logger: log, Output: os.Stderr,
			})
		},
	}
	at.flags(c, "the device's directory")
	c.Flags().BoolVar(&once, "once", false, "check in once and stop")
	c.Flags().DurationVar(&pollMin, "poll-min", time.Second, "check in no more often than this")
	c.Flags().StringVar(&prove, "prove", "", "host:port at which whoever is near may have the device prove itself; empty: nowhere")
	c.Flags().StringVar(&isolation, "isolation", "available", "what has to confine programs, and the network's process, for them to start: available (what the kernel has), required (all), or layers by name")
	c.Flags().StringVar(&recovery, "recovery", "", "file in which a boot manager that was started is kept, for when this program's own file is none that may start; empty: none is kept")
	c.Flags().StringVar(&zone, "zone", "", "where the clock on its wall is, as Europe/Berlin or +02:00: rollouts with hours go by it; empty: it does not say")
	c.Flags().StringVar(&busy, "busy", "", "file that is there while an update should not break off what the device is at: one that is told softly waits for it until its grace is over; empty: never")
	c.Flags().TextVar(&level, "log-level", level, "debug, info, warn or error")
	c.Flags().BoolVar(&asJSON, "log-json", false, "log JSON")
	return c
}

// unknown are the flags of a call that flags does not have.
func unknown(flags *pflag.FlagSet, args []string) (out []string) {
	for _, arg := range args {
		name, long := strings.CutPrefix(arg, "--")
		if name, _, _ = strings.Cut(name, "="); long && name != "" && flags.Lookup(name) == nil {
			out = append(out, "--"+name)
		}
	}
	return out
}

var (
	// errReset says that the machine has to be restarted.
	errReset = errors.New("the device starts again: restart the machine")
	// errRefused says that the next start would be refused as this one was: no restart helps.
	errRefused = errors.New("a restart changes nothing")
)

// run is the device's process, whichever stage it is in: it begins as the ROM, which gives way to the boot manager, which goes on as the agent.
func run(ctx context.Context, p *plug, at place, prove, recovery string, o machine.Options) error {
	stage, err := rom.Inherited()
	if err != nil { // the two files do not go together
		return fmt.Errorf("%w (%w)", err, errRefused)
	}
	if stage == nil {
		return first(p, at, recovery)
	}
	err = power(ctx, at, prove, recovery, stage.Handoff, o)
	switch {
	case errors.Is(err, agent.ErrReset) && !errors.Is(err, errReset):
		if p.leave() {
			return nil
		}
		o.Logger.Info("reset")
		return stage.Reset()
	case errors.Is(err, agent.ErrOver):
		o.Logger.Info("the device's life is over")
		return nil
	}
	return err
}

// first is the first stage of a start. It has the board without its keys, and ends by becoming the next one, or with what only it may use closed.
func first(p *plug, at place, recovery string) error {
	b, err := at.rom()
	if err != nil {
		return errors.Join(err, at.lock())
	}
	image, h, err := measured(b.Board, recovery)
	switch {
	case b.real && errors.Is(err, hw.ErrLocked): // what is locked until a reset shows that there was none
		err = fmt.Errorf("%w: it was started once already: %w", errReset, err)
	case errors.Is(err, wire.ErrBootManager) || errors.Is(err, boot.ErrDead):
		err = fmt.Errorf("%w (%w)", unborn(at.dir, err), errRefused)
	}
	if err = errors.Join(err, b.close()); err != nil {
		return err
	}
	defer func() { _ = image.Close() }() // what is wrong is that it was not executed
	if p.leave() {
		return nil
	}
	return image.Become(h)
}

// measured is what the ROM does: it gives the boot manager that may start, as it will run, and what that begins with.
func measured(b *hw.Board, recovery string) (*rom.Image, boot.Handoff, error) {
	r, err := boot.NewROM(b)
	if err != nil {
		return nil, boot.Handoff{}, err
	}
	image, err := admitted(r, recovery)
	if err != nil {
		r.Close()
		return nil, boot.Handoff{}, err
	}
	h, err := r.Hand(image.Digest)
	return image, h, err
}

// admitted gives the program's own file; where that may not start, the one that is kept for it.
func admitted(r *boot.ROM, recovery string) (*rom.Image, error) {
	if recovery == "" {
		return admit(r, "/proc/self/exe")
	}
	if err := r.Restore(believed(recovery)); err != nil {
		return nil, err
	}
	image, err := admit(r, "/proc/self/exe")
	if err == nil || errors.Is(err, hw.ErrPowerCut) {
		return image, err
	}
	image, other := admit(r, recovery)
	if other != nil {
		return nil, fmt.Errorf("nothing is started: %w; %s: %w: install a hallmark-agent that the trust bundle names", err, recovery, other)
	}
	r.Note("started by the boot manager that was kept: " + err.Error())
	return image, nil
}

func admit(r *boot.ROM, path string) (*rom.Image, error) {
	image, err := rom.Seal(path)
	if err != nil {
		return nil, err
	}
	if err := r.Admit(image.Digest); err != nil {
		return nil, errors.Join(err, image.Close())
	}
	return image, nil
}

// trustCopy is what the name of a boot manager that is kept has behind it where whom the device believes lies once more, for when its flash has lost that.
const trustCopy = ".trust"

// believed reads that copy; none is nobody.
func believed(recovery string) []byte {
	f, err := os.Open(recovery + trustCopy)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, wire.MaxTrust+1))
	if err != nil {
		return nil
	}
	return b
}

// keep has this boot manager kept, which has come as far as this: for when the file that is started next may not. It is kept also while any file may: the day
// that this ends it is too late.
func keep(recovery string) error {
	if recovery == "" {
		return nil
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	return replace(recovery, self)
}

// replace writes a file as a whole, or leaves the one that is there; one that is the same stays.
func replace(path string, from io.ReadSeeker) error {
	want, have := sha256.New(), sha256.New()
	if _, err := io.Copy(want, from); err != nil {
		return err
	}
	if f, err := os.Open(path); err == nil {
		_, err = io.Copy(have, f)
		if err = errors.Join(err, f.Close()); err == nil && bytes.Equal(want.Sum(nil), have.Sum(nil)) {
			return nil
		}
	}
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// power is the boot manager and the agent, until the device resets or is switched off.
func power(ctx context.Context, at place, prove, recovery string, h boot.Handoff, o machine.Options) (err error) {
	b, err := at.powerOn()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	m, err := machine.Begin(b.Board, h)
	if errors.Is(err, boot.ErrElsewhere) {
		return fmt.Errorf("%w: %w", errReset, err)
	}
	if err != nil {
		return err
	}
	for _, e := range m.Boot().Report().Events {
		o.Logger.Info("measured", "by", e.Stage, "what", e.Kind, "sha256", hex.EncodeToString(e.Digest), "text", e.Text)
	}
	if err := keep(recovery); err != nil {
		o.Logger.Error("the boot manager is not kept", "error", err)
	}
	if recovery != "" {
		o.Trusted = func(record []byte) {
			if err := replace(recovery+trustCopy, bytes.NewReader(record)); err != nil {
				o.Logger.Error("the trust bundle is not copied", "error", err)
			}
		}
	}
	if prove != "" {
		door, err := new(net.ListenConfig).Listen(ctx, "tcp", prove)
		if err != nil {
			return fmt.Errorf("--prove: %w", err)
		}
		defer door.Close()
		o.Logger.Info("proves itself to whoever asks", "at", door.Addr())
		o.Door, _ = door.(*net.TCPListener)
	}
	d, err := m.Device(o) //nolint:contextcheck // what programs keep is measured for as long as they run
	if err != nil {
		return err
	}
	defer d.Stop()
	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	disarm, err := watch(watching, b, d, o.Logger)
	if err != nil {
		return err
	}
	err = serve(ctx, d, at.dir)
	if b.real && errors.Is(err, agent.ErrReset) { // armed still: a machine that hangs on its way down is reset too
		return fmt.Errorf("%w: %w", errReset, err)
	}
	return errors.Join(err, disarm())
}

// serve runs the device with its socket.
func serve(ctx context.Context, d *machine.Device, dir string) error {
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
	return errors.Join(d.Run(ctx), l.Close(), <-served) // the last answer is given before the device is gone
}
