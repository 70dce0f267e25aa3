package console

import (
	"cmp"
	"context"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/statement"
	"github.com/hallmark-iot/hallmark/wire"
)

// Supply reads what releases are made of, and what is known against it.
type Supply interface {
	Contents(ctx context.Context, caller access.Caller, release [32]byte, after, limit int) (supply.Contents, []supply.Part, error)
	Where(ctx context.Context, caller access.Caller, what string) ([]supply.Use, error)
	Assessed(ctx context.Context, caller access.Caller, release [32]byte) (supply.Assessment, error)
	Databases(ctx context.Context, caller access.Caller) ([]supply.Database, error)
	Policy(ctx context.Context, caller access.Caller, product string) (supply.Policy, error)
}

type contentsPageData struct {
	Release release.Release
	Doc     supply.Contents
	Parts   []supply.Part
	More    string
}

// contents shows what a release is made of.
func (h *handler) contents(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	raw, err := hex.DecodeString(r.PathValue("digest"))
	if err != nil || len(raw) != 32 {
		return fault.New(fault.NotFound, "release.unknown", "a release is named by its digest: 64 hex digits", "choose it from the list of releases")
	}
	var p contentsPageData
	if p.Release, err = h.cfg.Stages.Releases.Get(r.Context(), caller, [32]byte(raw)); err != nil {
		return err
	}
	after, _ := strconv.Atoi(r.URL.Query().Get("after")) // what is no number is the beginning
	if p.Doc, p.Parts, err = h.cfg.Stages.Supply.Contents(r.Context(), caller, [32]byte(raw), max(0, after), pageSize+1); err != nil {
		return err
	}
	if len(p.Parts) > pageSize {
		p.Parts = p.Parts[:pageSize]
		p.More = r.URL.Path + "?after=" + strconv.Itoa(p.Parts[pageSize-1].N)
	}
	h.render(w, r, http.StatusOK, contentsPage(h.view(r, caller, "Releases", "", hexOf(raw)), p))
	return nil
}

type componentsPageData struct {
	Asked     string
	Problem   string
	Uses      []supply.Use
	Databases []supply.Database
	Allowed   bool // to see the databases
}

// components answers where a component is, and shows which advisories are here.
func (h *handler) components(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	ctx := r.Context()
	v := h.view(r, caller, "Components", "advisories.")
	p := componentsPageData{Asked: clip(strings.TrimSpace(r.URL.Query().Get("what")), 1024)}
	dbs, err := h.cfg.Stages.Supply.Databases(ctx, caller)
	if unlessDenied(err) != nil {
		return err
	}
	p.Databases, p.Allowed = dbs, err == nil
	p.Uses, err = h.cfg.Stages.Supply.Where(ctx, caller, p.Asked) // asked for nothing it finds nothing; who may not ask is told so either way
	switch kind := fault.KindOf(err); {
	case err == nil:
	case kind != fault.NotFound && kind != fault.Invalid:
		return err
	case p.Asked != "":
		p.Problem = err.Error()
	}
	h.render(w, r, http.StatusOK, componentsPage(v, p))
	return nil
}

// takeAdvisories replaces an ecosystem's.
func (v view) takeAdvisories(d supply.Database) []action {
	if !v.may(access.AdvisoryImport, access.Resource{Type: "instance"}) {
		return nil
	}
	return []action{{
		Label: "Replace", Title: "Replace the advisories of " + d.Ecosystem, Path: "/api/v1/advisories/" + pathEscape(d.Ecosystem), Body: "{}",
		Explain: "All of them, as OSV's JSON, one object behind the other. An archive as osv.dev has it goes by the command line.",
		Fields:  []field{{Name: "list", Label: "The file", Kind: "upload"}},
		Reveal:  []shown{{At: "advisories", Label: "Taken"}, {At: "newest", Label: "The newest of"}},
	}}
}

// knownFlaws is good only when everything inside is known to be clear.
func knownFlaws(a supply.Assessment) string {
	switch {
	case len(a.Troubles) > 0:
		return "bad"
	case a.Unknown > 0:
		return "warn"
	}
	return "good"
}

func knownTone(a supply.Answer) string {
	switch a {
	case supply.Affected:
		return "bad"
	case supply.Clear:
		return "good"
	case supply.Unknown:
	}
	return "warn"
}

// found is what the supply gate found of a release. Decision is nil when its product had no gate, Summary when it was not published with one.
type found struct {
	Name     string // of the release, for commands
	Decision *wire.GateDecision
	Summary  *statement.Summary
}

func foundOf(r release.Release) (found, error) {
	f := found{Name: r.Manifest.Product + "@" + r.Manifest.Version}
	if len(r.Decision) > 0 {
		d, err := wire.DecodeGateDecision(r.Decision)
		if err != nil {
			return f, err
		}
		f.Decision = &d
	}
	if len(r.Summary) > 0 {
		s, err := statement.ReadSummary(r.Summary)
		if err != nil {
			return f, err
		}
		f.Summary = &s
	}
	return f, nil
}

func stepName(n uint) string {
	names := map[uint]string{1: "the bytes", 2: "the bill of materials", 3: "the provenance", 4: "the advisories", 5: "what is excused"}
	return cmp.Or(names[n], "step "+strconv.Itoa(int(n)))
}
