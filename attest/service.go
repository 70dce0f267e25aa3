package attest

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// ErrNotFound is the store's word for nothing there.
var ErrNotFound = errors.New("not found")

// Store keeps verdicts. Writes are durable, with their fact, when they return nil.
type Store interface {
	// Device gives the registry's row; device.ErrNotFound.
	Device(ctx context.Context, id string) (device.Device, error)
	// PutVerdict keeps v in the device's history, and makes it the current one unless that is newer. by is the key (SPKI) that the evidence was judged by:
	// ErrChanged when the device has another by now.
	PutVerdict(ctx context.Context, v Verdict, by []byte, fact ledger.Fact) error
	// Verdict gives the current verdict; ErrNotFound.
	Verdict(ctx context.Context, device string) (Verdict, error)
	// Verdicts lists a device's verdicts, newest first.
	Verdicts(ctx context.Context, device string, limit int) ([]Verdict, error)
	// ReplaceKey gives a device another attestation key. ErrChanged when the device has no such key or identity any more, or no log yet; ErrKeyKnown when
	// some device has the new key, or had it.
	ReplaceKey(ctx context.Context, c KeyChange, fact ledger.Fact) error
}

// References gives what published releases measure as.
type References interface {
	// Components lists the components of every published, not withdrawn release of the product.
	Components(ctx context.Context, product string) ([]Reference, error)
}

// Policy is what a product asks of its devices' evidence.
type Policy struct {
	AllowVirtual bool
	Floor        uint32       // of the product's trust bundle
	Suites       []string     // that it accepts
	Isolation    []wire.Layer // without which none of its programs may run

	Starts func(code [32]byte, hardware string) error // says why a boot manager may not start: its trust bundle's; nil: not known
}

// Verdict is one appraisal.
type Verdict struct {
	Device    string          `json:"device"`
	At        time.Time       `json:"at"`
	Status    Tier            `json:"status"`
	Word      string          `json:"word"` // of the status
	Reasons   []string        `json:"reasons,omitempty"`
	Release   []byte          `json:"release,omitempty"`
	Version   string          `json:"version,omitempty"` // of the measured application
	BootCount uint64          `json:"boot_count"`
	Counter   uint32          `json:"counter"` // security counter
	Isolation *wire.Isolation `json:"isolation,omitempty" doc:"what holds its programs; not there: unknown"`
	EAR       EAR             `json:"ear"`
	CodeKey   []byte          `json:"-"` // of the evidence: to which keys of protected programs are to be wrapped
	UID       [16]byte        `json:"-"` // of its fact
}

// Config is what a Service needs.
type Config struct {
	Store      Store
	Guard      *access.Guard
	References References
	Policy     func(ctx context.Context, product string) (Policy, error) // an error is a refusal, not a default
	Every      time.Duration                                             // how often a working device attests; default 1 h
	NonceLife  time.Duration                                             // default 5 min
	Now        func() time.Time                                          // default time.Now
}

// Service is the verifier.
type Service struct {
	cfg Config

	mu     sync.Mutex
	nonces map[string]challenge // one outstanding for a device; guarded by mu. Lost in a restart: the device is asked again
}

type challenge struct {
	nonce   [32]byte
	expires time.Time
}

// NewService checks cfg and fills its defaults.
func NewService(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Guard == nil || cfg.References == nil || cfg.Policy == nil {
		return nil, errors.New("attest: the store, the guard, the references or the policy is missing")
	}
	if cfg.Every == 0 {
		cfg.Every = time.Hour
	}
	if cfg.NonceLife == 0 {
		cfg.NonceLife = 5 * time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg, nonces: map[string]challenge{}}, nil
}

// askAgain is how soon a device is asked again whose protected programs got no keys, or whose release on trial was not found good.
const askAgain = 15 * time.Second

// Due implements device.Challenger: a device attests when it never has, when its time is up, when its boot count or release is not
// that of its verdict, when its protected programs wait for keys, and when that verdict was not good. A store that fails makes it due: no answer is not a good one.
func (s *Service) Due(ctx context.Context, d device.Device, in wire.Checkin) (nonce []byte, until time.Time) {
	now := s.cfg.Now()
	if !device.Works(d.State) && d.State != device.Maintenance && d.State != device.Suspected {
		return nil, now.Add(s.cfg.Every)
	}
	v, err := s.cfg.Store.Verdict(ctx, d.ID)
	if err == nil {
		until = s.spared(d, v, in)
	}
	if now.Before(until) {
		return nil, until
	}
	n := s.issue(d.ID, now)
	return n[:], time.Time{}
}

// spared is until when a device need not give evidence again.
func (s *Service) spared(d device.Device, v Verdict, in wire.Checkin) (until time.Time) {
	good := v.Status == Affirming || v.Status == Warning
	switch {
	case v.BootCount != in.BootCount:
		return time.Time{}
	case !good && in.Trial:
		until = v.At.Add(askAgain) // the evidence may have been of the start before, and a release on trial is given up without a better one
	case !good:
		until = v.At.Add(time.Minute) // it was asked just now: no storm of bad evidence
	case len(in.Release) == 0 || string(v.Release) == string(in.Release):
		until = v.At.Add(s.cfg.Every)
	}
	if again := v.At.Add(askAgain); in.Locked && (d.State == device.Onboarded || d.State == device.Active) && again.Before(until) {
		return again
	}
	return until
}

// Challenge gives a nonce on demand.
func (s *Service) Challenge(ctx context.Context, caller access.Caller, id string) ([]byte, error) {
	if _, err := s.open(ctx, caller, access.DeviceAttest, id); err != nil {
		return nil, err
	}
	n := s.issue(id, s.cfg.Now())
	return n[:], nil
}

// maxNonces bounds the memory of challenges; beyond it the ones that ran out are dropped.
const maxNonces = 1 << 17

// Expect has the next evidence of a device be over nonce, which somebody else chose, and reports whether it may: an answer that is under way
// to a nonce of ours is not spoiled.
func (s *Service) Expect(id string, nonce [32]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	if c, ok := s.nonces[id]; ok && now.Before(c.expires.Add(-s.cfg.NonceLife/2)) && c.nonce != nonce {
		return false
	}
	s.nonces[id] = challenge{nonce: nonce, expires: now.Add(s.cfg.NonceLife)}
	return true
}

// issue gives the device's outstanding nonce, or a new one: asking twice must not spoil the answer under way.
func (s *Service) issue(id string, now time.Time) [32]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.nonces[id]; ok && now.Before(c.expires.Add(-s.cfg.NonceLife/2)) {
		return c.nonce
	}
	if len(s.nonces) >= maxNonces {
		for k, c := range s.nonces {
			if !now.Before(c.expires) {
				delete(s.nonces, k)
			}
		}
	}
	c := challenge{expires: now.Add(s.cfg.NonceLife)}
	_, _ = rand.Read(c.nonce[:]) // never fails: crypto/rand ends the process instead
	s.nonces[id] = c
	return c.nonce
}

// spend takes the outstanding nonce if it is the one that evidence carries. Any other says only that the evidence is not fresh: this
// process may have started since it asked, or another node has asked. It proves nothing bad, and judges nobody.
func (s *Service) spend(id string, nonce []byte, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.nonces[id]
	if !ok || !now.Before(c.expires) || subtle.ConstantTimeCompare(c.nonce[:], nonce) != 1 {
		return fault.New(fault.Unavailable, "attest.nonce", "the evidence of device "+id+" answers no challenge that is outstanding here", "check in again, for another")
	}
	delete(s.nonces, id)
	return nil
}

func (s *Service) open(ctx context.Context, caller access.Caller, action access.Action, id string) (device.Device, error) {
	d, err := s.cfg.Store.Device(ctx, id)
	if err != nil && !errors.Is(err, device.ErrNotFound) {
		return d, err
	}
	if err := s.cfg.Guard.Check(ctx, caller, action, access.Resource{Type: "device", ID: id, Product: d.Product, Group: d.Group}); err != nil {
		return d, err
	}
	if caller.Kind == access.Device && caller.ID != access.DeviceCaller(id).ID {
		return d, fault.New(fault.Denied, "device.other", "a device attests for itself only", "attest under the ID that the certificate names")
	}
	if errors.Is(err, device.ErrNotFound) {
		return d, fault.New(fault.NotFound, "device.unknown", fmt.Sprintf("no device %q", id), "see `hallmark device list`")
	}
	return d, nil
}

// Appraise judges evidence and stores the verdict. Evidence that is no token, or not signed by the key recorded in production, is
// refused and leaves no verdict: a stranger must not be able to write one. Evidence that is not fresh leaves none either, so that one
// token cannot be sent again and again. Every other outcome is a verdict, good or bad.
func (s *Service) Appraise(ctx context.Context, caller access.Caller, id string, envelope []byte) (Verdict, error) {
	d, err := s.open(ctx, caller, access.DeviceAttest, id)
	if err != nil {
		return Verdict{}, err
	}
	e, x, err := s.prepare(ctx, d, envelope)
	if err != nil {
		return Verdict{}, err
	}
	now := s.cfg.Now().UTC()
	if err := s.spend(id, e.Nonce, now); err != nil {
		return Verdict{}, err
	}
	return s.judge(ctx, caller, d, e, x, now)
}

// judge judges evidence whose nonce is one that it had to be over, and stores the verdict. at is when it was given.
func (s *Service) judge(ctx context.Context, caller access.Caller, d device.Device, e wire.Evidence, x Expect, at time.Time) (Verdict, error) {
	x.Nonce = e.Nonce
	j := Judge(e, x)
	status := j.Vector.Status()
	v := Verdict{
		Device: d.ID, At: at, Status: status, Word: status.String(), Reasons: j.Reasons, Release: j.Release,
		BootCount: max(e.BootCount, x.BootCount), Counter: max(e.Counter, x.Counter), Isolation: e.Isolation, CodeKey: e.CodeKey,
		EAR: EAR{
			Profile: Profile, IssuedAt: at.Unix(), Verifier: Verifier{Developer: "hallmark", Build: build()}, Nonce: e.Nonce,
			Submods: map[string]Submod{"device": {Status: status, Vector: j.Vector, Policies: []string{"hallmark:" + d.Product}}},
		},
	}
	for _, c := range e.Components {
		if c.Type == "App" {
			v.Version = c.Version
		}
	}
	data, err := json.Marshal(v)
	if err != nil {
		return Verdict{}, err
	}
	f := ledger.New(ledger.KindVerdict, s.cfg.Now().UTC(), caller.ID, d.ID, nil, data)
	v.UID = f.UID
	if err := s.cfg.Store.PutVerdict(ctx, v, d.AttestKey, f); errors.Is(err, ErrChanged) {
		return Verdict{}, fault.New(fault.Unavailable, "attest.key-changed", "device "+d.ID+" got another attestation key while its evidence was judged", "check in again, for another challenge")
	} else if err != nil {
		return Verdict{}, err
	}
	return v, nil
}

func (s *Service) prepare(ctx context.Context, d device.Device, envelope []byte) (wire.Evidence, Expect, error) {
	refuse := func(err error) (wire.Evidence, Expect, error) {
		return wire.Evidence{}, Expect{}, fault.Newf(fault.Invalid, "attest.evidence", "evidence of %s: %w", d.ID, err).With("see what the device's software signs: evidence is a COSE_Sign1, docs/reference/api.md")
	}
	key, err := wire.ParseKey(d.AttestKey)
	if err != nil {
		return refuse(fmt.Errorf("no attestation key was recorded in production: %w", err))
	}
	payload, err := wire.Verify1(wire.TypeEvidence, envelope, key)
	if err != nil {
		return refuse(err)
	}
	e, err := wire.DecodeEvidence(payload)
	if err != nil {
		return refuse(err)
	}
	set, err := suite.Of(key)
	if err != nil {
		return refuse(err)
	}
	instance, err := wire.InstanceID(key)
	if err != nil {
		return refuse(err)
	}
	p, err := s.cfg.Policy(ctx, d.Product)
	if err != nil {
		return wire.Evidence{}, Expect{}, err
	}
	refs, err := s.cfg.References.Components(ctx, d.Product)
	if err != nil {
		return wire.Evidence{}, Expect{}, err
	}
	last, err := s.cfg.Store.Verdict(ctx, d.ID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return wire.Evidence{}, Expect{}, err
	}
	return e, Expect{
		Device: d.ID, Hardware: d.Hardware, InstanceID: instance, KeyOrigin: d.KeyOrigin, Field: !d.Rekeyed.IsZero(), Floor: p.Floor, Counter: last.Counter,
		Suites: p.Suites, Suite: string(set.ID),
		BootCount: last.BootCount, AllowVirtual: p.AllowVirtual, Isolation: p.Isolation, Starts: p.Starts, References: refs, Runs: d.Twin.Release,
	}, nil
}

// build names the verifier's build; what is not known is said so.
func build() string {
	if i, ok := debug.ReadBuildInfo(); ok && i.Main.Version != "" {
		return i.Main.Version
	}
	return "unknown"
}

// Reply is what the device is told.
func (v Verdict) Reply() wire.AttestReply {
	return wire.AttestReply{Status: v.Status.String(), Reasons: v.Reasons[:min(len(v.Reasons), 16)]}
}

// Current gives a device's verdict.
func (s *Service) Current(ctx context.Context, caller access.Caller, id string) (Verdict, error) {
	if _, err := s.open(ctx, caller, access.DeviceRead, id); err != nil {
		return Verdict{}, err
	}
	v, err := s.cfg.Store.Verdict(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return v, fault.New(fault.NotFound, "attest.none", fmt.Sprintf("device %s has never attested", id), "it will when it checks in")
	}
	return v, err
}

// History lists a device's verdicts, newest first.
func (s *Service) History(ctx context.Context, caller access.Caller, id string) ([]Verdict, error) {
	if _, err := s.open(ctx, caller, access.DeviceRead, id); err != nil {
		return nil, err
	}
	return s.cfg.Store.Verdicts(ctx, id, 100)
}
