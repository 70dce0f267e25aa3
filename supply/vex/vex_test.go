package vex_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/supply/vex"
)

const (
	open = `{"@context":"https://openvex.dev/ns/v0.2.0","timestamp":"2030-01-02T03:04:05Z","statements":[{"vulnerability":{"name":"CVE-1","aliases":["GO-1"]},
		"products":[{"@id":"pkg:oci/pump","subcomponents":[{"@id":"pkg:golang/a/b@v1.0.0"},{"identifiers":{"purl":"pkg:golang/a/c"}}]}],"status":%q,"justification":%q}]}`
	cyclone = `{"bomFormat":"CycloneDX","specVersion":"1.6","metadata":{"timestamp":"2030-01-02T03:04:05Z"},"vulnerabilities":[{"id":"CVE-1","references":[{"id":"GO-1"}],
		"analysis":{"state":%q,"justification":%q},"affects":[{"ref":"pkg:golang/a/b@v1.0.0"},{"ref":"pkg:golang/a/c"}]}]}`
)

func TestBothFormatsSayTheSame(t *testing.T) {
	for name, doc := range map[string]string{"OpenVEX": fmt.Sprintf(open, "not_affected", "component_not_present"), "CycloneDX": fmt.Sprintf(cyclone, "not_affected", "code_not_present")} {
		all, err := vex.Read([]byte(doc))
		if err != nil || len(all) != 1 {
			t.Fatalf("%s: %+v, %v", name, all, err)
		}
		s := all[0]
		if !s.Excuses || s.Why == "" || s.At.Year() != 2030 {
			t.Errorf("%s: %+v", name, s)
		}
		for _, c := range []struct {
			flaw, purl string
			want       bool
		}{
			{"CVE-1", "pkg:golang/a/b@v1.0.0", true},
			{"GO-1", "pkg:golang/a/b@v1.0.0", true},
			{"CVE-1", "pkg:golang/a/b@v1.0.1", false},
			{"CVE-1", "pkg:golang/a/c@v7.0.0", true}, // no version is all versions
			{"CVE-1", "pkg:golang/a/d@v1.0.0", false},
			{"CVE-2", "pkg:golang/a/b@v1.0.0", false},
			{"CVE-1", "pkg:npm/b@v1.0.0", false},
			{"CVE-1", "words", false},
		} {
			if got := s.About([]string{"X-0", c.flaw}, c.purl); got != c.want {
				t.Errorf("%s: about %s in %s: %v", name, c.flaw, c.purl, got)
			}
		}
	}
}

// What is said of a part of one product is not said of that part in another.
func TestAStatementIsOfTheProductThatItNamesThePartOf(t *testing.T) {
	all, err := vex.Read([]byte(`{"@context":"https://openvex.dev/ns/v0.2.0","timestamp":"2030-01-02T03:04:05Z","statements":[{"vulnerability":{"name":"CVE-1"},"products":[
		{"@id":"pkg:generic/valve@1.0.0","subcomponents":[{"@id":"pkg:golang/a/openssl"}]},{"@id":"pkg:generic/pump@2.0.0","subcomponents":[{"@id":"pkg:golang/a/zlib"}]},{"@id":"pkg:golang/a/curl"}],
		"status":"not_affected","justification":"component_not_present"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		product, version, purl string
		want                   bool
	}{
		{"valve", "1.0.0", "pkg:golang/a/openssl", true},
		{"valve", "1.0.0", "pkg:golang/a/zlib", false},
		{"valve", "2.0.0", "pkg:golang/a/openssl", false},
		{"pump", "2.0.0", "pkg:golang/a/zlib", true},
		{"pump", "2.0.0", "pkg:golang/a/openssl", false},
		{"pump", "2.0.0", "pkg:golang/a/curl", true}, // named as a product itself: it is one wherever it is
	} {
		got := slices.ContainsFunc(all, func(s vex.Statement) bool {
			return s.Excuses && s.Of(c.product, c.version) && s.About([]string{"CVE-1"}, c.purl)
		})
		if got != c.want {
			t.Errorf("%s in %s %s: %v", c.purl, c.product, c.version, got)
		}
	}
}

func TestWhatIsNotSaidInFullIsAnError(t *testing.T) {
	for name, doc := range map[string]string{
		"no why":                  fmt.Sprintf(open, "not_affected", ""),
		"another status":          fmt.Sprintf(open, "fine", "x"),
		"no why in CycloneDX":     fmt.Sprintf(cyclone, "not_affected", ""),
		"another state":           fmt.Sprintf(cyclone, "fine", "x"),
		"no flaw":                 strings.Replace(fmt.Sprintf(open, "fixed", "x"), `"name":"CVE-1"`, `"name":""`, 1),
		"no component":            strings.Replace(fmt.Sprintf(cyclone, "resolved", "x"), `{"ref":"pkg:golang/a/b@v1.0.0"},{"ref":"pkg:golang/a/c"}`, "", 1),
		"a component of its own":  strings.Replace(fmt.Sprintf(cyclone, "resolved", "x"), "pkg:golang/a/c", "ref-7", 1),
		"no time":                 strings.Replace(fmt.Sprintf(open, "fixed", "x"), `"timestamp":"2030-01-02T03:04:05Z",`, "", 1),
		"no product":              `{"@context":"https://openvex.dev/ns/v0.2.0","timestamp":"2030-01-02T03:04:05Z","statements":[{"vulnerability":{"name":"CVE-1"},"status":"fixed"}]}`,
		"no statement":            `{"@context":"https://openvex.dev/ns/v0.2.0","statements":[]}`,
		"another kind of thing":   `{"a":1}`,
		"no JSON":                 `x`,
		"a time that is no time":  strings.Replace(fmt.Sprintf(open, "fixed", "x"), "2030-01-02", "someday", 1),
		"a why longer than words": fmt.Sprintf(open, "not_affected", strings.Repeat("x", 3000)),
	} {
		if all, err := vex.Read([]byte(doc)); !errors.Is(err, vex.ErrFormat) || all != nil {
			t.Errorf("%s: %+v, %v", name, all, err)
		}
	}
	for _, status := range []string{"affected", "under_investigation"} {
		if all, err := vex.Read(fmt.Appendf(nil, open, status, "")); err != nil || all[0].Excuses {
			t.Errorf("%s: %+v, %v", status, all, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(fmt.Appendf(nil, open, "fixed", "x"))
	f.Add(fmt.Appendf(nil, cyclone, "resolved", "x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := vex.Read(data)
		for _, s := range all {
			if len(s.Names) == 0 || len(s.Parts) == 0 || s.Excuses && s.Why == "" {
				t.Errorf("%q: %+v", data, s)
			}
			s.About(s.Names, s.Parts[0])
		}
		if (err == nil) != (len(all) > 0) {
			t.Errorf("%q: %v", data, err)
		}
	})
}
