package console_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/comply"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// assessments has one control of each standing, and people who write markup.
type assessments stages

func (assessments) Catalogue() comply.Catalogue {
	return comply.Catalogue{{ID: "etsi", Title: script, Version: "1", Groups: []comply.Group{{ID: "5.1", Title: script}, {ID: "5.2", Title: "empty"}}}}
}

func (s assessments) Counted(ctx context.Context, c access.Caller, product string) (bool, error) {
	return product != "uncounted", stages(s).check(ctx, c, access.ComplianceRead, product)
}

func (s assessments) Report(ctx context.Context, c access.Caller, product, _ string) (comply.Report, error) {
	if err := stages(s).check(ctx, c, access.ComplianceRead, product); err != nil {
		return comply.Report{}, err
	}
	r := comply.Report{Product: product, AsOf: then, Summary: []comply.Summary{{Framework: "etsi", Title: script, Counts: comply.Counts{}}}}
	for i, st := range comply.Statuses() {
		r.Summary[0].Counts[st] = i + 1
		r.Controls = append(r.Controls, comply.Assessment{
			Control:  comply.Control{Framework: "etsi", ID: "5.1-" + string(st), Group: "5.1", Status: "RF(a)", Evidence: comply.Mixed, Title: script},
			Standing: st, Reason: script, Lacks: script,
			Measured: &comply.Judgement{Status: comply.Met, Reason: script, Newest: then, Figures: []comply.Figure{{What: script, N: 1, Of: 2}}, Evidence: []comply.Link{
				{Text: script, Fact: &ledger.Ref{Log: ledger.Events, Index: 7}}, {Text: "devices", List: "/devices?product=pump"},
			}},
			OnFile: &comply.Statement{Kind: comply.Rationale, Text: script, By: script, At: then, ReviewBy: then},
		})
	}
	return r, nil
}

func (s assessments) Get(ctx context.Context, c access.Caller, product, framework, control string) (comply.Assessment, time.Time, error) {
	r, err := s.Report(ctx, c, product, framework)
	if err != nil {
		return comply.Assessment{}, then, err
	}
	for _, a := range r.Controls {
		if a.ID == control {
			return a, then, nil
		}
	}
	return comply.Assessment{}, then, fault.New(fault.NotFound, "compliance.control", "no control", "")
}

// The list shows what is asked for, and a statement is offered to who may make one.
// What was never counted is said to be just that: no number stands in its place, and the browser asks again.
func TestWhatIsNotCountedYetIsNotNone(t *testing.T) {
	s := server(t)
	for _, path := range []string{"/compliance?product=uncounted", "/compliance/etsi/5.1-met?product=uncounted"} {
		resp, body := get(t, s, path, "viewer")
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Refresh") == "" || !strings.Contains(body, "is being counted") || strings.Contains(body, "controls met") {
			t.Errorf("%s: %d, refresh %q", path, resp.StatusCode, resp.Header.Get("Refresh"))
		}
	}
}

func TestControlsAreShownByStandingAndStatementsAreOfferedToWhoMay(t *testing.T) {
	s := server(t)
	read := func(path, who string) string {
		t.Helper()
		resp, body := get(t, s, path, who)
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s by %s: %d", path, who, resp.StatusCode)
		}
		return body
	}
	all := read("/compliance?product=pump", "viewer")
	for _, want := range []string{"5.1-met", "5.1-not-met", "5.1-unknown", "5.1-not-applicable", `href="/ledger/events/7"`, `href="/devices?product=pump"`, "of 10 controls met"} {
		if !strings.Contains(all, want) {
			t.Errorf("the list has no %q", want)
		}
	}
	if some := read("/compliance?product=pump&standing=not-met", "viewer"); strings.Contains(some, "5.1-unknown") || !strings.Contains(some, "5.1-not-met") {
		t.Error("the filter does not hold")
	}
	const one = "/compliance/etsi/5.1-not-met?product=pump"
	if page := read(one, "viewer"); strings.Contains(page, "/statement?product=pump") || !strings.Contains(page, "past its review") {
		t.Error("a viewer is offered to state something, or is not told that a statement is past its review")
	}
	if page := read(one, "security"); !strings.Contains(page, "/api/v1/compliance/etsi/5.1-not-met/statement?product=pump") {
		t.Error("security is not offered to state something")
	}
	if resp, _ := get(t, s, "/compliance?product=pump", "valves"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("who is of another product: %d", resp.StatusCode)
	}
}
