package console_test

import (
	"html"
	"regexp"
	"strings"
	"testing"
)

// The devices of a rollout are listed page by page, those that failed first to see where some have.
func TestTheDevicesOfARolloutAreListedPageByPage(t *testing.T) {
	s := server(t)
	next := regexp.MustCompile(`rel="next" href="([^"]+)"`)
	for list, prefix := range map[string]string{"": "failed", "?list=failed": "failed", "?list=all": ""} {
		path, seen := "/rollouts/r"+list, map[string]bool{}
		for pages := 0; path != "" && pages < 9; pages++ {
			_, page := get(t, s, path, "viewer")
			for _, m := range regexp.MustCompile(`title="(`+prefix+`-\d\d\d)"`).FindAllStringSubmatch(page, -1) {
				seen[m[1]] = true
			}
			path = ""
			if m := next.FindStringSubmatch(page); m != nil {
				path = html.UnescapeString(m[1])
			}
		}
		if len(seen) != 120 {
			t.Errorf("%q: %d devices on its pages, want 120", list, len(seen))
		}
	}
	if _, page := get(t, s, "/rollouts/r?list=stuck", "viewer"); !strings.Contains(page, "All of them are good.") {
		t.Error("an empty list does not say so")
	}
}

func TestTheReleasesPageSaysWhatWasProposedWithIt(t *testing.T) {
	s := server(t)
	for path, wants := range map[string][]string{
		"/releases/" + digest: {"13 kB", "300 kB", "4.4\u202f%", "2868 kB", "could not be made", "being made"},
		"/rollouts/r":         {"good: 1\u202f199", "What devices fetch", "4.4\u202f%"},
		"/bundles/pump":       {"No release can be approved: the keys are those of 1 person, and 2 are asked for", "nobody says", "By one of these files"},
	} {
		_, page := get(t, s, path, "viewer")
		for _, want := range wants {
			if !strings.Contains(page, want) {
				t.Errorf("%s does not say %q", path, want)
			}
		}
	}
	if _, page := get(t, s, "/rollouts/r", "viewer"); strings.Contains(page, "could not be made") {
		t.Error("a rollout lists deltas that are not there")
	}
	for who, want := range map[string]bool{"admin": true, "security": false, "all": false} {
		if _, page := get(t, s, "/bundles/pump", who); strings.Contains(page, "/approvers/") != want {
			t.Errorf("%s is offered to say whose a key is: %v", who, !want)
		}
	}
}

// A list of devices of one product can be rolled out to as it is asked for, by who may, and says whom that reaches.
func TestWhomAListShowsCanBeRolledOutTo(t *testing.T) {
	s := server(t)
	for path, want := range map[string]string{
		"/devices?product=pump&version=1.0.0&findings=open&group=eu": "To devices that are active, run 1.0.0, have open findings, in group eu, as far as they can take it",
		"/devices?product=pump":                "To devices that are active, as far as they can take it",
		"/devices?version=1.0.0":               "", // of which product?
		"/devices?product=pump&state=disposed": "", // nothing is installed there
	} {
		for _, who := range []string{"all", "viewer"} {
			_, page := get(t, s, path, who)
			may := want != "" && who == "all"
			if got := strings.Contains(page, "Roll out to these"); got != may || may && !strings.Contains(page, want) {
				t.Errorf("%s: %s is offered a rollout: %v, want %v: %q", path, who, got, may, want)
			}
		}
	}
	_, page := get(t, s, "/devices?product=pump&version=1.0.0", "all")
	if !strings.Contains(page, html.EscapeString(`"selection":{"query":{"version":"1.0.0"}}`)) {
		t.Error("what is offered is another rollout than the list asks for")
	}
}
