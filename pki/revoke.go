package pki

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
)

// Scope says how much a revocation takes with it.
type Scope string

// The scopes: one certificate, everything a device holds, everything a CA has signed.
const (
	ScopeCert   Scope = "cert"
	ScopeDevice Scope = "device"
	ScopeIssuer Scope = "issuer"
)

// Reason codes of RFC 5280 §5.3.1 that are used here.
const (
	ReasonUnspecified = 0
	KeyCompromise     = 1
	CACompromise      = 2
	Superseded        = 4
	Cessation         = 5
	Withdrawn         = 9
)

// Revocation is one entry of the list. Seq orders entries as they were made, so that a reader asks only for newer ones.
type Revocation struct {
	Seq    int64     `json:"-"`
	Scope  Scope     `json:"scope"`
	ID     string    `json:"id"`     // CertKey, device ID, or the CA's subject key ID in hex
	Reason int       `json:"reason"` // RFC 5280 §5.3.1
	At     time.Time `json:"at"`     // from when on; in the future for a certificate that was replaced and may finish its work
	By     string    `json:"by"`
	Issuer string    `json:"issuer,omitempty"` // of a certificate: its CA's subject key ID in hex
	Serial string    `json:"serial,omitempty"` // of a certificate, hex
}

// CertKey names a certificate by issuer key and serial number. It is not a digest of the certificate: an ECDSA signature can be
// changed without the key, and the certificate would stay good under another digest.
func CertKey(c *x509.Certificate) string {
	return hex.EncodeToString(c.AuthorityKeyId) + "/" + c.SerialNumber.Text(16)
}

// Revocations is the list in memory, for checks at every handshake. It is safe for concurrent use.
type Revocations struct {
	maxAge time.Duration

	mu    sync.RWMutex
	by    map[string]Revocation // by scope and ID; guarded by mu
	last  int64                 // newest Seq seen; guarded by mu
	fresh time.Time             // when the store last answered; guarded by mu
}

// NewRevocations makes a list that answers only while it is younger than maxAge.
func NewRevocations(maxAge time.Duration) *Revocations {
	return &Revocations{maxAge: maxAge, by: map[string]Revocation{}}
}

// Check answers nil when nothing revokes cert of device now, and a fault otherwise. A list too old to tell is a fault as well.
func (r *Revocations) Check(cert *x509.Certificate, device string, now time.Time) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if age := now.Sub(r.fresh); age > r.maxAge {
		return fault.New(fault.Unavailable, "cert.revocation-unknown",
			fmt.Sprintf("the list of revocations is %s old, at most %s: nobody can be let in", age.Round(time.Second), r.maxAge), "look at the store")
	}
	for _, k := range []string{
		string(ScopeCert) + CertKey(cert),
		string(ScopeDevice) + device,
		string(ScopeIssuer) + hex.EncodeToString(cert.AuthorityKeyId),
	} {
		if v, ok := r.by[k]; ok && !now.Before(v.At) {
			return fault.New(fault.Denied, "cert.revoked",
				fmt.Sprintf("the certificate of device %s is revoked (%s, since %s)", device, v.Scope, v.At.UTC().Format(time.RFC3339)),
				"the device has to be provisioned again")
		}
	}
	return nil
}

// CheckConnection is Check, but lets in a device whose life has ended in good order (ReasonCessation for all it holds): it may still
// have to be told that its receipt has arrived. Who serves such a connection has to Check, and tell it nothing else.
func (r *Revocations) CheckConnection(cert *x509.Certificate, device string, now time.Time) error {
	err := r.Check(cert, device, now)
	if err == nil {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	v, ended := r.by[string(ScopeDevice)+device]
	_, one := r.by[string(ScopeCert)+CertKey(cert)]
	_, all := r.by[string(ScopeIssuer)+hex.EncodeToString(cert.AuthorityKeyId)]
	if now.Sub(r.fresh) <= r.maxAge && ended && v.Reason == Cessation && !one && !all {
		return nil
	}
	return err
}

// add takes entries in; an entry never becomes weaker: the earliest date stands.
func (r *Revocations) add(asOf time.Time, entries ...Revocation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		k := string(e.Scope) + e.ID
		if old, ok := r.by[k]; !ok || e.At.Before(old.At) {
			r.by[k] = e
		}
		r.last = max(r.last, e.Seq)
	}
	if asOf.After(r.fresh) {
		r.fresh = asOf
	}
}

func (r *Revocations) newest() int64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.last
}

// certs gives the revoked certificates of a CA as of now.
func (r *Revocations) certs(issuer string, now time.Time) []Revocation {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []Revocation
	for _, e := range r.by {
		if e.Scope == ScopeCert && e.Issuer == issuer && !now.Before(e.At) {
			out = append(out, e)
		}
	}
	return out
}
