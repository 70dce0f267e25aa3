package supply

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/supply/bom"
	"github.com/hallmark-iot/hallmark/supply/osv"
	"github.com/hallmark-iot/hallmark/supply/statement"
	"github.com/hallmark-iot/hallmark/supply/vex"
	"github.com/hallmark-iot/hallmark/wire"
)

// Decide looks at a release before it is proposed, and gives the decision (GateDecision, CBOR) whose digest goes into it; nil when its product asks for nothing. Where a product enforces
// its policy, what does not pass is an error, and a fact. It is for the stage that proposes, not for callers.
func (s *Service) Decide(ctx context.Context, caller access.Caller, m wire.Release) ([]byte, error) {
	p, err := s.cfg.Store.Policy(ctx, m.Product)
	if err != nil || p.Mode == Off {
		return nil, err
	}
	d, err := s.evaluate(ctx, p, m)
	if err != nil {
		return nil, err
	}
	data, err := wire.EncodeGateDecision(d)
	if err != nil || d.OK || p.Mode != Enforce {
		return data, err
	}
	if err := s.cfg.Store.Tell(ctx, ledger.New(ledger.Control, ledger.KindSupplyDecided, s.cfg.Now(), caller.ID, m.ID, nil, data)); err != nil {
		return nil, err
	}
	return nil, stopped(m, d)
}

// Confirm says whether a release that was decided on may still be published: what is known against it may have changed since. It is for the stage that publishes.
func (s *Service) Confirm(ctx context.Context, m wire.Release) error {
	p, err := s.cfg.Store.Policy(ctx, m.Product)
	if err != nil || p.Mode != Enforce {
		return err
	}
	if len(m.Decision) == 0 {
		return fault.New(fault.Conflict, "supply.undecided", fmt.Sprintf("release %s was proposed before %s had a supply gate: its approvers signed no decision", m.ID, m.Product), "propose it again")
	}
	d, err := s.evaluate(ctx, p, m)
	if err != nil || d.OK {
		return err
	}
	return stopped(m, d)
}

// Gate says what the gate would find of a release, and changes nothing.
func (s *Service) Gate(ctx context.Context, caller access.Caller, m wire.Release) (wire.GateDecision, error) {
	if err := s.cfg.Guard.Check(ctx, caller, access.ReleaseCreate, access.Resource{Type: "release", Product: m.Product}); err != nil {
		return wire.GateDecision{}, err
	}
	p, err := s.cfg.Store.Policy(ctx, m.Product)
	if err != nil {
		return wire.GateDecision{}, err
	}
	return s.evaluate(ctx, p, m)
}

func stopped(m wire.Release, d wire.GateDecision) error {
	var why []string
	for _, st := range d.Steps {
		if !st.OK {
			why = append(why, fmt.Sprintf("%d %s: %s", st.N, st.Code, st.Text))
		}
	}
	return fault.New(fault.Conflict, "supply.gate", fmt.Sprintf("release %s does not pass the supply gate of %s: %s", m.ID, m.Product, strings.Join(why, "; ")),
		"`hallmark supply gate` says the same before a release is proposed; `hallmark supply show` says what is asked")
}

// look is one run of the gate.
type look struct {
	policy Policy
	now    time.Time
	built  [][32]byte // components as they were built
	d      wire.GateDecision
	doc    bom.Document // zero: there is none that can be read
}

func (l *look) step(n uint, code, text string) {
	if r := []rune(text); len(r) > 1000 {
		text = string(r[:1000]) + "…"
	}
	l.d.Steps = append(l.d.Steps, wire.GateStep{N: n, OK: code == "", Code: code, Text: text})
}

// evaluate takes the steps in their order, all of them: who mends a release wants to know everything that is wrong with it. What cannot be found out is not good.
func (s *Service) evaluate(ctx context.Context, p Policy, m wire.Release) (wire.GateDecision, error) {
	policy, err := p.digest()
	if err != nil {
		return wire.GateDecision{}, err
	}
	l := &look{policy: p, now: s.cfg.Now().UTC(), d: wire.GateDecision{V: 1, Product: m.Product, SBOM: m.SBOM, Provenance: m.Provenance, Policy: policy}}
	l.d.At = uint64(l.now.Unix())
	for _, c := range m.Components {
		l.d.Subject = append(l.d.Subject, c.Built())
		l.built = append(l.built, [32]byte(c.Built()))
	}
	provenance, said, err := s.provenance(ctx, l, m)
	if err != nil {
		return l.d, err
	}
	if err := s.bill(ctx, l, m, provenance); err != nil {
		return l.d, err
	}
	l.step(3, said.code, said.text)
	if err := s.flaws(ctx, l, m.Product); err != nil {
		return l.d, err
	}
	l.d.OK = !slices.ContainsFunc(l.d.Steps, func(st wire.GateStep) bool { return !st.OK })
	return l.d, nil
}

type finding struct{ code, text string }

// bill takes steps 1, that each document is of the very bytes, and 2, that what is inside is known.
func (s *Service) bill(ctx context.Context, l *look, m wire.Release, p *statement.Provenance) error {
	code, text := "sbom.missing", "there is no bill of materials"
	if len(m.SBOM) == 32 {
		doc, err := s.document(ctx, [32]byte(m.SBOM))
		switch {
		case fault.KindOf(err) == fault.Invalid:
			code, text = "sbom.unreadable", err.Error()
		case err != nil:
			return err
		default:
			l.doc, code = doc, ""
		}
	}
	bytes := finding{}
	for i, b := range l.built {
		name := m.Components[i].Name
		if code == "" && !l.doc.Has(b[:]) {
			bytes = finding{"digest.sbom", fmt.Sprintf("the bill of materials does not name component %s (SHA-256 %x)", name, b)}
		}
		if p != nil && !slices.Contains(p.Subjects, b) {
			bytes = finding{"digest.provenance", fmt.Sprintf("the provenance is not about component %s (SHA-256 %x)", name, b)}
		}
	}
	l.step(1, bytes.code, bytes.text)
	unnamed := l.doc.Unknown()
	l.d.Components = uint(len(l.doc.Components))
	if code == "" && len(l.doc.Components) == 0 {
		code, text = "sbom.empty", "the bill of materials names no component: nothing could be looked up"
	} else if code == "" && unnamed > l.policy.MaxUnknown {
		code, text = "sbom.unnamed", fmt.Sprintf("%d components have no package URL or no version, at most %d may", unnamed, l.policy.MaxUnknown)
	} else if code == "" {
		text = fmt.Sprintf("%d components, %d without a package URL or a version", len(l.doc.Components), unnamed)
	}
	l.step(2, code, text)
	return nil
}

// provenance takes step 3: signed by a builder that the policy names, from a source that it may build from. What is returned was signed.
func (s *Service) provenance(ctx context.Context, l *look, m wire.Release) (*statement.Provenance, finding, error) {
	if len(m.Provenance) != 32 {
		return nil, finding{"provenance.missing", "there is no provenance"}, nil
	}
	f, err := s.cfg.Blobs.Open(ctx, [32]byte(m.Provenance))
	if err != nil {
		return nil, finding{}, err
	}
	defer func() { _ = f.Close() }() // it was read
	data, err := io.ReadAll(io.LimitReader(f, statement.MaxSize+1))
	if err != nil {
		return nil, finding{}, err
	}
	why := finding{"provenance.builder", "no builder is named whose provenance is believed"}
	for _, b := range l.policy.Builders {
		signed, err := statement.ReadSigned(data, b.Keys, orElse(b.Threshold, 1))
		if err != nil {
			why = finding{"provenance.signature", err.Error()}
			continue
		}
		p, err := statement.ReadProvenance(signed)
		switch {
		case err != nil:
			return nil, finding{"provenance.unreadable", err.Error()}, nil
		case p.Builder != b.ID:
			why = finding{"provenance.builder", fmt.Sprintf("it names builder %.200q, and was signed by %.200q", p.Builder, b.ID)}
			continue
		case len(b.BuildTypes) > 0 && !slices.Contains(b.BuildTypes, p.BuildType):
			return &p, finding{"provenance.build-type", fmt.Sprintf("build type %.200q is not allowed", p.BuildType)}, nil
		case !slices.ContainsFunc(b.Sources, func(prefix string) bool { return under(p.Source, prefix) }):
			return &p, finding{"provenance.source", fmt.Sprintf("source %.200q is not allowed", p.Source)}, nil
		}
		return &p, finding{"", fmt.Sprintf("built by %.200s from %.200s", p.Builder, p.Source)}, nil
	}
	return nil, why, nil
}

// under reports whether a source is one that a prefix allows: whole parts of it, and none that leads upwards.
func under(source, prefix string) bool {
	rest, ok := strings.CutPrefix(source, prefix)
	if !ok || slices.Contains(strings.Split(rest, "/"), "..") {
		return false
	}
	return rest == "" || strings.HasSuffix(prefix, "/") || strings.ContainsRune("/@?#", rune(rest[0]))
}

// flaws takes steps 4 and 5.
func (s *Service) flaws(ctx context.Context, l *look, product string) error {
	dbs, err := s.databases(ctx)
	if err != nil {
		return err
	}
	l.d.DB = dbs.digest()
	parts := make([]Part, len(l.doc.Components))
	missing := ""
	for i, c := range l.doc.Components {
		parts[i] = Part{N: i + 1, Component: c}
		if as, _, ok := osv.Of(c.PURL); ok && missing == "" {
			missing = dbs.lacks(as.Base(), l.policy, l.now)
		}
	}
	if err := s.judge(ctx, parts); err != nil {
		return err
	}
	var found collector
	for _, p := range parts {
		unsure := p.Answer == Unknown
		for _, f := range p.Flaws {
			if f.Sure {
				found.add(p, f)
			} else { // also of one that has a flaw for sure
				unsure = true
			}
		}
		if unsure {
			l.d.Unknown++
		}
	}
	open, expired, err := s.excuse(ctx, l, product, found.troubles())
	if err != nil {
		return err
	}
	switch {
	case l.doc.Format == "":
		l.step(4, "advisories.sbom", "without a bill of materials nothing can be looked up")
	case missing != "":
		l.step(4, "advisories.database", missing)
	case int(l.d.Unknown) > l.policy.MaxUnknown:
		l.step(4, "advisories.unknown", fmt.Sprintf("of %d components nothing is known, of at most %d may it be", l.d.Unknown, l.policy.MaxUnknown))
	case len(open) > 0:
		l.step(4, "advisories.open", fmt.Sprintf("%d known flaws that nobody has excused: %s", len(open), strings.Join(open[:min(len(open), 20)], ", ")))
	default:
		l.step(4, "", fmt.Sprintf("%d known flaws below the bound, %d excused", l.d.Open, l.d.Excused))
	}
	if len(expired) > 0 {
		l.step(5, "vex.expired", "what excused these flaws has expired: "+strings.Join(expired[:min(len(expired), 20)], ", "))
	} else {
		l.step(5, "", fmt.Sprintf("%d flaws are excused", l.d.Excused))
	}
	return nil
}

// excuse says which flaws stop the release, and which of these were excused once.
func (s *Service) excuse(ctx context.Context, l *look, product string, all []Trouble) (open, expired []string, err error) {
	said, err := s.cfg.Store.Exceptions(ctx, product)
	if err != nil {
		return nil, nil, err
	}
	for _, t := range all {
		by, old, ok := l.excused(t, said)
		switch {
		case ok:
			l.d.Excused++
			for _, digest := range by {
				if !slices.ContainsFunc(l.d.VEX, func(v []byte) bool { return string(v) == string(digest[:]) }) {
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

// ahead is how far another's clock may be before ours.
const ahead = time.Hour

// excused says whether the newest statement about the flaw in each component that has it excuses it, and whether it would if it had not expired.
func (l *look) excused(t Trouble, said []Exception) (by [][32]byte, old, ok bool) {
	for _, part := range t.Parts {
		var newest *vex.Statement
		var from [32]byte
		for _, e := range said {
			for i, st := range e.Statements {
				if st.At.After(l.now.Add(ahead)) { // a time to come would hold for ever
					continue
				}
				if st.About(t.Names, part) && (newest == nil || st.At.After(newest.At) || st.At.Equal(newest.At) && !st.Excuses) {
					newest, from = &e.Statements[i], e.Digest
				}
			}
		}
		if newest == nil || !newest.Excuses {
			return nil, old, false
		}
		if l.now.Sub(newest.At) > l.policy.exceptionLife() {
			return nil, true, false
		}
		by = append(by, from)
	}
	return by, false, true
}

// lacks says what is wrong with the advisories of an ecosystem, measured by a policy.
func (dbs databases) lacks(ecosystem string, p Policy, now time.Time) string {
	d, ok := dbs[ecosystem]
	switch {
	case !ok:
		return "there are no advisories of " + ecosystem + " here"
	case d.Advisories < p.fewest():
		return fmt.Sprintf("there are %d advisories of %s here, and %d are asked for", d.Advisories, ecosystem, p.fewest())
	case now.Sub(d.At) > p.advisoryLife():
		return fmt.Sprintf("the advisories of %s were imported at %s, more than %s ago", ecosystem, d.At.Format(time.DateOnly), p.advisoryLife())
	}
	return ""
}

// digest names what was known.
func (dbs databases) digest() []byte {
	var all []string
	for _, d := range dbs {
		all = append(all, d.Ecosystem+" "+d.Digest)
	}
	slices.Sort(all)
	sum := sha256.Sum256([]byte(strings.Join(all, "\n")))
	return sum[:]
}

// Exception is a signed document that says why known flaws are none in a product.
type Exception struct {
	Digest     [32]byte        `json:"-"`
	Document   string          `json:"digest" doc:"SHA-256 of the document, hex"`
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
		return Exception{}, fault.Newf(fault.Invalid, "vex.signature", "%w; the keys are those of vex_keys in the product's policy", err)
	}
	e := Exception{Digest: sha256.Sum256(document), By: caller.ID, At: s.cfg.Now().UTC().Truncate(time.Millisecond)}
	e.Document = hex.EncodeToString(e.Digest[:])
	if e.Statements, err = vex.Read(signed.Payload); err != nil {
		return Exception{}, fault.Newf(fault.Invalid, "vex.unreadable", "%w", err)
	}
	d := ExceptionTaken{Product: product, Digest: e.Digest[:], Statements: len(e.Statements)}
	for i, st := range e.Statements {
		if st.At.After(e.At.Add(ahead)) {
			return Exception{}, fault.New(fault.Invalid, "vex.time", fmt.Sprintf("the statement on %.100q is of %s, which is to come", st.Names[0], st.At.Format(time.RFC3339)), "date it now")
		}
		if err := s.matches(ctx, product, st); err != nil {
			return Exception{}, err
		}
		if i < maxNamed {
			d.Flaws = append(d.Flaws, st.Names[0])
		}
	}
	data, err := json.Marshal(d)
	if err != nil {
		return Exception{}, err
	}
	return e, s.cfg.Store.PutException(ctx, product, e, ledger.New(ledger.Control, ledger.KindExceptionTaken, e.At, caller.ID, product, nil, data))
}

// matches refuses a statement that is about nothing that is known here: no advisory by one of its names is about the component, and the version, that it names.
func (s *Service) matches(ctx context.Context, product string, st vex.Statement) error {
	for _, purl := range st.Parts {
		as, version, ok := osv.Of(purl)
		var advisories []osv.Advisory
		if ok {
			var err error
			if advisories, err = s.cfg.Store.Against(ctx, []osv.Package{{Ecosystem: as.Base(), Name: as.Name}}); err != nil {
				return err
			}
		}
		if !slices.ContainsFunc(advisories, func(a osv.Advisory) bool {
			return slices.ContainsFunc(st.Names, func(n string) bool { return a.Names(n) || slices.Contains(a.CVEs(), n) }) && (version == "" || a.About(as, version) != osv.Clear)
		}) {
			return fault.New(fault.Invalid, "vex.nothing", fmt.Sprintf("the statement of %s on %.100q matches nothing: no advisory here of that name is about %.200q", product, st.Names[0], purl),
				"name the flaw as an advisory does, and the component by its package URL as the bill of materials does; import the advisories first")
		}
	}
	return nil
}
