package pki

import (
	"context"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Issued is one certificate as the store keeps it.
type Issued struct {
	Key       string    // CertKey
	Request   [32]byte  // what it answers: digest over identity and request
	Device    string    //
	Group     string    // that the device is in now; the store's to say
	Role      Role      //
	Issuer    string    // subject key ID of the CA, hex
	Serial    string    // hex
	NotBefore time.Time //
	NotAfter  time.Time //
	Ended     time.Time // when it was or will be void before its time; zero: not, or not asked for
	DER       []byte
}

// CA is a stored CA certificate.
type CA struct {
	SKI  string // subject key ID, hex
	Role Role
	DER  []byte
}

// Store keeps certificates. Writes are durable on nil, together with their facts; a failed one has changed nothing, unless its
// context ended, when the outcome is not known and asking again is safe.
type Store interface {
	// Issue stores c unless its request has been answered by a certificate that still holds at now (valid, not revoked): then it
	// changes nothing and returns that one. Otherwise other LDevIDs of the device are revoked as superseded from until on.
	Issue(ctx context.Context, c Issued, now, until time.Time, facts ...ledger.Fact) (Issued, error)
	// Revoke adds an entry and returns it with its Seq; a second one for the same ID keeps the earlier date.
	Revoke(ctx context.Context, r Revocation, facts ...ledger.Fact) (Revocation, error)
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

// ErrNotFound says that the store holds no such certificate.
var ErrNotFound error = fault.New(fault.NotFound, "cert.unknown", "no such certificate", "look it up by its device")
