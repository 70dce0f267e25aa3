package factory

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// planned remembers the serials of orders that devices without a record came from. A serial says nothing to who has not the ticket seed.
type planned struct {
	mu sync.Mutex
	by map[string]map[string]struct{} // by order; guarded by mu
	n  int                            // serials in all of them; guarded by mu
}

// maxPlanned bounds them: some hundred MB at the very most.
const maxPlanned = 1_500_000

// Planned reports whether a device whose certificate is by the CA ca is one of those that an open order of that CA is for: its serial comes from one of the
// order's tickets. Its record may come yet. It is no verb: it tells who presents such a certificate to come back later.
func (s *Service) Planned(ctx context.Context, ca *x509.Certificate, device string) (bool, error) {
	_, product := idevid.SubjectOEM(ca)
	orders, err := s.c.Store.Orders(ctx, product, "", 0)
	if err != nil {
		return false, err
	}
	for _, o := range orders {
		if o.State != Open {
			continue
		}
		order, err := s.signed(o.Envelope)
		if err != nil || len(order.Header.Chain) == 0 || !bytes.Equal(order.Header.Chain[0], ca.Raw) {
			continue // another CA's
		}
		serials, err := s.serials(o)
		if err != nil {
			return false, err
		}
		_, is := serials[device]
		return is, nil
	}
	return false, nil
}

func (s *Service) serials(o Order) (map[string]struct{}, error) {
	s.planned.mu.Lock()
	defer s.planned.mu.Unlock()
	if known := s.planned.by[o.ID]; known != nil {
		return known, nil
	}
	plain, err := s.c.Vault.Open(vaultLabel(o.ID), o.Secret)
	if err != nil {
		return nil, fmt.Errorf("order %s: %w", o.ID, err)
	}
	var sec secret
	if err := json.Unmarshal(plain, &sec); err != nil {
		return nil, fmt.Errorf("order %s: secret: %w", o.ID, err)
	}
	out := make(map[string]struct{}, o.Quota)
	for i := range o.Quota {
		out[wire.DeviceID(sec.Seed, i)] = struct{}{}
	}
	if s.planned.by == nil || s.planned.n+len(out) > maxPlanned {
		s.planned.by, s.planned.n = map[string]map[string]struct{}{}, 0
	}
	s.planned.by[o.ID], s.planned.n = out, s.planned.n+len(out)
	return out, nil
}
