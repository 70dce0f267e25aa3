package boot

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"io"

	"github.com/hallmark-iot/hallmark/agent/boot/params"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// A chip that runs nothing while it is made into a device gets all it is given from a debug probe: wire.ChipArea and the components in its flash, root, counter
// and life cycle in its fuses. Its first start takes that up: it becomes what Birth makes of a board. Until that is over the counter of trust bundles is 0, and
// afterwards never again; so nothing that is written into the flash later is taken up. The area lies where the agent's record will be.

// Places says where a probe has to lay the area and components of some sizes, in bytes from the start of the flash.
func Places(f hw.Flash, sizes ...int64) (area int64, components []int64, err error) {
	flash, err := Arrange(f)
	if err != nil {
		return 0, nil, err
	}
	next := int64(0)
	for _, n := range sizes {
		if n <= 0 || n > flash.pool.Size()-next {
			return 0, nil, fmt.Errorf("components of %v bytes: %w: the flash has %d for programs", sizes, wire.ErrNoRoom, flash.pool.Size())
		}
		components = append(components, flash.pool.Offset()+next)
		next += sectorsFor(uint64(n), flash.pool.Sector()) * flash.pool.Sector()
	}
	return flash.memory.Region().Offset(), components, nil
}

// takeUp makes a device of what a probe has laid down, at its first start.
func (m *Manager) takeUp() error {
	begun, err := m.board.Trust.Value()
	if err != nil || begun > 0 || m.rep.Lifecycle != hw.Secured {
		return err
	}
	c, err := m.flash.loadControl()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDead, err)
	}
	if !c.Valid {
		in, err := m.findHanded()
		if err != nil || in == nil {
			return err
		}
		defer in.clear()
		if err := in.lay(); err != nil {
			return in.dead(err)
		}
		m.note("took up what was laid down by a probe: device %s", in.id.Device)
	}
	// All of it is where it belongs. The keys in the area go before the device counts as taken up, so that a cut leaves them to the next start.
	area := m.flash.memory.Region()
	if err := area.EraseAll(); err != nil {
		return err
	}
	data, err := m.flash.bundle.Load()
	if err != nil {
		return err
	}
	t, err := parseTrustRecord(data)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDead, err)
	}
	b, err := wire.VerifyBundle(nil, t.Current)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDead, err)
	}
	return m.board.Trust.Raise(inEra(0, b.Version))
}

// handed is what is found in the area.
type handed struct {
	m     *Manager
	area  wire.ChipArea
	keys  map[string]*ecdsa.PrivateKey // by their names in the key store
	store hw.Importer
	id    Identity
	rel   wire.Release
	set   set
}

func (in *handed) clear() { clear(in.area.Identity); clear(in.area.Attest) }

// dead says that a device is none for what lies in the area. The power's failing says nothing about it.
func (in *handed) dead(err error) error {
	if hard(err) {
		return err
	}
	return fmt.Errorf("%w: what a probe laid down is not taken up: %w", ErrDead, err)
}

// findHanded reads the area and checks it against the fuses and the bytes in the flash, and writes nothing. It gives nil when there is none.
func (m *Manager) findHanded() (*handed, error) {
	r := m.flash.memory.Region()
	data := make([]byte, min(r.Size(), wire.MaxChipArea))
	defer clear(data)
	if _, err := r.ReadAt(data, 0); err != nil {
		return nil, err
	}
	if [4]byte(data) == [4]byte{0xff, 0xff, 0xff, 0xff} { // erased
		return nil, nil
	}
	in := &handed{m: m, keys: map[string]*ecdsa.PrivateKey{}}
	var err error
	if in.area, err = wire.DecodeChipArea(data); err != nil {
		return nil, in.dead(err)
	}
	for _, check := range []func() error{in.identity, in.software, in.places} {
		if err := check(); err != nil {
			in.clear()
			return nil, in.dead(err)
		}
	}
	return in, nil
}

// identity checks that the keys are those of the certificate, and that they can be kept.
func (in *handed) identity() (err error) {
	i := in.area.Install
	if i.Hardware != in.m.board.Revision {
		return fmt.Errorf("it is for hardware %q, this is %q", i.Hardware, in.m.board.Revision)
	}
	for name, raw := range map[string][]byte{hw.KeyIDevID: in.area.Identity, hw.KeyAttest: in.area.Attest} {
		if in.keys[name], err = ecdsa.ParseRawPrivateKey(elliptic.P256(), raw); err != nil {
			return fmt.Errorf("key %s: %w", name, err)
		}
	}
	in.id = Identity{Chain: append([][]byte{i.Certificate}, i.Chain...), Device: i.Device, Product: i.Product, Hardware: i.Hardware, Params: i.Params, Origin: wire.OriginStation}
	spki, err := wire.SPKIOf(in.keys[hw.KeyIDevID].Public())
	if err != nil {
		return err
	}
	if !in.id.certifies(spki) {
		return errors.New("its identity key is not the one of its certificate")
	}
	var ok bool
	if in.store, ok = in.m.board.Keys.(hw.Importer); !ok {
		return errors.New("this board's key store takes no keys that were made elsewhere: have the device make its own, by the programming protocol")
	}
	return nil
}

// software checks that the fuses vouch for the bundle, and the bundle for the release.
func (in *handed) software() (err error) {
	m := in.m
	if m.rep.Root, err = m.board.Fuses.Root(); err != nil {
		return fmt.Errorf("root in the fuses: %w", err)
	}
	m.rep.Identity = in.id
	if m.rep.Bundle, _, err = m.believe(trustRecord{Current: in.area.Install.Bundle}); err != nil {
		return err
	}
	if in.rel, _, err = m.authoriseEnvelope(in.area.Install.Release); err != nil {
		return err
	}
	if c, has := in.rel.Image(); has {
		return fmt.Errorf("component %s is an image of the machine: it comes by the programming protocol", c.Name)
	}
	in.id.Model = in.rel.Model
	return m.flash.Room().Takes(in.rel)
}

// places finds the components in the pool, each in whole sectors of its own, and looks at their bytes.
func (in *handed) places() error {
	f := in.m.flash
	in.set = set{env: in.area.Install.Release}
	for _, c := range in.rel.Components {
		n, ok := int64(0), false
		for _, p := range in.area.Places {
			if p.Component == c.Name {
				n, ok = f.memory.Region().Offset()+p.At-f.pool.Offset(), true
			}
		}
		if !ok || n < 0 || n%f.pool.Sector() != 0 {
			return fmt.Errorf("component %s does not begin with a sector of the flash for programs: see `hallmark-agent probe fixture`", c.Name)
		}
		ext := extent{First: n / f.pool.Sector(), Count: sectorsFor(c.Size, f.pool.Sector())}
		in.set.areas = append(in.set.areas, area{pool: f.pool, ext: []extent{ext}})
	}
	body, err := in.record()
	if err != nil {
		return err
	}
	if _, err := parseRecord(body, f.pool.Size()/f.pool.Sector()); err != nil { // outside, or one in another
		return err
	}
	return in.set.checkBytes(in.rel)
}

func (in *handed) record() ([]byte, error) {
	rec := record{Envelope: in.set.env}
	for _, a := range in.set.areas {
		rec.Areas = append(rec.Areas, a.ext)
	}
	return wire.Marshal(rec)
}

// lay makes the device. Each step may be repeated after a cut; the last says that none has to be.
func (in *handed) lay() error {
	m := in.m
	for _, name := range []string{hw.KeyIDevID, hw.KeyAttest} {
		if err := in.store.Import(name, in.keys[name]); err != nil {
			return fmt.Errorf("key %s: %w", name, err)
		}
	}
	secret, err := m.ownSecret()
	if err != nil {
		return err
	}
	values, err := in.id.basic()
	if err != nil {
		return err
	}
	if len(values) > 0 {
		key, err := paramsKey(secret, m.rep.Root, hw.Secured, true)
		if err != nil {
			return err
		}
		if err := params.LayBasic(m.flash.basic, key, in.id.Device, values); err != nil {
			return err
		}
	}
	in.id.Params.Config, in.id.Params.Extra = nil, nil
	trust, err := newTrustRecord(in.area.Install.Bundle)
	if err != nil {
		return err
	}
	body, err := in.record()
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return m.flash.SaveIdentity(in.id) },
		func() error { return m.flash.bundle.Save(trust) },
		func() error { return m.flash.lay(SlotA, body, nil) },
		func() error { return m.flash.saveControl(control{Active: SlotA, Valid: true}) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// ownSecret is the device's unique secret, which it makes itself: no station has seen it.
func (m *Manager) ownSecret() (secret [32]byte, err error) {
	secret, err = m.board.Fuses.Secret()
	if !errors.Is(err, hw.ErrNotBurned) && !errors.Is(err, hw.ErrFuseParity) {
		return secret, err
	}
	if _, err := io.ReadFull(m.board.Random, secret[:]); err != nil {
		return secret, fmt.Errorf("device secret: %w", err)
	}
	if err := m.board.Fuses.BurnSecret(secret); err != nil {
		return secret, err
	}
	return m.board.Fuses.Secret() // with what a cut had burned of another
}
