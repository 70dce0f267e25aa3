// Package machine joins the boot manager, the programs and the agent into one device.
//
// Stage 3, field, on the device. It decides nothing: it says to the agent what the boot manager found, and to the boot manager
// what the agent decided. It trusts both.
package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/boot/nvm"
	"github.com/hallmark-iot/hallmark/agent/boot/params"
	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/wire"
)

// Machine is a started device. It implements agent.Machine, agent.Eraser and agent.Store.
type Machine struct {
	board *hw.Board
	boot  *boot.Manager

	programs *Programs       // of what runs; nil: none were started here
	out      bool            // they could not be started
	launch   *launch.Options // of the programs; nil: nothing was launched

	copied func(record []byte) // is told whom the board believes; nil: nobody is

	data     map[string]*launch.Data  // that programs read; programs and the start of them take turns
	channels map[talk]*launch.Channel // between them
	codeKeys codeKeys
}

// over is a machine of a board that has been started.
func over(board *hw.Board, b *boot.Manager) *Machine {
	m := &Machine{board: board, boot: b}
	b.Opens(m.image)
	return m
}

// Start starts a board, with all stages in this process; self is the digest of this program.
func Start(board *hw.Board, self [32]byte) (*Machine, error) {
	m, err := boot.Start(board, self)
	if err != nil {
		return nil, err
	}
	return over(board, m), nil
}

// Begin goes on from what the stage before this process has handed over.
func Begin(board *hw.Board, h boot.Handoff) (*Machine, error) {
	m, err := boot.Begin(board, h)
	if err != nil {
		return nil, err
	}
	return over(board, m), nil
}

// Boot gives the boot manager.
func (m *Machine) Boot() *boot.Manager { return m.boot }

// Facts implements agent.Machine.
func (m *Machine) Facts() agent.Facts {
	r := m.boot.Report()
	f := agent.Facts{
		Device: r.Identity.Device, Product: r.Identity.Product, Hardware: m.board.Revision, Lifecycle: psa(r.Lifecycle),
		DebugLocked: r.Debug, Virtual: m.board.Virtual, BootCount: r.BootCount, Fuses: r.Counter, POST: r.POST, Bundle: r.Bundle, Home: r.Home, Homes: r.Homes,
		Trial: r.Trial, Slot: r.Slot.String(), Notes: r.Notes, BootSeed: r.Seed[:], Model: r.Identity.Model, Root: r.Root, Parts: m.board.Parts, KeyOrigin: r.Identity.Origin,
		Room: m.boot.Flash().Room(),
	}
	if r.Release != nil {
		f.Current = &gate.Installed{Digest: r.Digest, Release: *r.Release}
	}
	name := "hallmark-linux"
	if m.board.Virtual {
		name = wire.VirtualImplementation
	}
	copy(f.Implementation[:], name)
	return f
}

func psa(l hw.Lifecycle) uint {
	switch l {
	case hw.Secured:
		return wire.LifecycleSecured
	case hw.Decommissioned:
		return wire.LifecycleDecommissioned
	case hw.Assembly:
	}
	return wire.LifecycleAssembly
}

// Measure implements agent.Machine.
func (m *Machine) Measure() ([]wire.Measured, error) { return m.boot.Measure() }

// Stage implements agent.Machine.
func (m *Machine) Stage(ctx context.Context, release []byte, fetch agent.Fetch, progress func(done, of uint64)) error {
	if err := m.startable(release); err != nil {
		return fmt.Errorf("%w: %w", agent.ErrUnfit, err)
	}
	err := m.boot.Stage(ctx, release, boot.Source(fetch), progress)
	if errors.Is(err, wire.ErrNoRoom) || errors.Is(err, boot.ErrOTP) || errors.Is(err, wire.ErrIncompatible) || errors.Is(err, hw.ErrCounterExhausted) ||
		errors.Is(err, boot.ErrNoBanks) || errors.Is(err, boot.ErrImage) || errors.Is(err, boot.ErrInstall) || errors.Is(err, boot.ErrBytes) ||
		errors.Is(err, wire.ErrThreshold) || errors.Is(err, wire.ErrRollback) { // by the trust bundle that is in force by now
		return fmt.Errorf("%w: %w", agent.ErrUnfit, err)
	}
	return err
}

// Running implements agent.Readable. Of an image nothing is as it was delivered.
func (m *Machine) Running(digest []byte) (io.ReaderAt, bool) {
	r := m.boot.Report().Release
	if r == nil {
		return nil, false
	}
	i := slices.IndexFunc(r.Components, func(c wire.Component) bool { return c.Kind != wire.KindImage && bytes.Equal(c.Digest, digest) })
	if i < 0 {
		return nil, false
	}
	area, _, err := m.boot.Component(r.Components[i].Name)
	return area, err == nil
}

// Activate implements agent.Machine.
func (m *Machine) Activate(digest [32]byte) error {
	err := m.boot.Activate(digest)
	if errors.Is(err, boot.ErrNotStaged) {
		return fmt.Errorf("%w: %w", agent.ErrNotStaged, err)
	}
	return err
}

// Confirm implements agent.Machine.
func (m *Machine) Confirm() error { return m.boot.Confirm() }

// Revert implements agent.Machine.
func (m *Machine) Revert() error { return m.boot.Revert() }

// Switch implements agent.Switcher. A program that is in both sets goes on; the others end, and those of the new set are started.
func (m *Machine) Switch() (bool, error) {
	if m.out {
		return false, nil
	}
	if m.programs == nil {
		return m.boot.Switch()
	}
	m.programs.mu.Lock() // nothing is started from what is being exchanged
	defer m.programs.mu.Unlock()
	done, err := m.boot.Switch()
	if done {
		m.programs.replace(m.list(*m.launch))
		err = errors.Join(err, m.keep(m.boot.Report().Release))
	}
	return done, err
}

// SetBundle implements agent.Machine.
func (m *Machine) SetBundle(envelopes ...[]byte) error {
	return m.believes(m.boot.SetBundle(envelopes...))
}

// believes follows a change of whom the board believes.
func (m *Machine) believes(changed error) error {
	if changed == nil {
		m.copyTrust()
	}
	return changed
}

// copyTrust has whom the board believes copied. Where that fails, a loss of the record costs what it costs without a copy: no reason not to go on.
func (m *Machine) copyTrust() {
	if m.copied == nil {
		return
	}
	if record, err := m.boot.Trusted(); err == nil && record != nil {
		m.copied(record)
	}
}

// MaySet implements agent.Machine.
func (m *Machine) MaySet(envelopes ...[]byte) error { return m.boot.MaySet(envelopes...) }

// Move implements agent.Machine.
func (m *Machine) Move(h wire.Handover) error { return m.believes(m.boot.Move(h)) }

// MayMove implements agent.Machine.
func (m *Machine) MayMove(h wire.Handover) error { return m.boot.MayMove(h) }

// Record implements agent.Homing.
func (m *Machine) Record() ([]byte, error) { return m.boot.Record() }

// Recall implements agent.Homing.
func (m *Machine) Recall(record []byte) (wire.Bundle, error) { return m.boot.Recall(record) }

// Restore implements agent.Homing.
func (m *Machine) Restore(record []byte, envelopes ...[]byte) error {
	return m.believes(m.boot.Restore(record, envelopes...))
}

// Forget implements agent.Machine.
func (m *Machine) Forget() error { return m.boot.Flash().LogRegion().EraseAll() }

// server is where the device calls: where the factory sent it, or where it was handed to.
func (m *Machine) server() string {
	r := m.boot.Report()
	if r.Home != nil {
		return r.Home.Server
	}
	return r.Identity.Params.Servers.Device
}

// Erase implements agent.Eraser.
func (m *Machine) Erase() (erased, remains []string, err error) {
	if erased, remains, err = m.boot.Erase(); err != nil || m.launch == nil {
		return erased, remains, err
	}
	if err := m.Clear(); err != nil {
		return nil, nil, err
	}
	m.codeKeys.forget()
	return append(erased, "programs"), remains, nil
}

// Clear implements agent.Eraser. Programs are stopped before what they keep is removed, so that none writes it again.
func (m *Machine) Clear() error {
	if m.launch == nil { // there is no place where any could have kept something
		return nil
	}
	if m.programs != nil {
		m.programs.Stop()
	}
	if err := m.keep(nil); err != nil {
		return err
	}
	return launch.Erase(m.launch.Dir)
}

// End implements agent.Eraser.
func (m *Machine) End() error { return m.boot.End() }

// Load implements agent.Store.
func (m *Machine) Load() ([]byte, error) {
	b, err := m.boot.Flash().Memory().Load()
	if errors.Is(err, nvm.ErrEmpty) {
		return nil, nil
	}
	return b, err
}

// Save implements agent.Store.
func (m *Machine) Save(record []byte) error { return m.boot.Flash().Memory().Save(record) }

// Params opens the device's parameters.
func (m *Machine) Params() (*params.Store, error) { return m.boot.Params() }

// attestKey is the public attestation key (SPKI).
func (m *Machine) attestKey() ([]byte, error) {
	k, err := m.board.Keys.Signer(hw.KeyAttest)
	if err != nil {
		return nil, fmt.Errorf("attestation key: %w", err)
	}
	return wire.SPKIOf(k.Public())
}
