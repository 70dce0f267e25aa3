package boot

import (
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/agent/boot/nvm"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// Revival lays down again what a factory once laid down on a board, whose flash or keys were lost since. It starts nothing: it has the trust bundle, by the
// fuses, and at last the identity. What it has not written stays as it is, so that a board whose flash is whole keeps its releases. Broken off
// anywhere, it is begun again.
type Revival struct {
	m     *Manager
	found Identity // what is on the flash; no Device: nothing
}

// Revive begins on a board that left the factory. as says, without its chain, what the board is told to be; what its flash still says of that is believed
// rather.
func Revive(board *hw.Board, as Identity) (*Revival, error) {
	flash, err := Arrange(board.Flash)
	if err != nil {
		return nil, err
	}
	m := &Manager{board: board, flash: flash}
	for _, step := range []func() error{m.fuses, m.ended} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	if m.rep.Lifecycle != hw.Secured {
		return nil, fmt.Errorf("this board is in life cycle %s: it never was a device, and a factory makes it one", m.rep.Lifecycle)
	}
	r := &Revival{m: m}
	switch r.found, err = flash.LoadIdentity(); {
	case hard(err):
		return nil, err
	case errors.Is(err, nvm.ErrEmpty), err != nil:
		r.found = Identity{} // gone, or damaged: it says nothing
	case r.found.Device != as.Device || r.found.Product != as.Product:
		return nil, fmt.Errorf("this board says that it is device %s of product %s: a voucher of device %s does not make it another", r.found.Device, r.found.Product, as.Device)
	}
	if m.rep.Identity = as; r.found.Device != "" {
		m.rep.Identity = r.found
	}
	return r, m.vouched()
}

// vouched finds whom the fuses vouch for, without the stage that hands that over at a start.
func (m *Manager) vouched() error {
	defer m.board.Fuses.LockFixed()
	secret, err := m.board.Fuses.Secret()
	if err != nil && !errors.Is(err, hw.ErrNotBurned) {
		return err
	}
	m.markKey = markKey(secret[:])
	if err := (&ROM{m: m}).root(); err != nil {
		return err
	}
	return m.believed()
}

// Report gives what is known of the board: its trust bundle, if it has one, and what it is, as far as that is known.
func (r *Revival) Report() Report { return r.m.rep }

// Whole reports whether the flash has an identity for the key (SPKI).
func (r *Revival) Whole(spki []byte) bool {
	return r.found.certifies(spki)
}

// SetBundle is Manager's.
func (r *Revival) SetBundle(envelopes ...[]byte) error { return r.m.SetBundle(envelopes...) }

// Recall is Manager's.
func (r *Revival) Recall(record []byte) (wire.Bundle, error) { return r.m.Recall(record) }

// Restore is Manager's.
func (r *Revival) Restore(record []byte, envelopes ...[]byte) error {
	return r.m.Restore(record, envelopes...)
}

// Lay forgets what the agent kept, which was of another key, begins the device's log anew, and lays down the identity: last, because a board that
// has one starts by it.
func (r *Revival) Lay(id Identity) error {
	if r.m.rep.Bundle.Version == 0 {
		return errors.New("there is no trust bundle yet")
	}
	for _, cell := range []*nvm.Cell{r.m.flash.memory, r.m.flash.params} {
		if err := cell.Wipe(); err != nil {
			return err
		}
	}
	if err := r.m.flash.log.EraseAll(); err != nil {
		return err
	}
	return r.m.flash.SaveIdentity(id)
}
