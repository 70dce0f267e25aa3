package supply

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/supply/osv"
)

// MaxImport bounds what is imported for one ecosystem, bytes.
const MaxImport = 8 << 30

const (
	importBatch = 200
	importDead  = 24 * time.Hour // an import that was begun longer ago has been given up
)

// Imported is the data of the fact advisories.imported.
type Imported struct {
	Ecosystem  string    `json:"ecosystem"`
	Advisories int       `json:"advisories"`
	Digest     []byte    `json:"digest"` // SHA-256 of what was imported
	Newest     time.Time `json:"newest"`
}

var instance = access.Resource{Type: "instance"}

// MayImport says whether Import would be allowed, before anything is read.
func (s *Service) MayImport(ctx context.Context, caller access.Caller) error {
	return s.cfg.Guard.Check(ctx, caller, access.AdvisoryImport, instance)
}

// Import takes in all advisories of an ecosystem, one JSON object behind the other, and replaces those that were here before. Nothing counts before all of it is here.
//
// fewer says that there may be many fewer than before. That would let through what a product that enforces stops, and so waits until none does, which takes two people to say.
func (s *Service) Import(ctx context.Context, caller access.Caller, ecosystem string, fewer bool, r io.Reader) (Database, error) {
	if err := s.MayImport(ctx, caller); err != nil {
		return Database{}, err
	}
	if !osv.Ecosystem(ecosystem) {
		return Database{}, fault.New(fault.Invalid, "advisories.ecosystem", fmt.Sprintf("%.80q is no ecosystem whose versions can be compared", ecosystem), "one of: "+osv.Ecosystems())
	}
	now := s.cfg.Now().UTC().Truncate(time.Millisecond)
	if err := s.sweep(ctx, now); err != nil {
		return Database{}, err
	}
	generation, err := s.cfg.Store.Begin(ctx, ecosystem, now)
	if err != nil {
		return Database{}, err
	}
	d := Database{Ecosystem: ecosystem, At: now, By: caller.ID, Generation: generation}
	if err := s.fill(ctx, &d, r); err != nil {
		return Database{}, err // what it brought is swept
	}
	if d.Most, err = s.check(ctx, d, fewer); err != nil {
		return Database{}, err
	}
	sum, err := hex.DecodeString(d.Digest)
	if err != nil {
		return Database{}, err
	}
	data, err := json.Marshal(Imported{d.Ecosystem, d.Advisories, sum, d.Newest})
	if err != nil {
		return Database{}, err
	}
	if err := s.cfg.Store.Use(ctx, d, ledger.New(ledger.KindAdvisoriesImported, now, caller.ID, ecosystem, nil, data)); err != nil {
		return Database{}, err
	}
	_ = s.sweep(ctx, now) // it counts, whether or not what it replaced is gone yet: the next import begins with that
	return d, nil
}

// sweep deletes what counts no more, in pieces, so that others may write in between.
func (s *Service) sweep(ctx context.Context, now time.Time) error {
	for {
		more, err := s.cfg.Store.Sweep(ctx, now.Add(-importDead))
		if err != nil || !more {
			return err
		}
	}
}

// fill reads the advisories into the generation.
func (s *Service) fill(ctx context.Context, d *Database, r io.Reader) error {
	sum := sha256.New()
	in := &rationed{r: io.TeeReader(r, sum)}
	dec := json.NewDecoder(bufio.NewReader(in))
	var few []osv.Advisory
	put := func() error {
		err := s.cfg.Store.Put(ctx, d.Generation, few)
		few = few[:0]
		return err
	}
	for {
		in.left = 2 * osv.MaxSize
		var raw json.RawMessage
		err := dec.Decode(&raw)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if _, theirs := errors.AsType[*fault.Fault](err); theirs {
				return err
			}
			return unreadable(d.Advisories, err)
		}
		a, err := osv.Read(raw)
		if err != nil {
			return unreadable(d.Advisories, err)
		}
		if !a.In(d.Ecosystem) {
			return fault.New(fault.Invalid, "advisories.other", fmt.Sprintf("%s is not about %s", a.ID, d.Ecosystem), "import each ecosystem's file for that ecosystem")
		}
		d.Advisories++
		if a.Modified.After(d.Newest) {
			d.Newest = a.Modified.UTC()
		}
		if few = append(few, a); len(few) == importBatch {
			if err := put(); err != nil {
				return err
			}
		}
	}
	d.Digest = hex.EncodeToString(sum.Sum(nil))
	return put()
}

func unreadable(behind int, err error) error {
	return fault.Newf(fault.Invalid, "advisories.unreadable", "behind %d advisories: %w", behind, err).
		With("fetch the file anew from its source, and import it again: what came before is kept")
}

// rationed ends with an error when one advisory is larger than any is.
type rationed struct {
	r    io.Reader
	left int64
}

func (r *rationed) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, fmt.Errorf("%w: one is larger than %d bytes", osv.ErrFormat, osv.MaxSize)
	}
	n, err := r.r.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	return n, err
}

// check refuses a set that knows less than the one that is here, or than one before it: a few less, time after time, come to many. It gives the most that there were, which the next set is held to.
func (s *Service) check(ctx context.Context, d Database, fewer bool) (most int, err error) {
	if d.Advisories == 0 {
		return 0, fault.New(fault.Invalid, "advisories.none", "there is no advisory in it: nothing would ever be found", "an ecosystem's file has all of its advisories: all.zip")
	}
	if d.Newest.After(d.At.Add(24 * time.Hour)) {
		return 0, fault.New(fault.Invalid, "advisories.time", fmt.Sprintf("one of them was modified at %s, which is to come: no true file would be newer", d.Newest.Format(time.RFC3339)), "bring the ecosystem's own file")
	}
	dbs, err := s.databases(ctx)
	if err != nil {
		return 0, err
	}
	had, ok := dbs[d.Ecosystem]
	most = max(had.Most, had.Advisories)
	if d.Advisories < most-most/10 {
		if err := s.mayBeFewer(ctx, d, most, fewer); err != nil {
			return 0, err
		}
		most = d.Advisories
	}
	if ok && d.Newest.Before(had.Newest) {
		return 0, fault.New(fault.Conflict, "advisories.older", fmt.Sprintf("the newest of these was modified at %s, and that of those that are here at %s", d.Newest.Format(time.RFC3339), had.Newest.Format(time.RFC3339)),
			"bring a newer file")
	}
	return max(most, d.Advisories), nil
}

// mayBeFewer refuses a set that is much smaller, unless somebody has said that it is, and no product's releases are stopped by what is in it.
func (s *Service) mayBeFewer(ctx context.Context, d Database, most int, said bool) error {
	if !said {
		return fault.New(fault.Conflict, "advisories.fewer", fmt.Sprintf("there are %d advisories in it, and there were %d: a file that was cut looks like that", d.Advisories, most),
			"bring the whole file; if there are so few now, say so: `hallmark advisory import --fewer`")
	}
	products, err := s.cfg.Store.Enforcing(ctx)
	if err != nil || len(products) == 0 {
		return err
	}
	return fault.New(fault.Conflict, "advisories.enforced", fmt.Sprintf("there are %d advisories in it, there were %d, and %s stops releases by them", d.Advisories, most, strings.Join(products, ", ")),
		"bring the whole file; if there are so few now, two people have the gate only warn (`hallmark supply set`) until it is here")
}

// Databases gives what advisories are here.
func (s *Service) Databases(ctx context.Context, caller access.Caller) ([]Database, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.InstanceRead, instance); err != nil {
		return nil, err
	}
	all, err := s.cfg.Store.Databases(ctx)
	for i := range all {
		s.age(&all[i])
	}
	return all, err
}

// age says whether what is here is too old to say that something is clear.
func (s *Service) age(d *Database) {
	now := s.cfg.Now()
	switch {
	case now.Sub(d.At) > MaxAge:
		d.Why = fmt.Sprintf("the advisories of %s were imported at %s, which is too long ago", d.Ecosystem, d.At.Format(time.DateOnly))
	case osv.Lively(d.Ecosystem) && now.Sub(d.Newest) > MaxQuiet:
		d.Why = fmt.Sprintf("the newest advisory of %s that is here is of %s: there are newer ones", d.Ecosystem, d.Newest.Format(time.DateOnly))
	}
	d.Old = d.Why != ""
}

// databases by ecosystem.
type databases map[string]Database

func (s *Service) databases(ctx context.Context) (databases, error) {
	all, err := s.cfg.Store.Databases(ctx)
	out := databases{}
	for _, d := range all {
		s.age(&d)
		out[d.Ecosystem] = d
	}
	return out, err
}

// silence says why nothing can be known of a part; "" when advisories can be asked.
func (dbs databases) silence(p Part, as osv.Package, named bool) string {
	switch {
	case p.PURL == "":
		return "it has no package URL"
	case p.Version == "":
		return "it has no version"
	case !named:
		return "no advisories name packages of this kind"
	}
	if _, ok := dbs[as.Base()]; !ok {
		return "there are no advisories of " + as.Base() + " here"
	}
	return ""
}

// aged says why nothing that is clear can be believed any more; "" when it can. What was known to be wrong stays wrong.
func (dbs databases) aged(as osv.Package) string { return dbs[as.Base()].Why }

// Where says which releases have a component inside, and how many devices run each. What is asked for is a package URL, with or without a version, or an advisory by its ID or CVE number.
func (s *Service) Where(ctx context.Context, caller access.Caller, what string) ([]Use, error) {
	scope, err := s.cfg.Guard.Within(ctx, caller, access.ReleaseRead, "release", "", "")
	if err != nil {
		return nil, err
	}
	if p, version, ok := osv.Of(what); ok {
		uses, err := s.cfg.Store.Uses(ctx, p.Base(), p.Name, scope)
		return only(uses, func(u *Use) bool { return version == "" || u.Has == version }), err
	}
	found, err := s.cfg.Store.Advisory(ctx, what)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fault.New(fault.NotFound, "advisories.unknown", fmt.Sprintf("%.140q is neither a package URL nor an advisory that is here", what),
			"write a component as pkg:golang/github.com/acme/lib@v1.2.3; see `hallmark advisory list` for what is here")
	}
	var out []Use
	asked := map[osv.Package]bool{}
	for _, a := range found {
		for _, p := range a.Packages() {
			key := osv.Package{Ecosystem: p.Base(), Name: p.Name}
			if asked[key] {
				continue
			}
			asked[key] = true
			uses, err := s.cfg.Store.Uses(ctx, p.Base(), p.Name, scope)
			if err != nil {
				return nil, err
			}
			out = append(out, only(uses, func(u *Use) bool { return u.ask(found) })...)
		}
	}
	return out, nil
}

// Devices counts the devices that run one of the releases of uses, in which a release stands once for each version that it has.
func Devices(uses []Use) (n int64) {
	seen := map[[32]byte]bool{}
	for _, u := range uses {
		if !seen[u.Release] {
			seen[u.Release] = true
			n += u.Devices
		}
	}
	return n
}

func only(uses []Use, keep func(*Use) bool) []Use {
	var out []Use
	for _, u := range uses {
		if keep(&u) {
			out = append(out, u)
		}
	}
	return out
}

// ask says whether one of the advisories is, or may be, about what is used.
func (u *Use) ask(all []osv.Advisory) bool {
	u.Answer = Clear
	for _, a := range all {
		switch a.About(u.Package, u.Has) {
		case osv.Hit:
			u.Answer = Affected
		case osv.Unknown:
			if u.Answer == Clear {
				u.Answer = Unknown
			}
		case osv.Clear:
		}
	}
	return u.Answer != Clear
}
