package pki

import (
	"cmp"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// SKI is the CA's subject key ID in hex, by which it is named.
func (a *Authority) SKI() string { return hex.EncodeToString(a.Cert.SubjectKeyId) }

// SKIOf is the name of a CA, by its certificate.
func SKIOf(ca *x509.Certificate) string { return hex.EncodeToString(ca.SubjectKeyId) }

// Product is the product that the CA is for; empty: all of the OEM's.
func (a *Authority) Product() string {
	_, product := idevid.SubjectOEM(a.Cert)
	return product
}

// Held are the CAs whose keys this instance may use. There may be several of a role: a new one takes over issuing, and the one before goes on
// signing its lists until nothing of it is valid any more. It is safe for concurrent use.
type Held struct {
	mu sync.RWMutex
	by map[string]*Authority // by SKI; guarded by mu
}

// NewHeld holds as.
func NewHeld(as ...*Authority) *Held {
	h := &Held{by: map[string]*Authority{}}
	for _, a := range as {
		h.Add(a)
	}
	return h
}

// Add holds one more.
func (h *Held) Add(a *Authority) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.by[a.SKI()] = a
}

// Drop lets one go.
func (h *Held) Drop(ski string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.by, ski)
}

// All gives them, by role and then by SKI.
func (h *Held) All() []*Authority {
	h.mu.RLock()
	defer h.mu.RUnlock()
	out := make([]*Authority, 0, len(h.by))
	for _, a := range h.by {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b *Authority) int { return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.SKI(), b.SKI())) })
	return out
}

// Get gives one by its SKI.
func (h *Held) Get(ski string) (*Authority, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	a, ok := h.by[ski]
	return a, ok
}

// Issuing gives the CA of a role that signs now, and for a product where the role has one for each: the newest that is valid.
func (h *Held) Issuing(role profile.Role, product string, now time.Time) (*Authority, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var best *Authority
	for _, a := range h.by {
		if a.Role != role || a.Product() != product || now.Before(a.Cert.NotBefore) || !now.Before(a.Cert.NotAfter) {
			continue
		}
		if best == nil || cmp.Or(a.Cert.NotBefore.Compare(best.Cert.NotBefore), cmp.Compare(a.SKI(), best.SKI())) > 0 {
			best = a
		}
	}
	if best != nil {
		return best, nil
	}
	what, remedy := fmt.Sprintf("no valid CA of role %s", role), fmt.Sprintf("have one signed: `hallmark ca request %s`", role)
	if product != "" {
		what, remedy = what+" for product "+product, remedy+" --product "+product
	}
	return nil, fault.New(fault.Unavailable, "ca.none", "this instance holds "+what, remedy)
}

// minLife is the least that is left of a CA's life for a certificate to be worth signing.
const minLife = time.Hour

// until gives the end of a certificate that a signs now for life: it never outlives its CA.
func (a *Authority) until(now time.Time, life time.Duration) (time.Time, error) {
	left := a.Cert.NotAfter.Sub(now)
	if left >= life {
		return now.Add(life), nil
	}
	if left < min(life, minLife) {
		return time.Time{}, fault.New(fault.Unavailable, "ca.ending", fmt.Sprintf("CA %q ends on %s", a.Cert.Subject, a.Cert.NotAfter.UTC().Format(time.RFC3339)),
			fmt.Sprintf("have a new one signed: `hallmark ca request %s`", a.Role))
	}
	return a.Cert.NotAfter, nil
}
