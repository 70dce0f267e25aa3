package pki

import (
	"context"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki/profile"
)

// Issued is one certificate as the store keeps it.
type Issued struct {
	Key       string   // CertKey
	Request   [32]byte // what it answers: digest over identity and request
	Device    string
	Group     string // that the device is in now; the store's to say
	Role      profile.Role
	Issuer    string // subject key ID of the CA, hex
	Serial    string // hex
	NotBefore time.Time
	NotAfter  time.Time
	Ended     time.Time // when it was or will be void before its time; zero: not, or not asked for
	DER       []byte

	By string // of Store.Issue: CertKey of what the device asked with, which has to hold when this one is stored; kept nowhere
}

// CA is a stored CA certificate.
type CA struct {
	SKI  string // subject key ID, hex
	Role profile.Role
	DER  []byte

	Shards int       // lists that its certificates are spread over; 0: DefaultShards
	Key    string    // name of its key where this instance keeps keys; empty: it is not here
	Place  int64     // orders CAs as they were stored
	Ended  time.Time // when it was taken out of service; zero: it is in it
}

// Store keeps certificates. Writes are durable on nil, together with their facts; a failed one has changed nothing, unless its
// context ended, when the outcome is not known and asking again is safe.
type Store interface {
	// Issue stores c unless its request has been answered by a certificate that still holds at now (valid, not revoked): then it
	// changes nothing and returns that one. Otherwise other LDevIDs of the device are revoked as superseded from until on. ErrRevoked
	// when what the device asked with (c.By), its CA or the device is revoked by then: the list in memory may be older than that.
	Issue(ctx context.Context, c Issued, now, until time.Time, facts ...ledger.Fact) (Issued, error)
	// Revoke adds entries and returns them with their Seq; a second one for the same ID keeps the earlier date. With a device, its
	// certificates that still hold are added, and with a CA the CA's own: that is what others see in lists.
	Revoke(ctx context.Context, rs []Revocation, facts ...ledger.Fact) ([]Revocation, error)
	// RevokedSince gives at most limit entries with a Seq above after, in order.
	RevokedSince(ctx context.Context, after int64, limit int) ([]Revocation, error)
	// Certificate gives one by its CertKey, or ErrNotFound.
	Certificate(ctx context.Context, key string) (Issued, error)
	// Certificates gives a device's, by their key, from behind after on, at most limit.
	Certificates(ctx context.Context, device, after string, limit int) ([]Issued, error)
	// AddCA stores a CA certificate; one that is there already is left alone.
	AddCA(ctx context.Context, ca CA, facts ...ledger.Fact) error
	// CAs gives all of them.
	CAs(ctx context.Context) ([]CA, error)
}

// CAStore keeps what becomes of CAs.
type CAStore interface {
	// CAsSince gives those with a Place above after, in order: a CA that changes gets a new place.
	CAsSince(ctx context.Context, after int64) ([]CA, error)
	// AdoptCA stores a CA that the ledger has already, or whose key is here, without a fact; it is nothing when nothing changes.
	AdoptCA(ctx context.Context, ca CA) error
	// PutCARequest keeps a request until its answer is installed.
	PutCARequest(ctx context.Context, r CARequested, facts ...ledger.Fact) error
	// CARequests gives those without an answer.
	CARequests(ctx context.Context) ([]CARequested, error)
	// EndCA takes a CA out of service, if nothing of it is valid after now; it returns until when something is otherwise.
	EndCA(ctx context.Context, ski string, now time.Time, facts ...ledger.Fact) (until time.Time, err error)
}

// ErrNotFound says that the store holds no such certificate.
var ErrNotFound error = fault.New(fault.NotFound, "cert.unknown", "no such certificate", "look it up by its device")

// ErrRevoked says that what a device asked with was revoked meanwhile.
var ErrRevoked error = fault.New(fault.Denied, "cert.revoked", "the certificate that the device asked with is revoked", "the device has to be provisioned again")
