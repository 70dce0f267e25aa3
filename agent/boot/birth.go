package boot

import (
	"errors"
	"fmt"
	"maps"

	"github.com/hallmark-iot/hallmark/agent/boot/params"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// Birth lays down what a factory gives a blank board. Steps may be repeated after a cut, until Fuse is done.
type Birth struct {
	board *hw.Board
	flash *Flash
	set   set
	rel   wire.Release
}

// NewBirth begins on a board whose fuses are blank.
func NewBirth(board *hw.Board) (*Birth, error) {
	life, err := board.Fuses.Lifecycle()
	if err != nil {
		return nil, err
	}
	if life != hw.Assembly {
		return nil, fmt.Errorf("this device was made already: its life cycle is %s", life)
	}
	flash, err := Arrange(board.Flash)
	if err != nil {
		return nil, err
	}
	return &Birth{board: board, flash: flash}, nil
}

// Flash gives the arrangement.
func (b *Birth) Flash() *Flash { return b.flash }

// Install lays down identity, trust bundle and the signed release; the components follow by Write.
func (b *Birth) Install(id Identity, bundle, release []byte, rel wire.Release) error {
	if err := errors.Join(rel.Compatible(), b.flash.Room().Takes(rel)); err != nil {
		return err
	}
	if _, err := b.image(rel); err != nil {
		return err
	}
	if err := b.flash.SaveIdentity(id); err != nil {
		return err
	}
	trust, err := newTrustRecord(bundle)
	if err != nil {
		return err
	}
	if err := b.flash.bundle.Save(trust); err != nil {
		return err
	}
	p, err := b.flash.plan(release, rel, nil, make(sectorSet, b.flash.pool.Size()/b.flash.pool.Sector()))
	if err != nil {
		return err
	}
	b.set, b.rel = p.set, rel
	return b.flash.lay(SlotA, p.body, p.set.areas)
}

// Write programs the next bytes of a component. Each call but a component's last brings whole pages.
func (b *Birth) Write(name string, offset uint64, data []byte) error {
	page := b.flash.pool.Page()
	for i, c := range b.rel.Components {
		if c.Name != name {
			continue
		}
		end := offset + uint64(len(data))
		if end > c.Size || offset%uint64(page) != 0 || end < c.Size && end%uint64(page) != 0 {
			return fmt.Errorf("component %s: %d bytes at %d: %w", name, len(data), offset, hw.ErrRange)
		}
		return b.set.areas[i].program(int64(offset), padded(data, page))
	}
	return fmt.Errorf("no component %q", name)
}

// ReadBack reads everything again: identity, bundle, release, and the digest of each component.
func (b *Birth) ReadBack() (id Identity, bundle, release []byte, components [][32]byte, err error) {
	if id, err = b.flash.LoadIdentity(); err != nil {
		return id, nil, nil, nil, err
	}
	data, err := b.flash.bundle.Load()
	if err != nil {
		return id, nil, nil, nil, err
	}
	trust, err := parseTrustRecord(data)
	if err != nil {
		return id, nil, nil, nil, err
	}
	bundle = trust.Current
	laid, err := b.flash.load(SlotA)
	if err != nil {
		return id, nil, nil, nil, err
	}
	if err := laid.fits(b.rel); err != nil {
		return id, nil, nil, nil, err
	}
	release = laid.env
	for i := range b.rel.Components {
		sum, err := hashOf(laid.component(b.rel, i))
		if err != nil {
			return id, nil, nil, nil, err
		}
		components = append(components, sum)
	}
	return id, bundle, release, components, nil
}

// Fuse makes the device what it is for life: first what it boots by, then, last and in this order, counter, life cycle and debug
// lock. A cut before the life cycle leaves a board that can be made again with the same root.
func (b *Birth) Fuse(root, secret [32]byte, counter uint32, bundleVersion uint64) error {
	if err := b.set.checkBytes(b.rel); err != nil {
		return err
	}
	started, err := b.image(b.rel)
	if err != nil {
		return err
	}
	if b.board.Banks != nil {
		if err := b.board.Banks.Tell(started, false); err != nil {
			return err
		}
	}
	f := b.board.Fuses
	if err := b.flash.saveControl(control{Active: SlotA, Valid: true}); err != nil {
		return err
	}
	if _, err := f.Secret(); errors.Is(err, hw.ErrNotBurned) || errors.Is(err, hw.ErrFuseParity) {
		if err := f.BurnSecret(secret); err != nil {
			return err
		}
	}
	for _, burn := range []func() error{
		func() error { return f.BurnRoot(root) },
		func() error { return b.layBasic(root) },
		func() error { return b.board.Trust.Raise(bundleVersion) },
		func() error { return f.RaiseSecurityCounter(counter) },
		func() error { return f.Advance(hw.Secured) },
		f.LockDebug,
	} {
		if err := burn(); err != nil {
			return err
		}
	}
	return nil
}

// image makes sure that the machine was started from the release's image: a factory lays it there, with what starts the agent.
func (b *Birth) image(rel wire.Release) (started hw.Bank, err error) {
	c, has := rel.Image()
	if b.board.Banks == nil {
		if has {
			err = fmt.Errorf("release %s: %w", rel.Version, ErrNoBanks)
		}
		return 0, err
	}
	if started, err = b.board.Banks.Started(); err != nil || !has {
		return started, err
	}
	same, err := (&Manager{board: b.board}).bankHas(started, *c.Laid)
	if err == nil && !same {
		err = fmt.Errorf("bank %s, which the machine was started from, does not have image %s %s: lay it there before the device is made", started, c.Name, c.Version)
	}
	return started, err
}

// layBasic seals what the factory gave the product itself, by the key that the device will have, and takes it out of where it lay open.
func (b *Birth) layBasic(root [32]byte) error {
	id, err := b.flash.LoadIdentity()
	if err != nil {
		return err
	}
	values, err := id.basic()
	if err != nil {
		return err
	}
	if len(values) == 0 {
		return nil
	}
	secret, err := b.board.Fuses.Secret()
	if err != nil {
		return err
	}
	key, err := paramsKey(secret, root, hw.Secured, true)
	if err != nil {
		return err
	}
	if err := params.LayBasic(b.flash.basic, key, id.Device, values); err != nil {
		return err
	}
	id.Params.Config, id.Params.Extra = nil, nil
	if err := b.flash.SaveIdentity(id); err != nil {
		return err
	}
	return b.flash.identity.Purge()
}

// basic is what the factory gave the product itself.
func (id Identity) basic() (map[string]string, error) {
	values := maps.Clone(id.Params.Extra)
	if len(id.Params.Config) == 0 {
		return values, nil
	}
	if values == nil {
		values = map[string]string{}
	}
	if _, ok := values[ParamConfig]; ok {
		return nil, fmt.Errorf("a parameter %q and a first configuration, which has that name", ParamConfig)
	}
	values[ParamConfig] = string(id.Params.Config)
	return values, nil
}
