package supply

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/supply/bom"
	"github.com/hallmark-iot/hallmark/supply/osv"
	"github.com/hallmark-iot/hallmark/wire"
)

// Take reads the documents of a release that is about to be proposed, and keeps what they say. It is for the stage that proposes, not for callers.
func (s *Service) Take(ctx context.Context, m wire.Release, release [32]byte) error {
	if len(m.SBOM) == 0 {
		return nil
	}
	digest := [32]byte(m.SBOM)
	doc, err := s.document(ctx, digest)
	if err != nil {
		return err
	}
	for _, c := range m.Components {
		if !doc.Has(c.Built()) {
			return fault.New(fault.Invalid, "release.sbom-component", fmt.Sprintf("the bill of materials of %s does not name component %s, whose bytes have the SHA-256 %x", m.ID, c.Name, c.Built()),
				"have the build write that digest to the document's root, or to a component of it: it shows that the document is of these bytes")
		}
	}
	parts := make([]Named, len(doc.Components))
	for i, c := range doc.Components {
		parts[i] = Named{Component: c}
		if p, version, ok := osv.Of(c.PURL); ok {
			parts[i].Package = p
			parts[i].Version = version
			if version == "" {
				parts[i].Version = c.Version
			}
		}
	}
	return s.cfg.Store.PutContents(ctx, release, contents(digest, doc), parts)
}

// Unreadable is the format of a document that says nothing, because it cannot be read, or is not of the release's bytes.
const Unreadable = "unreadable"

// CatchUp reads the documents of releases that were taken without a look at them. What cannot be read is put down as that: such a release stands, and nothing is known of what is inside.
func (s *Service) CatchUp(ctx context.Context) error {
	all, err := s.cfg.Store.Unread(ctx)
	if err != nil {
		return err
	}
	var failed error
	for _, r := range all { // one that cannot be looked at keeps nobody from looking at the others
		err := s.Take(ctx, r.Manifest, r.Release)
		if fault.KindOf(err) == fault.Invalid {
			digest := [32]byte(r.Manifest.SBOM)
			err = s.cfg.Store.PutContents(ctx, r.Release, Contents{Digest: digest, Document: hex.EncodeToString(digest[:]), Format: Unreadable}, nil)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("release %x: %w", r.Release, err))
		}
	}
	return failed
}

func contents(digest [32]byte, d bom.Document) Contents {
	return Contents{
		Digest: digest, Document: hex.EncodeToString(digest[:]), Format: d.Format, Spec: d.Spec, ID: d.ID, Root: d.Root,
		Components: len(d.Components), Unnamed: d.Unknown(),
	}
}

func (s *Service) document(ctx context.Context, digest [32]byte) (bom.Document, error) {
	f, err := s.cfg.Blobs.Open(ctx, digest)
	if err != nil {
		return bom.Document{}, err
	}
	defer func() { _ = f.Close() }() // it was read
	data, err := io.ReadAll(io.LimitReader(f, bom.MaxSize+1))
	if err != nil {
		return bom.Document{}, err
	}
	d, err := bom.Read(data)
	if err != nil {
		return bom.Document{}, fault.Newf(fault.Invalid, "release.sbom", "document %x: %w", digest, err).
			With("make the bill of materials anew, as CycloneDX or SPDX in JSON")
	}
	return d, nil
}

// Contents gives what a release is made of, in the order of its document, with what is known against it now.
func (s *Service) Contents(ctx context.Context, caller access.Caller, release [32]byte, after, limit int) (Contents, []Part, error) {
	var c Contents
	if err := s.readable(ctx, caller, release); err != nil {
		return c, nil, err
	}
	c, err := s.cfg.Store.Contents(ctx, release)
	if errors.Is(err, ErrNotFound) {
		return c, nil, fault.New(fault.NotFound, "supply.no-sbom", fmt.Sprintf("release %x was proposed without a bill of materials", release),
			"propose the next one with `hallmark release create --sbom FILE`")
	}
	if err != nil {
		return c, nil, err
	}
	parts, err := s.cfg.Store.Parts(ctx, c.Digest, after, limit)
	if err != nil {
		return c, nil, err
	}
	return c, parts, s.judge(ctx, parts)
}

// readable asks the guard, and nobody learns whether a release exists without being asked who they are.
func (s *Service) readable(ctx context.Context, caller access.Caller, release [32]byte) error {
	product, err := s.cfg.Releases.ProductOf(ctx, release)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if denied := s.cfg.Guard.Check(ctx, caller, access.ReleaseRead, access.Resource{Type: "release", ID: hex.EncodeToString(release[:]), Product: product}); denied != nil {
		return denied
	}
	if err != nil {
		return fault.New(fault.NotFound, "release.unknown", fmt.Sprintf("no release %x", release), "see `hallmark release list`")
	}
	return nil
}

// maxFlaws bounds what is found in one look.
const maxFlaws = 200_000

// judge says of each part what is known of it.
func (s *Service) judge(ctx context.Context, parts []Part) error {
	dbs, err := s.databases(ctx)
	if err != nil {
		return err
	}
	named := make([]osv.Package, len(parts))
	var ask []osv.Package
	seen := map[osv.Package]bool{}
	for i := range parts {
		p := &parts[i]
		var version string
		var ok bool
		named[i], version, ok = osv.Of(p.PURL)
		if p.Answer, p.Why = Unknown, dbs.silence(*p, named[i], ok); p.Why != "" {
			continue
		}
		if version != "" {
			p.Version = version
		}
		if key := (osv.Package{Ecosystem: named[i].Base(), Name: named[i].Name}); !seen[key] {
			seen[key] = true
			ask = append(ask, key)
		}
	}
	all, err := s.cfg.Store.Against(ctx, ask)
	if err != nil {
		return err
	}
	by := map[string][]osv.Advisory{}
	for _, a := range all {
		keys := map[string]bool{}
		for _, p := range a.Packages() {
			if k := p.Key(); !keys[k] {
				keys[k] = true
				by[k] = append(by[k], a)
			}
		}
	}
	flaws := 0
	for i := range parts {
		if err := ctx.Err(); err != nil {
			return err
		}
		if flaws > maxFlaws {
			return fault.New(fault.Invalid, "release.sbom", fmt.Sprintf("more than %d known flaws among %d components", maxFlaws, len(parts)), "a bill of materials names each component once")
		}
		if parts[i].Why == "" {
			parts[i].weigh(named[i], by[named[i].Key()])
			flaws += len(parts[i].Flaws)
			if old := dbs.aged(named[i]); old != "" && parts[i].Answer == Clear {
				parts[i].Answer, parts[i].Why = Unknown, old
			}
		}
	}
	return nil
}

// weigh says which of the advisories speak of the part.
func (p *Part) weigh(as osv.Package, all []osv.Advisory) {
	p.Answer = Clear
	for _, a := range all {
		switch a.About(as, p.Version) {
		case osv.Hit:
			p.Answer, p.Why = Affected, ""
			p.Flaws = append(p.Flaws, flawOf(a, as, true))
		case osv.Unknown:
			if p.Answer == Clear {
				p.Answer, p.Why = Unknown, fmt.Sprintf("version %q cannot be compared with those of %s", p.Version, a.ID)
			}
			p.Flaws = append(p.Flaws, flawOf(a, as, false))
		case osv.Clear:
		}
	}
}

func flawOf(a osv.Advisory, as osv.Package, sure bool) Flaw {
	f := Flaw{ID: a.ID, CVEs: a.CVEs(), Aliases: a.Aliases, Summary: a.Summary, Rated: a.Score(), Fixed: a.Fixed(as), Sure: sure}
	for _, s := range a.Severity {
		f.Score = s.Score // the last is of the newest notation
	}
	return f
}
