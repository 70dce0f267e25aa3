package boot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// An image lies outside of the flash, in one of two banks that the machine's own boot loader starts it from and its own installer writes. Boot control
// decides here too: the boot loader is told, and told again at a start when a cut came before; and an image is where its digest is found, whatever
// the installer said. So there is no record of banks that could be wrong.

var (
	// ErrNoBanks says that a release has an image, and the machine no banks for it.
	ErrNoBanks = errors.New("this board has no banks for an image")
	// ErrElsewhere says that the machine has to be started again, because what is to run lies in its other bank.
	ErrElsewhere = errors.New("the machine has to be started from its other bank")
	// ErrInstall says that the machine's installer did not make of an image what was signed.
	ErrInstall = errors.New("the image is not installed")
	// ErrImage says that a release has an image and the one before it has none, or the other way round.
	ErrImage = errors.New("the release before and this one do not both have an image")
)

// bankHas reports whether bank b begins with what is to be laid there.
func (m *Manager) bankHas(b hw.Bank, l wire.Laid) (bool, error) {
	sum, err := m.hashBank(b, l)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil // the bank is smaller
	}
	return err == nil && bytes.Equal(sum[:], l.Digest), err
}

func (m *Manager) hashBank(b hw.Bank, l wire.Laid) (sum [32]byte, err error) {
	r, err := m.board.Banks.Open(b)
	if err != nil {
		return sum, fmt.Errorf("bank %s: %w", b, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if sum, err = hashOf(io.NewSectionReader(r, 0, int64(l.Size))); err != nil {
		err = fmt.Errorf("bank %s: %w", b, err)
	}
	return sum, err
}

// measureBank reads what the machine runs from.
func (m *Manager) measureBank(l wire.Laid) ([32]byte, error) {
	if m.board.Banks == nil {
		return [32]byte{}, ErrNoBanks
	}
	started, err := m.board.Banks.Started()
	if err != nil {
		return [32]byte{}, err
	}
	return m.hashBank(started, l)
}

// lies finds the image of a release: in the bank that the machine was started from, or in the other. found is false when it is in neither.
func (m *Manager) lies(l wire.Laid) (at, started hw.Bank, found bool, err error) {
	if started, err = m.board.Banks.Started(); err != nil {
		return 0, 0, false, err
	}
	for _, at = range []hw.Bank{started, started.Other()} {
		if found, err = m.bankHas(at, l); found || err != nil {
			return at, started, found, err
		}
	}
	return 0, started, false, nil
}

// startedFrom says whether the machine was started from the release's image; a release without one does not care. Where the image is in the other bank
// the boot loader is told, once: ErrElsewhere. A boot loader that was told and started this one has gone back, and that is the release's fault.
func (m *Manager) startedFrom(rel wire.Release, trial bool) error {
	c, ok := rel.Image()
	if !ok {
		return nil
	}
	at, started, found, err := m.lies(*c.Laid)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("image %s is in neither bank of the machine", c.Name)
	}
	told, err := m.board.Banks.Told()
	if err != nil {
		return err
	}
	switch {
	case at == started && (told.Says(at, false) || trial && told.Bank == at):
		return nil
	case at == started: // a cut came before it was told
		return m.board.Banks.Tell(at, trial)
	case told.Says(at, trial) && !told.Here:
		return fmt.Errorf("the boot loader was told to start bank %s, where image %s is, and the machine came up from bank %s", at, c.Name, started)
	case !told.Says(at, trial):
		if err := m.board.Banks.Tell(at, trial); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: image %s is in bank %s", ErrElsewhere, c.Name, at)
}

// direct tells the boot loader where the image of a slot's release is.
func (m *Manager) direct(s Slot, trial bool) error {
	st, err := m.flash.load(s)
	if err != nil {
		return err
	}
	rel, err := st.manifest()
	if err != nil {
		return err
	}
	c, ok := rel.Image()
	if !ok {
		return nil
	}
	at, started, found, err := m.lies(*c.Laid)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("image %s is in neither bank of the machine", c.Name)
	}
	trial = trial && at != started // what runs already is no trial of the boot loader's
	if told, err := m.board.Banks.Told(); err != nil || told.Says(at, trial) {
		return err
	}
	return m.board.Banks.Tell(at, trial)
}

// sameBank reports whether what a start would choose is in the bank that the machine was started from.
func (m *Manager) sameBank() (bool, error) {
	c, err := m.flash.loadControl()
	if err != nil || m.board.Banks == nil {
		return err == nil, err
	}
	slot := c.Active
	if c.Trial {
		slot = m.idle(c)
	}
	st, err := m.flash.load(slot)
	if errors.Is(err, errNoRelease) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	rel, err := st.manifest()
	if err != nil {
		return true, nil //nolint:nilerr // it is not chosen
	}
	image, ok := rel.Image()
	if !ok {
		return true, nil
	}
	at, started, found, err := m.lies(*image.Laid)
	return !found || at == started, err
}

// imageMay says, before anything is written, whether a release may come after the confirmed one as far as images go, and whether its image lies in a bank
// already. What is brought goes into the bank that does not run; the way back from there is the one that does, so it has to be the confirmed
// release's.
func (m *Manager) imageMay(rel wire.Release, c control) (laid bool, err error) {
	image, has := rel.Image()
	if has {
		if _, _, laid, err = m.lies(*image.Laid); err != nil {
			return false, err
		}
	}
	if !c.Valid || m.rep.Release == nil {
		return laid, nil
	}
	_, had := m.rep.Release.Image()
	if had && !has {
		return false, fmt.Errorf("release %s has no image: %w", rel.Version, ErrImage)
	}
	if !had && has {
		if at, started, found, err := m.lies(*image.Laid); err != nil {
			return false, err
		} else if !found || at != started {
			return false, fmt.Errorf("release %s: %w: let one come first whose image is what the machine runs from now", rel.Version, ErrImage)
		}
	}
	return laid, nil
}

// Opens has protected images opened by f, which may wait for their keys. It is called before anything is staged.
func (m *Manager) Opens(f func(ctx context.Context, sealed io.Reader, c wire.Component) (io.Reader, error)) {
	m.opens = f
}

// opened opens a protected image for the installer. It is read through before: the server sealed it, and its key says no more than that. What was signed is what it is when it is
// open, and the installer, which can do everything here, gets that or nothing.
func (m *Manager) opened(ctx context.Context, sealed *io.SectionReader, c wire.Component) (io.Reader, error) {
	if m.opens == nil {
		return nil, fmt.Errorf("%w: nothing opens what is protected here", ErrInstall)
	}
	image, err := m.opens(ctx, sealed, c)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	switch _, err := io.Copy(sum, image); {
	case hard(err):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrInstall, err)
	case !bytes.Equal(sum.Sum(nil), c.Protected.Digest):
		return nil, fmt.Errorf("%w: what was sealed is not what was signed: its SHA-256 is %x, and %x was signed", ErrInstall, sum.Sum(nil), c.Protected.Digest)
	}
	return m.opens(ctx, io.NewSectionReader(sealed, 0, sealed.Size()), c)
}

// install hands the image of a release that is in the pool, whole and verified, to the machine's installer, for the bank that does not run; and looks what
// lies there then. One that lies in a bank already is not installed again.
func (m *Manager) install(ctx context.Context, rel wire.Release, s set) error {
	c, ok := rel.Image()
	if !ok {
		return nil
	}
	_, started, found, err := m.lies(*c.Laid)
	if err != nil || found {
		return err
	}
	banks, into := m.board.Banks, started.Other()
	told, err := banks.Told()
	if err != nil {
		return err
	}
	if !told.Says(started, false) { // nothing is to start what is half written
		if err := banks.Tell(started, false); err != nil {
			return err
		}
	}
	lies := s.component(rel, slices.IndexFunc(rel.Components, func(c wire.Component) bool { return c.Kind == wire.KindImage }))
	image := io.Reader(lies)
	if c.Protected != nil {
		if image, err = m.opened(ctx, lies, c); err != nil {
			return fmt.Errorf("image %s: %w", c.Name, err)
		}
	}
	err = banks.Install(ctx, into, image)
	if hard(err) || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	if now, terr := banks.Told(); terr != nil || !now.Says(started, false) { // an image may say something to the boot loader of its own accord
		err = errors.Join(err, terr, banks.Tell(started, false))
		if err == nil {
			err = errors.New("it told the boot loader what to start")
		}
	}
	if err != nil {
		return fmt.Errorf("image %s: %w: %w", c.Name, ErrInstall, err)
	}
	if found, err = m.bankHas(into, *c.Laid); err == nil && !found {
		err = fmt.Errorf("image %s: %w: bank %s begins otherwise than was signed", c.Name, ErrInstall, into)
	}
	return err
}
