// Package rekey gives a device that lost both its keys new ones.
//
// Stage 3, in the field. Flash and key store are gone, the chip lives: nothing proves any more that it is the device it says. So people vouch for
// it: one asks for a voucher, a second agrees, a technician brings it to the device, and with it the device asks, once, for a new identity, stating
// its chip. Guaranteed: no voucher without two people; a voucher is kept as a hash, is for one device and one chip, and dies with its use, its time
// or too many wrong guesses; the new keys, the end of all that the device held, the voucher's end and the facts are one write, durable before the
// answer; the same keys asking again get the same certificate; the device's former keys stay on record. It trusts the production record to say which
// chip the device is, the two people that what they hold is the device, and nothing that the device says of itself: its chip's number is no secret.
package rekey

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/wire"
)

// State is where a voucher is.
type State string

// A voucher is open until it is used, revoked, locked by wrong guesses, or its time is over.
const (
	Open    State = "open"
	Used    State = "used"
	Revoked State = "revoked"
	Locked  State = "locked"
	Lapsed  State = "lapsed" // is not stored: it follows from the time
)

// Voucher is one, without its secret.
type Voucher struct {
	ID       string    `json:"id"`
	Device   string    `json:"device"`
	Product  string    `json:"product"`
	Group    string    `json:"group,omitempty"` // that the device is in now
	State    State     `json:"state"`
	By       string    `json:"by"`               // who asked for it
	Second   string    `json:"second,omitempty"` // who agreed
	Issued   time.Time `json:"issued"`
	Expires  time.Time `json:"expires"`
	Ended    time.Time `json:"ended,omitzero"`
	Attempts int       `json:"attempts"`           // wrong tries
	Identity string    `json:"identity,omitempty"` // SHA-256 of the new identity key (SPKI, hex), once used

	Hash   [32]byte `json:"-"` // wire.VoucherHash
	Chip   []byte   `json:"-"` // of the production record
	Record [32]byte `json:"-"` // hash of the production record
	Keys   [32]byte `json:"-"` // KeysDigest it was used with
	Cert   string   `json:"-"` // pki.CertKey of what it was used for
}

// at is the voucher as it stands at now.
func (v Voucher) at(now time.Time) Voucher {
	if v.State == Open && !now.Before(v.Expires) {
		v.State, v.Ended = Lapsed, v.Expires
	}
	return v
}

// Subject is what is on record of a device.
type Subject struct {
	Product    string
	Group      string
	State      device.State
	Legitimacy device.Legitimacy
	Identity   []byte // SHA-256 of its identity key now
	AttestKey  []byte // SPKI, now
	Record     []byte // envelope of its production record; empty: it has none
}

// Former is a key pair that a device had until it got others.
type Former struct {
	Device   string    `json:"device"`
	Identity string    `json:"identity"` // SHA-256 of the identity key (SPKI), hex
	Attest   string    `json:"attest"`   // of the attestation key
	Until    time.Time `json:"until"`
	Voucher  string    `json:"voucher"` // that ended it
}

// Counts is how many vouchers were issued within the last day.
type Counts struct{ Device, Second, Product int }

// Change is a re-keying as the store writes it.
type Change struct {
	Voucher  Voucher // with Keys
	From     []byte  // the identity that is replaced
	Identity []byte
	Attest   []byte // SPKI
	Origin   string // of the keys
	Cert     pki.Issued
	Factory  pki.Revocation // of the certificate from the factory
	At       time.Time
	// Facts makes those of the change; revoked are the certificates that it ends.
	Facts func(revoked []pki.Revocation) ([]ledger.Fact, error)
}

// Query selects vouchers.
type Query struct {
	Scope  []string // within it; empty: all
	Device string
	Open   bool
	Now    time.Time
	Before string // behind that one; empty: from the newest
	Limit  int    // 0: all
}

// Errors of the store.
var (
	ErrNotFound = errors.New("not found")
	ErrSpent    = errors.New("the voucher was used meanwhile, or has ended")
	ErrChanged  = errors.New("the device changed meanwhile")
	ErrKeyKnown = errors.New("a device has or had one of the keys already")
)

// Store keeps vouchers and former keys. A write is durable on nil, with its facts; one that failed has changed nothing.
type Store interface {
	// AddVoucher stores v unless check, given the counts of the day, says no; another open one of the device is revoked by it.
	AddVoucher(ctx context.Context, v Voucher, check func(Counts, []Voucher) ([]ledger.Fact, error)) error
	// Vouchers lists, newest first.
	Vouchers(ctx context.Context, q Query) ([]Voucher, error)
	// Voucher gives one; ErrNotFound.
	Voucher(ctx context.Context, id string) (Voucher, error)
	// EndVoucher takes an open one to the state to; ErrSpent when it is not open.
	EndVoucher(ctx context.Context, id string, to State, at time.Time, facts ...ledger.Fact) error
	// Missed counts a wrong try of an open voucher; with the m.Most-th the fact is written, and the voucher locked, unless it was a guess.
	// Guesses are counted up to there.
	Missed(ctx context.Context, id string, m Miss) error
	// Subject gives what is on record of a device; ErrNotFound.
	Subject(ctx context.Context, device string) (Subject, error)
	// Former gives the key pairs a device had, newest first.
	Former(ctx context.Context, device string) ([]Former, error)
	// Rekey does c, once: asked again with the same voucher and keys it changes nothing. It gives the certificate that stands. ErrSpent, ErrChanged,
	// ErrKeyKnown.
	Rekey(ctx context.Context, c Change) (pki.Issued, error)
}

// Miss is a wrong try of a voucher. A guess has not even the secret: nobody guesses 136 bits, and who could end a voucher by trying would keep a
// device from its new keys for ever. Who has the secret, and another chip than the voucher is for, has found or stolen it.
type Miss struct {
	Guess bool
	Most  int
	At    time.Time
	Fact  ledger.Fact
}

// Limits bound vouchers.
type Limits struct {
	Device   int           // a day; 0: 3
	Second   int           // that one person agrees to, a day; 0: 20
	Product  int           // a day; 0: 50
	Many     int           // of a product a day, from which on it is a finding; 0: 10
	Attempts int           // with another chip, then the voucher is locked; as many guesses at its secret are a finding; 0: 10
	Life     time.Duration // when nothing else is asked for; 0: 24 h
	MaxLife  time.Duration // 0: 7 days
}

func (l Limits) filled() Limits {
	for _, d := range []struct {
		to *int
		by int
	}{{&l.Device, 3}, {&l.Second, 20}, {&l.Product, 50}, {&l.Many, 10}, {&l.Attempts, 10}} {
		if *d.to == 0 {
			*d.to = d.by
		}
	}
	if l.Life == 0 {
		l.Life = 24 * time.Hour
	}
	if l.MaxLife == 0 {
		l.MaxLife = 7 * 24 * time.Hour
	}
	return l
}

// Config is what a Service works with.
type Config struct {
	Guard   *access.Guard
	Store   Store
	PKI     *pki.Service
	Rekeyer *pki.Rekeyer
	// Model says how the software of a product's devices may change: a device without anything is told.
	Model  func(ctx context.Context, product string) (wire.UpdateModel, error)
	Limits Limits
	Now    func() time.Time // nil: time.Now
}

// Service is the verbs on vouchers.
type Service struct{ c Config }

// New makes a service.
func New(c Config) (*Service, error) {
	if c.Guard == nil || c.Store == nil || c.PKI == nil || c.Rekeyer == nil || c.Model == nil {
		return nil, errors.New("rekey: guard, store, pki, re-keyer and models are needed")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Limits = c.Limits.filled()
	return &Service{c}, nil
}

const maxReason = 512

// Issue makes a voucher for a device. It always takes two people. The secret is in the answer and nowhere else; a voucher of the device that is still
// open is revoked by the new one. A life of 0 is a day.
func (s *Service) Issue(ctx context.Context, caller access.Caller, id, reason string, life time.Duration) (v Voucher, secret string, err error) {
	sub, lookup := s.c.Store.Subject(ctx, id)
	if lookup != nil && !errors.Is(lookup, ErrNotFound) {
		return Voucher{}, "", lookup
	}
	if err := s.c.Guard.Check(ctx, caller, access.DeviceVoucher, access.Resource{Type: "device", ID: id, Product: sub.Product, Group: sub.Group, Grave: true}); err != nil {
		return Voucher{}, "", err
	}
	if lookup != nil {
		return Voucher{}, "", unknown(id)
	}
	if life == 0 {
		life = s.c.Limits.Life
	}
	reason = strings.TrimSpace(reason)
	switch {
	case reason == "" || len(reason) > maxReason:
		return Voucher{}, "", fault.New(fault.Invalid, "voucher.reason", "a voucher needs a reason of at most 512 bytes", "say what happened to the device")
	case life < time.Minute || life > s.c.Limits.MaxLife:
		return Voucher{}, "", fault.New(fault.Invalid, "voucher.life", fmt.Sprintf("a voucher for %s: want a minute to %s", life, s.c.Limits.MaxLife), "make it as short as the way of the technician")
	}
	if err := standing(id, sub); err != nil {
		return Voucher{}, "", err
	}
	born, err := bornOf(id, sub)
	if err != nil {
		return Voucher{}, "", err
	}
	now := s.c.Now().UTC().Truncate(time.Millisecond)
	secret = wire.NewVoucher(id)
	plain, err := wire.ParseVoucher(id, secret)
	if err != nil {
		return Voucher{}, "", err
	}
	v = Voucher{
		ID: voucherID(now), Device: id, Product: sub.Product, Group: sub.Group, State: Open, By: caller.ID, Second: caller.Seconded, Issued: now, Expires: now.Add(life),
		Hash: wire.VoucherHash(id, plain), Chip: born.Chip.ChipUID, Record: wire.RecordHash(sub.Record),
	}
	err = s.c.Store.AddVoucher(ctx, v, func(today Counts, open []Voucher) ([]ledger.Fact, error) { return s.issued(v, reason, today, open) })
	if err != nil {
		return Voucher{}, "", err
	}
	return v, secret, nil
}

// voucherID sorts by time.
func voucherID(at time.Time) string {
	return fmt.Sprintf("v%011x%s", at.UnixMilli(), strings.ToLower(rand.Text()[:6]))
}

// IssuedData is the data of a voucher.issued fact.
type IssuedData struct {
	Voucher string    `json:"voucher"`
	Device  string    `json:"device"`
	Product string    `json:"product"`
	Record  string    `json:"record"` // hash of the production record that names the chip
	By      string    `json:"by"`
	Second  string    `json:"second"`
	Expires time.Time `json:"expires"`
	Today   int       `json:"today"`          // of the product within a day, with this one
	Many    bool      `json:"many,omitempty"` // that is a lot
	Reason  string    `json:"reason,omitempty"`
}

// EndedData is the data of a voucher.revoked fact.
type EndedData struct {
	Voucher string `json:"voucher"`
	Device  string `json:"device"`
	Why     string `json:"why"` // revoked, replaced or locked; "guessed" in old logs is locked
	Reason  string `json:"reason,omitempty"`
}

// issued checks the day's limits and tells of a voucher, and of those that it puts an end to.
func (s *Service) issued(v Voucher, reason string, today Counts, open []Voucher) ([]ledger.Fact, error) {
	l := s.c.Limits
	for _, bound := range []struct {
		what    string
		n, most int
	}{
		{"device " + v.Device, today.Device, l.Device}, {"what " + v.Second + " agreed to", today.Second, l.Second}, {"product " + v.Product, today.Product, l.Product},
	} {
		if bound.n >= bound.most {
			return nil, fault.New(fault.Exhausted, "voucher.many", fmt.Sprintf("%s: %d vouchers within a day", bound.what, bound.n), "wait until tomorrow, and find out why so many devices lose their keys")
		}
	}
	data, err := json.Marshal(IssuedData{
		Voucher: v.ID, Device: v.Device, Product: v.Product, Record: hex.EncodeToString(v.Record[:]), By: v.By, Second: v.Second, Expires: v.Expires,
		Today: today.Product + 1, Many: today.Product+1 >= l.Many || today.Device+1 >= l.Device, Reason: reason,
	})
	if err != nil {
		return nil, err
	}
	facts := []ledger.Fact{ledger.New(ledger.KindVoucherIssued, v.Issued, v.By, v.Device, nil, data)}
	for _, o := range open {
		f, err := ended(o, "replaced", "", v.By, v.Issued)
		if err != nil {
			return nil, err
		}
		facts = append(facts, f)
	}
	return facts, nil
}

// GuessedData is the data of a voucher.guessed fact.
type GuessedData struct {
	Voucher string `json:"voucher"`
	Device  string `json:"device"`
	Tries   int    `json:"tries"`
}

func ended(v Voucher, why, reason, actor string, at time.Time) (ledger.Fact, error) {
	data, err := json.Marshal(EndedData{Voucher: v.ID, Device: v.Device, Why: why, Reason: reason})
	return ledger.New(ledger.KindVoucherRevoked, at, actor, v.Device, nil, data), err
}

func unknown(id string) error {
	return fault.New(fault.NotFound, "device.unknown", fmt.Sprintf("device %q is not registered", id), "see `hallmark device list`")
}

// standing says why a device in its state gets no new keys.
func standing(id string, sub Subject) error {
	no := func(what any) error {
		return fault.New(fault.Conflict, "voucher.state", fmt.Sprintf("device %s is %q: it gets no new keys", id, what), "a voucher is for a device in good standing; mend its state first, with what led there")
	}
	switch sub.State {
	case device.Provisioned, device.Onboarded, device.Active, device.Quarantined, device.Dormant, device.Maintenance:
	case device.Suspected: // new keys are what ends it, where the old ones were copied
	case device.Decommissioning, device.Decommissioned, device.Disposed, device.Moved, device.Lost:
		return no(sub.State)
	default:
		return no(sub.State)
	}
	switch sub.Legitimacy {
	case device.Genuine, device.Recalled, device.Refurbished, device.Resold:
		return nil
	case device.Stolen, device.Unknown, device.Imported:
	}
	return no(sub.Legitimacy)
}

// bornOf reads the production record of a device, which is what a voucher is bound to.
func bornOf(id string, sub Subject) (wire.Record, error) {
	none := fault.New(fault.Conflict, "voucher.no-record", fmt.Sprintf("device %s has no production record that names its chip: nothing could tell another piece from it", id),
		"replace the device by another one")
	if len(sub.Record) == 0 {
		return wire.Record{}, none
	}
	parsed, err := wire.Parse1(wire.TypeRecord, sub.Record)
	if err != nil {
		return wire.Record{}, fmt.Errorf("stored production record of device %s: %w", id, err)
	}
	r, err := wire.DecodeRecord(parsed.Payload)
	if err != nil {
		return wire.Record{}, fmt.Errorf("stored production record of device %s: %w", id, err)
	}
	if r.Outcome != wire.Made || r.Chip == nil || len(r.Chip.ChipUID) == 0 || r.Device != id {
		return wire.Record{}, none
	}
	return r, nil
}

// List gives vouchers of a product's or a group's devices, as access.Join names it, or of all, the newest first, behind the one called before, at most limit.
func (s *Service) List(ctx context.Context, caller access.Caller, place, id string, open bool, before string, limit int) ([]Voucher, error) {
	at := access.In("device", place)
	scope, err := s.c.Guard.Within(ctx, caller, access.DeviceRead, at.Type, at.Product, at.Group)
	if err != nil {
		return nil, err
	}
	now := s.c.Now()
	vs, err := s.c.Store.Vouchers(ctx, Query{Scope: scope, Device: id, Open: open, Now: now, Before: before, Limit: limit})
	for i := range vs {
		vs[i] = vs[i].at(now)
	}
	return vs, err
}

// Get gives one.
func (s *Service) Get(ctx context.Context, caller access.Caller, id string) (Voucher, error) {
	v, err := s.c.Store.Voucher(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Voucher{}, err
	}
	if denied := s.c.Guard.Check(ctx, caller, access.DeviceRead, access.Resource{Type: "device", ID: v.Device, Product: v.Product, Group: v.Group}); denied != nil {
		return Voucher{}, denied
	}
	if err != nil {
		return Voucher{}, noVoucher(id)
	}
	return v.at(s.c.Now()), nil
}

func noVoucher(id string) error {
	return fault.New(fault.NotFound, "voucher.unknown", fmt.Sprintf("there is no voucher %q", id), "see `hallmark voucher list`")
}

// Revoke ends a voucher. It takes one person.
func (s *Service) Revoke(ctx context.Context, caller access.Caller, id, reason string) (Voucher, error) {
	v, err := s.c.Store.Voucher(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Voucher{}, err
	}
	if denied := s.c.Guard.Check(ctx, caller, access.DeviceVoucher, access.Resource{Type: "device", ID: v.Device, Product: v.Product, Group: v.Group}); denied != nil {
		return Voucher{}, denied
	}
	if err != nil {
		return Voucher{}, noVoucher(id)
	}
	if len(reason) > maxReason {
		return Voucher{}, fault.New(fault.Invalid, "voucher.reason", "a reason has at most 512 bytes", "say it in fewer words")
	}
	now := s.c.Now().UTC()
	f, err := ended(v, "revoked", reason, caller.ID, now)
	if err != nil {
		return Voucher{}, err
	}
	if v = v.at(now); v.State == Open {
		err = s.c.Store.EndVoucher(ctx, id, Revoked, now, f)
	}
	if v.State != Open || errors.Is(err, ErrSpent) {
		return Voucher{}, fault.New(fault.Conflict, "voucher.ended", fmt.Sprintf("voucher %s is not open", id), "look at it again")
	}
	v.State, v.Ended = Revoked, now
	return v, err
}

// Lineage gives the key pairs a device had before it got others in the field, newest first.
func (s *Service) Lineage(ctx context.Context, caller access.Caller, id string) ([]Former, error) {
	sub, err := s.c.Store.Subject(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	if denied := s.c.Guard.Check(ctx, caller, access.DeviceRead, access.Resource{Type: "device", ID: id, Product: sub.Product, Group: sub.Group}); denied != nil {
		return nil, denied
	}
	if err != nil {
		return nil, unknown(id)
	}
	return s.c.Store.Former(ctx, id)
}
