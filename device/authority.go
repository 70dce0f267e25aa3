package device

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"sync"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// authority gives the newest directive key of this instance that b believes.
func (s *Service) authority(b wire.Bundle) (crypto.Signer, bool) {
	for _, k := range s.cfg.Authorities() {
		kid, err := wire.IDOf(k)
		if err == nil && b.Directive.Has(kid) {
			return k, true
		}
	}
	return nil, false
}

// authorityOf gives the key that commands for a product are signed with.
func (s *Service) authorityOf(ctx context.Context, product string) (crypto.Signer, error) {
	b, err := s.CurrentBundle(ctx, product)
	if err != nil {
		return nil, err
	}
	if k, ok := s.authority(b.Wire); ok {
		return k, nil
	}
	return nil, fmt.Errorf("trust bundle %d of %s believes no directive key of this instance: see `hallmark key list`", b.Wire.Version, product)
}

// errBlind says that a device believes nothing that can be said to it: it has to come up to the newest bundle first.
var errBlind = errors.New("the device's trust bundle believes none of this")

// commandFor gives a command's entry as a device with bundle b believes it. One that was signed by a directive key which is believed no
// more is issued again, in the same words: what it says, and so its digest, does not change.
func (s *Service) commandFor(ctx context.Context, c Command, b wire.Bundle, in wire.Checkin) (wire.Logged, error) {
	l, err := s.prepared.get("fact "+string(c.UID[:]), b, in, s.cfg.Now(), func() (wire.Logged, error) { return s.loggedFor(ctx, c.UID, b) })
	if errors.Is(err, errOtherLog) {
		return l, errBlind
	}
	if err != nil {
		return l, err
	}
	if kid, known := s.signers.get(c.UID); known && b.Directive.Has(kid) {
		return l, nil
	}
	f, err := wire.DecodeFact(l.Entry)
	if err != nil {
		return l, err
	}
	o, err := wire.Parse1(wire.TypeCommand, f.Data)
	if err == nil {
		s.signers.put(c.UID, o.KeyID)
	}
	if err != nil || b.Directive.Has(o.KeyID) {
		return l, err
	}
	current, err := s.CurrentBundle(ctx, c.Wire.Product)
	if err != nil {
		return l, err
	}
	if current.Wire.Directive.Has(o.KeyID) {
		return l, errBlind // those at the newest bundle believe it
	}
	key, ok := s.authority(current.Wire)
	if !ok {
		return l, errBlind
	}
	envelope, err := wire.Sign1(wire.TypeCommand, o.Payload, key)
	if err != nil {
		return l, err
	}
	again := ledger.New(ledger.KindCommandIssued, s.cfg.Now().UTC(), access.Internal("directive-key").ID, c.ID, nil, envelope)
	if err := s.cfg.Bundles.Resign(ctx, c.ID, c.UID, again); err != nil && !errors.Is(err, ErrChanged) {
		return l, err
	}
	return l, ledger.ErrNotYetWitnessed // it comes with the next check-in
}

// signers remembers which key signed a command, by the UID of its fact, which never changes. Its zero value is empty and ready.
type signers struct {
	mu sync.Mutex
	by map[[16]byte]wire.KeyID // guarded by mu
}

func (s *signers) get(uid [16]byte) (kid wire.KeyID, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kid, known = s.by[uid]
	return kid, known
}

func (s *signers) put(uid [16]byte, kid wire.KeyID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil || len(s.by) >= maxPrepared {
		s.by = map[[16]byte]wire.KeyID{} // start over: simple, and rare
	}
	s.by[uid] = kid
}

// AnchorFor gives an entry of the events log as a device believes it; nil when the log is not signed, or not witnessed now, as its bundle
// asks: the device asks again, and has another bundle by then.
func (s *Service) AnchorFor(ctx context.Context, id string, l wire.Logged) (*wire.Logged, error) {
	d, err := s.cfg.Registry.Device(ctx, id)
	if err != nil {
		return nil, err
	}
	held, err := s.cfg.Trust.Bundle(ctx, d.Product, d.Twin.Bundle)
	if d.Twin.Bundle == 0 || errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p, ok, err := s.cfg.Ledger.SignedBy(ctx, ledger.Events, l.Proof, held.Wire.Events.Key)
	if errors.Is(err, ledger.ErrNotYetWitnessed) || err == nil && !ok {
		return nil, nil
	}
	l.Proof = p
	return &l, err
}
