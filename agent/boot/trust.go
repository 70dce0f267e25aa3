package boot

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/hallmark-iot/hallmark/wire"
)

// trustRecord is what a board keeps of whom it believes. The fuses hold the digest of a root role for life: the bundle in force has
// that role, or there is a link for each time that the role was changed since.
type trustRecord struct {
	// Links are bundles (signed), oldest first: the first has the root role of the fuses, and each of the others is the first with another
	// role than the one before, whose threshold has signed it. There are none until the role changes.
	Links [][]byte `cbor:"1,keyasint,omitempty"`
	// Current is the bundle in force (signed), unless that is the last link.
	Current []byte `cbor:"2,keyasint,omitempty"`
	// Kept are the releases (digests) that were authorised on this board by a bundle before: who may sign what comes next has changed,
	// and what runs still starts.
	Kept [][]byte `cbor:"3,keyasint,omitempty"`
	// Mark is HMAC-SHA256 over the others by a key that only this board's boot manager has. Without it whoever holds enough of the root
	// keys of long ago, and can write this flash, could lead the chain elsewhere, or name a release as kept. A record without links and
	// kept releases says nothing that the fuses do not vouch for, and needs none: the factory writes it.
	Mark []byte `cbor:"4,keyasint,omitempty"`
	// Moves are the handovers by which the device came to other homes, oldest first. What they lead to is in its place in the chain.
	Moves []move `cbor:"5,keyasint,omitempty"`
}

// move is a link of another kind: not the root of the bundle before, but its warrant keys lead from there.
type move struct {
	At      int             `cbor:"1,keyasint"` // place in the chain of the bundle it leads to
	Warrant []byte          `cbor:"2,keyasint"`
	Member  wire.Membership `cbor:"3,keyasint"`
}

// maxMoves bounds how often a device goes to another home.
const maxMoves = 8

// The counter of bundles in the hardware goes on over homes, in eras: who was believed in one before has no version high enough any more,
// also when the flash was lost. A part whose counter rises by one only keeps the era in a counter of its own.
const eraBits = 32

func inEra(era int, version uint64) uint64 { return uint64(era)<<eraBits | version }

// maxKept is one release in each slot.
const maxKept = 2

func newTrustRecord(bundle []byte) ([]byte, error) { return wire.Marshal(trustRecord{Current: bundle}) }

func parseTrustRecord(data []byte) (trustRecord, error) {
	var t trustRecord
	if err := wire.Unmarshal(data, &t, bundleSize); err != nil {
		return trustRecord{}, fmt.Errorf("trust bundle: %w", err)
	}
	if len(t.Current) == 0 && len(t.Links) == 0 || len(t.Kept) > maxKept {
		return trustRecord{}, errors.New("trust bundle: no bundle, or too many releases kept")
	}
	for _, d := range t.Kept {
		if len(d) != sha256.Size {
			return trustRecord{}, errors.New("trust bundle: a release kept without its digest")
		}
	}
	if len(t.Moves) > maxMoves {
		return trustRecord{}, fmt.Errorf("trust bundle: %d homes", len(t.Moves))
	}
	last := 0
	for _, v := range t.Moves {
		if v.At <= last || v.At >= len(t.chain()) {
			return trustRecord{}, errors.New("trust bundle: a handover that leads nowhere")
		}
		last = v.At
	}
	return t, nil
}

// chain is the links and the bundle in force.
func (t trustRecord) chain() [][]byte {
	if len(t.Current) == 0 {
		return t.Links
	}
	return append(slices.Clone(t.Links), t.Current)
}

// plain reports whether the fuses alone vouch for the record.
func (t trustRecord) plain() bool { return len(t.Links) == 0 && len(t.Kept) == 0 && len(t.Moves) == 0 }

// moved finds the handover that leads to place i of the chain.
func (t trustRecord) moved(i int) (move, bool) {
	for _, v := range t.Moves {
		if v.At == i {
			return v, true
		}
	}
	return move{}, false
}

func (t trustRecord) mark(key []byte) ([]byte, error) {
	t.Mark = nil
	b, err := wire.Marshal(t)
	if err != nil {
		return nil, err
	}
	h := hmac.New(sha256.New, key)
	h.Write(b)
	return h.Sum(nil), nil
}

// markKey is the key of the mark: derived from the fused secret, which is closed before anything else starts.
func markKey(secret []byte) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("hallmark-trust-record-1"))
	return h.Sum(nil)
}

// believe says whom a record names and where that is, or why it is not believed on this board.
func (m *Manager) believe(t trustRecord) (wire.Bundle, *wire.Home, error) {
	b, home, err := m.chained(t)
	if err == nil {
		err = m.recent(len(t.Moves), b.Version)
	}
	return b, home, err
}

// chained says the same of a record that may be older than the last.
func (m *Manager) chained(t trustRecord) (wire.Bundle, *wire.Home, error) {
	if !t.plain() {
		want, err := t.mark(m.markKey)
		if err != nil {
			return wire.Bundle{}, nil, err
		}
		if !hmac.Equal(want, t.Mark) {
			return wire.Bundle{}, nil, errors.New("trust bundle: this board did not keep it like this")
		}
	}
	var last *wire.Bundle
	var home *wire.Home
	for i, env := range t.chain() {
		b, h, err := wire.Bundle{}, home, error(nil)
		if v, ok := t.moved(i); ok {
			b, h, err = m.lead(*last, wire.Handover{Warrant: v.Warrant, Member: v.Member, Bundle: env})
		} else {
			b, err = m.link(last, env)
		}
		if err != nil {
			return wire.Bundle{}, nil, err
		}
		last, home = &b, h
	}
	return *last, home, nil
}

// Record gives the trust record of a board that was handed to another home, for others to keep; nil of one that comes back by its fuses and the signed
// history. It says nothing that is not in public logs, and this board alone believes it.
func (m *Manager) Record() ([]byte, error) {
	if len(m.trust.Moves) == 0 {
		return nil, nil
	}
	return m.encode(m.trust)
}

// Trusted gives the trust record as it is, for a copy beside the boot manager that is kept (ROM.Restore); nil where there is none.
func (m *Manager) Trusted() ([]byte, error) {
	if m.rep.Bundle.Version == 0 {
		return nil, nil
	}
	return m.encode(m.trust)
}

// Recall gives the bundle in force by a record that this board once had: one of the home that it is in now, by its counter. It may be older than the last.
func (m *Manager) Recall(record []byte) (wire.Bundle, error) {
	_, b, _, err := m.recall(record)
	return b, err
}

func (m *Manager) recall(record []byte) (trustRecord, wire.Bundle, *wire.Home, error) {
	t, err := parseTrustRecord(record)
	if err != nil {
		return t, wire.Bundle{}, nil, err
	}
	if len(t.Moves) != m.rep.Homes {
		return t, wire.Bundle{}, nil, fmt.Errorf("trust record: of home %d, this board is in home %d", len(t.Moves), m.rep.Homes)
	}
	b, home, err := m.chained(t)
	return t, b, home, err
}

// Restore takes back a record that this board once had, with the bundles that followed since: see Recall. It is for a board that has none.
func (m *Manager) Restore(record []byte, envs ...[]byte) error {
	if m.rep.Bundle.Version != 0 {
		return errors.New("trust record: there is one")
	}
	t, b, home, err := m.recall(record)
	if err != nil {
		return err
	}
	was, none := m.trust, m.rep.Bundle
	m.trust, m.rep.Bundle = t, b
	if len(envs) > 0 {
		err = m.SetBundle(envs...)
	} else if err = errors.Join(m.recent(len(t.Moves), b.Version), m.startsUnder(b)); err == nil {
		err = m.keepTrust(t, b)
	}
	if err != nil {
		m.trust, m.rep.Bundle = was, none
		return err
	}
	m.rep.Home = home
	return nil
}

// recent refuses what is older than what was in force.
func (m *Manager) recent(era int, version uint64) error {
	least, err := m.board.Trust.Value()
	if err != nil {
		return err
	}
	if version >= 1<<eraBits {
		return fmt.Errorf("trust bundle: version %d is beyond all counting", version)
	}
	if inEra(era, version) < least {
		return fmt.Errorf("trust bundle: version %d of home %d, version %d of home %d was in force", version, era, least&(1<<eraBits-1), least>>eraBits)
	}
	return nil
}

// lead checks a handover from the bundle before, and says where it leads.
func (m *Manager) lead(before wire.Bundle, h wire.Handover) (wire.Bundle, *wire.Home, error) {
	b, home, err := h.Leads(before, m.rep.Identity.Device)
	if err != nil {
		return wire.Bundle{}, nil, fmt.Errorf("handover: %w", err)
	}
	return b, &home, nil
}

// Move makes another instance this device's home: from then on nobody of before counts. What runs goes on running, by its digest, until it is
// replaced there. It is one write; done before, it is done again without one.
func (m *Manager) Move(h wire.Handover) error {
	if n := len(m.trust.Moves); n > 0 && bytes.Equal(m.trust.Moves[n-1].Warrant, h.Warrant) {
		return nil
	}
	t, next, home, err := m.after(h)
	if err != nil {
		return err
	}
	if err := m.keepTrust(t, next); err != nil {
		return err
	}
	m.rep.Home = home
	return nil
}

// MayMove says whether Move would succeed, and touches nothing.
func (m *Manager) MayMove(h wire.Handover) error {
	t, _, _, err := m.after(h)
	if err == nil {
		_, err = m.encode(t)
	}
	return err
}

// after gives the record that a handover leads to.
func (m *Manager) after(h wire.Handover) (trustRecord, wire.Bundle, *wire.Home, error) {
	none := func(err error) (trustRecord, wire.Bundle, *wire.Home, error) {
		return trustRecord{}, wire.Bundle{}, nil, err
	}
	if m.rep.Bundle.Version == 0 || m.rep.Trial {
		return none(errors.New("a release is on trial, or there is no trust bundle: confirm or revert it first"))
	}
	next, home, err := m.lead(m.rep.Bundle, h)
	if err != nil {
		return none(err)
	}
	if m.rep.Release != nil {
		if err := m.rep.Release.Admissible(next); err != nil {
			return none(fmt.Errorf("what runs could not start there: %w", err))
		}
	}
	if err := m.startsUnder(next); err != nil {
		return none(fmt.Errorf("what starts this device could not start there: %w", err))
	}
	if len(m.trust.Moves) >= maxMoves {
		return none(fmt.Errorf("this device has had %d homes: it goes to no other", len(m.trust.Moves)))
	}
	if err := m.recent(len(m.trust.Moves)+1, next.Version); err != nil {
		return none(err)
	}
	t := trustRecord{Links: m.trust.chain(), Current: h.Bundle, Moves: slices.Clone(m.trust.Moves)}
	t.Moves = append(t.Moves, move{At: len(t.Links), Warrant: h.Warrant, Member: h.Member})
	if m.rep.Release != nil {
		t.Kept = [][]byte{bytes.Clone(m.rep.Digest[:])}
	}
	return t, next, home, nil
}

// keepTrust makes t the record, and raises the counter that nothing older is believed by.
func (m *Manager) keepTrust(t trustRecord, b wire.Bundle) error {
	data, err := m.encode(t)
	if err != nil {
		return err
	}
	if err := m.flash.bundle.Save(data); err != nil {
		return err
	}
	m.trust, m.rep.Bundle = t, b
	return m.board.Trust.Raise(inEra(len(t.Moves), b.Version))
}

// encode writes a record with its mark, if there is room for it.
func (m *Manager) encode(t trustRecord) (data []byte, err error) {
	if t.Mark, err = t.mark(m.markKey); err != nil {
		return nil, err
	}
	if data, err = wire.Marshal(t); err != nil {
		return nil, err
	}
	if len(data) > m.flash.bundle.Max() {
		return nil, fmt.Errorf("trust bundle: %d bytes with %d changes of the root role and %d homes: there is room for %d", len(data), len(t.Links), len(t.Moves),
			m.flash.bundle.Max())
	}
	return data, nil
}

// link checks that a stored bundle is vouched for: by the root of the one before, or, with none, by the fuses.
func (m *Manager) link(before *wire.Bundle, env []byte) (wire.Bundle, error) {
	b, err := wire.VerifyBundle(nil, env)
	if err != nil {
		return wire.Bundle{}, fmt.Errorf("trust bundle: %w", err)
	}
	if b.Product != m.rep.Identity.Product {
		return wire.Bundle{}, fmt.Errorf("trust bundle: for product %q, this is %q", b.Product, m.rep.Identity.Product)
	}
	if before == nil {
		return b, m.fused(b)
	}
	if _, err := wire.VerifyThreshold(wire.TypeBundle, env, before.Root); err != nil {
		return wire.Bundle{}, fmt.Errorf("trust bundle %d: by the root of %d: %w", b.Version, before.Version, err)
	}
	if b.Version <= before.Version || b.Floor < before.Floor || b.Least() < before.Least() {
		return wire.Bundle{}, fmt.Errorf("trust bundle %d does not follow %d", b.Version, before.Version)
	}
	return b, nil
}

// fused checks that the bundle's root role is the one in the fuses.
func (m *Manager) fused(b wire.Bundle) error {
	have, err := wire.RootDigest(b)
	if err != nil {
		return err
	}
	if have != m.rep.Root {
		return errors.New("trust bundle: its root is not the one in the fuses")
	}
	return nil
}

// follow gives the record after env, which must be the next bundle; with no bundle yet it must have the root of the fuses.
func (m *Manager) follow(t trustRecord, cur *wire.Bundle, env []byte) (trustRecord, wire.Bundle, error) {
	next, err := wire.VerifyBundle(cur, env)
	if err != nil {
		return t, next, err
	}
	if next.Product != m.rep.Identity.Product {
		return t, next, fmt.Errorf("trust bundle: for product %q, this is %q", next.Product, m.rep.Identity.Product)
	}
	if cur == nil {
		return trustRecord{Current: env}, next, m.fused(next)
	}
	was, err := wire.RootDigest(*cur)
	if err != nil {
		return t, next, err
	}
	now, err := wire.RootDigest(next)
	if err != nil {
		return t, next, err
	}
	if was == now {
		if _, handed := t.moved(len(t.Links)); handed && len(t.Current) > 0 {
			t.Links = append(slices.Clone(t.Links), t.Current) // the warrant names this one, and no other of its root
		}
		t.Current = env
		return t, next, nil
	}
	if _, handed := t.moved(len(t.Links)); handed && len(t.Current) > 0 || len(t.Links) == 0 {
		t.Links = append(slices.Clone(t.Links), t.Current) // where a home, or the fuses, begin is a link as well
	}
	t.Links, t.Current = append(slices.Clone(t.Links), env), nil
	return t, next, nil
}

// SetBundle replaces the trust bundle by the last of the given ones; each follows the one before it, the first the one in force. A
// board that has lost its bundle begins with one that has the root role of its fuses. All of them are taken at once, or none.
func (m *Manager) SetBundle(envs ...[]byte) error {
	t, b, err := m.behind(envs)
	if err != nil {
		return err
	}
	return m.keepTrust(t, b)
}

// MaySet says whether SetBundle would succeed, and touches nothing.
func (m *Manager) MaySet(envs ...[]byte) error {
	t, _, err := m.behind(envs)
	if err == nil {
		_, err = m.encode(t)
	}
	return err
}

// behind gives the record that bundles lead to, each following the one before it.
func (m *Manager) behind(envs [][]byte) (trustRecord, wire.Bundle, error) {
	t, cur := m.trust, &m.rep.Bundle
	if cur.Version == 0 {
		cur = nil
	}
	for _, env := range envs {
		var next wire.Bundle
		var err error
		if t, next, err = m.follow(t, cur, env); err != nil {
			return t, next, err
		}
		cur = &next
	}
	if len(envs) == 0 {
		return t, wire.Bundle{}, errors.New("trust bundle: none was given")
	}
	if err := errors.Join(m.recent(len(t.Moves), cur.Version), m.startsUnder(*cur)); err != nil {
		return t, wire.Bundle{}, err
	}
	t, err := m.keep(t, *cur)
	return t, *cur, err
}

// startsUnder refuses a bundle under which this boot manager would not start again: it is replaced first, and then the bundle that forbids it is taken.
func (m *Manager) startsUnder(next wire.Bundle) error {
	if m.self == [32]byte{} { // none runs: a technician brings the bundle
		return nil
	}
	demand, err := m.board.Fuses.SignedBoot()
	if err != nil {
		return err
	}
	if demand && len(next.BootManagers) == 0 {
		return fmt.Errorf("%w: trust bundle %d names none, and this device demands one", wire.ErrBootManager, next.Version)
	}
	return next.Starts(m.self, m.board.Revision)
}

// keep notes the releases in the slots that next would not authorise any more though the bundle in force does.
func (m *Manager) keep(t trustRecord, next wire.Bundle) (trustRecord, error) {
	kept := [][]byte{}
	for _, slot := range []Slot{SlotA, SlotB} {
		st, err := m.flash.load(slot)
		if err != nil {
			if hard(err) {
				return t, err
			}
			continue // there is none
		}
		if _, _, err := wire.VerifyRelease(next, st.env); err == nil {
			continue
		}
		_, digest, err := m.released(m.rep.Bundle, st.env)
		if err != nil || slices.ContainsFunc(kept, func(d []byte) bool { return bytes.Equal(d, digest[:]) }) {
			continue
		}
		kept = append(kept, digest[:])
	}
	t.Kept = kept
	return t, nil
}

// released verifies a release by b, or as one that was authorised here before the signers changed. Product and floor hold for both.
func (m *Manager) released(b wire.Bundle, env []byte) (wire.Release, [32]byte, error) {
	rel, digest, err := wire.VerifyRelease(b, env)
	if err == nil || !errors.Is(err, wire.ErrThreshold) || b.Version == 0 {
		return rel, digest, err
	}
	payload, _, parse := wire.ThresholdPayload(wire.TypeRelease, env)
	if parse != nil {
		return rel, digest, err
	}
	digest = wire.ReleaseDigest(payload)
	if !slices.ContainsFunc(m.trust.Kept, func(d []byte) bool { return bytes.Equal(d, digest[:]) }) {
		return rel, digest, err
	}
	if rel, err = wire.DecodeRelease(payload); err != nil {
		return rel, digest, err
	}
	return rel, digest, rel.Admissible(b)
}
