package boot

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hallmark-iot/hallmark/agent/boot/nvm"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// maxTries is how many starts a release on trial gets.
const maxTries = 3

// Manager is the boot manager of one start of a board. It is for one goroutine at a time.
type Manager struct {
	board *hw.Board
	flash *Flash
	self  [32]byte // digest of the boot manager itself
	rep   Report
	cdi   []byte // compound device identifier of the next stage; never leaves
	set   set    // what runs
	trust trustRecord

	markKey   []byte // of trustRecord.Mark; never leaves
	paramsKey []byte // likewise, of the parameters

	opens func(ctx context.Context, sealed io.Reader, c wire.Component) (io.Reader, error) // of a protected image, what the installer gets; nil: nothing does
}

// Report is what a start found and did.
type Report struct {
	Identity  Identity
	Root      [32]byte    // digest of the root role in the fuses
	Bundle    wire.Bundle // version 0: it was lost
	Home      *wire.Home  // where it was handed to; nil: it is where the factory sent it
	Homes     int         // how often it was handed to another home, by its counter in hardware
	Lifecycle hw.Lifecycle
	Debug     bool // locked
	BootCount uint64
	Counter   uint32 // security counter in the fuses
	POST      []wire.TestResult
	Slot      Slot
	Release   *wire.Release // what runs; nil: recovery
	Digest    [32]byte
	Trial     bool
	Notes     []string // fall-backs and repairs, for the device's log
	Events    []wire.BootEvent
	Seed      [32]byte // fresh at each start
}

// ErrDead says that the device cannot start at all: its fuses or its boot control cannot be read, or its life is over.
var ErrDead = errors.New("the device does not start")

// Start is a reset whose stages are one process: ROM, then boot manager. self is the digest of the boot manager's own code.
func Start(board *hw.Board, self [32]byte) (*Manager, error) {
	r, err := NewROM(board)
	if err != nil {
		return nil, err
	}
	if err := r.Admit(self); err != nil {
		r.Close()
		return nil, fmt.Errorf("%w: %w", ErrDead, err)
	}
	h, err := r.Hand(self)
	if err != nil {
		return nil, err
	}
	return Begin(board, h)
}

// Begin is the boot manager, which has what the ROM handed to it. A device with nothing it may run still starts, in recovery: Report.Release is nil.
func Begin(board *hw.Board, h Handoff) (*Manager, error) {
	board.Fuses.LockFixed() // as it is already where the lock outlasts a process
	flash, err := Arrange(board.Flash)
	if err != nil {
		return nil, err
	}
	m := &Manager{
		board: board, flash: flash, self: [32]byte(h.Code), cdi: h.CDI, markKey: h.MarkKey, paramsKey: h.ParamsKey,
		rep: Report{
			Root: [32]byte(h.Root), Lifecycle: h.Lifecycle, Debug: h.Debug, BootCount: h.BootCount, Counter: h.Counter, POST: h.POST, Notes: h.Notes, Events: h.Events,
		},
	}
	if _, err := io.ReadFull(board.Random, m.rep.Seed[:]); err != nil {
		return nil, fmt.Errorf("boot seed: %w", err)
	}
	for _, step := range []func() error{m.identity, m.believed, m.tests, m.choose, m.measure} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Manager) tests() error { return m.selfTest([]test{{TestKeys, m.signs}}) }

// record adds a line to the log of this start.
func (m *Manager) record(stage, kind string, digest [32]byte, text string) {
	m.rep.Events = append(m.rep.Events, wire.BootEvent{Stage: stage, Kind: kind, Digest: digest[:], Text: text})
}

// Report gives what this start found.
func (m *Manager) Report() Report { return m.rep }

// Flash gives the arrangement of the flash, for the agent's own areas.
func (m *Manager) Flash() *Flash { return m.flash }

func (m *Manager) note(format string, args ...any) {
	m.rep.Notes = append(m.rep.Notes, fmt.Sprintf(format, args...))
}

func (m *Manager) count() error {
	n, err := m.board.Boots.Value()
	if err != nil {
		return err
	}
	if err := m.board.Boots.Raise(n + 1); err != nil {
		return err
	}
	m.rep.BootCount = n + 1
	return nil
}

func (m *Manager) fuses() error {
	f := m.board.Fuses
	repaired, err := f.Repair()
	if err != nil {
		return err
	}
	if repaired {
		m.note("fuses: completed what a power cut broke off")
	}
	if m.rep.Lifecycle, err = f.Lifecycle(); err != nil {
		return err
	}
	if m.rep.Lifecycle == hw.Decommissioned {
		return errors.Join(fmt.Errorf("%w: it is decommissioned", ErrDead), m.clearBanks()) // a cut may have come before all of them were
	}
	if m.rep.Debug, err = f.DebugLocked(); err != nil {
		return err
	}
	if m.rep.Lifecycle == hw.Secured && !m.rep.Debug { // the last step of birth: a power cut came before it
		if err := f.LockDebug(); err != nil {
			return err
		}
		m.rep.Debug = true
		m.note("fuses: closed the debug port, which birth had left open")
	}
	m.rep.Counter, err = f.SecurityCounter()
	return err
}

// ended completes an end that a power cut broke off, whatever is left by then.
func (m *Manager) ended() error {
	c, err := m.flash.loadControl()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDead, err)
	}
	if !c.Ending {
		return nil
	}
	return errors.Join(fmt.Errorf("%w: it is decommissioned", ErrDead), m.End())
}

func (m *Manager) identity() (err error) {
	m.rep.Identity, err = m.flash.LoadIdentity()
	if errors.Is(err, nvm.ErrEmpty) {
		return fmt.Errorf("%w: it was not made in a factory yet: %w", ErrDead, err)
	}
	return err
}

// believed checks the trust bundle: the fuses vouch for its root, and a version below the counter is not believed any more. A board whose
// bundle is gone or not believed starts nothing, but it starts: its fuses still say whom it believed first, and the agent can fetch what
// was signed since.
func (m *Manager) believed() error {
	least, err := m.board.Trust.Value()
	if err != nil {
		return err
	}
	m.rep.Homes = int(least >> eraBits)
	data, err := m.flash.bundle.Load()
	if hard(err) {
		return err
	}
	var t trustRecord
	if err == nil {
		t, err = parseTrustRecord(data)
	}
	var b wire.Bundle
	var home *wire.Home
	if err == nil {
		b, home, err = m.believe(t)
	}
	if err != nil {
		m.note("no trust bundle: %v", err)
		return nil
	}
	m.trust, m.rep.Bundle, m.rep.Home, m.rep.Homes = t, b, home, len(t.Moves)
	return m.board.Trust.Raise(inEra(len(t.Moves), b.Version)) // a cut may have come between keeping the bundle and this
}

// found is a set that was authorised.
type found struct {
	set    set
	rel    wire.Release
	digest [32]byte
}

// authorise checks everything about the release in a slot: signatures, product, hardware, counters, whether it goes together, bytes, and whether
// the machine was started from its image.
func (m *Manager) authorise(s Slot, trial bool) (found, error) {
	st, err := m.flash.load(s)
	if err != nil {
		return found{}, err
	}
	rel, digest, err := m.authoriseEnvelope(st.env)
	if err != nil {
		return found{}, err
	}
	if err := st.fits(rel); err != nil {
		return found{}, err
	}
	if err := st.checkBytes(rel); err != nil {
		return found{}, err
	}
	return found{set: st, rel: rel, digest: digest}, m.startedFrom(rel, trial)
}

func (m *Manager) authoriseEnvelope(env []byte) (wire.Release, [32]byte, error) {
	rel, digest, err := m.released(m.rep.Bundle, env)
	if err != nil {
		return wire.Release{}, [32]byte{}, err
	}
	if !rel.RunsOn(m.board.Revision) {
		return wire.Release{}, [32]byte{}, fmt.Errorf("release %s is for hardware %v, this is %s", rel.Version, rel.Hardware, m.board.Revision)
	}
	if rel.Counter < m.rep.Counter {
		return wire.Release{}, [32]byte{}, fmt.Errorf("%w: security counter %d, the fuses say %d", wire.ErrRollback, rel.Counter, m.rep.Counter)
	}
	if rel.Counter > hw.CounterMax {
		return wire.Release{}, [32]byte{}, fmt.Errorf("release %s: %w", rel.Version, hw.ErrCounterExhausted)
	}
	if _, ok := rel.Image(); ok && m.board.Banks == nil {
		return wire.Release{}, [32]byte{}, fmt.Errorf("release %s: %w", rel.Version, ErrNoBanks)
	}
	if err := rel.Compatible(); err != nil { // one that was kept was not looked at for this
		return wire.Release{}, [32]byte{}, fmt.Errorf("release %s: %w", rel.Version, err)
	}
	return rel, digest, nil
}

// choose decides what runs: the release on trial while it has tries, else the confirmed one, else nothing.
func (m *Manager) choose() error {
	c, err := m.flash.loadControl()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDead, err)
	}
	if c.Wiping {
		m.note("the end of this device has begun: nothing is started")
		return nil
	}
	for _, t := range m.rep.POST {
		if !t.Passed {
			m.note("self test %s failed: nothing is started", t.Name)
			return nil
		}
	}
	if c.Trial {
		started, err := m.tryTrial(&c)
		if err != nil || started {
			return err
		}
	}
	if !c.Valid {
		m.note("no release is installed")
		return nil
	}
	f, err := m.authorise(c.Active, false)
	if hard(err) {
		return err
	}
	if err != nil {
		m.note("slot %s is not started: %v", c.Active, err)
		return nil
	}
	m.run(c.Active, f, false)
	if f.rel.Counter > m.rep.Counter { // a power cut came between confirming and burning
		return m.burn(f.rel.Counter)
	}
	return nil
}

// tryTrial starts the release on trial; its try is counted before it runs, so that one that never comes back is given up.
func (m *Manager) tryTrial(c *control) (bool, error) {
	slot := c.Active.other()
	if !c.Valid {
		slot = c.Active
	}
	if c.Tries == 0 {
		m.note("slot %s used up its tries: back to the release before", slot)
		return false, m.endTrial(c)
	}
	f, err := m.authorise(slot, true)
	if hard(err) {
		return false, err
	}
	if err != nil {
		m.note("slot %s is not tried: %v", slot, err)
		return false, m.endTrial(c)
	}
	c.Tries--
	if err := m.flash.saveControl(*c); err != nil {
		return false, err
	}
	m.run(slot, f, true)
	return true, nil
}

// endTrial gives a release up: what has failed is not staged any more, so that whoever asks to try it has to bring it again.
func (m *Manager) endTrial(c *control) error {
	c.Trial, c.Tries, c.Staged = false, 0, nil
	return m.flash.saveControl(*c)
}

// hard reports errors that say nothing about the release.
func hard(err error) bool { return errors.Is(err, hw.ErrPowerCut) || errors.Is(err, ErrElsewhere) }

func (m *Manager) run(s Slot, f found, trial bool) {
	m.set = f.set
	m.rep.Slot, m.rep.Release, m.rep.Digest, m.rep.Trial = s, &f.rel, f.digest, trial
}

func (m *Manager) burn(counter uint32) error {
	if err := m.board.Fuses.RaiseSecurityCounter(counter); err != nil {
		return err
	}
	m.rep.Counter = counter
	return nil
}

// measure derives the next stage's identifier from this one's, which nobody needs behind that.
func (m *Manager) measure() error {
	m.record(wire.StageBoot, wire.EventRelease, m.rep.Digest, m.running())
	m.cdi = layer(m.cdi, m.rep.Digest)
	return nil
}

// running names what runs.
func (m *Manager) running() string {
	if m.rep.Release == nil {
		return "recovery"
	}
	return m.rep.Release.Version
}

// Measure reads what is in the running slot now and hashes it. A component that differs from its release is measured as it is.
func (m *Manager) Measure() ([]wire.Measured, error) {
	signer, err := wire.RootDigest(m.rep.Bundle)
	if err != nil {
		return nil, err
	}
	out := []wire.Measured{{Type: "BL", Value: m.self[:], Version: "1", SignerID: signer[:], Description: "boot manager"}}
	st, rel := m.set, m.rep.Release
	if rel == nil { // recovery: say what lies there, whatever it is
		c, err := m.flash.loadControl()
		if err != nil {
			return nil, err
		}
		if st, err = m.flash.load(c.Active); err != nil {
			return out, nil //nolint:nilerr // nothing is there, and so nothing is measured: the verifier sees that
		}
		found, err := st.manifest()
		if err != nil {
			return out, nil //nolint:nilerr // what is there is no release
		}
		rel = &found
	}
	for i, c := range rel.Components {
		var sum [32]byte
		if c.Kind == wire.KindImage {
			sum, err = m.measureBank(*c.Laid)
		} else {
			sum, err = hashOf(st.component(*rel, i))
		}
		if err != nil {
			return nil, err
		}
		out = append(out, wire.Measured{Type: "App", Value: sum[:], Version: rel.Version, SignerID: signer[:], Description: c.Name})
	}
	return out, nil
}
