package pki

import (
	"cmp"
	"context"
	"crypto"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/pki/profile"
	"golang.org/x/crypto/ocsp"
)

// Bounds of the answers that are made ahead: some 1.5 kB each certificate. Beyond them answers are made when they are asked for.
const (
	maxAhead   = 1 << 16
	aheadPage  = 512 // certificates in one round
	aheadEvery = time.Minute
)

// statusHashes are those that requests name a CA by: openssl's first, and the one that replaces it.
func statusHashes() [2]crypto.Hash { return [2]crypto.Hash{crypto.SHA1, crypto.SHA256} }

// madeAhead gives the answer that was made before anybody asked. What is revoked for good stays so: nothing has to be looked up.
func (s *Service) madeAhead(key string) (Status, bool) {
	s.responder.mu.Lock()
	defer s.responder.mu.Unlock()
	kept, ok := s.responder.ahead[key]
	return kept.Status, ok && s.c.Now().Before(kept.Until.Add(-profile.Backdate))
}

// KeepStatuses makes the answers about revoked certificates ahead, as soon as the list in memory has them, and again when they are half used up. Each node
// does it for itself, and begins anew at its start: nothing has to be stored. Call it often, from one goroutine: when there is nothing to do it costs nothing.
func (s *Service) KeepStatuses(ctx context.Context) error {
	now := s.c.Now().UTC()
	if pressing := s.c.Revocations.pressing(); pressing > s.responder.seq {
		page := s.c.Revocations.after(s.responder.seq, now, aheadPage)
		for _, e := range page {
			if err := s.makeAhead(ctx, e); err != nil {
				s.responder.seq = pressing // whoever asks has one made, or is told why not; the next revocation begins here again
				return err
			}
			s.responder.seq = e.seq
		}
		if len(page) < aheadPage {
			s.responder.seq = pressing
		}
		return nil // the rest in the next round
	}
	if now.Sub(s.responder.looked).Abs() < aheadEvery {
		return nil
	}
	s.responder.looked = now
	return s.renewAhead(ctx, now)
}

// named is an entry of the list with the certificate that it is about.
type named struct {
	entry
	issuer string
	serial serial
}

// after gives entries behind a Seq, in order: of certificates that are revoked for good, and have not ended.
func (r *Revocations) after(seq int64, now time.Time, limit int) []named {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []named
	for id, in := range r.shards {
		if in.urgent <= seq || id.Shard == CAList {
			continue
		}
		for number, e := range in.entries {
			if e.seq > seq && e.reason != Superseded && (e.expires == 0 || e.expires > now.UnixMilli()) {
				out = append(out, named{e, id.Issuer, number})
			}
		}
	}
	slices.SortFunc(out, func(a, b named) int { return cmp.Compare(a.seq, b.seq) })
	return out[:min(limit, len(out))]
}

// makeAhead makes the answers about a revoked certificate, where anybody is told.
func (s *Service) makeAhead(ctx context.Context, e named) error {
	ca, ok := s.c.Held.Get(e.issuer)
	if !ok || ca.Role != profile.Operational {
		return nil
	}
	number := new(big.Int).SetBytes(e.serial[:])
	st, cert, err := s.standing(ctx, ca, number)
	if err != nil || cert == nil || st.Status != ocsp.Revoked {
		return err
	}
	if told, err := s.toldOf(ctx, cert); err != nil || !told {
		return err
	}
	made := map[string]keptStatus{}
	for _, by := range statusHashes() {
		signed, err := s.signStatus(ca, st, by)
		if err != nil {
			return fmt.Errorf("status of %s ahead: %w", cert.SerialNumber.Text(16), err)
		}
		made[statusKey(ca.SKI(), number.Text(16), by)] = keptStatus{signed, st.RevokedAt.UnixMilli()}
	}
	s.responder.mu.Lock()
	defer s.responder.mu.Unlock()
	if s.responder.ahead == nil {
		s.responder.ahead = map[string]keptStatus{}
	}
	for key, one := range made {
		if _, ok := s.responder.ahead[key]; ok || len(s.responder.ahead) < maxAhead {
			s.responder.ahead[key] = one
		}
	}
	return nil
}

// renewAhead makes answers anew that are half used up, and forgets those about certificates that have ended.
func (s *Service) renewAhead(ctx context.Context, now time.Time) error {
	half := now.Add(-ocspRevoked / 2)
	s.responder.mu.Lock()
	old := 0
	for _, one := range s.responder.ahead {
		if one.Made.Before(half) {
			old++
		}
	}
	s.responder.mu.Unlock()
	if old == 0 {
		return nil
	}
	for _, e := range s.c.Revocations.after(0, now, maxAhead) {
		if made, ok := s.ageOf(e); ok && made.Before(half) {
			if err := s.makeAhead(ctx, e); err != nil {
				return err
			}
		}
	}
	s.responder.mu.Lock()
	defer s.responder.mu.Unlock()
	for key, one := range s.responder.ahead {
		if !now.Before(one.Until) {
			delete(s.responder.ahead, key)
		}
	}
	return nil
}

// ageOf says when the answers about an entry were made.
func (s *Service) ageOf(e named) (time.Time, bool) {
	key := statusKey(e.issuer, new(big.Int).SetBytes(e.serial[:]).Text(16), statusHashes()[0])
	s.responder.mu.Lock()
	defer s.responder.mu.Unlock()
	one, ok := s.responder.ahead[key]
	return one.Made, ok
}
