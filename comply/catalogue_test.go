package comply

import (
	"bytes"
	"strings"
	"testing"
)

func TestTheCatalogueIsWhole(t *testing.T) {
	c, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int{}
	for _, f := range c {
		groups := map[string]bool{}
		for _, x := range f.Controls {
			n[f.ID]++
			groups[x.Group] = true
			if strings.Contains(x.ID, " ") || len(x.Title) > 160 {
				t.Errorf("%s: %q", x.Key(), x.Title)
			}
		}
		if len(groups) != len(f.Groups) {
			t.Errorf("%s: %d groups have controls, of %d", f.ID, len(groups), len(f.Groups))
		}
	}
	if n["etsi-en-303-645"] != 78 || n["eu-cra-2024-2847"] != 26 {
		t.Errorf("controls: %v", n)
	}
	if x, ok := c.Find("etsi-en-303-645", "5.3-13"); !ok || !x.Always() || x.Recommended() {
		t.Errorf("5.3-13: %+v, %v", x, ok)
	}
	if x, ok := c.Find("eu-cra-2024-2847", "I.(2)(d)"); !ok || x.Always() {
		t.Errorf("a property of the product may be found not to apply: %+v, %v", x, ok)
	}
	if x, ok := c.Find("etsi-en-303-645", "5.7-1"); !ok || !x.Recommended() || x.NeedsStatement() {
		t.Errorf("5.7-1: %+v, %v", x, ok)
	}
}

// Whoever extends the catalogue is told what is wrong with it.
func TestWhatIsNoCatalogue(t *testing.T) {
	for what, change := range map[string][2]string{
		"a member nobody knows":    {`"title": "Justify`, `"tilte": "x", "title": "Justify`},
		"twice the same ID":        {`"id": "5.1-2A"`, `"id": "5.1-1"`},
		"a status nobody knows":    {`"status": "MF(a)"`, `"status": "MX(a)"`},
		"a condition left open":    {`"status": "MF(a)"`, `"status": "MF(a"`},
		"a feature without a name": {`"status": "MF(a)"`, `"status": "MF"`},
		"evidence nobody knows":    {`"evidence": "L"`, `"evidence": "X"`},
		"a group nobody knows":     {`"group": "5.2"`, `"group": "5.99"`},
		"live evidence of nothing": {`"live": "PKI inventory: every device session uses mTLS/key credential"`, `"live": ""`},
		"a slash in an ID":         {`"id": "5.1-2A"`, `"id": "5/1"`},
		"no title":                 {`"title": "Machine-to-machine login not by password"`, `"title": ""`},
	} {
		bad := bytes.Replace(catalogueJSON, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(bad, catalogueJSON) {
			t.Fatalf("%s: nothing was changed", what)
		}
		if _, err := decode(bad); err == nil {
			t.Errorf("%s is let in", what)
		}
	}
}

// Each evaluator judges a control that is there and has a live part; no control that is a person's alone is measured.
func TestEvaluatorsJudgeWhatIsThere(t *testing.T) {
	c, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	judges := evaluators()
	if len(judges) < 20 {
		t.Errorf("only %d controls are measured", len(judges))
	}
	for key, e := range judges {
		framework, id, _ := strings.Cut(key, "/")
		x, ok := c.Find(framework, id)
		if !ok || x.Evidence == Stated || e.fresh <= 0 || e.judge == nil {
			t.Errorf("%s: %+v, %v", key, x, ok)
		}
	}
}
