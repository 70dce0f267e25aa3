package supply

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/supply/osv"
	"github.com/hallmark-iot/hallmark/supply/statement"
	"github.com/hallmark-iot/hallmark/supply/vex"
	"github.com/hallmark-iot/hallmark/wire"
)

// maxExcusedPackages bounds the packages that one document is about.
const maxExcusedPackages = 1000

// Exception is a signed document that says why known flaws are none in a product.
type Exception struct {
	Digest     [32]byte        `json:"-"`
	Document   string          `json:"digest" doc:"SHA-256 of the document, hex"`
	Keys       [][]byte        `json:"keys" nullable:"false" doc:"those of the policy that have signed it; it counts for as long as one of them is there"`
	By         string          `json:"by"`
	At         time.Time       `json:"at"`
	Statements []vex.Statement `json:"statements" nullable:"false"`
}

// ExceptionTaken is the data of the fact vex.taken.
type ExceptionTaken struct {
	Product    string   `json:"product"`
	Digest     []byte   `json:"digest"` // of the document
	Flaws      []string `json:"flaws"`  // at most maxNamed
	Statements int      `json:"statements"`
}

// MayTakeException says whether TakeException would be allowed, before anything is read.
func (s *Service) MayTakeException(ctx context.Context, caller access.Caller, product string) error {
	return s.cfg.Guard.Check(ctx, caller, access.SupplyManage, access.Resource{Type: "product", ID: product, Product: product})
}

// TakeException takes in a signed VEX document (OpenVEX or CycloneDX, in a DSSE envelope). One that anything is wrong with is refused as a whole: a statement that is passed over is one that
// somebody relies on.
func (s *Service) TakeException(ctx context.Context, caller access.Caller, product string, document []byte) (Exception, error) {
	if err := s.MayTakeException(ctx, caller, product); err != nil {
		return Exception{}, err
	}
	p, err := s.cfg.Store.Policy(ctx, product)
	if err != nil {
		return Exception{}, err
	}
	signed, err := statement.ReadSigned(document, p.Exceptions, 1)
	if err != nil {
		return Exception{}, fault.Newf(fault.Invalid, "vex.signature", "%w; the keys are those of vex_keys in the product's policy", err).
			With("have it signed by one of those, or have its key added to the policy")
	}
	e := Exception{Digest: sha256.Sum256(document), Keys: signed.By, By: caller.ID, At: s.cfg.Now().UTC().Truncate(time.Millisecond)}
	e.Document = hex.EncodeToString(e.Digest[:])
	if e.Statements, err = vex.Read(signed.Payload); err != nil {
		return Exception{}, fault.Newf(fault.Invalid, "vex.unreadable", "%w", err).
			With("write it as OpenVEX or CycloneDX VEX, with the flaw, the part and why")
	}
	d := ExceptionTaken{Product: product, Digest: e.Digest[:], Statements: len(e.Statements)}
	for i, st := range e.Statements {
		if st.At.After(e.At.Add(ahead)) {
			return Exception{}, fault.New(fault.Invalid, "vex.time", fmt.Sprintf("the statement on %.100q is of %s, which is to come", st.Names[0], st.At.Format(time.RFC3339)), "date it now")
		}
		if !st.Of(product, "") {
			return Exception{}, fault.New(fault.Invalid, "vex.product", fmt.Sprintf("the statement on %.100q is about %.200q, and not about %s", st.Names[0], st.In[0].Name, product),
				"name the product as it is called here: pkg:generic/"+product+", with a version if it holds for that alone")
		}
		if i < maxNamed {
			d.Flaws = append(d.Flaws, st.Names[0])
		}
	}
	if err := s.matches(ctx, product, e.Statements); err != nil {
		return Exception{}, err
	}
	data, err := json.Marshal(d)
	if err != nil {
		return Exception{}, err
	}
	return e, s.cfg.Store.PutException(ctx, product, e, ledger.New(ledger.KindExceptionTaken, e.At, caller.ID, product, nil, data))
}

// matches refuses a statement that is about nothing that is known here: no advisory by one of its names is about the component, and the version, that it names. And one that names an
// advisory of several flaws and none of them: it would excuse nothing, and somebody would rely on it.
func (s *Service) matches(ctx context.Context, product string, all []vex.Statement) error {
	var ask []osv.Package
	for _, st := range all {
		for _, purl := range st.Parts {
			if as, _, ok := osv.Of(purl); ok {
				if key := (osv.Package{Ecosystem: as.Base(), Name: as.Name}); !slices.Contains(ask, key) {
					ask = append(ask, key)
				}
			}
		}
	}
	if len(ask) > maxExcusedPackages {
		return fault.New(fault.Invalid, "vex.unreadable", fmt.Sprintf("it is about %d packages, at most %d are read", len(ask), maxExcusedPackages), "write several documents")
	}
	advisories, err := s.cfg.Store.Against(ctx, ask)
	if err != nil {
		return err
	}
	for _, st := range all {
		for _, purl := range st.Parts {
			if err := match(product, st, purl, advisories); err != nil {
				return err
			}
		}
	}
	return nil
}

func match(product string, st vex.Statement, purl string, advisories []osv.Advisory) error {
	as, version, ok := osv.Of(purl)
	matched := false
	for _, a := range advisories {
		if !ok || !slices.ContainsFunc(st.Names, func(n string) bool { return a.Names(n) || slices.Contains(a.CVEs(), n) }) || version != "" && a.About(as, version) == osv.Clear ||
			version == "" && !slices.ContainsFunc(a.Packages(), as.Is) {
			continue
		}
		matched = true
		if cves := a.CVEs(); len(cves) > 1 && !slices.ContainsFunc(st.Names, func(n string) bool { return slices.Contains(cves, n) }) {
			return fault.New(fault.Invalid, "vex.several", fmt.Sprintf("the statement of %s on %.100q names an advisory of several flaws: %s", product, st.Names[0], strings.Join(cves[:min(len(cves), 10)], ", ")),
				"make a statement on each of them, by its own name")
		}
	}
	if !matched {
		return fault.New(fault.Invalid, "vex.nothing", fmt.Sprintf("the statement of %s on %.100q matches nothing: no advisory here of that name is about %.200q", product, st.Names[0], purl),
			"name the flaw as an advisory does, and the component by its package URL as the bill of materials does; import the advisories first")
	}
	return nil
}

// excuses are what is said about flaws in a product by those who may say it now.
type excuses struct {
	policy Policy
	now    time.Time
	said   []Exception
}

// excuses gives them; what was signed by keys that the policy names no more is none.
func (s *Service) excuses(ctx context.Context, product string, p Policy) (excuses, error) {
	all, err := s.cfg.Store.Exceptions(ctx, product)
	if err != nil {
		return excuses{}, err
	}
	trusted := func(k []byte) bool {
		return slices.ContainsFunc(p.Exceptions, func(o []byte) bool { return bytes.Equal(k, o) })
	}
	return excuses{p, s.cfg.Now().UTC(), slices.DeleteFunc(all, func(e Exception) bool { return !slices.ContainsFunc(e.Keys, trusted) })}, nil
}

// stamp is another one as soon as something else may be excused.
func (x excuses) stamp() string {
	h := sha256.New()
	for _, e := range x.said {
		h.Write(e.Digest[:])
		for _, st := range e.Statements {
			if x.counts(st) && !x.expired(st) {
				h.Write([]byte{1})
			} else {
				h.Write([]byte{0})
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// ahead is how far another's clock may be before ours.
const ahead = time.Hour

// counts leaves out what is of a time to come: it would hold for ever.
func (x excuses) counts(st vex.Statement) bool { return !st.At.After(x.now.Add(ahead)) }

func (x excuses) expired(st vex.Statement) bool { return x.now.Sub(st.At) > x.policy.exceptionLife() }

// of says whether the newest statement about the flaw in each component of a release that has it excuses it, and whether it would if it had not expired.
func (x excuses) of(t Trouble, product, version string) (by [][32]byte, old, ok bool) {
	for _, part := range t.Parts {
		var newest *vex.Statement
		var from [32]byte
		for _, e := range x.said {
			for i, st := range e.Statements {
				if x.counts(st) && st.Of(product, version) && st.About(t.Names, part) && (newest == nil || st.At.After(newest.At) || st.At.Equal(newest.At) && !st.Excuses) {
					newest, from = &e.Statements[i], e.Digest
				}
			}
		}
		if newest == nil || !newest.Excuses {
			return nil, old, false
		}
		if x.expired(*newest) {
			return nil, true, false
		}
		by = append(by, from)
	}
	return by, false, true
}

// excuse says which flaws stop the release, and which of these were excused once.
func (s *Service) excuse(ctx context.Context, l *look, m wire.Release, all []Trouble) (open, expired []string, err error) {
	x, err := s.excuses(ctx, m.Product, l.policy)
	if err != nil {
		return nil, nil, err
	}
	for _, t := range all {
		by, old, ok := x.of(t, m.Product, m.Version)
		switch {
		case ok:
			l.d.Excused++
			for _, digest := range by {
				if !slices.ContainsFunc(l.d.VEX, func(v []byte) bool { return bytes.Equal(v, digest[:]) }) {
					l.d.VEX = append(l.d.VEX, digest[:])
				}
			}
			continue
		case old:
			expired = append(expired, t.ID)
		}
		l.d.Open++
		if l.policy.stops(t.Score) {
			open = append(open, t.ID)
		}
	}
	return open, expired, nil
}
