package device

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// Bundles keeps what belongs to the history of trust bundles, beside Trust.
type Bundles interface {
	// Seen gives the entry of a bundle as the log of the bundle before it had it; ErrNotFound when it was not kept.
	Seen(ctx context.Context, product string, version uint64) (*wire.Logged, error)
	// KeepSeen keeps it, unless there is one.
	KeepSeen(ctx context.Context, product string, version uint64, l wire.Logged) error
	// CountBundles counts the devices in the field by the version of their bundle, lowest first.
	CountBundles(ctx context.Context, product string) ([]BundleCount, error)
	// CountSuites counts the same devices by the suite of the key that signs their evidence, in the order of suite.IDs; of a key that no suite has, the
	// suite is empty.
	CountSuites(ctx context.Context, product string) ([]SuiteCount, error)
	// CountRuns counts the same devices by the security counter of the release that they say they run, rising; first those of whom nobody knows.
	CountRuns(ctx context.Context, product string) ([]RunsCount, error)
	// Resign gives a command that still stands another fact of its issue; ErrChanged when its fact is not before any more, or it has ended.
	Resign(ctx context.Context, id string, before [16]byte, f ledger.Fact) error
}

// BundleCount is how many devices in the field have a version of the trust bundle.
type BundleCount struct {
	Version uint64 `json:"version"`
	Devices int    `json:"devices"`
}

// SuiteCount is how many devices in the field sign in a suite.
type SuiteCount struct {
	Suite   string `json:"suite"`
	Devices int    `json:"devices"`
}

// stepCache remembers encoded steps of histories: they never change, and anybody may ask for them.
type stepCache struct {
	mu   sync.Mutex // guards kept
	kept map[stepKey][]byte
}

type stepKey struct {
	product string
	version uint64
}

// maxKeptSteps bounds the memory: a step is a few kilobytes.
const maxKeptSteps = 512

func (c *stepCache) get(k stepKey) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.kept[k]
	return b, ok
}

func (c *stepCache) put(k stepKey, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil || len(c.kept) >= maxKeptSteps {
		c.kept = map[stepKey][]byte{}
	}
	c.kept[k] = b
}

// BundleStep gives a bundle of a product's signed history, encoded, for anybody: it is what a device that trusts nobody any more goes back
// by, and says nothing that is not in the public log. final says that it will never be another.
func (s *Service) BundleStep(ctx context.Context, product string, version uint64) (step []byte, final bool, err error) {
	k := stepKey{product, version}
	if b, ok := s.steps.get(k); ok {
		return b, true, nil
	}
	b, err := s.cfg.Trust.Bundle(ctx, product, version)
	if version == 0 || errors.Is(err, ErrNotFound) {
		return nil, false, fault.New(fault.NotFound, "bundle.unknown", fmt.Sprintf("product %q has no trust bundle %d", product, version), "see `hallmark bundle list`")
	}
	if err != nil {
		return nil, false, err
	}
	out := wire.BundleStep{Envelope: b.Envelope}
	if version > 1 {
		if out.Seen, err = s.keepSeen(ctx, b); err != nil {
			return nil, false, err
		}
		if out.Seen != nil {
			out.Envelope = nil
		}
	}
	if step, err = wire.EncodeBundleStep(out); err != nil {
		return nil, false, err
	}
	if final = version == 1 || out.Seen != nil; final {
		s.steps.put(k, step)
	}
	return step, final, nil
}

// keepSeen gives the entry of a bundle as whoever holds the one before it believes it, and keeps it for when the keys of then are gone; nil
// while, or because, there is none.
func (s *Service) keepSeen(ctx context.Context, b Bundle) (*wire.Logged, error) {
	product, version := b.Wire.Product, b.Wire.Version
	l, err := s.cfg.Bundles.Seen(ctx, product, version)
	if !errors.Is(err, ErrNotFound) {
		return l, err
	}
	before, err := s.cfg.Trust.Bundle(ctx, product, version-1)
	if err != nil {
		return nil, err
	}
	now, err := s.loggedFor(ctx, b.UID, before.Wire)
	if errors.Is(err, errOtherLog) || errors.Is(err, ledger.ErrNotYetWitnessed) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if _, err := now.Proof.Verify(before.Wire.Policy(before.Wire.Control), now.Entry); err != nil {
		return nil, nil //nolint:nilerr // the witnesses of then have not cosigned: it goes without
	}
	return &now, s.cfg.Bundles.KeepSeen(ctx, product, version, now)
}

// errOtherLog says that the log is not signed by the key that a bundle names.
var errOtherLog = errors.New("the control log is not signed by the key of that trust bundle")

// loggedFor gives a fact of the control log with its proof, signed by the key that b names.
func (s *Service) loggedFor(ctx context.Context, uid [16]byte, b wire.Bundle) (wire.Logged, error) {
	l, err := s.cfg.Ledger.Logged(ctx, uid)
	if err != nil {
		return l, err
	}
	return s.signedFor(ctx, l, b)
}

func (s *Service) signedFor(ctx context.Context, l wire.Logged, b wire.Bundle) (wire.Logged, error) {
	p, ok, err := s.cfg.Ledger.SignedBy(ctx, ledger.Control, l.Proof, b.Control.Key)
	if err == nil && !ok {
		err = errOtherLog
	}
	l.Proof = p
	return l, err
}

// NewestBundle says, encoded and for anybody, where the history of a product ends. Unavailable until its entry is witnessed.
func (s *Service) NewestBundle(ctx context.Context, product string) ([]byte, error) {
	b, err := s.CurrentBundle(ctx, product)
	if err != nil {
		return nil, err
	}
	l, err := s.loggedFor(ctx, b.UID, b.Wire)
	if errors.Is(err, errOtherLog) || errors.Is(err, ledger.ErrNotYetWitnessed) {
		return nil, fault.Newf(fault.Unavailable, "bundle.not-witnessed", "trust bundle %d of %s: %w", b.Wire.Version, product, err).With("ask again when the log is witnessed")
	}
	if err != nil {
		return nil, err
	}
	return wire.EncodeNewestBundle(wire.NewestBundle{Version: b.Wire.Version, Logged: l})
}

// RunsCount is how many devices run releases of a security counter.
type RunsCount struct {
	Counter uint32 `json:"counter"`
	Unknown bool   `json:"unknown,omitempty" doc:"nothing runs, or a release that is not known here"`
	Devices int    `json:"devices"`
}

// Below counts the devices that run what has a security counter below n.
func (s BundleStatus) Below(n uint32) (devices int) {
	for _, r := range s.Runs {
		if !r.Unknown && r.Counter < n {
			devices += r.Devices
		}
	}
	return devices
}

// BundleStatus says how far a product's trust bundle has come.
type BundleStatus struct {
	Product string        `json:"product"`
	Current uint64        `json:"current"`
	Behind  int           `json:"behind"` // devices in the field with an older one
	Counts  []BundleCount `json:"counts"`
	Suites  []SuiteCount  `json:"suites"` // of the keys that sign their evidence
	Wanted  string        `json:"wanted"` // the suite that the current one has them move to
	Runs    []RunsCount   `json:"runs" doc:"devices in the field by the security counter of the release that they say they run"`
	Seen    bool          `json:"seen"` // the way back leads to it: its entry is kept as the bundle before believes it
}

// BundleStatus counts a product's devices in the field by the version of their trust bundle, and by the suite they sign in.
func (s *Service) BundleStatus(ctx context.Context, caller access.Caller, product string) (BundleStatus, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.DeviceRead, access.Resource{Type: "product", ID: product, Product: product}); err != nil {
		return BundleStatus{}, err
	}
	b, err := s.CurrentBundle(ctx, product)
	if err != nil {
		return BundleStatus{}, err
	}
	out := BundleStatus{Product: product, Current: b.Wire.Version, Seen: b.Wire.Version == 1}
	if wanted, ok := suite.Newest(b.Wire.Suites); ok {
		out.Wanted = string(wanted.ID)
	}
	if !out.Seen {
		l, err := s.keepSeen(ctx, b)
		if err != nil {
			return BundleStatus{}, err
		}
		out.Seen = l != nil
	}
	if out.Counts, err = s.cfg.Bundles.CountBundles(ctx, product); err != nil {
		return BundleStatus{}, err
	}
	if out.Suites, err = s.cfg.Bundles.CountSuites(ctx, product); err != nil {
		return BundleStatus{}, err
	}
	if out.Runs, err = s.cfg.Bundles.CountRuns(ctx, product); err != nil {
		return BundleStatus{}, err
	}
	for _, c := range out.Counts {
		if c.Version < out.Current {
			out.Behind += c.Devices
		}
	}
	return out, nil
}
