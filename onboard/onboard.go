// Package onboard lets a device in: factory identity in, working identity out.
//
// Stage 3, from birth to the field. A device shows its IDevID and gets an LDevID; later it renews that with itself. Guaranteed: only
// a device whose production is on record enrols; one that is not is refused and a fact says so, because a good signature over an
// unknown serial number means that an order key is in the wrong hands; where the product says so a person has let the request in;
// the certificate, cert.issued and device.enrolled are one write; and asking again after a lost answer gives the same certificate.
// It trusts package pki's verification and the registry, and nothing that a device says of itself.
package onboard

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Standing is what the registry knows of a device.
type Standing struct {
	Known      bool // false: no order ever planned it
	Product    string
	Hardware   string
	Group      string // of its product, that it is in
	State      device.State
	Legitimacy device.Legitimacy
	Identity   []byte // SHA-256 of the SubjectPublicKeyInfo of the IDevID on record; without it nobody is let in as this device
	Rules      Rules  // its product's
}

// Rules are what a product says of enrolment.
type Rules struct {
	Suite   suite.ID   // of the keys that are wanted; empty, for a product that is not on record: none is certified
	Accepts []suite.ID // of those that are certified beside it: while a fleet moves, its trust bundle has several
	product.Enrolment
}

// certifies says whether a key may be certified. Certificates of a suite whose keys X.509 does not know have others: suite.Certifies.
func (r Rules) certifies(pub crypto.PublicKey) bool {
	return slices.ContainsFunc(append([]suite.ID{r.Suite}, r.Accepts...), func(id suite.ID) bool {
		set, err := suite.Get(id)
		return err == nil && set.Certifies(pub)
	})
}

// Registry says how devices stand. A device that was never ordered is a Standing that is not Known; an error is an outage.
type Registry interface {
	Known(ctx context.Context, deviceID string) (Standing, error)
	// Rules gives a product's; those of one that is not there are zero.
	Rules(ctx context.Context, product string) (Rules, error)
}

// Refusal is a device that was not let in, as the store keeps it.
type Refusal struct {
	Device  string    `json:"device"`
	Product string    `json:"product"`
	Issuer  string    `json:"issuer"` // subject key ID, hex, of the CA that vouched
	Code    string    `json:"code"`
	Text    string    `json:"text"`
	At      time.Time `json:"at"`
	Count   int       `json:"count,omitempty"`
}

// Planned is a device that came before its production record.
type Planned struct {
	Device string
	Issuer string // subject key ID, hex, of its order's CA
	At     time.Time
}

// Unordered is the code of a refusal: a good certificate of a device that was never ordered.
const Unordered = "enrol.unknown"

// MaxRefusals bounds the Unordered that are kept for one CA: a thief of an order key can invent devices without end, and the first thousand say
// it. Devices on record are not counted: who invents others must not hide what is done with theirs.
const MaxRefusals = 1000

// Store keeps refusals, and the requests that wait for a person.
type Store interface {
	// Refuse keeps r; facts are written only with the first refusal of a device with that code, and of those that are Unordered for the
	// first MaxRefusals of an issuer. Durable on nil.
	Refuse(ctx context.Context, r Refusal, facts ...ledger.Fact) error
	// Planned keeps that p came and was asked to come again. Durable on nil; what comes again within a minute may be left out.
	Planned(ctx context.Context, p Planned) error
	// Refusals gives the newest, at most limit.
	Refusals(ctx context.Context, limit int) ([]Refusal, error)
	// Wait keeps w in the place of what the device asked for before; a fault of kind Unavailable when MaxWaiting wait. Durable on nil.
	Wait(ctx context.Context, w Waiting) error
	// Waiting gives the device's, or ErrNotWaiting. What has lapsed may be there still.
	Waiting(ctx context.Context, deviceID string) (Waiting, error)
	// Waitings gives those of a scope (access.Guard.Within) that have not lapsed at now, by device, from behind after on; an empty state
	// means every one.
	Waitings(ctx context.Context, scope []string, state Word, after string, now time.Time, limit int) ([]Waiting, error)
	// Decide writes w over the same request that waits, or returns ErrNotWaiting. Durable, with its fact, on nil.
	Decide(ctx context.Context, w Waiting, fact ledger.Fact) error
}

// Pending says that the device may be let in later: its production is planned but the record has not come yet, or a person has to
// look at it.
type Pending struct {
	Device string
	What   string        // has to happen first
	After  time.Duration // when to ask again
}

func (p *Pending) Error() string {
	return fmt.Sprintf("device %s: %s; ask again, with the same request, in %s", p.Device, p.What, p.After)
}

// Guard decides and audits; access.Guard is one.
type Guard interface {
	Check(ctx context.Context, caller access.Caller, action access.Action, res access.Resource) error
	Within(ctx context.Context, caller access.Caller, action access.Action, kind, product, group string) ([]string, error)
}

// Config is what a Service works with.
type Config struct {
	Guard    Guard
	PKI      *pki.Service
	Registry Registry
	Store    Store
	// Planned says whether a device that nobody knows is one that an order of the CA ca is for, and its record only has not come; nil: nobody can tell.
	Planned func(ctx context.Context, ca *x509.Certificate, device string) (bool, error)
	Retry   time.Duration    // when to ask again, of a request that is Pending; 0: 10 min
	Now     func() time.Time // nil: time.Now
}

// Service is the stage's verbs.
type Service struct{ c Config }

// New makes a service.
func New(c Config) (*Service, error) {
	if c.Guard == nil || c.PKI == nil || c.Registry == nil || c.Store == nil {
		return nil, errors.New("onboard: guard, pki, registry and store are needed")
	}
	if c.Retry == 0 {
		c.Retry = 10 * time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Service{c}, nil
}

// Refusals lists who was not let in, newest first.
func (s *Service) Refusals(ctx context.Context, caller access.Caller, limit int) ([]Refusal, error) {
	if err := s.c.Guard.Check(ctx, caller, access.DeviceRead, access.Resource{Type: "device"}); err != nil {
		return nil, err
	}
	return s.c.Store.Refusals(ctx, limit)
}

// verified checks the chain, that it is not revoked, that it is of the kind asked for, and that the caller is that device.
func (s *Service) verified(ctx context.Context, caller access.Caller, presented []*x509.Certificate, kind idevid.Kind) (pki.Device, error) {
	now := s.c.Now()
	d, err := s.c.PKI.Trust().VerifyDevice(presented, now)
	if err != nil {
		return pki.Device{}, err
	}
	if err := s.c.PKI.Revocations().Check(d.Cert, d.Identity.DeviceID, now); err != nil {
		return pki.Device{}, s.revoked(ctx, caller, d, err)
	}
	if caller.ID != access.DeviceCaller(d.Identity.DeviceID).ID {
		return pki.Device{}, fault.New(fault.Denied, "enrol.caller", caller.ID+" asks with the certificate of device "+d.Identity.DeviceID,
			"a device asks for itself only")
	}
	if kind != "" && d.Identity.Kind != kind {
		remedy := "enrol with the certificate from the factory"
		if kind == idevid.LDevID {
			remedy = "renew with the operational certificate"
		}
		return pki.Device{}, fault.New(fault.Denied, "enrol.kind", fmt.Sprintf("device %s presents an %s, want an %s", d.Identity.DeviceID, d.Identity.Kind, kind), remedy)
	}
	return d, nil
}

// standing asks the registry, and refuses with a fact whoever it does not vouch for.
func (s *Service) standing(ctx context.Context, caller access.Caller, d pki.Device) (Standing, error) {
	id := d.Identity
	st, err := s.c.Registry.Known(ctx, id.DeviceID)
	if err != nil {
		return Standing{}, fmt.Errorf("registry, device %s: %w", id.DeviceID, err)
	}
	if !st.Known && s.c.Planned != nil && id.Kind == idevid.IDevID {
		planned, err := s.c.Planned(ctx, d.Issuer, id.DeviceID)
		if err != nil {
			return Standing{}, fmt.Errorf("orders, device %s: %w", id.DeviceID, err)
		}
		if planned {
			if err := s.c.Store.Planned(ctx, Planned{Device: id.DeviceID, Issuer: hex.EncodeToString(d.Issuer.SubjectKeyId), At: s.c.Now().UTC()}); err != nil {
				return Standing{}, err
			}
			return Standing{}, &Pending{Device: id.DeviceID, What: "its production record has not come yet", After: s.c.Retry}
		}
	}
	if no := judge(st, d); no.code != "" {
		return Standing{}, s.refuse(ctx, caller, d, no)
	}
	return st, nil
}

// reason is why a device is not let in, and what to do; none without a code.
type reason struct{ code, text, remedy string }

// refuse puts on record who is not let in, and gives the fault.
func (s *Service) refuse(ctx context.Context, caller access.Caller, d pki.Device, no reason) error {
	id, now := d.Identity, s.c.Now().UTC()
	r := Refusal{Device: id.DeviceID, Product: id.Product, Issuer: hex.EncodeToString(d.Issuer.SubjectKeyId), Code: no.code, Text: no.text, At: now}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := s.c.Store.Refuse(ctx, r, ledger.New(ledger.KindEnrolRefused, now, caller.ID, id.DeviceID, nil, data)); err != nil {
		return err
	}
	return fault.New(fault.Denied, no.code, no.text, no.remedy)
}

// judge gives the reason for which a device is not let in.
func judge(st Standing, d pki.Device) reason {
	id := d.Identity
	switch {
	case !st.Known:
		return reason{
			Unordered, "device " + id.DeviceID + " was never ordered, yet its certificate is good: a key of its CA may be in wrong hands",
			"find out who has the key of the CA that issued it, and revoke that CA if it is not the factory alone; nothing is to be done at the device",
		}
	case st.Product != id.Product || (id.HWRev != "" && st.Hardware != id.HWRev):
		return reason{
			"enrol.other", fmt.Sprintf("device %s is %s/%s on record, its certificate says %s/%s", id.DeviceID, st.Product, st.Hardware, id.Product, id.HWRev),
			"compare the board with its production record: one of them is of another device",
		}
	case id.Kind == idevid.IDevID && !vouched(st, d):
		return reason{
			"enrol.key", "device " + id.DeviceID + " presents another key than the one its production record holds",
			"do not let it in: the device was copied, or its record is wrong; look at the board and at who made it",
		}
	case !device.Known(st.State) || device.Ended(st.State) || st.State == device.Suspected || st.State == device.Lost:
		return reason{
			"enrol.state", fmt.Sprintf("device %s is %q", id.DeviceID, st.State),
			"restore it if it may work again; a device whose life has ended stays out",
		}
	case st.Legitimacy != device.Genuine && st.Legitimacy != device.Refurbished && st.Legitimacy != device.Resold && st.Legitimacy != device.Recalled && st.Legitimacy != device.Imported:
		return reason{
			"enrol.legitimacy", fmt.Sprintf("device %s is %q", id.DeviceID, st.Legitimacy),
			"find out where it came from, and mark it as genuine if it is",
		}
	}
	return reason{}
}

// vouched reports whether the production record holds the key that is presented: a CA's signature alone does not make a device, so
// that a key of a CA in wrong hands is no device's.
func vouched(st Standing, d pki.Device) bool {
	sum := sha256.Sum256(d.Cert.RawSubjectPublicKeyInfo)
	return bytes.Equal(st.Identity, sum[:])
}
