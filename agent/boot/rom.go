package boot

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// ROM is the first stage of a start, which on a chip nobody can change. It has the fuses with all they hold, the counters, and of the flash what says whom to
// believe; no key (but at the first start of what a probe has made) and no network. It tests the parts that it relies on, measures the boot manager, derives from the unique secret what the boot manager is
// to have, and closes the secret until the next reset.
type ROM struct{ m *Manager }

// NewROM is a reset. An error leaves the secret closed: nothing is started.
func NewROM(board *hw.Board) (*ROM, error) {
	flash, err := Arrange(board.Flash)
	if err != nil {
		return nil, err
	}
	r := &ROM{m: &Manager{board: board, flash: flash}}
	for _, step := range []func() error{r.m.count, r.m.fuses, r.m.ended, r.m.takeUp, r.m.identity, r.root, r.tests} {
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

// Hand measures the boot manager, whose code has that digest, and gives what it begins with. The secret is closed from then on.
func (r *ROM) Hand(code [32]byte) (Handoff, error) {
	defer r.m.board.Fuses.LockFixed()
	m := r.m
	secret, err := m.board.Fuses.Secret()
	if err != nil && !errors.Is(err, hw.ErrNotBurned) {
		return Handoff{}, err
	}
	defer clear(secret[:])
	m.record(wire.StageROM, wire.EventBootManager, code, "")
	h := Handoff{
		Version: handoffVersion, Code: code[:], CDI: layer(secret[:], code), MarkKey: markKey(secret[:]), BootCount: m.rep.BootCount, Lifecycle: m.rep.Lifecycle,
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

const handoffVersion = 1

// Encode writes h.
func (h Handoff) Encode() ([]byte, error) {
	b, err := wire.Marshal(h)
	if err == nil && len(b) > MaxHandoff {
		err = fmt.Errorf("handoff of %d bytes, at most %d", len(b), MaxHandoff)
	}
	return b, err
}

// DecodeHandoff reads what Encode wrote.
func DecodeHandoff(data []byte) (Handoff, error) {
	var h Handoff
	if err := wire.Unmarshal(data, &h, MaxHandoff); err != nil {
		return Handoff{}, fmt.Errorf("handoff: %w", err)
	}
	if h.Version != handoffVersion {
		return Handoff{}, fmt.Errorf("handoff: version %d, this boot manager takes %d: the file that was started and the one it starts are of different releases", h.Version, handoffVersion)
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
