package comply

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

//go:embed catalogue.json
var catalogueJSON []byte

// Framework is a law or a standard, as a list of controls.
type Framework struct {
	ID       string    `json:"id"`
	Title    string    `json:"title"`
	Version  string    `json:"version"`
	Groups   []Group   `json:"groups"`
	Controls []Control `json:"controls"`
}

// Group is a clause that several controls are in.
type Group struct {
	ID    string `json:"id"`
	Title string `json:"title"`
}

// Basis says what a control is assessed by.
type Basis string

// The bases.
const (
	Live   Basis = "L" // what Hallmark measures
	Mixed  Basis = "M" // that, and what a person states
	Stated Basis = "S" // what a person states alone
)

// Control is one requirement, in our own words.
type Control struct {
	Framework string `json:"framework,omitempty"` // set on reading; the catalogue has it once for all
	ID        string `json:"id"`
	Former    string `json:"former,omitempty"` // its number in EN 303 645 V2.1.1
	Group     string `json:"group"`
	Status    string `json:"status" doc:"M mandatory, R recommended, with C under a condition and F for a feature"`
	Evidence  Basis  `json:"evidence" enum:"L,M,S" doc:"L live, S a person's statement, M both"`
	Title     string `json:"title"`
	Live      string `json:"live,omitempty" doc:"what live evidence of it would be"`
	Statement string `json:"statement,omitempty" doc:"what a person has to say"`
}

// Key names the control in the catalogue.
func (c Control) Key() string { return c.Framework + "/" + c.ID }

// Recommended says that the control may be left out, for reasons that are stated.
func (c Control) Recommended() bool { return strings.HasPrefix(c.Status, "R") }

// Always says that the control applies to every product: it is mandatory without a condition. Of the Cyber Resilience Act those are
// the handling of vulnerabilities and the articles; properties of the product may be found not to apply (Article 13(4)).
func (c Control) Always() bool { return c.Status == "M" && c.Group != "I" }

// NeedsStatement says that a person has a part in it.
func (c Control) NeedsStatement() bool { return c.Evidence != Live || c.Statement != "" }

// Catalogue is every framework, in the order in which they are shown.
type Catalogue []Framework

// Load reads the catalogue that is built in. It is constant, so an error is a defect of the build.
func Load() (Catalogue, error) { return decode(catalogueJSON) }

func decode(data []byte) (Catalogue, error) {
	var doc struct {
		Frameworks Catalogue `json:"frameworks"`
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("catalogue of controls: %w", err)
	}
	seen := map[string]bool{}
	for i, f := range doc.Frameworks {
		for j, c := range f.Controls {
			c.Framework = f.ID
			err := f.check(c)
			if seen[c.Key()] {
				err = errors.New("it is there twice")
			}
			if err != nil {
				return nil, fmt.Errorf("catalogue of controls: %s: %w", c.Key(), err)
			}
			seen[c.Key()] = true
			doc.Frameworks[i].Controls[j] = c
		}
	}
	return doc.Frameworks, nil
}

func (f Framework) check(c Control) error {
	switch {
	case f.ID == "" || c.ID == "" || c.Title == "" || strings.Contains(c.Key(), "//") || strings.Count(c.Key(), "/") != 1:
		return errors.New("no ID or title, or a slash in one")
	case !slices.ContainsFunc(f.Groups, func(g Group) bool { return g.ID == c.Group }):
		return fmt.Errorf("group %q is not there", c.Group)
	case c.Evidence == Live && c.Live == "", c.Evidence == Mixed && c.Live == "", c.Evidence == Stated && c.Statement == "":
		return fmt.Errorf("evidence %q does not go with what it would be", c.Evidence)
	case c.Evidence != Live && c.Evidence != Mixed && c.Evidence != Stated:
		return fmt.Errorf("evidence %q is not known", c.Evidence)
	case !known(c.Status):
		return fmt.Errorf("status %q is not known", c.Status)
	}
	return nil
}

// known reports whether a status is M or R, with C (a condition) and F (a feature), and then with which of them in brackets.
func known(status string) bool {
	head, which, in := strings.Cut(status, "(")
	if !in {
		return head == "M" || head == "R"
	}
	rest, closed := strings.CutSuffix(which, ")")
	return closed && rest != "" && slices.Contains([]string{"MC", "MF", "MCF", "RC", "RF", "RCF"}, head)
}

// Find gives a control; false when there is none.
func (c Catalogue) Find(framework, id string) (Control, bool) {
	for _, f := range c {
		if f.ID != framework {
			continue
		}
		for _, x := range f.Controls {
			if x.ID == id {
				return x, true
			}
		}
	}
	return Control{}, false
}
