package gate

import (
	"bytes"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// Ways is what a device remembers of how it came to what it runs: once for each release that an update brought it may be sent back, while that is
// young, and what it left by that it does not run again. Without it a thief of the directive key could lead devices down every way back that approvers
// allowed, and up again, for as long as he likes. A device that forgot its ways goes back by none.
type Ways struct {
	To   []byte `cbor:"1,keyasint,omitempty"` // the release (digest) that the last update brought; empty: none did, or the device was sent back since
	At   uint64 `cbor:"2,keyasint,omitempty"` // when that was confirmed, seconds
	Left []Left `cbor:"3,keyasint,omitempty"` // what it was sent back from
}

// Left is a release that a device was sent back from.
type Left struct {
	Release []byte `cbor:"1,keyasint"` // digest
	Counter uint32 `cbor:"2,keyasint"` // its security counter: what is below the fuses nobody has to remember
}

// BackTime is for how long after its confirmation a release may be left by a roll-back, where its approvers did not say. Later only a newer one leads away from it.
const BackTime = 30 * 24 * time.Hour

// backTime is that of a release.
func backTime(r wire.Release) time.Duration {
	if r.BackFor == 0 {
		return BackTime
	}
	return time.Duration(r.BackFor) * time.Second
}

// Behind gives the releases (digest) that the device was sent back from and that would still start.
func (w Ways) Behind(fuses uint32) (out [][]byte) {
	for _, l := range w.Left {
		if l.Counter >= fuses {
			out = append(out, l.Release)
		}
	}
	return out
}

// After gives the ways once an act has changed what runs, for good, from before to the release to. The device's own fall-back from a trial is no act, and
// changes none.
func (w Ways) After(act wire.Act, before Left, to []byte, fuses uint32, at time.Time) Ways {
	switch {
	case act == wire.ActRollback:
		out := Ways{Left: slices.DeleteFunc(slices.Clone(w.Left), func(l Left) bool { return l.Counter < fuses })}
		if before.Release != nil {
			out.Left = append(out.Left, before)
		}
		return out
	case !bytes.Equal(before.Release, to):
		w.To, w.At = to, uint64(max(at.Unix(), 0))
	}
	return w
}

// check judges the way to a release.
func (w Ways) check(s State, p *Plan, rel wire.Release, digest [32]byte) *Refusal {
	behind := w.Behind(s.Fuses)
	switch {
	case slices.ContainsFunc(behind, func(d []byte) bool { return bytes.Equal(d, digest[:]) }):
		return refuse(LeftBehind, "release %s was left by a roll-back: publish another one", rel.ID)
	case p.Act != wire.ActRollback:
		return nil
	case !bytes.Equal(w.To, s.Current.Digest[:]):
		return refuse(NoWayBack, "release %s was not brought by an update that this device remembers: only a newer one leads away from it", s.Current.Release.ID)
	case len(behind) >= wire.MaxLeft:
		return refuse(NoWayBack, "the device was sent back from %d releases, and remembers no more: publish one with a higher security counter", len(behind))
	}
	confirmed := time.Unix(int64(min(w.At, 1<<40)), 0)
	if limit := backTime(s.Current.Release); p.clock.after(p.Signed).Sub(confirmed) > limit {
		return refuse(BackTooLate, "release %s was confirmed at %s, more than %s ago: only a newer one leads away from it",
			s.Current.Release.ID, confirmed.UTC().Format(time.RFC3339), limit)
	}
	return nil
}
