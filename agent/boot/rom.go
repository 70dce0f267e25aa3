package boot

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"

	"github.com/fxamacker/cbor/v2"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// ROM is the first stage of a start, which on a chip nobody can change. It has the fuses with all they hold, the counters, and of the flash what says whom to
// believe; no key (but at the first start of what a probe has made) and no network. It tests the parts that it relies on, measures the boot manager, derives from the unique secret what the boot manager is
// to have, and closes the secret until the next reset.
type ROM struct {
	m   *Manager
	how string // why what is started may be
	by  [32]byte
}

// NewROM is a reset. An error leaves the secret closed: nothing is started.
func NewROM(board *hw.Board) (*ROM, error) {
	flash, err := Arrange(board.Flash)
	if err != nil {
		board.Fuses.LockFixed()
		return nil, err
	}
	r := &ROM{m: &Manager{board: board, flash: flash}}
	for _, step := range []func() error{r.m.count, r.m.fuses, r.m.ended, r.m.takeUp, r.m.identity, r.root, r.trusted, r.tests} {
		if err := step(); err != nil {
			board.Fuses.LockFixed()
			return nil, err
		}
	}
	return r, nil
}

func (r *ROM) root() (err error) {
	if r.m.rep.Root, err = r.m.board.Fuses.Root(); err != nil {
		return fmt.Errorf("%w: root in the fuses: %w", ErrDead, err)
	}
	return nil
}

// trusted finds whom the device believes. What is wrong with that the boot manager finds again, and says.
func (r *ROM) trusted() error {
	secret, err := r.m.board.Fuses.Secret()
	if err != nil && !errors.Is(err, hw.ErrNotBurned) {
		return err
	}
	defer clear(secret[:])
	r.m.markKey = markKey(secret[:])
	notes := r.m.rep.Notes
	err = r.m.believed()
	r.m.rep.Notes = notes
	return err
}

// Restore takes back whom the board believes, where its flash has lost that, from the copy that lies beside the boot manager that is kept. The copy is
// believed for what it says, and not for where it lies: by the fuses, by this board's own mark, and if nothing was believed since. Where there is no copy, or none
// that is believed, nothing changes.
func (r *ROM) Restore(record []byte) error {
	if r.m.rep.Bundle.Version != 0 || len(record) == 0 {
		return nil
	}
	err := r.m.Restore(record)
	switch {
	case errors.Is(err, hw.ErrPowerCut):
		return err
	case err != nil:
		r.m.note("the copy of the trust bundle is not believed: %v", err)
	default:
		r.m.note("trust bundle %d is back, from its copy", r.m.rep.Bundle.Version)
	}
	return nil
}

// Admit says whether a boot manager, whose code has that digest, may start: whom the root in the fuses leads to has to have signed for it. A bundle that
// names none says nothing, and then any may, on a device that never had a bundle that does: the first time that one does is burned into the fuses, and from
// then on silence is a refusal, and so is a bundle that is lost.
func (r *ROM) Admit(code [32]byte) error {
	demand, err := r.m.board.Fuses.SignedBoot()
	if err != nil {
		return err
	}
	b := r.m.rep.Bundle
	switch {
	case len(b.BootManagers) > 0:
		if err := b.Starts(code, r.m.board.Revision); err != nil {
			return err
		}
		r.how = fmt.Sprintf("signed for in trust bundle %d", b.Version)
		if !demand && r.m.rep.Lifecycle == hw.Secured {
			err = r.m.board.Fuses.DemandSigned()
		}
	case demand:
		if b.Version == 0 {
			return fmt.Errorf("%w: there is no trust bundle, and this device demands one that names %x: bring it back with hallmark-agent recover", wire.ErrBootManager, code)
		}
		return fmt.Errorf("%w: trust bundle %d names none, and this device demands one", wire.ErrBootManager, b.Version)
	default:
		r.how = "nobody has signed for it"
	}
	r.by = code
	return err
}

func (r *ROM) tests() error {
	return r.m.selfTest([]test{
		{TestSHA256, knownSHA256},
		{TestECDSA, knownECDSA},
		{TestAES, knownAES},
		{TestRandom, r.m.randomHealth},
		{TestMemory, r.m.march},
		{TestFuses, r.m.fuseParity},
		{TestFlash, r.m.flashCheck},
		{TestCount, r.m.counters},
	})
}

// Close ends a start that comes to nothing.
func (r *ROM) Close() { r.m.board.Fuses.LockFixed() }

// Note adds what the device's log is to say of this start.
func (r *ROM) Note(text string) { r.m.note("%s", text) }

// Hand measures the boot manager, whose code has that digest and which was admitted, and gives what it begins with. The secret is closed from then on.
func (r *ROM) Hand(code [32]byte) (Handoff, error) {
	defer r.m.board.Fuses.LockFixed()
	m := r.m
	if r.how == "" || r.by != code {
		return Handoff{}, fmt.Errorf("%w: %x was not looked at", wire.ErrBootManager, code)
	}
	secret, err := m.board.Fuses.Secret()
	if err != nil && !errors.Is(err, hw.ErrNotBurned) {
		return Handoff{}, err
	}
	defer clear(secret[:])
	m.record(wire.StageROM, wire.EventBootManager, code, r.how)
	h := Handoff{
		Version: handoffVersion, Code: code[:], CDI: layer(secret[:], code), MarkKey: m.markKey, BootCount: m.rep.BootCount, Lifecycle: m.rep.Lifecycle,
		Debug: m.rep.Debug, Counter: m.rep.Counter, Root: m.rep.Root[:], POST: m.rep.POST, Notes: m.rep.Notes, Events: m.rep.Events,
	}
	h.ParamsKey, err = paramsKey(secret, m.rep.Root, m.rep.Lifecycle, m.rep.Debug)
	return h, err
}

// layer is the identifier of the stage behind the one that has secret, after what was measured of it (DICE).
func layer(secret []byte, measured [32]byte) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write(measured[:])
	return h.Sum(nil)
}

// Handoff is what the boot manager begins with: its own identifier and two keys that depend on the device alone, and what was found before it. The secret
// that they are derived from is not in it.
//
// The two stages may be of different releases of the agent: a file that was upgraded before the bundle names it starts the one that was kept. So what is handed
// over only grows, and a boot manager leaves out what it does not know. The version rises when it may not: then the older one says so and does not go on.
type Handoff struct {
	Version   uint              `cbor:"1,keyasint"`
	Code      []byte            `cbor:"2,keyasint"` // digest of the boot manager
	CDI       []byte            `cbor:"3,keyasint"`
	MarkKey   []byte            `cbor:"4,keyasint"` // of the record of whom the device believes
	ParamsKey []byte            `cbor:"5,keyasint"`
	BootCount uint64            `cbor:"6,keyasint"`
	Lifecycle hw.Lifecycle      `cbor:"7,keyasint"`
	Debug     bool              `cbor:"8,keyasint"` // locked
	Counter   uint32            `cbor:"9,keyasint"`
	Root      []byte            `cbor:"10,keyasint"`
	POST      []wire.TestResult `cbor:"11,keyasint"`
	Notes     []string          `cbor:"12,keyasint"`
	Events    []wire.BootEvent  `cbor:"13,keyasint"`
}

// MaxHandoff bounds an encoded Handoff.
const MaxHandoff = 32 << 10

const (
	handoffVersion = 2
	handoffFields  = 13 // the last that this boot manager knows
)

// Encode writes h.
func (h Handoff) Encode() ([]byte, error) {
	b, err := wire.Marshal(h)
	if err == nil && len(b) > MaxHandoff {
		err = fmt.Errorf("handoff of %d bytes, at most %d", len(b), MaxHandoff)
	}
	return b, err
}

// DecodeHandoff reads what Encode wrote, here or in a later release.
func DecodeHandoff(data []byte) (Handoff, error) {
	h, err := knownHandoff(data)
	if err != nil {
		return Handoff{}, fmt.Errorf("handoff: %w", err)
	}
	for _, b := range [][]byte{h.Code, h.CDI, h.MarkKey, h.ParamsKey, h.Root} {
		if len(b) != sha256.Size {
			return Handoff{}, errors.New("handoff: a value of another size")
		}
	}
	if h.Lifecycle < hw.Assembly || h.Lifecycle > hw.Decommissioned || h.Counter > hw.CounterMax {
		return Handoff{}, errors.New("handoff: values out of bounds")
	}
	return h, wire.CheckEvents(h.Events)
}

// knownHandoff leaves out what this boot manager does not know. The version is looked at first: in another one nothing else need be what it is here.
func knownHandoff(data []byte) (h Handoff, err error) {
	var all map[uint64]cbor.RawMessage
	if err := wire.Unmarshal(data, &all, MaxHandoff); err != nil {
		return h, err
	}
	if err := wire.Unmarshal(all[1], &h.Version, MaxHandoff); err != nil {
		return h, fmt.Errorf("version: %w", err)
	}
	if h.Version != handoffVersion {
		return h, fmt.Errorf("version %d, this boot manager takes %d: the file that was started and the one it starts are of releases that do not go together: install the hallmark-agent that the trust bundle names",
			h.Version, handoffVersion)
	}
	maps.DeleteFunc(all, func(key uint64, _ cbor.RawMessage) bool { return key > handoffFields })
	if data, err = wire.Marshal(all); err != nil {
		return h, err
	}
	return h, wire.Unmarshal(data, &h, MaxHandoff)
}
