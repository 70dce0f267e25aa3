package factory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/singleflight"

	"github.com/hallmark-iot/hallmark/wire"
)

// planned remembers the serials of orders that devices without a record came from. A serial says nothing to who has not the ticket seed. Its first half is
// enough: that another one begins like it does not happen by chance, and would only be told to come again.
type planned struct {
	flight singleflight.Group // makes the serials of an order once, however many ask
	turn   sync.Mutex         // and of one order at a time

	mu  sync.Mutex
	by  map[string][]uint64 // by order, in order; guarded by mu
	use []string            // orders of by, the one that was asked for longest ago first; guarded by mu
	n   int                 // serials in all of them; guarded by mu
	cas map[[32]byte]string // SHA-256 of a CA: the order that was verified to have it; guarded by mu
}

const (
	maxPlanned    = wire.MaxQuota + wire.MaxQuota/4 // bounds the serials: 100 MB
	maxPlannedCAs = 4096
)

// Planned reports whether a device whose certificate is by the CA ca is one of those that an open order of that CA is for: its serial comes from one of the
// order's tickets. Its record may come yet. It is no verb: it tells who presents such a certificate to come back later.
func (s *Service) Planned(ctx context.Context, ca *x509.Certificate, device string) (bool, error) {
	id, of := strings.CutPrefix(ca.Subject.CommonName, "order ") // see idevid.OrderName
	id, _, both := strings.Cut(id, " ")
	at, err := strconv.ParseUint(device[:min(16, len(device))], 16, 64)
	if !of || !both || err != nil {
		return false, nil //nolint:nilerr // what is no serial is none of an order's
	}
	o, err := s.c.Store.Order(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil || o.State != Open {
		return false, err
	}
	if is, err := s.isOf(ctx, ca, o); err != nil || !is {
		return false, err
	}
	serials, err := s.serials(ctx, o)
	if err != nil {
		return false, err
	}
	_, is := slices.BinarySearch(serials, at)
	return is, nil
}

// isOf says whether a CA is that of an order, whatever its name says. An order is verified once: its CA stays what it is.
func (s *Service) isOf(ctx context.Context, ca *x509.Certificate, o Order) (bool, error) {
	p, sum := &s.planned, sha256.Sum256(ca.Raw)
	p.mu.Lock()
	id := p.cas[sum]
	p.mu.Unlock()
	if id != "" {
		return id == o.ID, nil
	}
	order, err := s.signed(ctx, o)
	if err != nil {
		return false, fmt.Errorf("order %s: %w", o.ID, err)
	}
	if len(order.Header.Chain) == 0 || !bytes.Equal(order.Header.Chain[0], ca.Raw) {
		return false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cas == nil || len(p.cas) >= maxPlannedCAs {
		p.cas = map[[32]byte]string{}
	}
	p.cas[sum] = o.ID
	return true, nil
}

// serials gives those of an order. They are made besides whoever asks, who may go: a large order takes seconds.
func (s *Service) serials(ctx context.Context, o Order) ([]uint64, error) {
	if known := s.planned.known(o.ID); known != nil {
		return known, nil
	}
	made := s.planned.flight.DoChan(o.ID, func() (any, error) {
		s.planned.turn.Lock()
		defer s.planned.turn.Unlock()
		if known := s.planned.known(o.ID); known != nil {
			return known, nil
		}
		list, err := s.plan(o)
		if err == nil {
			s.planned.keep(o.ID, list)
		}
		return list, err
	})
	select {
	case r := <-made:
		list, _ := r.Val.([]uint64)
		return list, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *planned) known(id string) []uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.use, id); i >= 0 {
		p.use = append(slices.Delete(p.use, i, i+1), id)
	}
	return p.by[id]
}

// keep remembers an order's serials, and forgets those of orders that were asked for longest ago when there are too many.
func (p *planned) keep(id string, list []uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == nil {
		p.by = map[string][]uint64{}
	}
	for len(p.use) > 0 && p.n+len(list) > maxPlanned {
		p.n -= len(p.by[p.use[0]])
		delete(p.by, p.use[0])
		p.use = slices.Delete(p.use, 0, 1)
	}
	p.by[id], p.n, p.use = list, p.n+len(list), append(p.use, id)
}

// plan makes them.
func (s *Service) plan(o Order) ([]uint64, error) {
	sec, err := s.secret(o)
	if err != nil {
		return nil, err
	}
	out := make([]uint64, o.Quota)
	for i := range out {
		if out[i], err = strconv.ParseUint(wire.DeviceID(sec.Seed, uint32(i))[:16], 16, 64); err != nil {
			return nil, fmt.Errorf("order %s: %w", o.ID, err)
		}
	}
	slices.Sort(out)
	return out, nil
}

// secret opens an order's.
func (s *Service) secret(o Order) (sec secret, err error) {
	if len(o.Secret) == 0 {
		return sec, lost(o)
	}
	plain, err := s.c.Vault.Open(vaultLabel(o.ID), o.Secret)
	if err != nil {
		return sec, fmt.Errorf("order %s: %w", o.ID, err)
	}
	defer clear(plain)
	if err := json.Unmarshal(plain, &sec); err != nil {
		return sec, fmt.Errorf("order %s: secret: %w", o.ID, err)
	}
	return sec, nil
}
