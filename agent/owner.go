package agent

import (
	"fmt"

	"github.com/hallmark-iot/hallmark/wire"
)

// letGo gives the record of a device that belongs to nobody any more: what its owner has set, what was to be told to its owner, and the
// certificate of their time are not in it. What the device is, whom it believes and what it has accepted stay, and so does a quarantine.
func (a *Agent) letGo(next memory, cause wire.LogRef) (m memory, event, text string) {
	text = "it had none"
	if next.Owner != nil {
		text = fmt.Sprintf("ownership %x", next.Owner.Owner)
	}
	next.Owner, next.Results, next.LDevID = nil, nil, nil
	next.Attest = true // whoever is next wants to know what it is
	next.Restart = &cause
	return next, eventDisowned, text
}

// clear forgets what was set, and what programs have kept. Programs stand still from then on, so that none writes anew what it has in memory: a
// start follows.
func (a *Agent) clear() error {
	if err := a.c.Params.Set(nil); err != nil {
		return err
	}
	return a.c.Eraser.Clear()
}

// leave ends the run in which the device had an owner: the key of that time is destroyed, programs begin without their settings, and
// data is sealed under a new key after the restart. A cut before it is a restart as well, and the key goes when there is another.
func (a *Agent) leave() error {
	if a.m.Key != "" {
		if err := a.c.Keys.Destroy(a.m.Key); err != nil {
			return local(err)
		}
	}
	return ErrReset
}
