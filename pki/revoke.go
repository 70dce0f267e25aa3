package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire/idevid"
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

	Device  string    `json:"device,omitempty"` // whose it is
	Expires time.Time `json:"expires,omitzero"` // of a certificate: when it ends by itself; zero: never, or not known
	CA      bool      `json:"ca,omitempty"`     // of a certificate: it is a CA's
}

// CertKey names a certificate by issuer key and serial number. It is not a digest of the certificate: an ECDSA signature can be
// changed without the key, and the certificate would stay good under another digest.
func CertKey(c *x509.Certificate) string {
	return hex.EncodeToString(c.AuthorityKeyId) + "/" + c.SerialNumber.Text(16)
}

// Holds reports whether the revocation is in force at now. Only a certificate that was replaced has time left; whatever else is revoked is so
// from when it is read: the clock of the node that made the entry may be ahead of this one's.
func (v Revocation) Holds(now time.Time) bool { return v.Reason != Superseded || !now.Before(v.At) }

// entry is a certificate in the list: all that a check or a published list needs of it.
type entry struct {
	at      int64 // Unix ms; in the future for one that was replaced and may finish its work
	expires int64 // Unix ms; 0: never
	seq     int64
	reason  uint8
}

func (e entry) holds(ms int64) bool { return e.reason != Superseded || ms >= e.at }

// serial is a serial number, big-endian, padded to the longest there is (RFC 5280 §4.1.2.2).
type serial [20]byte

// ListID names a published list: the CA's subject key ID in hex, and which of its shards.
type ListID struct {
	Issuer string
	Shard  int // CAList: the list of the CAs that it has signed
}

// CAList is the shard in which a CA's sub CAs are.
const CAList = -1

// DefaultShards is how many lists the certificates of a CA are spread over: at a million revoked ones each is some 140 kB. It is fixed
// for each CA when it is made, because the address of its list stands in every certificate.
const DefaultShards = 256

// shard is one list as it stands in memory.
type shard struct {
	entries map[serial]entry
	urgent  int64 // Seq of the newest entry that must not wait for the next regular list
}

// whole is an entry that takes everything with it: of a device, or of a CA.
type whole struct {
	at     int64
	reason uint8
}

// Revocations is the list in memory, for checks at every handshake. It is safe for concurrent use.
type Revocations struct {
	maxAge time.Duration

	mu      sync.RWMutex
	shards  map[ListID]*shard // certificates; guarded by mu
	count   map[string]int    // number of shards by CA, where it is not DefaultShards; guarded by mu
	devices map[string]whole  // guarded by mu
	issuers map[string]whole  // guarded by mu
	last    int64             // newest Seq seen by Refresh; guarded by mu
	urgent  int64             // of all shards; guarded by mu
	fresh   time.Time         // when the store last answered; guarded by mu

	version atomic.Uint64 // see Version

	heard func([]Revocation) // called with what is new, outside mu; set before use
}

// NewRevocations makes a list that answers only while it is younger than maxAge.
func NewRevocations(maxAge time.Duration) *Revocations {
	return &Revocations{maxAge: maxAge, shards: map[ListID]*shard{}, count: map[string]int{}, devices: map[string]whole{}, issuers: map[string]whole{}}
}

// OnNew has fn called with entries when the list takes them in, on whatever node they were made. There is one fn, set before the list is
// used; it must not block.
func (r *Revocations) OnNew(fn func([]Revocation)) { r.heard = fn }

// Version is another after each entry that the list took in.
func (r *Revocations) Version() uint64 { return r.version.Load() }

// Check answers nil when nothing revokes cert of device now, and a fault otherwise. A list too old to tell is a fault as well.
func (r *Revocations) Check(cert *x509.Certificate, device string, now time.Time) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if age := now.Sub(r.fresh); age > r.maxAge {
		return fault.New(fault.Unavailable, "cert.revocation-unknown",
			fmt.Sprintf("the list of revocations is %s old, at most %s: nobody can be let in", age.Round(time.Second), r.maxAge), "look at the store")
	}
	issuer, ms := hex.EncodeToString(cert.AuthorityKeyId), now.UnixMilli()
	one, hit := r.one(issuer, cert.SerialNumber)
	for _, v := range []struct {
		scope Scope
		whole
		hit bool
	}{
		{ScopeCert, whole{at: one.at}, hit && one.holds(ms)},
		find(ScopeDevice, r.devices, device),
		find(ScopeIssuer, r.issuers, issuer),
	} {
		if v.hit {
			return fault.New(fault.Denied, "cert.revoked",
				fmt.Sprintf("the certificate of device %s is revoked (%s, since %s)", device, v.scope, time.UnixMilli(v.at).UTC().Format(time.RFC3339)),
				"the device has to be provisioned again")
		}
	}
	return nil
}

func find(scope Scope, in map[string]whole, id string) (v struct {
	scope Scope
	whole
	hit bool
},
) {
	v.scope = scope
	v.whole, v.hit = in[id]
	return v
}

// one finds a certificate. The caller holds mu.
func (r *Revocations) one(issuer string, number *big.Int) (entry, bool) {
	key, ok := serialOf(number)
	if !ok {
		return entry{}, false
	}
	for _, at := range []ListID{{issuer, r.shardOf(issuer, number)}, {issuer, CAList}} {
		if s := r.shards[at]; s != nil {
			if e, ok := s.entries[key]; ok {
				return e, true
			}
		}
	}
	return entry{}, false
}

func serialOf(number *big.Int) (s serial, ok bool) {
	if number == nil || number.Sign() <= 0 || number.BitLen() > 8*len(s) {
		return s, false
	}
	number.FillBytes(s[:])
	return s, true
}

// shardOf says which of its CA's lists a serial number is in. The caller holds mu.
func (r *Revocations) shardOf(issuer string, number *big.Int) int {
	n, ok := r.count[issuer]
	if !ok {
		n = DefaultShards
	}
	return shardOf(number, n)
}

func (r *Revocations) shardCount(issuer string) int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if n, ok := r.count[issuer]; ok {
		return n
	}
	return DefaultShards
}

// setShards says over how many lists a CA's certificates are spread. What is in the list already moves to where it belongs then.
func (r *Revocations) setShards(issuer string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	had, ok := r.count[issuer]
	if !ok {
		had = DefaultShards
	}
	if n == had {
		return
	}
	r.count[issuer] = n
	for i := range had {
		s := r.shards[ListID{issuer, i}]
		delete(r.shards, ListID{issuer, i})
		if s == nil {
			continue
		}
		for key, e := range s.entries {
			r.put(ListID{issuer, shardOf(new(big.Int).SetBytes(key[:]), n)}, key, e)
		}
	}
}

// CheckConnection is Check, but lets in a device whose life has ended in good order (ReasonCessation for all it holds): it may still
// have to be told that its receipt has arrived; and who presents a factory identity that alone was revoked, because the device was given other
// keys: enrolment refuses that with an account of it. Who serves such a connection has to Check, and tell it nothing else.
func (r *Revocations) CheckConnection(cert *x509.Certificate, device string, now time.Time) error {
	err := r.Check(cert, device, now)
	if err == nil {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	issuer := hex.EncodeToString(cert.AuthorityKeyId)
	v, ended := r.devices[device]
	one, hit := r.one(issuer, cert.SerialNumber)
	_, all := r.issuers[issuer]
	if now.Sub(r.fresh) <= r.maxAge && ended && v.reason == Cessation && (!hit || one.reason == Cessation) && !all {
		return nil
	}
	if now.Sub(r.fresh) <= r.maxAge && hit && one.reason == KeyCompromise && !ended && !all && slices.ContainsFunc(cert.Policies, idevid.PolicyIDevID().Equal) {
		return nil // of a device that was given other keys: who has the former ones is to be refused where it is put on record
	}
	return err
}

// add takes entries in; an entry never becomes weaker: the earliest date stands. sure says that there is none missing below the newest.
func (r *Revocations) add(asOf time.Time, sure bool, entries ...Revocation) {
	fresh := r.take(asOf, sure, entries)
	if r.heard != nil && len(fresh) > 0 {
		r.heard(fresh)
	}
}

func (r *Revocations) take(asOf time.Time, sure bool, entries []Revocation) (fresh []Revocation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		if r.takeOne(e) {
			fresh = append(fresh, e)
			r.version.Add(1)
		}
		if sure {
			r.last = max(r.last, e.Seq)
		}
	}
	if asOf.After(r.fresh) {
		r.fresh = asOf
	}
	return fresh
}

// takeOne takes one entry in, and says whether it changes anything. The caller holds mu.
func (r *Revocations) takeOne(v Revocation) bool {
	in := r.devices
	switch v.Scope {
	case ScopeIssuer:
		in = r.issuers
	case ScopeCert:
		number, ok := new(big.Int).SetString(v.Serial, 16)
		if !ok {
			return false // this service has not made it: its certificates have a serial number
		}
		key, ok := serialOf(number)
		if !ok {
			return false
		}
		at := ListID{v.Issuer, CAList}
		if !v.CA {
			at.Shard = r.shardOf(v.Issuer, number)
		}
		e := entry{at: v.At.UnixMilli(), seq: v.Seq, reason: uint8(v.Reason)}
		if !v.Expires.IsZero() {
			e.expires = v.Expires.UnixMilli()
		}
		return r.put(at, key, e)
	case ScopeDevice:
	}
	if old, ok := in[v.ID]; ok && old.at <= v.At.UnixMilli() {
		return false
	}
	in[v.ID] = whole{at: v.At.UnixMilli(), reason: uint8(v.Reason)}
	return true
}

// put puts a certificate into its list. The caller holds mu.
func (r *Revocations) put(at ListID, key serial, e entry) bool {
	s := r.shards[at]
	if s == nil {
		s = &shard{entries: map[serial]entry{}}
		r.shards[at] = s
	}
	if old, ok := s.entries[key]; ok && old.at <= e.at {
		return false
	}
	s.entries[key] = e
	if e.reason != Superseded { // who was given a new certificate holds both keys: that one can wait for the next list
		s.urgent = max(s.urgent, e.seq)
		r.urgent = max(r.urgent, e.seq)
	}
	return true
}

func (r *Revocations) issuerRevoked(ski string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, ok := r.issuers[ski]
	return ok
}

func (r *Revocations) newest() int64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.last
}

// pressing gives the Seq of the newest entry that some list should have soon.
func (r *Revocations) pressing() int64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.urgent
}

// listed is a revoked certificate for a published list.
type listed struct {
	serial serial
	entry
}

// of gives what is revoked of a list as of now, by serial number; through is how far the list in memory is complete.
func (r *Revocations) of(id ListID, now time.Time) (out []listed, through int64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s := r.shards[id]
	if s == nil {
		return nil, r.last
	}
	ms := now.UnixMilli()
	for key, e := range s.entries {
		if e.holds(ms) {
			out = append(out, listed{key, e})
		}
	}
	slices.SortFunc(out, func(a, b listed) int { return bytes.Compare(a.serial[:], b.serial[:]) })
	return out, r.last
}

// urgentOf gives the Seq of the newest entry that a list must have soon.
func (r *Revocations) urgentOf(id ListID) int64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if s := r.shards[id]; s != nil {
		return s.urgent
	}
	return 0
}

// forget drops certificates that ended by themselves before the moment: they are refused for that, and have left the published lists.
func (r *Revocations) forget(before time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ms := before.UnixMilli()
	for _, s := range r.shards {
		for key, e := range s.entries {
			if e.expires != 0 && e.expires < ms {
				delete(s.entries, key)
			}
		}
	}
}

// Size is how many certificates are in the list.
func (r *Revocations) Size() (n int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, s := range r.shards {
		n += len(s.entries)
	}
	return n
}
