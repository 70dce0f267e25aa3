package supply

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/supply/statement"
)

// Mode is what becomes of a release that the gate does not let through.
type Mode string

// The modes. A product of which nobody said anything is Off.
const (
	Off     Mode = "off"     // nothing is looked at
	Warn    Mode = "warn"    // it is written down, and the release goes on
	Enforce Mode = "enforce" // there is no such release
)

// Policy is what the gate asks of a product's releases.
type Policy struct {
	Mode          Mode      `json:"mode" enum:"off,warn,enforce"`
	Builders      []Builder `json:"builders,omitempty" maxItems:"64" doc:"whose provenance is believed; none: nobody's, and no release passes"`
	Exceptions    [][]byte  `json:"vex_keys,omitempty" maxItems:"64" doc:"public keys (SubjectPublicKeyInfo, DER) of those who may say that a known flaw is none here"`
	ExceptionDays int       `json:"vex_days,omitempty" minimum:"0" maximum:"3650" doc:"how long what they say holds; 0: 180 days"`
	AdvisoryDays  int       `json:"advisory_days,omitempty" minimum:"0" maximum:"14" doc:"how old the advisories of an ecosystem may be; 0: 7 days"`
	Advisories    int       `json:"min_advisories,omitempty" minimum:"0" doc:"how many there have to be of each ecosystem; 0: one"`
	Suppliers     []string  `json:"suppliers,omitempty" maxItems:"1024" doc:"who may supply what is inside, as the bill of materials names them; a component of another, or of nobody that is named, does not pass; none: anybody"`
	SupplierIDs   []string  `json:"supplier_ids,omitempty" maxItems:"1024" doc:"the same, of suppliers that are written down here, by their IDs: each by all of its names, and not at all once it was ended"`
	MaxUnknown    int       `json:"max_unknown,omitempty" minimum:"0" doc:"of how many components nothing may be known"`
	Severity      float64   `json:"severity,omitempty" minimum:"0" maximum:"10" doc:"CVSS score from which on a flaw that nobody excused stops a release, as does one without a score; 0: 7"`
}

// Builder is who may build a product's releases.
type Builder struct {
	ID         string   `json:"id" minLength:"1" maxLength:"2048" doc:"as its provenance names it"`
	Keys       [][]byte `json:"keys" minItems:"1" maxItems:"64" doc:"its public keys (SubjectPublicKeyInfo, DER)"`
	Threshold  int      `json:"threshold,omitempty" minimum:"0" maximum:"64" doc:"how many of them have to sign; 0: one"`
	Level      int      `json:"slsa_level,omitempty" minimum:"0" maximum:"3" doc:"SLSA build level that it is trusted to build on, which nobody can see in a document; 0: 1, that there is provenance"`
	BuildTypes []string `json:"build_types,omitempty" maxItems:"64" doc:"ways to build that are allowed; none: any"`
	Sources    []string `json:"sources" minItems:"1" maxItems:"64" doc:"what the source's URI has to begin with; one of them"`
}

// PolicyChange is the data of the fact supply.policy.changed.
type PolicyChange struct {
	Product string `json:"product"`
	Policy  Policy `json:"policy"`
}

// maxKeys bounds the keys that a document's signatures are held to, one after the other.
const maxKeys = 128

const day = 24 * time.Hour

func orElse(n, other int) int {
	if n == 0 {
		return other
	}
	return n
}

func (p Policy) exceptionLife() time.Duration {
	return time.Duration(orElse(p.ExceptionDays, 180)) * day
}

func (p Policy) advisoryLife() time.Duration { return time.Duration(orElse(p.AdvisoryDays, 7)) * day }
func (p Policy) fewest() int                 { return orElse(p.Advisories, 1) }

// stops says whether a flaw with the score stops a release.
func (p Policy) stops(score float64) bool {
	bound := p.Severity
	if bound == 0 {
		bound = 7
	}
	return score == 0 || score >= bound
}

// digest names a policy in a decision.
func (p Policy) digest() ([]byte, error) {
	data, err := json.Marshal(p)
	sum := sha256.Sum256(data)
	return sum[:], err
}

func (p Policy) check() error {
	if p.Mode != Off && p.Mode != Warn && p.Mode != Enforce {
		return fmt.Errorf("mode %.20q: want off, warn or enforce", p.Mode)
	}
	if p.ExceptionDays < 0 || p.AdvisoryDays < 0 || p.AdvisoryDays > int(MaxAge/day) || p.Advisories < 0 || p.MaxUnknown < 0 || p.Severity < 0 || p.Severity > 10 {
		return fmt.Errorf("a number is out of its range; advisories may be at most %d days old", int(MaxAge/day))
	}
	if slices.Contains(p.Suppliers, "") {
		return errors.New("a supplier without a name: who is not named is none that is allowed")
	}
	keys := slices.Clone(p.Exceptions)
	for _, b := range p.Builders {
		if b.ID == "" || len(b.Sources) == 0 || slices.Contains(b.Sources, "") {
			return fmt.Errorf("builder %.100q: it needs an ID, and what its source begins with", b.ID)
		}
		if b.Level < 0 || b.Level > 3 {
			return fmt.Errorf("builder %.100q: SLSA build levels are 1 to 3", b.ID)
		}
		if b.Threshold < 0 || orElse(b.Threshold, 1) > len(b.Keys) {
			return fmt.Errorf("builder %.100q has %d keys, and %d have to sign", b.ID, len(b.Keys), orElse(b.Threshold, 1))
		}
		keys = append(keys, b.Keys...)
	}
	if len(keys) > maxKeys {
		return fmt.Errorf("%d keys, at most %d are held to a document", len(keys), maxKeys)
	}
	for i, k := range keys {
		if _, err := statement.ParseKey(k); err != nil {
			return fmt.Errorf("key %d: %w", i+1, err)
		}
	}
	return nil
}

// Policy gives what is asked of a product's releases.
func (s *Service) Policy(ctx context.Context, caller access.Caller, product string) (Policy, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.DeviceRead, access.Resource{Type: "product", ID: product, Product: product}); err != nil {
		return Policy{}, err
	}
	return s.cfg.Store.Policy(ctx, product)
}

// SetPolicy says what is asked of a product's releases from now on. To ask for less than a product that enforces it did takes two people: what it lets through is not taken back.
func (s *Service) SetPolicy(ctx context.Context, caller access.Caller, product string, p Policy) (Policy, error) {
	had, err := s.cfg.Store.Policy(ctx, product)
	if err != nil {
		return Policy{}, err
	}
	if err := s.cfg.Guard.Check(ctx, caller, access.SupplyManage, access.Resource{Type: "product", ID: product, Product: product, Grave: had.Mode == Enforce}); err != nil {
		return Policy{}, err
	}
	if err := p.check(); err != nil {
		return Policy{}, fault.Newf(fault.Invalid, "supply.policy", "product %q: %w", product, err).
			With("correct what is named, and set it again")
	}
	names, err := s.cfg.Store.SupplierNames(ctx, p.SupplierIDs)
	if err != nil {
		return Policy{}, err
	}
	for _, id := range p.SupplierIDs {
		if _, ok := names[id]; !ok {
			return Policy{}, fault.New(fault.Invalid, "supply.policy", fmt.Sprintf("product %q: no supplier %.80q is written down here", product, id), "see `hallmark supply supplier list`")
		}
	}
	data, err := json.Marshal(PolicyChange{product, p})
	if err != nil {
		return Policy{}, err
	}
	err = s.cfg.Store.PutPolicy(ctx, product, had, p, ledger.New(ledger.KindSupplyPolicyChanged, s.cfg.Now(), caller.ID, product, nil, data))
	if errors.Is(err, ErrChanged) {
		return Policy{}, fault.New(fault.Conflict, "supply.changed", "somebody else has just changed what is asked of "+product, "look at it, and say it again")
	}
	if errors.Is(err, ErrNotFound) {
		return Policy{}, fault.New(fault.NotFound, "product.unknown", fmt.Sprintf("no product %q", product), "see `hallmark product list`")
	}
	return p, err
}
