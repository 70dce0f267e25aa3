package boot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hallmark-iot/hallmark/agent/boot/nvm"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// ErrOTP says that this product's software is fixed for life: replace the device.
var ErrOTP = errors.New("the software of this device is fixed for life (OTP): replace the device")

// idle is the slot that an update may be written to.
func (m *Manager) idle(c control) Slot {
	if !c.Valid {
		return c.Active
	}
	return c.Active.other()
}

// ErrBytes says that all of a component came, twice, and both times it was not what was signed.
var ErrBytes = errors.New("not the bytes that were signed")

// Stage brings a release into the idle slot and verifies it there. Broken off and called again, it goes on. progress may be nil.
func (m *Manager) Stage(ctx context.Context, env []byte, src Source, progress func(done, of uint64)) error {
	rel, digest, err := m.authoriseEnvelope(env)
	if err != nil {
		return err
	}
	c, err := m.flash.loadControl()
	if err != nil {
		return err
	}
	switch {
	case c.Wiping:
		return fmt.Errorf("%w: its end has begun", ErrDead)
	case c.Trial || m.rep.Trial:
		return errors.New("a release is on trial: confirm or revert it first")
	case rel.Model == wire.ModelOTP && c.Valid:
		return ErrOTP
	case bytes.Equal(c.Staged, digest[:]):
		return nil
	}
	if err := m.flash.Room().Takes(rel); err != nil {
		return err
	}
	in := staging{m: m, slot: m.idle(c), env: env, rel: rel, digest: digest, src: src, progress: progress}
	if in.laid, err = m.imageMay(rel, c); err != nil {
		return err
	}
	passes := 2
	if bytes.Equal(c.Staging, digest[:]) {
		passes++ // the first one only goes on with what is there
	}
	for range passes {
		if err = in.run(ctx, &c); !errors.Is(err, ErrBytes) {
			break
		}
		c.Staging = nil // what lies there is of no use: begin anew
	}
	if err != nil {
		return err
	}
	c.Staged, c.Staging = digest[:], nil
	return m.flash.saveControl(c)
}

// ErrNotStaged says that a release is not here whole, or was tried already and failed.
var ErrNotStaged = errors.New("not staged")

// Activate makes the staged release the one to try at the next start.
func (m *Manager) Activate(digest [32]byte) error {
	c, err := m.flash.loadControl()
	if err != nil {
		return err
	}
	if !bytes.Equal(c.Staged, digest[:]) {
		return fmt.Errorf("release %x: %w", digest, ErrNotStaged)
	}
	c.Trial, c.Tries = true, maxTries
	if err := m.flash.saveControl(c); err != nil {
		return err
	}
	return m.direct(m.idle(c), true)
}

// Confirm ends the trial of the running release for good; only now does the security counter rise. Again changes nothing.
func (m *Manager) Confirm() error {
	if m.rep.Release == nil {
		return errors.New("nothing runs")
	}
	c, err := m.flash.loadControl()
	if err != nil {
		return err
	}
	if m.rep.Trial {
		c.Active, c.Valid, c.Trial, c.Tries, c.Staged = m.rep.Slot, true, false, 0, nil
		if err := m.flash.saveControl(c); err != nil {
			return err
		}
		m.rep.Trial = false
		if err := m.direct(m.rep.Slot, false); err != nil {
			return err
		}
	}
	return m.burn(max(m.rep.Counter, m.rep.Release.Counter))
}

// Revert gives the trial up: the next start runs the release before.
func (m *Manager) Revert() error {
	c, err := m.flash.loadControl()
	if err != nil {
		return err
	}
	if !c.Trial && !m.rep.Trial {
		return nil
	}
	if err := m.endTrial(&c); err != nil || !c.Valid {
		return err
	}
	return m.direct(c.Active, false)
}

// Component opens the bytes of a component of what runs.
func (m *Manager) Component(name string) (*io.SectionReader, wire.Component, error) {
	if m.rep.Release == nil {
		return nil, wire.Component{}, errors.New("nothing runs: recovery")
	}
	for i, c := range m.rep.Release.Components {
		if c.Name == name {
			return m.set.component(*m.rep.Release, i), c, nil
		}
	}
	return nil, wire.Component{}, fmt.Errorf("no component %q", name)
}

// Erase clears code and parameters, and reads back that they are gone; identity, trust bundle, the agent's memory and log stay for the
// receipt. It names the areas, and the banks that remain until the end. Broken off and called again, it goes on; nothing starts any more once it has begun.
func (m *Manager) Erase() (names, remains []string, err error) {
	c, err := m.flash.loadControl()
	if err != nil {
		return nil, nil, err
	}
	c.Wiping, c.Trial = true, false
	if err := m.flash.saveControl(c); err != nil {
		return nil, nil, err
	}
	for _, part := range []struct {
		name   string
		region hw.Region
	}{{"slot-A", m.flash.slots[SlotA]}, {"slot-B", m.flash.slots[SlotB]}, {"pool", m.flash.pool}} {
		if err := part.region.EraseAll(); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", part.name, err)
		}
		names = append(names, part.name)
	}
	for _, cell := range []*nvm.Cell{m.flash.basic, m.flash.params} {
		if err := cell.Wipe(); err != nil {
			return nil, nil, fmt.Errorf("parameters: %w", err)
		}
	}
	if s := m.board.Sealer; s != nil {
		if err := s.Destroy(); err != nil {
			return nil, nil, fmt.Errorf("parameters: %w", err)
		}
	}
	names = append(names, "parameters")
	if m.board.Banks == nil {
		return names, nil, nil
	}
	cleared, remains, err := m.clearOther()
	return append(names, cleared...), remains, err
}

// clearOther clears the bank that the machine does not run from. What cannot be done remains, and is said: keys and all else go, whatever becomes of it.
func (m *Manager) clearOther() (cleared, remains []string, err error) {
	banks := m.board.Banks
	started, err := banks.Started()
	if err != nil {
		m.note("banks are not cleared: %v", err)
		return nil, []string{bankName(hw.BankA), bankName(hw.BankB)}, nil
	}
	// A boot loader on trial would go back there, and the device never come to its last word.
	told, err := banks.Told()
	if err == nil && !told.Says(started, false) {
		err = banks.Tell(started, false)
	}
	if err == nil {
		err = banks.Clear(started.Other())
	}
	switch {
	case errors.Is(err, hw.ErrPowerCut):
		return nil, nil, err
	case err != nil:
		m.note("not cleared: %v", err)
		return nil, []string{bankName(started.Other()), bankName(started)}, nil
	}
	return []string{bankName(started.Other())}, []string{bankName(started)}, nil
}

func bankName(b hw.Bank) string { return "bank-" + b.String() }

// End clears what is left and burns the life cycle; last, the bank that the machine runs from. The device never starts again: broken off, the next start goes on with it.
func (m *Manager) End() error {
	c, err := m.flash.loadControl()
	if err != nil {
		return err
	}
	c.Wiping, c.Ending = true, true
	if err := m.flash.saveControl(c); err != nil {
		return err
	}
	for _, cell := range []interface{ Wipe() error }{m.flash.memory, m.flash.bundle, m.flash.identity} {
		if err := cell.Wipe(); err != nil {
			return err
		}
	}
	if err := m.flash.log.EraseAll(); err != nil {
		return err
	}
	if err := m.board.Fuses.Advance(hw.Decommissioned); err != nil {
		return err
	}
	return m.clearBanks()
}

// clearBanks clears the machine's banks, that which it runs from last.
func (m *Manager) clearBanks() error {
	if m.board.Banks == nil {
		return nil
	}
	started, err := m.board.Banks.Started()
	if err != nil {
		return err
	}
	return errors.Join(m.board.Banks.Clear(started.Other()), m.board.Banks.Clear(started))
}
