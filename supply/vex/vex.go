// Package vex reads why a known flaw is none in a product: OpenVEX (0.0.1 to 0.2.0) and the vulnerabilities of CycloneDX documents.
//
// Stage 0, before build. What it guarantees: a statement names its flaw and the package URLs that it is about, or the whole document is an error; one that excuses a flaw says why.
// Whether a document is signed is for who calls (package statement): what is here believes what it is given.
package vex

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/package-url/packageurl-go"
)

// Bounds of a document.
const (
	MaxSize       = 4 << 20
	maxStatements = 10_000
	maxText       = 2048
)

// ErrFormat is a document that cannot be read.
var ErrFormat = errors.New("no VEX document that can be read")

// Statement is what is said of one flaw.
type Statement struct {
	Names   []string  `json:"names"`        // of the flaw
	In      []Product `json:"in,omitempty"` // what it is a statement about, where it names that beside the parts inside
	Parts   []string  `json:"parts"`        // package URLs; without a version: of all
	Excuses bool      `json:"excuses"`      // it is none here, or is mended; else it is one, or that is not known yet
	Why     string    `json:"why,omitempty"`
	At      time.Time `json:"at"`
}

// Product is what has the parts inside.
type Product struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"` // empty: any
}

// Of says whether the statement is about a version of a product. One that names no product is about any.
func (s Statement) Of(product, version string) bool {
	return len(s.In) == 0 || slices.ContainsFunc(s.In, func(p Product) bool {
		return strings.EqualFold(p.Name, product) && (p.Version == "" || version == "" || p.Version == version)
	})
}

// productOf reads what a document calls a product: a package URL, or a name.
func productOf(id string) Product {
	if p, err := packageurl.FromString(id); err == nil {
		return Product{p.Name, p.Version}
	}
	return Product{Name: id}
}

// About says whether the statement is about a flaw with one of the names in the component.
func (s Statement) About(names []string, purl string) bool {
	return slices.ContainsFunc(s.Names, func(n string) bool { return slices.Contains(names, n) }) &&
		slices.ContainsFunc(s.Parts, func(p string) bool { return within(p, purl) })
}

// within says whether purl is what said names: the same package, and the same version if said has one.
func within(said, purl string) bool {
	a, err := packageurl.FromString(said)
	if err != nil {
		return false
	}
	b, err := packageurl.FromString(purl)
	if err != nil {
		return false
	}
	return a.Type == b.Type && a.Namespace == b.Namespace && a.Name == b.Name && a.Subpath == b.Subpath && (a.Version == "" || a.Version == b.Version)
}

// Read reads a document.
func Read(data []byte) ([]Statement, error) {
	if len(data) > MaxSize || !utf8.Valid(data) {
		return nil, fmt.Errorf("%w: larger than %d bytes, or not UTF-8", ErrFormat, MaxSize)
	}
	var kind struct {
		Context string `json:"@context"`
		Format  string `json:"bomFormat"`
	}
	if err := json.Unmarshal(data, &kind); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	var all []Statement
	var err error
	switch {
	case strings.HasPrefix(kind.Context, "https://openvex.dev/ns"):
		all, err = openVEX(data)
	case kind.Format == "CycloneDX":
		all, err = cycloneDX(data)
	default:
		return nil, fmt.Errorf("%w: neither OpenVEX nor CycloneDX", ErrFormat)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if len(all) == 0 || len(all) > maxStatements {
		return nil, fmt.Errorf("%w: %d statements", ErrFormat, len(all))
	}
	for i, s := range all {
		if err := s.check(); err != nil {
			return nil, fmt.Errorf("%w: statement %d: %w", ErrFormat, i+1, err)
		}
	}
	return all, nil
}

func (s Statement) check() error {
	switch {
	case len(s.Names) == 0 || slices.Contains(s.Names, ""):
		return errors.New("it names no flaw")
	case len(s.Parts) == 0:
		return errors.New("it is about nothing")
	case slices.ContainsFunc(s.In, func(p Product) bool { return p.Name == "" }):
		return errors.New("a product has no name")
	case s.At.IsZero():
		return errors.New("it does not say of when it is")
	case s.Excuses && s.Why == "":
		return errors.New("it does not say why")
	}
	texts := slices.Concat(s.Names, s.Parts, []string{s.Why})
	for _, p := range s.In {
		texts = append(texts, p.Name, p.Version)
	}
	for _, t := range texts {
		if len(t) > maxText {
			return fmt.Errorf("a text is longer than %d bytes", maxText)
		}
	}
	for _, p := range s.Parts {
		if _, err := packageurl.FromString(p); err != nil {
			return fmt.Errorf("it is about %.100q, which is no package URL", p)
		}
	}
	return nil
}

type openProduct struct {
	ID          string            `json:"@id"`
	Identifiers map[string]string `json:"identifiers"`
	Parts       []openProduct     `json:"subcomponents"`
}

func (p openProduct) purl() string {
	if s := p.Identifiers["purl"]; s != "" {
		return s
	}
	return p.ID
}

// openVEX has the time of the document for statements without one (§ Inheritance). What a product has inside is what a statement is about, when it names that.
func openVEX(data []byte) ([]Statement, error) {
	var d struct {
		Time       time.Time `json:"timestamp"`
		Statements []struct {
			Flaw struct {
				Name    string   `json:"name"`
				Aliases []string `json:"aliases"`
			} `json:"vulnerability"`
			Products      []openProduct `json:"products"`
			Status        string        `json:"status"`
			Justification string        `json:"justification"`
			Impact        string        `json:"impact_statement"`
			Time          time.Time     `json:"timestamp"`
		} `json:"statements"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, err
	}
	var out []Statement
	for _, in := range d.Statements {
		s := Statement{Names: append([]string{in.Flaw.Name}, in.Flaw.Aliases...), At: in.Time, Why: strings.Trim(in.Justification+": "+in.Impact, ": ")}
		if s.At.IsZero() {
			s.At = d.Time
		}
		switch in.Status {
		case "not_affected":
			s.Excuses = true
		case "fixed":
			s.Excuses, s.Why = true, strings.Trim("fixed: "+s.Why, ": ")
		case "affected", "under_investigation":
		default:
			return nil, fmt.Errorf("status %.40q", in.Status)
		}
		out = append(out, s.each(in.Products)...)
	}
	return out, nil
}

// each is the statement of each product whose parts it names, of those alone, and of the products whose parts it does not name, which are then parts themselves.
func (s Statement) each(products []openProduct) (out []Statement) {
	whole := s
	for _, p := range products {
		if len(p.Parts) == 0 {
			whole.Parts = append(whole.Parts, p.purl())
			continue
		}
		of := s
		of.In = []Product{productOf(p.purl())}
		for _, c := range p.Parts {
			of.Parts = append(of.Parts, c.purl())
		}
		out = append(out, of)
	}
	if len(whole.Parts) > 0 || len(out) == 0 { // about nothing at all, it is refused
		out = append(out, whole)
	}
	return out
}

// cycloneDX reads the vulnerabilities of a document; what they affect has to be named by package URL.
func cycloneDX(data []byte) ([]Statement, error) {
	var d struct {
		Metadata struct {
			Time time.Time `json:"timestamp"`
			Of   struct {
				Name    string `json:"name"`
				Version string `json:"version"`
				PURL    string `json:"purl"`
			} `json:"component"`
		} `json:"metadata"`
		Flaws []struct {
			ID         string `json:"id"`
			References []struct {
				ID string `json:"id"`
			} `json:"references"`
			Updated  time.Time `json:"updated"`
			Analysis struct {
				State         string `json:"state"`
				Justification string `json:"justification"`
				Detail        string `json:"detail"`
			} `json:"analysis"`
			Affects []struct {
				Ref string `json:"ref"`
			} `json:"affects"`
		} `json:"vulnerabilities"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, err
	}
	var out []Statement
	for _, in := range d.Flaws {
		s := Statement{Names: []string{in.ID}, At: in.Updated, Why: strings.Trim(in.Analysis.Justification+": "+in.Analysis.Detail, ": ")}
		for _, r := range in.References {
			s.Names = append(s.Names, r.ID)
		}
		if s.At.IsZero() {
			s.At = d.Metadata.Time
		}
		switch of := d.Metadata.Of; {
		case of.PURL != "":
			s.In = []Product{productOf(of.PURL)}
		case of.Name != "":
			s.In = []Product{{of.Name, of.Version}}
		}
		for _, a := range in.Affects {
			s.Parts = append(s.Parts, a.Ref)
		}
		switch in.Analysis.State {
		case "not_affected", "false_positive":
			s.Excuses = true
		case "resolved", "resolved_with_pedigree":
			s.Excuses, s.Why = true, strings.Trim("resolved: "+s.Why, ": ")
		case "exploitable", "in_triage":
		default:
			return nil, fmt.Errorf("state %.40q", in.Analysis.State)
		}
		out = append(out, s)
	}
	return out, nil
}
