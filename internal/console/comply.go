package console

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/comply"
	"github.com/hallmark-iot/hallmark/product"
)

// Compliance assesses products.
type Compliance interface {
	Catalogue() comply.Catalogue
	// Counted says whether the product was measured; when it was not, it is being done now.
	Counted(ctx context.Context, caller access.Caller, product string) (bool, error)
	Report(ctx context.Context, caller access.Caller, product, framework string) (comply.Report, error)
	Get(ctx context.Context, caller access.Caller, product, framework, control string) (comply.Assessment, time.Time, error)
}

type compliancePageData struct {
	Products           []product.Product
	Product, Framework string
	Standing           comply.Status
	Report             comply.Report
	Frameworks         comply.Catalogue
}

type controlPageData struct {
	Product   string
	AsOf      time.Time
	Control   comply.Assessment
	Framework string // its title
}

// assessed finds the product to show: the one that is asked for, or the first.
func (h *handler) assessed(r *http.Request, caller access.Caller) ([]product.Product, string, error) {
	all, err := h.cfg.Stages.Products.List(r.Context(), caller)
	if err != nil {
		return nil, "", err
	}
	if p := r.URL.Query().Get("product"); p != "" || len(all) == 0 {
		return all, p, nil
	}
	return all, all[0].ID, nil
}

func (h *handler) compliance(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	q := r.URL.Query()
	p := compliancePageData{Framework: q.Get("framework"), Standing: comply.Status(q.Get("standing")), Frameworks: h.cfg.Stages.Compliance.Catalogue()}
	var err error
	if p.Products, p.Product, err = h.assessed(r, caller); err != nil {
		return err
	}
	if p.Product != "" {
		counted, err := h.cfg.Stages.Compliance.Counted(r.Context(), caller, p.Product)
		if err != nil {
			return err
		}
		if !counted {
			h.counting(w, r, caller, "Compliance")
			return nil
		}
		if p.Report, err = h.cfg.Stages.Compliance.Report(r.Context(), caller, p.Product, p.Framework); err != nil {
			return err
		}
	}
	h.render(w, r, http.StatusOK, compliancePage(h.view(r, caller, "Compliance", "compliance."), p))
	return nil
}

func (h *handler) control(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	_, id, err := h.assessed(r, caller)
	if err != nil {
		return err
	}
	counted, err := h.cfg.Stages.Compliance.Counted(r.Context(), caller, id)
	if err != nil {
		return err
	}
	if !counted {
		h.counting(w, r, caller, "Compliance")
		return nil
	}
	p := controlPageData{Product: id}
	if p.Control, p.AsOf, err = h.cfg.Stages.Compliance.Get(r.Context(), caller, id, r.PathValue("framework"), r.PathValue("control")); err != nil {
		return err
	}
	for _, f := range h.cfg.Stages.Compliance.Catalogue() {
		if f.ID == p.Control.Framework {
			p.Framework = f.Title
		}
	}
	h.render(w, r, http.StatusOK, controlPage(h.view(r, caller, "Compliance", "compliance.", id), p))
	return nil
}

func complianceTone(s comply.Status) string {
	switch s {
	case comply.Met:
		return "good"
	case comply.NotMet:
		return "bad"
	case comply.Unknown:
		return "warn"
	case comply.NotApplicable:
	}
	return ""
}

// standings counts a framework's controls, in the order of the bar.
func standings(p compliancePageData, s comply.Summary) []count {
	var out []count
	for _, st := range comply.Statuses() {
		out = append(out, count{
			Name: st.Words(), N: s.Counts[st], Tone: cmp.Or(complianceTone(st), "idle"),
			Link: complianceURL(p.Product, s.Framework, st),
		})
	}
	return out
}

func complianceURL(product, framework string, standing comply.Status) string {
	v := url.Values{"product": {product}}
	if framework != "" {
		v.Set("framework", framework)
	}
	if standing != "" {
		v.Set("standing", string(standing))
	}
	return "/compliance?" + v.Encode()
}

func controlURL(product string, c comply.Control) templ.SafeURL {
	return templ.SafeURL("/compliance/" + pathEscape(c.Framework) + "/" + pathEscape(c.ID) + "?product=" + queryEscape(product))
}

// segments are values side by side in the waves' bar, each as wide as its share.
func segments(values []count) []segment {
	const width = 400
	sum, x := total(values), 0.0
	var out []segment
	for _, c := range values {
		if c.N == 0 {
			continue
		}
		w := width * float64(c.N) / float64(sum)
		out = append(out, segment{X: decimal(x), Width: decimal(max(w-1, 1)), Tone: c.Tone})
		x += w
	}
	return out
}

// clause is a group of controls that are shown.
type clause struct {
	comply.Group
	Met, Of  int // of the whole group
	Controls []comply.Assessment
}

// clauses gives the groups of a framework that have controls to show.
func clauses(p compliancePageData, framework string) (out []clause) {
	for _, f := range p.Frameworks {
		if f.ID != framework {
			continue
		}
		for _, g := range f.Groups {
			c := clause{Group: g}
			for _, a := range p.Report.Controls {
				if a.Framework != f.ID || a.Group != g.ID {
					continue
				}
				c.Of++
				if a.Standing == comply.Met {
					c.Met++
				}
				if p.Standing == "" || p.Standing == a.Standing {
					c.Controls = append(c.Controls, a)
				}
			}
			if len(c.Controls) > 0 {
				out = append(out, c)
			}
		}
	}
	return out
}

// obligation says how binding a control is.
func obligation(c comply.Control) string {
	s := "mandatory"
	if c.Recommended() {
		s = "recommended"
	}
	head, which, conditional := strings.Cut(c.Status, "(")
	if conditional && strings.Contains(head, "C") {
		return s + " under condition " + strings.TrimSuffix(which, ")") + " of the standard"
	}
	if conditional {
		return s + " if the product has feature " + strings.TrimSuffix(which, ")") + " of the standard"
	}
	return s
}

func basis(c comply.Control) string {
	switch {
	case c.Evidence == comply.Stated:
		return "a person's statement alone"
	case c.NeedsStatement():
		return "what is measured, and a person's statement"
	}
	return "what is measured"
}

func linkOf(l comply.Link) templ.SafeURL {
	if l.Fact != nil {
		return refLink(*l.Fact)
	}
	return templ.SafeURL(l.List)
}

// stateControl offers to put a statement on file.
func (v view) stateControl(p controlPageData) []action {
	var kinds []option
	if p.Control.NeedsStatement() {
		kinds = append(kinds, option{string(comply.Fulfilled), "It is met: how"})
	}
	if !p.Control.Always() {
		kinds = append(kinds, option{string(comply.Inapplicable), "It does not apply: why"})
	}
	if p.Control.Recommended() {
		kinds = append(kinds, option{string(comply.Rationale), "It is not followed: why"})
	}
	if len(kinds) == 0 || !v.may(access.ComplianceState, access.Resource{Type: "product", ID: p.Product, Product: p.Product}) {
		return nil
	}
	return []action{{
		Label: "State", Title: p.Control.ID + " " + p.Control.Title, Method: http.MethodPut, Body: "{}",
		Path:    "/api/v1/compliance/" + pathEscape(p.Control.Framework) + "/" + pathEscape(p.Control.ID) + "/statement?product=" + queryEscape(p.Product),
		Explain: "It takes the place of what is on file, with your name; the ledger keeps both.",
		Fields: []field{
			{Name: "kind", Label: "What it is", Kind: "one", Options: kinds},
			{Name: "text", Label: "In your words", Kind: "long"},
			{Name: "review_by", Label: "To be reviewed by, at most in two years", Kind: "date", Value: time.Now().AddDate(1, 0, 0).UTC().Format(time.DateOnly)},
		},
	}}
}

func kindWords(k comply.Kind) string {
	switch k {
	case comply.Fulfilled:
		return "Statement"
	case comply.Inapplicable:
		return "Not applicable, because"
	case comply.Rationale:
		return "Not followed, because"
	}
	return orUnknown(string(k))
}
