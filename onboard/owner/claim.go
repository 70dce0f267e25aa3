package owner

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Labels says for which devices codes are made: those of an order, or named ones of a product.
type Labels struct {
	Product string   `json:"product"`
	Order   string   `json:"order,omitempty"`
	Devices []string `json:"devices,omitempty"`
	After   string   `json:"after,omitempty"` // device
}

// Label is what is printed on a device, or put into its box.
type Label struct {
	Device string `json:"device"`
	Code   string `json:"code"`
}

// MaxLabels bounds the codes that are made at once.
const MaxLabels = 1000

// MakeCodes makes claim codes for devices that belong to nobody, each once to be used, and gives them this once: codes made before are
// void. next is the After of the next call, empty at the end.
func (s *Service) MakeCodes(ctx context.Context, caller access.Caller, l Labels) (labels []Label, next string, err error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.DeviceCodes, access.Resource{Type: "product", ID: l.Product, Product: l.Product}); err != nil {
		return nil, "", err
	}
	if l.Product == "" || (l.Order == "") == (len(l.Devices) == 0) || len(l.Devices) > MaxLabels {
		return nil, "", fault.New(fault.Invalid, "claim.labels", "codes are made for the devices of an order, or for named ones of a product",
			fmt.Sprintf("name the product, and an order or 1 to %d devices", MaxLabels))
	}
	ids, err := s.cfg.Codes.Unclaimed(ctx, l.Product, l.Order, l.Devices, l.After, MaxLabels)
	if err != nil || len(ids) == 0 {
		return nil, "", err
	}
	set, err := wire.SetOf(ids)
	if err != nil {
		return nil, "", err
	}
	hashes := make(map[string][32]byte, len(ids))
	for _, id := range ids {
		code := NewCode()
		hashes[id] = hashOf(id, code)
		labels = append(labels, Label{Device: id, Code: code})
	}
	now := s.cfg.Now().UTC()
	data, err := json.Marshal(map[string]any{"product": l.Product, "order": l.Order, "devices": set})
	if err != nil {
		return nil, "", err
	}
	f := ledger.New(ledger.KindClaimCodes, now, caller.ID, l.Product, nil, data)
	err = s.cfg.Codes.PutCodes(ctx, hashes, now, f)
	if errors.Is(err, ErrChanged) {
		return nil, "", fault.New(fault.Conflict, "claim.changed", "a device was claimed meanwhile, or is handed on", "make the codes again: it is left out then")
	}
	if err != nil {
		return nil, "", err
	}
	if len(ids) == MaxLabels {
		next = ids[len(ids)-1]
	}
	return labels, next, nil
}

// Claim is what an owner brings.
type Claim struct {
	Device string `json:"device"`
	Code   string `json:"code"`
	Owner  string `json:"owner,omitempty"` // for whom the maker's people claim
	Key    []byte `json:"key,omitempty"`   // SubjectPublicKeyInfo, P-256
}

// claimed is the Data of device.claimed. Owner, salt, key, group and who did it are private.
type claimed struct {
	Device string `json:"device"`
	Period int    `json:"period"`
	Digest []byte `json:"owner_digest"`
	How    string `json:"how"`
	Keyed  bool   `json:"keyed"`
	Owner  string `json:"owner"`
	Salt   []byte `json:"salt"`
	Key    []byte `json:"key,omitempty"`
	By     string `json:"by"`
}

// Claim makes a device an owner's. Whatever is wrong about device and code is one refusal: nobody learns here which devices there are.
func (s *Service) Claim(ctx context.Context, caller access.Caller, c Claim) (Period, error) {
	if c.Owner == "" {
		c.Owner = caller.Owner
	}
	if err := s.cfg.Guard.Check(ctx, caller, access.DeviceClaim, access.Resource{Type: "owner", ID: c.Owner}); err != nil {
		return Period{}, err
	}
	if c.Owner == "" {
		return Period{}, fault.New(fault.Invalid, "claim.owner", "a device is claimed for an owner", "name one: see `hallmark owner list`")
	}
	o, err := s.owner(ctx, c.Owner)
	if err != nil {
		return Period{}, err
	}
	if !o.Ended.IsZero() {
		return Period{}, fault.New(fault.Conflict, "owner.ended", fmt.Sprintf("owner %s has ended", o.ID), "claim it for another owner")
	}
	code, err := ParseCode(c.Code)
	if err != nil {
		return Period{}, err
	}
	p := Period{Device: c.Device, Owner: o.ID, Key: c.Key, By: caller.ID, From: s.cfg.Now().UTC(), How: "claim", Rev: 1}
	salt := newSalt()
	digest := wire.OwnerDigest(salt, o.ID)
	p.Salt, p.Digest = salt[:], digest[:]
	if len(p.Key) > 0 {
		if err := (wire.KeySet{Keys: [][]byte{p.Key}, Threshold: 1}).Check(); err != nil {
			return Period{}, fault.Newf(fault.Invalid, "claim.key", "the owner's key: %w", err).
				With("give a public key of the owner (SubjectPublicKeyInfo, DER)")
		}
	}
	if !s.attempts.may(caller.ID, p.From) {
		return Period{}, fault.New(fault.Unavailable, "claim.often", "too many wrong codes", fmt.Sprintf("wait %s", attemptsIn))
	}
	d, hash, err := s.matching(ctx, c.Device, code, &p)
	if err != nil {
		return Period{}, err
	}
	if hash == nil {
		s.attempts.failed(caller.ID)
		return Period{}, refusedClaim()
	}
	return s.begin(ctx, d, p, *hash)
}

func refusedClaim() error {
	return fault.New(fault.NotFound, "claim.refused", "there is no such device with that code", "look at both again; a code is for one device, and is used once")
}

// matching finds the device of a code; a nil hash when the code is not its.
func (s *Service) matching(ctx context.Context, id, code string, p *Period) (device.Device, *[32]byte, error) {
	d, err := s.cfg.Devices.Get(ctx, system(), id)
	if fault.KindOf(err) == fault.NotFound {
		return d, nil, nil
	}
	if err != nil {
		return d, nil, err
	}
	want, transfer, err := s.cfg.Codes.Code(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return d, nil, nil
	}
	if err != nil {
		return d, nil, err
	}
	if got := hashOf(id, code); subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return d, nil, nil
	}
	if transfer {
		p.How = "transfer"
	}
	return d, &want, nil
}

// begin begins the period; who comes here has the code.
func (s *Service) begin(ctx context.Context, d device.Device, p Period, hash [32]byte) (Period, error) {
	switch t, err := s.cfg.Transfers.Transfer(ctx, d.ID); {
	case err != nil && !errors.Is(err, ErrNotFound):
		return Period{}, err
	case err == nil && t.Done.IsZero():
		return Period{}, fault.New(fault.Unavailable, "claim.transfer", "the device has still to let go of who had it before",
			"connect it to power and network, and try again in a minute; the code stays good")
	}
	if device.Ended(d.State) || d.State == device.Decommissioning || d.Legitimacy == device.Stolen {
		return Period{}, fault.New(fault.Conflict, "claim.state", fmt.Sprintf("device %s is %s, %s", d.ID, d.State, d.Legitimacy), "ask who sold it")
	}
	all, err := s.cfg.Store.Lineage(ctx, d.ID)
	if err != nil {
		return Period{}, err
	}
	p.Number = len(all) + 1
	f, err := fact(ledger.KindDeviceClaimed, p.From, actor(p), d.ID, nil, claimed{
		Device: d.ID, Period: p.Number, Digest: p.Digest, How: p.How, Keyed: len(p.Key) > 0, Owner: p.Owner, Salt: p.Salt, Key: p.Key, By: p.By,
	})
	if err != nil {
		return Period{}, err
	}
	err = s.cfg.Codes.Claim(ctx, p, hash, d.Product, d.Group, access.OwnerGroup(p.Owner), f)
	if errors.Is(err, ErrChanged) {
		return Period{}, refusedClaim()
	}
	if err != nil || len(p.Key) == 0 {
		return p, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.adopt(ctx, p); err != nil {
		return p, fmt.Errorf("the device is claimed, and will be told of it: %w", err)
	}
	return p, nil
}

// adopt has the device defend its owner: once, and again when it said no.
func (s *Service) adopt(ctx context.Context, p Period) error {
	now := s.cfg.Now().UTC()
	last, err := s.cfg.Transfers.Answer(ctx, p.Device, wire.ActAdopt, p.From)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return err
	case last.Standing == device.Done:
		p.Command, p.Holds, p.Refused = last.Command, true, ""
		return s.cfg.Store.SavePeriod(ctx, p)
	case last.Standing == device.Pending || last.Standing == device.Delivered || now.Before(retry(p.Tries, p.Tried)):
		return nil
	default:
		p.Refused = string(last.Standing)
		if last.Code != "" {
			p.Refused = last.Code
		}
	}
	d, err := s.cfg.Devices.Get(ctx, system(), p.Device)
	if err != nil {
		return err
	}
	doc, err := wire.EncodeOwnership(wire.Ownership{Owner: p.Digest, Key: p.Key})
	if err != nil {
		return err
	}
	p.Command, err = s.cfg.Devices.Command(ctx, system(), device.Instruction{
		Product: d.Product, Act: wire.ActAdopt, Devices: []string{p.Device}, Config: doc, Valid: told, Reason: "claimed",
		Once: onceOf(wire.ActAdopt, p.Device, p.From, p.Tries),
	})
	if err != nil {
		return err
	}
	p.Tries, p.Tried = p.Tries+1, now
	return s.cfg.Store.SavePeriod(ctx, p)
}

// told is how long a device that was away may still be told.
const told = 10 * 365 * 24 * time.Hour

// Wrong codes are counted by who brings them, on this node and in this run: the code's 100 bits are what keeps guessers out, and this is so
// that nobody need try. They are not counted by device: who has the code would be kept out by who guesses at it.
const (
	attemptsIn  = time.Hour
	perCaller   = 20
	maxAttempts = 10_000 // callers counted; with more, all wait
)

type attempts struct {
	mu    sync.Mutex
	since time.Time
	wrong map[string]int // guarded by mu
}

// may reports whether another code may be tried.
func (a *attempts) may(caller string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.since) >= attemptsIn || a.wrong == nil {
		a.since, a.wrong = now, map[string]int{}
	}
	return a.wrong[caller] < perCaller && len(a.wrong) < maxAttempts
}

func (a *attempts) failed(caller string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wrong[caller]++
}
