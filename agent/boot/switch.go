package boot

import (
	"github.com/hallmark-iot/hallmark/wire"
)

// Switch puts what a start would choose in the place of what runs, without a start: a set on trial, or the confirmed one after its trial was given up.
// Everything is checked as a start checks it, and a try is counted before it runs. It gives false, and what runs is as before, where only a start will
// do: nothing runs, nothing may run, one of the two is no set of assets, or this start has seen as many sets as its log has room for.
func (m *Manager) Switch() (bool, error) {
	was := m.rep
	if was.Release == nil || was.Release.Model != wire.ModelAsset {
		return false, nil
	}
	if len(m.rep.Events) >= wire.MaxBootEvents { // the log of this start is full
		return false, nil
	}
	if same, err := m.sameBank(); !same || err != nil {
		return false, err
	}
	set := m.set
	m.rep.Release, m.rep.Trial = nil, false
	if err := m.choose(); err != nil {
		return false, err
	}
	if m.rep.Release == nil || m.rep.Release.Model != wire.ModelAsset {
		was.Notes = m.rep.Notes
		m.rep, m.set = was, set
		return false, nil
	}
	if m.rep.Digest != was.Digest {
		// Behind a start the secret is hidden: the identifier goes on from the last one, and so tells what ran since the start, in order.
		return true, m.measure()
	}
	return true, nil
}
