// Package remedy answers findings and verdicts: it contains a device, makes it anew, and lets it work again once it has proven
// itself.
//
// Stage 3, field. A contraindicated device is quarantined: a guarded act, which the device itself ends unless it is renewed. It
// is then re-provisioned, and released when it says that it was made anew and fresh evidence is affirming. Each device has at most one open case; each step of
// it is a fact with its cause.
//
// What it guarantees: one cause opens at most one case, however often it is told; a detector that is wrong about everything
// quarantines no more devices in an hour than the policy says, and the rest wait for a person; a quarantine lasts neither longer
// than the case nor longer than the policy's bound. Any node may take a decision; one of them, at its Tick, gives the command of it,
// which has the decision's name, so that no crash and no second node repeats it. It trusts verdicts to be of fresh evidence, and the
// device stage to give a command of one name once.
package remedy

import (
	"context"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Phase is where a case is.
type Phase string

// The phases. Held waits for a person; Contained for the device to be quarantined and, if the policy says so, made anew;
// Remaking for that; both for evidence. Releasing waits for the device to say that it is free.
const (
	Held      Phase = "held"
	Contained Phase = "contained"
	Remaking  Phase = "remaking"
	Releasing Phase = "releasing"
	Closed    Phase = "closed"
)

// Case is one device's trouble, from the fact that began it until it works again.
type Case struct {
	Device   string     `json:"device"`
	Product  string     `json:"product"`
	Group    string     `json:"-"`     // that the device is in now
	Cause    ledger.Ref `json:"cause"` // of the fact that began it; no two cases share one
	Reason   string     `json:"reason"`
	Phase    Phase      `json:"phase"`
	Step     int        `json:"step"` // rises with each decision that takes a command, and names that command: it is issued once
	Opened   time.Time  `json:"opened"`
	Since    time.Time  `json:"since"`           // of the phase
	Command  string     `json:"command"`         // of the phase; empty: to be issued
	Until    time.Time  `json:"until,omitzero"`  // when the quarantine lapses unless renewed
	Renewing time.Time  `json:"renew,omitzero"`  // when a renewal was decided that is not issued yet
	Release  []byte     `json:"release"`         // of a Remaking: digest
	Tries    int        `json:"tries,omitempty"` // how often making it anew has failed
	Remade   time.Time  `json:"remade,omitzero"` // when the device said that it was done: evidence counts from then on
	Asked    bool       `json:"asked,omitempty"` // it was told to attest after that
	Closed   time.Time  `json:"closed,omitzero"`
	Rev      int64      `json:"-"` // rises with each change
}

// Policy bounds what is done without a person.
type Policy struct {
	PerHour   int           // quarantines of a product's devices by itself in an hour; the others are held
	TTL       time.Duration // of a quarantine; at most wire.MaxGuardedTTL
	MaxHold   time.Duration // renewals end this long after the case was opened: then the quarantine lapses
	Reprovide bool          // make a quarantined device anew without being asked
}

// DefaultPolicy is cautious.
func DefaultPolicy() Policy {
	return Policy{PerHour: 10, TTL: 24 * time.Hour, MaxHold: 30 * 24 * time.Hour, Reprovide: true}
}

// MaxTries is how often a device is made anew without a person.
const MaxTries = 3

// Limit is how many cases may be opened, by themselves, since when.
type Limit struct {
	Most  int
	Since time.Time
}

// Errors of the store.
var (
	ErrMany     = errors.New("too many were opened by themselves")
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrChanged  = errors.New("changed meanwhile")
)

// Store keeps cases. Writes are durable, with their facts, when they return nil.
type Store interface {
	// OpenCase returns ErrExists when the device has an open case, or the cause opened one before; ErrMany when the case is not held,
	// and as many of its product as the limit allows were opened within its time that are not, or were not, held.
	OpenCase(ctx context.Context, c Case, limit Limit, facts ...ledger.Fact) error
	// Case gives the device's open case; ErrNotFound.
	Case(ctx context.Context, device string) (Case, error)
	// SaveCase replaces it if its stored Rev is c.Rev, and raises Rev; else ErrChanged.
	SaveCase(ctx context.Context, c Case, facts ...ledger.Fact) error
	// OpenCases gives the open cases in a scope, all with none, by device, from behind the device after on, at most limit; 0:
	// all.
	OpenCases(ctx context.Context, scope []string, after string, limit int) ([]Case, error)
	// GoodRelease gives what the device may be made anew with: the published release that it last confirmed in good health, else the newest
	// for its hardware that a rollout came to its end with, or that it was made with or told to have, and that no rollout was rolled back
	// from; ErrNotFound.
	GoodRelease(ctx context.Context, device string) ([]byte, error)
}

// Devices is the registry and the authority; *device.Service is one.
type Devices interface {
	Get(ctx context.Context, caller access.Caller, id string) (device.Device, error)
	Command(ctx context.Context, caller access.Caller, in device.Instruction) (string, error)
	Replace(ctx context.Context, caller access.Caller, before, after string, cause *ledger.Ref, reason string) error
}

// Trouble is what a reaction tells of.
type Trouble struct {
	Device string
	Cause  ledger.Ref // the verdict's or finding's place
	Reason string
}

// contains reports whether a case in p keeps its device quarantined.
func contains(p Phase) bool { return p == Contained || p == Remaking }

// Over reports whether a device in s is past all remedy: its life has ended, or nobody has it.
func Over(s device.State) bool { return device.Ended(s) || s == device.Lost }

// renewal says whether the quarantine of a case must be renewed now: in the last third of its time, and not beyond MaxHold.
func renewal(c Case, p Policy, now time.Time) bool {
	return contains(c.Phase) && !c.Until.IsZero() && c.Renewing.IsZero() &&
		now.After(c.Until.Add(-p.TTL/3)) && now.Before(c.Opened.Add(p.MaxHold))
}
