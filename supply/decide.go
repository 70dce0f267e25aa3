package supply

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/supply/bom"
	"github.com/hallmark-iot/hallmark/supply/osv"
	"github.com/hallmark-iot/hallmark/supply/statement"
	"github.com/hallmark-iot/hallmark/wire"
)

// Decide looks at a release before it is proposed, and gives the decision (GateDecision, CBOR) whose digest goes into it; nil when its product asks for nothing. Where a product enforces
// its policy, what does not pass is an error, and a fact. It is for the stage that proposes, not for callers.
func (s *Service) Decide(ctx context.Context, caller access.Caller, m wire.Release) ([]byte, error) {
	p, err := s.cfg.Store.Policy(ctx, m.Product)
	if err != nil || p.Mode == Off {
		return nil, err
	}
	l, err := s.evaluate(ctx, p, m)
	if err != nil {
		return nil, err
	}
	d := l.d
	data, err := wire.EncodeGateDecision(d)
	if err != nil || d.OK || p.Mode != Enforce {
		return data, err
	}
	if err := s.cfg.Store.Tell(ctx, ledger.New(ledger.KindSupplyDecided, s.cfg.Now(), caller.ID, m.ID, nil, data)); err != nil {
		return nil, err
	}
	return nil, stopped(m, d)
}

// Confirm says whether a release that was decided on may still be published: what is known against it may have changed since. It gives the signed summary of what was found, without which
// none of a product with a gate is; nil when the product has none. It is for the stage that publishes.
func (s *Service) Confirm(ctx context.Context, m wire.Release, digest [32]byte) ([]byte, error) {
	p, err := s.cfg.Store.Policy(ctx, m.Product)
	if err != nil || p.Mode == Off {
		return nil, err
	}
	if p.Mode == Enforce && len(m.Decision) == 0 {
		return nil, fault.New(fault.Conflict, "supply.undecided", fmt.Sprintf("release %s was proposed before %s had a supply gate: its approvers signed no decision", m.ID, m.Product), "propose it again")
	}
	l, err := s.evaluate(ctx, p, m)
	if err != nil {
		return nil, err
	}
	if p.Mode == Enforce && !l.d.OK {
		return nil, stopped(m, l.d)
	}
	return s.summarise(l, m, digest)
}

// Builders gives the keys that a product's builds are signed with. It is for the stage that has releases approved.
func (s *Service) Builders(ctx context.Context, product string) (keys [][]byte, err error) {
	p, err := s.cfg.Store.Policy(ctx, product)
	for _, b := range p.Builders {
		keys = append(keys, b.Keys...)
	}
	return keys, err
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
	l, err := s.evaluate(ctx, p, m)
	if err != nil {
		return wire.GateDecision{}, err
	}
	return l.d, nil
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
	policy  Policy
	allowed []string // what suppliers that the policy allows are called
	now     time.Time
	built   [][32]byte // components as they were built
	d       wire.GateDecision
	doc     bom.Document // zero: there is none that can be read
	level   int          // SLSA build level that the builder is trusted for; 0: no builder is believed
}

func (l *look) step(n uint, code, text string) {
	if r := []rune(text); len(r) > 1000 {
		text = string(r[:1000]) + "…"
	}
	l.d.Steps = append(l.d.Steps, wire.GateStep{N: n, OK: code == "", Code: code, Text: text})
}

// evaluate takes the steps in their order, all of them: who mends a release wants to know everything that is wrong with it. What cannot be found out is not good.
func (s *Service) evaluate(ctx context.Context, p Policy, m wire.Release) (*look, error) {
	policy, err := p.digest()
	if err != nil {
		return nil, err
	}
	names, err := s.cfg.Store.SupplierNames(ctx, p.SupplierIDs)
	if err != nil {
		return nil, err
	}
	l := &look{policy: p, allowed: slices.Concat(append(slices.Collect(maps.Values(names)), p.Suppliers)...), now: s.cfg.Now().UTC(), d: wire.GateDecision{V: 1, Product: m.Product, SBOM: m.SBOM, Provenance: m.Provenance, Policy: policy}}
	l.d.At = uint64(l.now.Unix())
	for _, c := range m.Components {
		l.d.Subject = append(l.d.Subject, c.Built())
		l.built = append(l.built, [32]byte(c.Built()))
	}
	provenance, said, err := s.provenance(ctx, l, m)
	if err != nil {
		return nil, err
	}
	if err := s.bill(ctx, l, m, provenance); err != nil {
		return nil, err
	}
	l.step(3, said.code, said.text)
	if err := s.flaws(ctx, l, m); err != nil {
		return nil, err
	}
	l.d.OK = !slices.ContainsFunc(l.d.Steps, func(st wire.GateStep) bool { return !st.OK })
	return l, nil
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
	} else if strangers := l.strangers(); code == "" && len(strangers) > 0 {
		code, text = "sbom.supplier", fmt.Sprintf("%d components are of suppliers that are not allowed: %s", len(strangers), strings.Join(strangers[:min(len(strangers), 20)], ", "))
	} else if code == "" {
		text = fmt.Sprintf("%d components, %d without a package URL or a version", len(l.doc.Components), unnamed)
	}
	l.step(2, code, text)
	return nil
}

// strangers are the components whose supplier is none that the policy names. What was built here is of nobody else: the provenance says whose it is.
func (l *look) strangers() (out []string) {
	if len(l.policy.Suppliers)+len(l.policy.SupplierIDs) == 0 {
		return nil
	}
	for _, c := range l.doc.Components {
		own := slices.ContainsFunc(l.built, func(b [32]byte) bool { return c.SHA256 == hex.EncodeToString(b[:]) })
		if own || c.Supplier != "" && slices.Contains(l.allowed, c.Supplier) {
			continue
		}
		out = append(out, fmt.Sprintf("%.100s (%.100s)", c.Name, cmp.Or(c.Supplier, "of nobody that is named")))
	}
	return out
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
		l.level = orElse(b.Level, 1)
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
func (s *Service) flaws(ctx context.Context, l *look, m wire.Release) error {
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
		found.take(p)
	}
	l.d.Unknown = uint(found.unknown)
	open, expired, err := s.excuse(ctx, l, m, found.troubles())
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
	return d.Why
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
