// Package monitor turns what is wrong into findings that somebody, or a reaction, has to deal with.
//
// Stage 3, field. A finding is raised from a fact (a bad verdict, a refused directive, a failed update, a device that says what
// cannot be true) or from silence (overdue check-in, attestation or log). What it guarantees: one open finding for one trouble, however
// often it shows (the dedupe key), and one for one fact, however often it is told; raising and closing are facts, with the fact that led
// there as cause; a failed update is over when the device is well with that release or a newer one, not when it is back with the old;
// silence is looked for, so that a device that says nothing does not pass for one that is well. It trusts the facts it is given.
package monitor

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Kind says what is wrong.
type Kind string

// The kinds.
const (
	BadVerdict     Kind = "attestation.contraindicated"
	NoCheckin      Kind = "checkin.overdue"
	NoAttestation  Kind = "attestation.overdue"
	Refusals       Kind = "directives.refused"
	FailedUpdate   Kind = "update.failed"
	Unhealthy      Kind = "device.unhealthy"
	CloneSuspected Kind = "clone.suspected"
	EnrolRefused   Kind = "enrol.refused"
	RecordRefused  Kind = "record.refused"
	VouchersMany   Kind = "voucher.many"
	VoucherGuessed Kind = "voucher.guessed"
	LogForked      Kind = "log.forked"
	NoLog          Kind = "log.overdue"
	Unwitnessed    Kind = "ledger.unwitnessed" // of this instance's own logs
	LedgerBehind   Kind = "ledger.behind"
	WitnessFailing Kind = "witness.failing"
	CAEnding       Kind = "authority.ending"
	BundleBehind   Kind = "trust-bundle.behind"
	RolloutHalted  Kind = "rollout.halted"       // of a rollout, whose ID is the subject
	RolloutStuck   Kind = "rollout.stuck"        // of a rollout, the same
	Vulnerable     Kind = "component.vulnerable" // of a release, whose digest is the subject
	BadLot         Kind = "lot.recalled"         // of a lot of parts, whose ID is the subject
)

// Severity orders findings for people.
type Severity string

// The severities.
const (
	Low      Severity = "low"
	Medium   Severity = "medium"
	High     Severity = "high"
	Critical Severity = "critical"
)

// Finding is one trouble.
type Finding struct {
	ID       string      `json:"id"`
	Dedupe   string      `json:"dedupe"` // default: kind and subject, and the release
	Kind     Kind        `json:"kind"`
	Severity Severity    `json:"severity"`
	Product  string      `json:"product"`
	Group    string      `json:"-"`       // that the subject is in now
	Subject  string      `json:"subject"` // a device ID, mostly
	Text     string      `json:"text"`
	Cause    *ledger.Ref `json:"cause,omitempty"`
	Raised   time.Time   `json:"raised"`
	Act      string      `json:"act,omitempty"`     // of a FailedUpdate: what was commanded
	Release  string      `json:"release,omitempty"` // with which release, hex
	Version  string      `json:"version,omitempty"` // of that
	Closed   time.Time   `json:"closed,omitzero"`
	By       string      `json:"closed_by,omitempty"`
	Reason   string      `json:"closed_reason,omitempty"`
}

// Query selects findings; empty fields do not select.
type Query struct {
	Product, Group string   // with a group, those of devices in it and below
	Scope          []string // set by the Service: what the caller may see; empty means everything
	Subject        string
	Kind           Kind
	OpenOnly       bool
	Newest         bool   // first: in descending order of ID, which begins with the time
	After          string // ID of the last one of the page before
	Limit          int    // at most 1000, which 0 means
}

// Silence is a device that has not been heard of in time.
type Silence struct {
	Device, Product string
	Last            time.Time // zero: never
}

// Errors of the store.
var (
	ErrNotFound = errors.New("not found")
	ErrClosed   = errors.New("closed already")
)

// Store keeps findings. Writes are durable, with their fact, when they return nil.
type Store interface {
	// PutFinding stores f and gives it; or gives, and stores nothing, the one that is open with the dedupe key, or that the same cause
	// has led to before, be it closed since.
	PutFinding(ctx context.Context, f Finding, fact ledger.Fact) (Finding, error)
	// CloseFinding returns ErrClosed when it is.
	CloseFinding(ctx context.Context, f Finding, fact ledger.Fact) error
	// Finding and OpenFinding find by ID and by dedupe key; ErrNotFound.
	Finding(ctx context.Context, id string) (Finding, error)
	OpenFinding(ctx context.Context, dedupe string) (Finding, error)
	// Findings gives a page in the order of ID, descending with q.Newest.
	Findings(ctx context.Context, q Query) ([]Finding, error)
	// Heard lists open findings of a kind of silence (NoCheckin, NoAttestation, NoLog) whose device was heard of since.
	Heard(ctx context.Context, kind Kind, limit int) ([]Finding, error)
	// Silent lists working devices that were not seen (kind NoCheckin), have no verdict (NoAttestation) or were seen but sent neither
	// events nor a heartbeat of their own log (NoLog) since before, and have no open finding of that kind, at most limit.
	Silent(ctx context.Context, kind Kind, before time.Time, limit int) ([]Silence, error)
}

// Config is what a Service needs.
type Config struct {
	Bundles     Bundles // nil: nobody looks for devices that stay behind a trust bundle
	Store       Store
	Guard       *access.Guard
	CheckinDue  time.Duration    // silence longer than this is a finding; default 1 h
	AttestDue   time.Duration    // default 3 h
	LogDue      time.Duration    // silence about its own log, of a device that is heard of: longer than its heartbeats are apart; default 3 h
	Now         func() time.Time // default time.Now
	SweepAtOnce int              // devices a sweep takes at most of each kind; default 1000
}

// Service keeps the findings.
type Service struct{ cfg Config }

// NewService checks cfg and fills its defaults.
func NewService(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Guard == nil {
		return nil, errors.New("monitor: the store or the guard is missing")
	}
	if cfg.CheckinDue == 0 {
		cfg.CheckinDue = time.Hour
	}
	if cfg.AttestDue == 0 {
		cfg.AttestDue = 3 * time.Hour
	}
	if cfg.LogDue == 0 {
		cfg.LogDue = 3 * time.Hour
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.SweepAtOnce == 0 {
		cfg.SweepAtOnce = 1000
	}
	return &Service{cfg: cfg}, nil
}

// Raise opens a finding. When one with its dedupe key is open, or its cause led to one before, that one is returned and nothing is
// written.
func (s *Service) Raise(ctx context.Context, caller access.Caller, f Finding) (Finding, error) {
	res := access.Resource{Type: "device", ID: f.Subject, Product: f.Product, Group: f.Group}
	if err := s.cfg.Guard.Check(ctx, caller, access.FindingClose, res); err != nil {
		return Finding{}, err
	}
	if f.Kind == "" || f.Subject == "" || len(f.Text) > 4096 {
		return Finding{}, fault.New(fault.Invalid, "finding.invalid", "a finding without kind or subject, or with more than 4096 bytes of text", "name both")
	}
	f.Dedupe = f.key()
	if f.Severity == "" {
		f.Severity = Medium
	}
	now := s.cfg.Now().UTC()
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails: crypto/rand ends the process instead
	f.ID = fmt.Sprintf("%011x", now.UnixMilli()) + hex.EncodeToString(id[:])
	f.Raised, f.Closed, f.By, f.Reason = now, time.Time{}, "", ""
	data, err := json.Marshal(f)
	if err != nil {
		return Finding{}, err
	}
	return s.cfg.Store.PutFinding(ctx, f, ledger.New(ledger.KindFindingRaised, now, caller.ID, f.Subject, f.Cause, data))
}

// key is what a trouble is known by.
func (f Finding) key() string {
	switch {
	case f.Dedupe != "":
		return f.Dedupe
	case f.Release != "":
		return string(f.Kind) + "/" + f.Subject + "/" + f.Release
	}
	return string(f.Kind) + "/" + f.Subject
}

// Keep keeps a finding open for as long as a trouble lasts: it is raised when none is open, and closed, for the reason, when it is over.
func (s *Service) Keep(ctx context.Context, caller access.Caller, f Finding, lasts bool, reason string) error {
	open, err := s.cfg.Store.OpenFinding(ctx, f.key())
	known := err == nil
	switch {
	case !known && !errors.Is(err, ErrNotFound):
		return err
	case lasts && !known:
		_, err := s.Raise(ctx, caller, f)
		return err
	case !lasts && known:
		return s.Close(ctx, caller, open.ID, reason, nil)
	}
	return nil
}

// resource is a finding where its subject is. Whom it is about is not told to who may not see it.
func resource(id string, f Finding) access.Resource {
	return access.Resource{Type: "finding", ID: id, Product: f.Product, Group: f.Group}
}

// Get gives one finding.
func (s *Service) Get(ctx context.Context, caller access.Caller, id string) (Finding, error) {
	f, err := s.cfg.Store.Finding(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Finding{}, err
	}
	if err := s.cfg.Guard.Check(ctx, caller, access.FindingRead, resource(id, f)); err != nil {
		return Finding{}, err
	}
	if errors.Is(err, ErrNotFound) {
		return Finding{}, fault.New(fault.NotFound, "finding.unknown", fmt.Sprintf("no finding %q", id), "see `hallmark finding list`")
	}
	return f, nil
}

// Close ends a finding, with the reason.
func (s *Service) Close(ctx context.Context, caller access.Caller, id, reason string, cause *ledger.Ref) error {
	f, err := s.cfg.Store.Finding(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if err := s.cfg.Guard.Check(ctx, caller, access.FindingClose, resource(id, f)); err != nil {
		return err
	}
	if errors.Is(err, ErrNotFound) {
		return fault.New(fault.NotFound, "finding.unknown", fmt.Sprintf("no finding %q", id), "see `hallmark finding list`")
	}
	now := s.cfg.Now().UTC()
	f.Closed, f.By, f.Reason = now, caller.ID, reason
	told := f
	told.By = caller.Named()
	data, err := json.Marshal(told)
	if err != nil {
		return err
	}
	err = s.cfg.Store.CloseFinding(ctx, f, caller.Tells(ledger.New(ledger.KindFindingClosed, now, caller.ID, f.Subject, cause, data)))
	if errors.Is(err, ErrClosed) {
		return fault.New(fault.Conflict, "finding.closed", fmt.Sprintf("finding %s is closed already", id), "see `hallmark finding list`")
	}
	return err
}

// Cure closes the findings that a fact puts an end to; at is the fact's place.
func (s *Service) Cure(ctx context.Context, caller access.Caller, f ledger.Fact, at ledger.Ref) error {
	over := cures(f)
	if over == nil {
		return nil
	}
	return s.settle(ctx, caller, f.Subject, string(f.Kind), &at, over)
}

// Settle closes every finding about a subject: its life has ended, or it is nobody's to look after any more.
func (s *Service) Settle(ctx context.Context, caller access.Caller, subject, reason string, cause *ledger.Ref) error {
	return s.settle(ctx, caller, subject, reason, cause, func(Finding) bool { return true })
}

// settle closes those of a subject's open findings that are over. One that somebody else closes meanwhile is closed.
func (s *Service) settle(ctx context.Context, caller access.Caller, subject, reason string, cause *ledger.Ref, over func(Finding) bool) error {
	open, err := s.cfg.Store.Findings(ctx, Query{Subject: subject, OpenOnly: true, Limit: maxPage})
	if err != nil {
		return err
	}
	for _, f := range open {
		if !over(f) {
			continue
		}
		if err := s.Close(ctx, caller, f.ID, reason, cause); err != nil && fault.KindOf(err) != fault.Conflict {
			return err
		}
	}
	return nil
}

// maxPage bounds a page of findings: no device has as many that are open.
const maxPage = 1000

// List gives a page of findings.
func (s *Service) List(ctx context.Context, caller access.Caller, q Query) ([]Finding, error) {
	var err error
	if q.Scope, err = s.cfg.Guard.Within(ctx, caller, access.FindingRead, "finding", q.Product, q.Group); err != nil {
		return nil, err
	}
	if q.Limit <= 0 || q.Limit > maxPage {
		q.Limit = maxPage
	}
	return s.cfg.Store.Findings(ctx, q)
}

// Sweep raises a finding for each device that is overdue at now, closes those of devices that are heard of again, and tells how many it
// raised. It takes them in lots, until none is left.
func (s *Service) Sweep(ctx context.Context, now time.Time) (int, error) {
	n := 0
	for _, k := range []silence{
		{NoCheckin, s.cfg.CheckinDue, "checked in"}, {NoAttestation, s.cfg.AttestDue, "attested"}, {NoLog, s.cfg.LogDue, "sent its own log"},
	} {
		if err := s.sweepHeard(ctx, k); err != nil {
			return n, err
		}
		for {
			took, err := s.sweepSilent(ctx, k, now)
			n += took
			if err != nil {
				return n, err
			}
			if took < s.cfg.SweepAtOnce {
				break
			}
		}
	}
	took, err := s.sweepBundles(ctx, now)
	return n + took, err
}

type silence struct {
	kind Kind
	due  time.Duration
	what string
}

func (s *Service) sweepHeard(ctx context.Context, k silence) error {
	for {
		heard, err := s.cfg.Store.Heard(ctx, k.kind, s.cfg.SweepAtOnce)
		if err != nil {
			return err
		}
		for _, f := range heard {
			err := s.Close(ctx, access.Internal("monitor"), f.ID, "it has "+k.what+" again", nil)
			if err != nil && fault.KindOf(err) != fault.Conflict { // a person closed it
				return err
			}
		}
		if len(heard) < s.cfg.SweepAtOnce {
			return nil
		}
	}
}

func (s *Service) sweepSilent(ctx context.Context, k silence, now time.Time) (int, error) {
	silent, err := s.cfg.Store.Silent(ctx, k.kind, now.Add(-k.due), s.cfg.SweepAtOnce)
	if err != nil {
		return 0, err
	}
	for i, d := range silent {
		text := fmt.Sprintf("has never %s since it was onboarded", k.what)
		if !d.Last.IsZero() {
			text = fmt.Sprintf("last %s at %s, more than %s ago", k.what, d.Last.Format(time.RFC3339), k.due)
		}
		if _, err := s.Raise(ctx, access.Internal("monitor"), Finding{Kind: k.kind, Severity: Medium, Product: d.Product, Subject: d.Device, Text: text}); err != nil {
			return i, err
		}
	}
	return len(silent), nil
}
