package boot

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/hallmark-iot/hallmark/agent/hw"
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
}

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
func (t trustRecord) plain() bool { return len(t.Links) == 0 && len(t.Kept) == 0 }

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

// markKey is derived from the fused secret, which is locked before anything else starts.
func (m *Manager) deriveMarkKey() error {
	secret, err := m.board.Fuses.Secret()
	if err != nil && !errors.Is(err, hw.ErrNotBurned) {
		return err
	}
	h := hmac.New(sha256.New, secret[:])
	h.Write([]byte("hallmark-trust-record-1"))
	m.markKey = h.Sum(nil)
	return nil
}

// believe says whom a record names, or why it is not believed on this board.
func (m *Manager) believe(t trustRecord) (wire.Bundle, error) {
	if !t.plain() {
		want, err := t.mark(m.markKey)
		if err != nil {
			return wire.Bundle{}, err
		}
		if !hmac.Equal(want, t.Mark) {
			return wire.Bundle{}, errors.New("trust bundle: this board did not keep it like this")
		}
	}
	var last *wire.Bundle
	for _, env := range t.chain() {
		b, err := m.link(last, env)
		if err != nil {
			return wire.Bundle{}, err
		}
		last = &b
	}
	least, err := m.board.Trust.Value()
	if err != nil {
		return wire.Bundle{}, err
	}
	if last.Version < least {
		return wire.Bundle{}, fmt.Errorf("trust bundle: version %d, %d was in force", last.Version, least)
	}
	return *last, nil
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
	if b.Version <= before.Version || b.Floor < before.Floor {
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
		t.Current = env
		return t, next, nil
	}
	if len(t.Links) == 0 {
		t.Links = [][]byte{t.Current}
	}
	t.Links, t.Current = append(slices.Clone(t.Links), env), nil
	return t, next, nil
}

// SetBundle replaces the trust bundle by the last of the given ones; each follows the one before it, the first the one in force. A
// board that has lost its bundle begins with one that has the root role of its fuses. All of them are taken at once, or none.
func (m *Manager) SetBundle(envs ...[]byte) error {
	t, cur := m.trust, &m.rep.Bundle
	if cur.Version == 0 {
		cur = nil
	}
	for _, env := range envs {
		var next wire.Bundle
		var err error
		if t, next, err = m.follow(t, cur, env); err != nil {
			return err
		}
		cur = &next
	}
	least, err := m.board.Trust.Value()
	if err != nil {
		return err
	}
	if len(envs) == 0 || cur.Version < least {
		return fmt.Errorf("trust bundle: the last of %d is older than version %d, which was in force", len(envs), least)
	}
	if t, err = m.keep(t, *cur); err != nil {
		return err
	}
	if t.Mark, err = t.mark(m.markKey); err != nil {
		return err
	}
	data, err := wire.Marshal(t)
	if err != nil {
		return err
	}
	if len(data) > m.flash.bundle.Max() {
		return fmt.Errorf("trust bundle: %d bytes with %d changes of the root role: there is room for %d", len(data), len(t.Links), m.flash.bundle.Max())
	}
	if err := m.flash.bundle.Save(data); err != nil {
		return err
	}
	m.trust, m.rep.Bundle = t, *cur
	return m.board.Trust.Raise(cur.Version)
}

// keep notes the releases in the slots that next would not authorise any more though the bundle in force does.
func (m *Manager) keep(t trustRecord, next wire.Bundle) (trustRecord, error) {
	kept := [][]byte{}
	for _, r := range m.flash.slots {
		env, err := envelope(r)
		if err != nil {
			if hard(err) {
				return t, err
			}
			continue // there is none
		}
		if _, _, err := wire.VerifyRelease(next, env); err == nil {
			continue
		}
		_, digest, err := m.released(m.rep.Bundle, env)
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
