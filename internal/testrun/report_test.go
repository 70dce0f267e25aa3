package main

import (
	"slices"
	"strings"
	"testing"
)

const module = `"Package":"m/hallmark/x"`

func tell(t *testing.T, r *report, lines ...string) string {
	t.Helper()
	var out strings.Builder
	r.out = &out
	if err := r.read(strings.NewReader(strings.Join(lines, "\n") + "\n")); err != nil {
		t.Fatal(err)
	}
	r.close()
	return out.String()
}

func TestCounts(t *testing.T) {
	out := tell(t, newReport(nil),
		`{"Action":"run",`+module+`,"Test":"TestA"}`,
		`{"Action":"output",`+module+`,"Test":"TestA","Output":"quiet\n"}`,
		`{"Action":"pass",`+module+`,"Test":"TestA","Elapsed":2.5}`,
		`{"Action":"output",`+module+`,"Test":"TestB","Output":"=== RUN   TestB\n"}`,
		`{"Action":"output",`+module+`,"Test":"TestB","Output":"    x_test.go:1: swtpm is not installed\n"}`,
		`{"Action":"output",`+module+`,"Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}`,
		`{"Action":"skip",`+module+`,"Test":"TestB"}`,
		`{"Action":"output",`+module+`,"Test":"TestC","Output":"the reason it failed\n"}`,
		`{"Action":"fail",`+module+`,"Test":"TestC"}`,
		`{"Action":"fail",`+module+`,"Elapsed":3}`,
		`not JSON`,
	)
	if !strings.HasSuffix(out, "\n1 passed, 1 failed, 1 skipped\n") {
		t.Errorf("closing line: %q", out)
	}
	for _, want := range []string{"x TestB: x_test.go:1: swtpm is not installed", "the reason it failed", "2.5s  x TestA", "not JSON"} {
		if !strings.Contains(out, want) {
			t.Errorf("the report lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "quiet") {
		t.Error("a passing test was printed")
	}
}

func TestNoFailureIsLost(t *testing.T) {
	for name, lines := range map[string][]string{
		"a package that ends outside any test": {`{"Action":"pass",` + module + `,"Test":"TestA"}`, `{"Action":"fail",` + module + `}`},
		"a package that does not build": {
			`{"Action":"build-output","ImportPath":"m/hallmark/x","Output":"undefined: y\n"}`,
			`{"Action":"build-fail","ImportPath":"m/hallmark/x"}`,
			`{"Action":"fail",` + module + `,"FailedBuild":"m/hallmark/x"}`,
		},
	} {
		r := newReport(nil)
		out := tell(t, r, lines...)
		if r.failed != 1 {
			t.Errorf("%s: %d failed, want 1\n%s", name, r.failed, out)
		}
		if strings.Contains(name, "build") && !strings.Contains(out, "undefined: y") {
			t.Errorf("%s: what the compiler said is lost", name)
		}
	}
}

func TestInCIWhatIsMissingFails(t *testing.T) {
	r := newReport(nil)
	r.strict = true
	tell(t, r,
		`{"Action":"output",`+module+`,"Test":"TestB","Output":"swtpm is not installed\n"}`, `{"Action":"skip",`+module+`,"Test":"TestB"}`,
		`{"Action":"output",`+module+`,"Test":"TestC","Output":"long runs only\n"}`, `{"Action":"skip",`+module+`,"Test":"TestC"}`)
	if r.failed != 1 || r.skipped != 1 {
		t.Errorf("%d failed and %d skipped, want 1 and 1", r.failed, r.skipped)
	}
}

func TestRaceList(t *testing.T) {
	if got := packagesIn("# why\n./ledger/... # loops\n\n./rollout\n"); !slices.Equal(got, []string{"./ledger/...", "./rollout"}) {
		t.Errorf("packages: %v", got)
	}
}
