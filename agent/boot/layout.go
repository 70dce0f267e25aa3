// Package boot is the root of trust in software: what runs before the application, and decides whether it may.
//
// Stage 3, field, on the device. ROM code checks the trust bundle against the fuses; the boot manager checks a release against
// the bundle, its bytes against the release, the release against this piece of hardware; then measures and starts it. Updates go
// to the slot that is not running; a release on trial has a few starts to prove itself, and what proves itself raises the
// counter below which nothing starts again. After a power cut at any moment the device starts the old release or the new.
//
// It imports nothing of the server and no network. It trusts the fuses, and the flash to leave other sectors alone.
package boot

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/agent/boot/nvm"
	"github.com/hallmark-iot/hallmark/agent/boot/params"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// Sizes of the areas before the slots, bytes; each is rounded up to whole sectors. Cells have two banks.
const (
	controlSize  = 512
	identitySize = 48 << 10
	bundleSize   = 128 << 10 // with a link for each change of the root role
	memorySize   = 132 << 10
	logSize      = 128 << 10
	slotSize     = maxBody // of each, and two pages
	logSectors   = 5       // at least; devlog needs two for its heads and three for its ring
)

// Slot is one of the two records of a set: a release, and where its components are in the pool. One is in force, and an update is written to the
// other.
type Slot int

// The slots.
const (
	SlotA Slot = 0
	SlotB Slot = 1
)

func (s Slot) String() string { return [...]string{"A", "B"}[s] }

// other is the slot that s is not.
func (s Slot) other() Slot { return 1 - s }

// Flash is the arrangement of a board's flash.
type Flash struct {
	control, identity, bundle, memory *nvm.Cell
	basic, params                     *nvm.Cell // parameters: of the factory, and of the field
	log                               hw.Region
	slots                             [2]hw.Region
	pool                              hw.Region // the bytes of all components
}

// Arrange divides a flash part.
func Arrange(f hw.Flash) (*Flash, error) {
	g := f.Geometry()
	if err := g.Check(); err != nil {
		return nil, err
	}
	var out Flash
	next := int64(0)
	take := func(sectors int64) (hw.Region, error) {
		r, err := hw.NewRegion(f, next, sectors)
		next += sectors
		return r, err
	}
	whole := func(n int64) int64 { return (n + g.Sector - 1) / g.Sector }
	for _, c := range []struct {
		cell **nvm.Cell
		size int64
	}{
		{&out.control, controlSize},
		{&out.identity, identitySize},
		{&out.bundle, bundleSize},
		{&out.memory, memorySize},
		{&out.basic, params.BasicSize},
		{&out.params, params.OperationalSize},
	} {
		r, err := take(2 * whole(c.size+g.Page))
		if err != nil {
			return nil, fmt.Errorf("flash of %d bytes is too small: %w", g.Size, err)
		}
		if *c.cell, err = nvm.New(r); err != nil {
			return nil, err
		}
	}
	var err error
	if out.log, err = take(max(logSectors, whole(logSize))); err != nil {
		return nil, fmt.Errorf("flash of %d bytes is too small: %w", g.Size, err)
	}
	for i := range out.slots {
		if out.slots[i], err = take(whole(slotSize + 2*g.Page)); err != nil {
			return nil, fmt.Errorf("flash of %d bytes is too small for two slots: %w", g.Size, err)
		}
	}
	if out.pool, err = take(g.Size/g.Sector - next); err != nil {
		return nil, fmt.Errorf("flash of %d bytes has no room for programs: %w", g.Size, err)
	}
	return &out, nil
}

// FlashFor is the size of a part that takes a release of payload bytes, in as many components as there can be, and another beside it.
func FlashFor(payload, sector, page int64) int64 {
	whole := func(n int64) int64 { return (n + sector - 1) / sector }
	n := int64(0)
	for _, c := range []int64{controlSize, identitySize, bundleSize, memorySize, params.BasicSize, params.OperationalSize} {
		n += 2 * whole(c+page)
	}
	n += max(logSectors, whole(logSize)) + 2*whole(slotSize+2*page)
	return (n + 2*(whole(payload)+wire.MaxComponents)) * sector
}

// Lose clears the trust bundle; with all, everything that is written in the field: boot control, agent's record, operational parameters, log, slots and pool. It is what
// a fault in the flash does. The factory's identity is left: it belongs into a part that is write-protected, or beside its key.
func (f *Flash) Lose(all bool) error {
	cells := []*nvm.Cell{f.bundle}
	regions := []hw.Region{}
	if all {
		cells = append(cells, f.control, f.memory, f.params)
		regions = []hw.Region{f.log, f.slots[SlotA], f.slots[SlotB], f.pool}
	}
	for _, c := range cells {
		if err := c.Wipe(); err != nil {
			return err
		}
	}
	for _, r := range regions {
		if err := r.EraseAll(); err != nil {
			return err
		}
	}
	return nil
}

// LogRegion is where the device keeps its own log.
func (f *Flash) LogRegion() hw.Region { return f.log }

// Memory is the agent's one record.
func (f *Flash) Memory() *nvm.Cell { return f.memory }

// Identity is what the factory lays down for good.
type Identity struct {
	Chain    [][]byte          `cbor:"1,keyasint"` // IDevID, leaf first (DER)
	Device   string            `cbor:"2,keyasint"`
	Product  string            `cbor:"3,keyasint"`
	Hardware string            `cbor:"4,keyasint"`
	Params   wire.DeviceParams `cbor:"5,keyasint"`           // without Config and Extra from its last step in the factory on: those are sealed
	Model    wire.UpdateModel  `cbor:"6,keyasint"`           // how its software may change: fixed in the factory, also when nothing runs
	Origin   string            `cbor:"7,keyasint,omitempty"` // of its keys, where the key store did not make them: wire.OriginStation
}

// certifies reports whether its certificate is for the key (SPKI): a certificate holds its key as it is.
func (id Identity) certifies(spki []byte) bool {
	return len(id.Chain) > 0 && bytes.Contains(id.Chain[0], spki)
}

// SaveIdentity lays it down; LoadIdentity reads it.
func (f *Flash) SaveIdentity(id Identity) error {
	b, err := wire.Marshal(id)
	if err != nil {
		return err
	}
	return f.identity.Save(b)
}

// LoadIdentity reads what the factory laid down; nvm.ErrEmpty before that.
func (f *Flash) LoadIdentity() (Identity, error) {
	b, err := f.identity.Load()
	if err != nil {
		return Identity{}, fmt.Errorf("identity: %w", err)
	}
	var id Identity
	return id, wire.Unmarshal(b, &id, identitySize)
}

// control is the boot manager's own record.
type control struct {
	Active  Slot   `cbor:"1,keyasint"` // the slot whose release is confirmed
	Valid   bool   `cbor:"2,keyasint"` // there is one
	Trial   bool   `cbor:"3,keyasint"` // the other slot is on trial
	Tries   int    `cbor:"4,keyasint"` // starts it has left
	Staged  []byte `cbor:"5,keyasint"` // digest of the whole release in the other slot; empty: none
	Staging []byte `cbor:"6,keyasint"` // digest of the release being written there
	Wiping  bool   `cbor:"7,keyasint"` // the end has begun: nothing starts any more
	Ending  bool   `cbor:"8,keyasint"` // and there is no way back to the agent: what is left is cleared at the next start
}

func (f *Flash) loadControl() (control, error) {
	b, err := f.control.Load()
	if errors.Is(err, nvm.ErrEmpty) {
		return control{}, nil
	}
	if err != nil {
		return control{}, fmt.Errorf("boot control: %w", err)
	}
	c, err := parseControl(b)
	if err != nil {
		return control{}, fmt.Errorf("boot control: %w", err)
	}
	return c, nil
}

func parseControl(b []byte) (control, error) {
	var c control
	if err := wire.Unmarshal(b, &c, controlSize); err != nil {
		return control{}, err
	}
	if c.Active != SlotA && c.Active != SlotB || c.Tries < 0 || c.Tries > maxTries ||
		len(c.Staged) != 0 && len(c.Staged) != sha256.Size || len(c.Staging) != 0 && len(c.Staging) != sha256.Size {
		return control{}, errors.New("values out of bounds")
	}
	return c, nil
}

func (f *Flash) saveControl(c control) error {
	b, err := wire.Marshal(c)
	if err != nil {
		return err
	}
	return f.control.Save(b)
}
