package pki

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki/profile"
)

// RevokeDevice takes every identity of a device, the factory's too, for good: enrolment is refused as well. place is where the device is,
// as access.Join names it.
func (s *Service) RevokeDevice(ctx context.Context, caller access.Caller, device, place string, reason int) error {
	if err := s.c.Guard.Check(ctx, caller, access.CertRevoke, placed(device, place)); err != nil {
		return err
	}
	return s.revoke(ctx, caller, reason, Revocation{Scope: ScopeDevice, ID: device, Device: device})
}

// RevokeIssuer takes everything that a CA has signed: for an order key that was stolen.
func (s *Service) RevokeIssuer(ctx context.Context, caller access.Caller, ca *x509.Certificate, reason int) error {
	ski := hex.EncodeToString(ca.SubjectKeyId)
	if err := s.c.Guard.Check(ctx, caller, access.CertRevoke, access.Resource{Type: "ca", ID: ski, Grave: true}); err != nil {
		return err
	}
	return s.revoke(ctx, caller, reason, Revocation{Scope: ScopeIssuer, ID: ski})
}

// checkReason refuses what is no reason to revoke for good.
func checkReason(reason int) error {
	if reason < 0 || reason > 10 || reason == 7 || reason == 8 || reason == 6 {
		return fault.Newf(fault.Invalid, "cert.reason", "revocation reason %d: want one of RFC 5280 §5.3.1 but hold and its removal", reason).With("give one of them by its number")
	}
	return nil
}

// revoke stores entries with a fact each, and has them hold on this node at once.
func (s *Service) revoke(ctx context.Context, caller access.Caller, reason int, rs ...Revocation) error {
	if err := checkReason(reason); err != nil {
		return err
	}
	at := s.c.Now().UTC()
	facts := make([]ledger.Fact, len(rs))
	for i := range rs {
		r := &rs[i]
		r.Reason, r.At, r.By = reason, at, caller.ID
		data, err := json.Marshal(r)
		if err != nil {
			return err
		}
		facts[i] = ledger.New(ledger.KindCertRevoked, at, caller.ID, cmp.Or(r.Device, r.ID), nil, data)
	}
	kept, err := s.c.Store.Revoke(ctx, rs, facts...)
	if err != nil {
		return err
	}
	s.c.Revocations.add(time.Time{}, false, kept...) // entries of other nodes may lie between: Refresh moves the mark
	return nil
}

// Target is what somebody wants revoked: a device with all it has, or one certificate.
type Target struct {
	ID      string // of the device, or the CertKey
	Device  string
	Product string
	Group   string
	Issuer  string // of a certificate; also Serial and Expires
	Serial  string
	Expires time.Time
	Known   bool
	Revoked bool // already, for good
}

// TargetStore says how what somebody wants revoked stands.
type TargetStore interface {
	// RevocationTargets gives devices and certificates (by CertKey), in the order given; what is not known is not Known.
	RevocationTargets(ctx context.Context, devices, certs []string) ([]Target, error)
}

// Bulk is a list of devices and certificates to be revoked for one reason.
type Bulk struct {
	Devices      []string // each with every identity it has, for good
	Certificates []string // by CertKey
	Reason       int      // RFC 5280 §5.3.1
}

// BulkDone is what became of a Bulk, or would.
type BulkDone struct {
	Devices      int      `json:"devices"`
	Certificates int      `json:"certificates"`
	Already      int      `json:"already"`           // revoked before
	Unknown      []string `json:"unknown,omitempty"` // not known, or not the caller's to know of; nothing is revoked when there is one
}

// MaxBulk is how many devices and certificates one Bulk names.
const MaxBulk = 20_000

// bulkPage is how many are revoked in one transaction: others' writes come between two.
const bulkPage = 1000

// RevokeMany revokes a list. Of more devices than one person may act on alone it takes two. Each entry is a fact of its own, about its device,
// so that whoever asks for one device's history needs nothing else. It is durable page by page, and what is revoked already is passed over:
// a call that was cut off is repeated. With dry it only counts, which needs the same permission.
func (s *Service) RevokeMany(ctx context.Context, caller access.Caller, b Bulk, dry bool) (BulkDone, error) {
	b.Devices, b.Certificates = unique(b.Devices), unique(b.Certificates)
	if n := len(b.Devices) + len(b.Certificates); n == 0 || n > MaxBulk {
		return BulkDone{}, fault.New(fault.Invalid, "cert.bulk", fmt.Sprintf("%d devices and certificates to revoke: want 1 to %d", n, MaxBulk), "split the list")
	}
	if err := checkReason(b.Reason); err != nil {
		return BulkDone{}, err
	}
	if s.c.Targets == nil {
		return BulkDone{}, fault.New(fault.Unavailable, "cert.bulk", "nothing is revoked in bulk here", "revoke one by one: `hallmark certificate revoke`")
	}
	targets, err := s.c.Targets.RevocationTargets(ctx, b.Devices, b.Certificates)
	if err != nil {
		return BulkDone{}, err
	}
	if err := s.mayRevoke(ctx, caller, targets, dry); err != nil {
		return BulkDone{}, err
	}
	var done BulkDone
	var todo []Revocation
	for _, t := range targets {
		switch {
		case !t.Known:
			done.Unknown = append(done.Unknown, t.ID)
		case t.Revoked:
			done.Already++
		case t.Serial == "":
			done.Devices++
			todo = append(todo, Revocation{Scope: ScopeDevice, ID: t.ID, Device: t.Device})
		default:
			done.Certificates++
			todo = append(todo, Revocation{Scope: ScopeCert, ID: t.ID, Device: t.Device, Issuer: t.Issuer, Serial: t.Serial, Expires: t.Expires})
		}
	}
	if dry {
		return done, nil
	}
	if len(done.Unknown) > 0 {
		return BulkDone{}, fault.New(fault.NotFound, "cert.bulk-unknown",
			fmt.Sprintf("%d of the devices and certificates are not known, the first is %q; nothing was revoked", len(done.Unknown), done.Unknown[0]), "take them out of the list, or correct them: a dry run names them")
	}
	for page := range slices.Chunk(todo, bulkPage) {
		if err := s.revoke(ctx, caller, b.Reason, page...); err != nil {
			return BulkDone{}, fmt.Errorf("revoke %d devices and certificates: %w", len(todo), err)
		}
	}
	return done, nil
}

// mayRevoke asks the guard once for each place that targets are in. What is not known is asked for as being nowhere, so that only who may
// revoke everywhere learns that.
func (s *Service) mayRevoke(ctx context.Context, caller access.Caller, targets []Target, dry bool) error {
	var devices []string
	places := map[string]bool{}
	for _, t := range targets {
		devices = append(devices, cmp.Or(t.Device, t.ID))
		places[access.Join(t.Product, t.Group)] = true
	}
	grave := !dry && s.c.Guard.Many(caller, devices)
	for _, place := range sorted(places) {
		res := access.In("device", place)
		res.Grave = grave
		if err := s.c.Guard.Check(ctx, caller, access.CertRevoke, res); err != nil {
			return err
		}
	}
	return nil
}

func sorted(set map[string]bool) (out []string) {
	for s := range set {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

func unique(in []string) []string { return slices.Compact(slices.Sorted(slices.Values(in))) }

// RevokeOperational takes the operational certificates of a device that were given out before at and still hold, one by one: what it enrols for
// afterwards stays, however late this is done or repeated. place is where the device is, as access.Join names it.
func (s *Service) RevokeOperational(ctx context.Context, caller access.Caller, device, place string, at time.Time, reason int) error {
	for after := ""; ; {
		page, err := s.Certificates(ctx, caller, device, place, after, bulkPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, c := range page {
			after = c.Key
			if c.Role != profile.LDevID || !c.Ended.IsZero() && !c.Ended.After(at) || !c.NotAfter.After(at) || c.NotBefore.Add(profile.Backdate).After(at) { // issued since
				continue
			}
			if err := s.Revoke(ctx, caller, c.Key, reason); err != nil && fault.KindOf(err) != fault.Conflict {
				return err
			}
		}
	}
}
