package comply

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

func find(t *testing.T, framework, id string) Control {
	t.Helper()
	c, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	x, ok := c.Find(framework, id)
	if !ok {
		t.Fatalf("no control %s", id)
	}
	return x
}

// The one table that says when something is met.
func TestWhatMakesAControlMet(t *testing.T) {
	const etsi = "etsi-en-303-645"
	live, mixed, stated, advice := find(t, etsi, "5.3-8"), find(t, etsi, "5.3-13"), find(t, etsi, "5.3-3"), find(t, etsi, "5.7-1")
	good, bad, dim := &Judgement{Status: Met, Reason: "g"}, &Judgement{Status: NotMet, Reason: "b"}, &Judgement{Status: Unknown, Reason: "u"}
	on := func(k Kind) *Statement {
		return &Statement{Kind: k, By: "person:sue", At: now, ReviewBy: now.Add(time.Hour)}
	}
	over := on(Fulfilled)
	over.ReviewBy = now
	for what, c := range map[string]struct {
		control Control
		judged  *Judgement
		filed   *Statement
		want    Status
		lacks   bool
	}{
		"live, good":                          {live, good, nil, Met, false},
		"live, bad":                           {live, bad, nil, NotMet, false},
		"live, unknown":                       {live, dim, nil, Unknown, false},
		"live, not measured":                  {live, nil, nil, Unknown, false},
		"live, not applicable":                {live, bad, on(Inapplicable), NotApplicable, false},
		"mixed, good, nothing on file":        {mixed, good, nil, Unknown, true},
		"mixed, good, stated":                 {mixed, good, on(Fulfilled), Met, false},
		"mixed, good, past its review":        {mixed, good, over, Unknown, true},
		"mixed, bad, stated":                  {mixed, bad, on(Fulfilled), NotMet, false},
		"mixed, unknown, stated":              {mixed, dim, on(Fulfilled), Unknown, false},
		"mixed, not measured, stated":         {mixed, nil, on(Fulfilled), Unknown, false},
		"stated alone":                        {stated, nil, on(Fulfilled), Met, false},
		"stated alone, past its review":       {stated, nil, over, Unknown, true},
		"stated alone, nothing on file":       {stated, nil, nil, Unknown, true},
		"recommended, bad, without a reason":  {advice, bad, nil, NotMet, true},
		"recommended, bad, with its reason":   {advice, bad, on(Rationale), NotMet, false},
		"recommended, good, with a reason":    {advice, good, on(Rationale), Met, false},
		"recommended, unknown, with a reason": {advice, dim, on(Rationale), NotMet, false},
	} {
		a := assess(c.control, c.judged, c.filed, now)
		if a.Standing != c.want || (a.Lacks != "") != c.lacks || a.Reason == "" {
			t.Errorf("%s: %s (%s), lacks %q", what, a.Standing, a.Reason, a.Lacks)
		}
	}
}

// An evaluator that says what its evidence does not bear is not believed.
func TestAnEvaluatorIsNotBelievedWithoutEvidence(t *testing.T) {
	for what, j := range map[string]Judgement{
		"no time": {Status: Met}, "too old": {Status: Met, Newest: now.Add(-25 * time.Hour)}, "nothing": {Newest: now}, "another word": {Status: "fine", Newest: now},
	} {
		e := evaluator{func(Snapshot) Judgement { return j }, 24 * time.Hour}
		if got := e.measure(Snapshot{At: now}); got.Status != Unknown || got.Reason == "" {
			t.Errorf("%s: %+v", what, *got)
		}
	}
}

func TestJoinedEvidenceIsAsGoodAndAsOldAsItsWorst(t *testing.T) {
	at := func(s Status, d time.Duration) func(Snapshot) Judgement {
		return func(Snapshot) Judgement { return Judgement{Status: s, Reason: string(s), Newest: now.Add(-d)} }
	}
	for _, c := range []struct {
		parts []func(Snapshot) Judgement
		want  Status
	}{
		{[]func(Snapshot) Judgement{at(Met, 0), at(Met, time.Hour)}, Met},
		{[]func(Snapshot) Judgement{at(Unknown, time.Hour), at(NotMet, 0), at(Met, 0)}, NotMet},
		{[]func(Snapshot) Judgement{at(Met, 0), at(Unknown, time.Hour)}, Unknown},
		{[]func(Snapshot) Judgement{at(NotMet, time.Hour), at(Unknown, 0)}, NotMet},
	} {
		j := every(c.parts...)(Snapshot{})
		if j.Status != c.want || !j.Newest.Equal(now.Add(-time.Hour)) || !strings.Contains(j.Reason, string(c.want)) {
			t.Errorf("%+v, want %s", j, c.want)
		}
	}
}

// A part that gives no answer does not leave the whole as good as the others.
func TestAPartWithoutAnAnswerIsUnknown(t *testing.T) {
	met := func(Snapshot) Judgement { return Judgement{Status: Met, Newest: now} }
	for _, parts := range [][]func(Snapshot) Judgement{{met, func(Snapshot) Judgement { return Judgement{Newest: now} }}, {func(Snapshot) Judgement { return Judgement{Newest: now} }, met}} {
		if j := every(parts...)(Snapshot{}); j.Status != Unknown {
			t.Errorf("%+v", j)
		}
	}
}

func TestRecommendationsNeedTheirReasons(t *testing.T) {
	advice := Control{Status: "R"}
	for what, c := range map[string]struct {
		all  []Assessment
		want Status
	}{
		"all followed":      {[]Assessment{{Control: advice, Standing: Met}}, Met},
		"one with a reason": {[]Assessment{{Control: advice, Standing: NotMet}, {Control: Control{Status: "M"}, Standing: Unknown}}, Met},
		"one without":       {[]Assessment{{Control: advice, Standing: NotMet, Lacks: "a rationale"}, {Control: advice, Standing: Unknown}}, NotMet},
		"one not known":     {[]Assessment{{Control: advice, Standing: Unknown}}, Unknown},
	} {
		if j := justified(c.all, now); j.Status != c.want {
			t.Errorf("%s: %+v", what, *j)
		}
	}
}

func TestWhatMayNotBeStated(t *testing.T) {
	const etsi = "etsi-en-303-645"
	for what, c := range map[string]struct {
		control string
		w       Words
	}{
		"nothing":                            {"5.3-3", Words{Kind: Fulfilled, Text: "  ", ReviewBy: now.AddDate(1, 0, 0)}},
		"too much":                           {"5.3-3", Words{Kind: Fulfilled, Text: strings.Repeat("x", MaxText+1), ReviewBy: now.AddDate(1, 0, 0)}},
		"bytes that are no text":             {"5.3-3", Words{Kind: Fulfilled, Text: "\xff", ReviewBy: now.AddDate(1, 0, 0)}},
		"a review in the past":               {"5.3-3", Words{Kind: Fulfilled, Text: "x", ReviewBy: now.Add(-time.Hour)}},
		"no review":                          {"5.3-3", Words{Kind: Fulfilled, Text: "x"}},
		"a review after two years":           {"5.3-3", Words{Kind: Fulfilled, Text: "x", ReviewBy: now.AddDate(3, 0, 0)}},
		"a kind nobody knows":                {"5.3-3", Words{Kind: "note", Text: "x", ReviewBy: now.AddDate(1, 0, 0)}},
		"a mandatory one as not applicable":  {"5.3-13", Words{Kind: Inapplicable, Text: "x", ReviewBy: now.AddDate(1, 0, 0)}},
		"a reason to leave a mandatory out":  {"5.3-3", Words{Kind: Rationale, Text: "x", ReviewBy: now.AddDate(1, 0, 0)}},
		"that a measured one is met in fact": {"5.7-1", Words{Kind: Fulfilled, Text: "x", ReviewBy: now.AddDate(1, 0, 0)}},
	} {
		if s, err := state(find(t, etsi, c.control), "pump", access.Caller{ID: "person:sue"}, c.w, now); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %+v, %v", what, s, err)
		}
	}
}

// counting is a store that counts how often it was asked, and takes the time it is told.
type counting struct {
	mu    sync.Mutex
	asked int
	took  func()
}

func (c *counting) Measure(_ context.Context, product string, at time.Time) (Snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if product != "pump" {
		return Snapshot{}, ErrNoProduct
	}
	c.asked++
	if c.took != nil {
		c.took()
	}
	s := sound()
	s.At = at
	return s, nil
}
func (*counting) Statements(context.Context, string) ([]Statement, error) { return nil, nil }
func (*counting) PutStatement(context.Context, Statement, func(Statement) (ledger.Fact, error)) (Statement, error) {
	return Statement{}, errors.New("not here")
}

type nobody struct{}

func (nobody) Record(context.Context, access.Decision) error { return nil }

func service(t *testing.T, store Store, clock func() time.Time) *Service {
	t.Helper()
	g, err := access.NewGuard(nobody{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewService(Config{Guard: g, Store: store, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Pages cost no counting: it is done once a minute, however many look and at what, and what is shown says when it is from.
func TestTheFleetIsCountedOnceAMinute(t *testing.T) {
	store, at := &counting{}, now
	s := service(t, store, func() time.Time { return at })
	who := access.Internal("test")
	for range 5 {
		r, err := s.Report(t.Context(), who, "pump", "")
		if err != nil || !r.AsOf.Equal(now) || len(r.Controls) != 104 {
			t.Fatalf("as of %s, %d controls, %v", r.AsOf, len(r.Controls), err)
		}
		if _, _, err := s.Get(t.Context(), who, "pump", "etsi-en-303-645", "5.3-8"); err != nil {
			t.Fatal(err)
		}
		at = at.Add(11 * time.Second)
	}
	if store.asked != 1 {
		t.Errorf("counted %d times within a minute", store.asked)
	}
	at = now.Add(time.Minute)
	if r, err := s.Report(t.Context(), who, "pump", ""); err != nil || store.asked != 2 || !r.AsOf.Equal(at) {
		t.Errorf("counted %d times, as of %s, %v", store.asked, r.AsOf, err)
	}
	for range 3 {
		if _, err := s.Report(t.Context(), who, "none", ""); fault.KindOf(err) != fault.NotFound {
			t.Errorf("a product that is not there: %v", err)
		}
	}
	if len(s.known) != 1 {
		t.Errorf("names that were made up are remembered: %d", len(s.known))
	}
}

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) set(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = at
}

// A large fleet, which takes long to count, is counted less often, and who looks meanwhile is not kept waiting.
func TestALargeFleetIsCountedLessOften(t *testing.T) {
	c := &clock{at: now}
	store := &counting{took: func() { c.set(c.now().Add(10 * time.Second)) }}
	s := service(t, store, c.now)
	report := func(after time.Duration) time.Time {
		t.Helper()
		c.set(now.Add(after))
		r, err := s.Report(t.Context(), access.Internal("test"), "pump", "")
		if err != nil {
			t.Fatal(err)
		}
		s.known["pump"].counting.Lock() // what is counted behind our back is done
		defer s.known["pump"].counting.Unlock()
		return r.AsOf
	}
	report(0)
	if at := report(199 * time.Second); store.asked != 1 || !at.Equal(now) {
		t.Errorf("counted %d times, as of %s", store.asked, at)
	}
	if at := report(200 * time.Second); store.asked != 2 || !at.Equal(now) {
		t.Errorf("kept waiting, or not counted anew: counted %d times, as of %s", store.asked, at)
	}
	if at := report(200*time.Second + tooOld); store.asked != 3 || at.Equal(now) || at.Equal(now.Add(200*time.Second)) {
		t.Errorf("what is too old is still shown: counted %d times, as of %s", store.asked, at)
	}
}

// What costs much to count is kept long, and counted anew before it is too old to be shown meanwhile.
func TestWhatIsTooOldIsNotShown(t *testing.T) {
	c := &clock{at: now}
	store := &counting{took: func() { c.set(c.now().Add(2 * time.Minute)) }}
	s := service(t, store, c.now)
	for i, want := range []struct {
		after time.Duration
		asked int
	}{{0, 1}, {keepMost - 1, 1}, {keepMost, 2}, {keepMost + tooOld, 3}} {
		c.set(now.Add(want.after))
		r, err := s.Report(t.Context(), access.Internal("test"), "pump", "")
		s.known["pump"].counting.Lock() // what is counted behind our back is done
		if err != nil || store.asked != want.asked || now.Add(want.after).Sub(r.AsOf) >= tooOld {
			t.Errorf("look %d: counted %d times, as of %s, %v", i, store.asked, r.AsOf, err)
		}
		s.known["pump"].counting.Unlock()
	}
}

func TestWhoMayNotSee(t *testing.T) {
	s := service(t, &counting{}, func() time.Time { return now })
	for what, c := range map[string]access.Caller{"nobody": {}, "a device": access.DeviceCaller("d")} {
		if _, err := s.Report(t.Context(), c, "pump", ""); fault.KindOf(err) != fault.Denied {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := s.State(t.Context(), c, "pump", "etsi-en-303-645", "5.3-3", Words{}); fault.KindOf(err) != fault.Denied {
			t.Errorf("%s states: %v", what, err)
		}
	}
}

// Every control is on a page, once, in the order of the catalogue.
func TestPagesOfControls(t *testing.T) {
	s := service(t, &counting{}, func() time.Time { return now })
	r, err := s.Report(t.Context(), access.Internal("test"), "pump", "")
	if err != nil {
		t.Fatal(err)
	}
	after, n := "", 0
	for {
		page := r.Select("", after, 10)
		if len(page) == 0 {
			break
		}
		if page[0].Key() != r.Controls[n].Key() {
			t.Fatalf("after %q comes %s", after, page[0].Key())
		}
		n += len(page)
		after = page[len(page)-1].Key()
	}
	if n != len(r.Controls) {
		t.Errorf("%d controls on pages, of %d", n, len(r.Controls))
	}
	sum := 0
	for _, f := range r.Summary {
		for _, status := range Statuses() {
			sum += f.Counts[status]
		}
	}
	met := r.Select(Met, "", 200)
	if sum != n || len(met) == 0 || len(met) != r.Summary[0].Counts[Met]+r.Summary[1].Counts[Met] {
		t.Errorf("%d counted, %d met", sum, len(met))
	}
	if len(r.Select("", "no such control", 10)) != 0 {
		t.Error("behind a control that is not there, something comes")
	}
}

// What people and devices wrote makes no headings, tables, links or HTML in a report.
func TestAReportIsInertMarkdown(t *testing.T) {
	r := Report{Product: "pump", AsOf: now, Summary: []Summary{{Framework: "f", Title: "T", Counts: Counts{Met: 1}}}, Controls: []Assessment{{
		Control: Control{Framework: "f", ID: "1", Title: "Title"}, Standing: Met, Reason: "Because.", Lacks: "nothing",
		Measured: &Judgement{
			Figures: []Figure{{"devices", 1, 2}}, Newest: now, Evidence: []Link{{Text: "a fact", Fact: &ledger.Ref{Log: ledger.Events, Index: 7}}, list("devices", "/devices", "product", "pump")},
		},
		OnFile: &Statement{Kind: Fulfilled, Text: "fine\n\n# Heading\n| a | b |\n<script>alert(1)</script> [x](http://evil)", By: "person:sue", At: now, ReviewBy: now},
	}}}
	got := r.Markdown()
	for _, bad := range []string{"\n# Heading", "<script>", "[x](", "\n| a"} {
		if strings.Contains(got, bad) {
			t.Errorf("it has %q:\n%s", bad, got)
		}
	}
	for _, want := range []string{"# How pump stands", "**Met.** Because.", "- devices: 1 of 2", "`events/7`", "`/devices?product=pump`", "Missing: nothing.", "by person:sue on 2026-11-21"} {
		if !strings.Contains(got, want) {
			t.Errorf("it has no %q:\n%s", want, got)
		}
	}
}
