package comply

import (
	"fmt"
	"net/url"
	"time"

	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Status says how a control stands. Only Met is good; what is not known is never met.
type Status string

// The statuses.
const (
	Met           Status = "met"
	NotMet        Status = "not-met"
	Unknown       Status = "unknown"
	NotApplicable Status = "not-applicable"
)

// Statuses lists them in the order in which they are counted.
func Statuses() []Status { return []Status{Met, NotMet, Unknown, NotApplicable} }

// Figure is a number behind a judgement, mostly a part of a whole.
type Figure struct {
	What string `json:"what"`
	N    int    `json:"n"`
	Of   int    `json:"of,omitempty"`
}

// Link is where a person looks for themselves: a fact in the ledger, or a list.
type Link struct {
	Text string      `json:"text"`
	Fact *ledger.Ref `json:"fact,omitempty"`
	List string      `json:"list,omitempty" doc:"page of the console, with its query"`
}

// Judgement is what evidence says of a control.
type Judgement struct {
	Status   Status    `json:"status"`
	Reason   string    `json:"reason"`
	Figures  []Figure  `json:"figures,omitempty"`
	Evidence []Link    `json:"evidence,omitempty"`
	Oldest   time.Time `json:"oldest,omitzero" doc:"of the evidence counted"`
	Newest   time.Time `json:"newest,omitzero"`
}

// Assessment is how one control of one product stands.
type Assessment struct {
	Control
	Standing Status     `json:"standing" enum:"met,not-met,unknown,not-applicable"`
	Reason   string     `json:"reason"`
	Measured *Judgement `json:"measured,omitempty" doc:"absent: Hallmark does not measure this"`
	OnFile   *Statement `json:"on_file,omitempty"`
	Lacks    string     `json:"lacks,omitempty" doc:"what a person has still to write"`
}

// assess joins what was measured with what is on file. It is the only place that makes a control met.
func assess(c Control, j *Judgement, s *Statement, now time.Time) Assessment {
	a := Assessment{Control: c, Measured: j, OnFile: s}
	if s != nil && !s.ReviewBy.After(now) {
		a.Lacks = "a new statement: the one of " + day(s.At) + " was to be reviewed by " + day(s.ReviewBy)
		s = nil
	}
	a.Standing, a.Reason = standing(c, j, s, a.Lacks)
	if c.Recommended() && a.Standing == NotMet && (s == nil || s.Kind != Rationale) {
		a.Lacks = "a rationale: a recommendation that is not followed needs one"
	} else if a.Lacks == "" && a.Standing == Unknown && s == nil && c.NeedsStatement() {
		a.Lacks = "a statement"
	}
	return a
}

func standing(c Control, j *Judgement, s *Statement, overdue string) (Status, string) {
	switch {
	case s != nil && s.Kind == Inapplicable:
		return NotApplicable, "Stated by " + s.By + ": not applicable."
	case s != nil && s.Kind == Rationale && (j == nil || j.Status != Met || c.NeedsStatement()):
		return NotMet, "Stated by " + s.By + ": this recommendation is not followed."
	case c.Evidence == Stated && s != nil:
		return Met, "Stated by " + s.By + "; Hallmark cannot measure it."
	case c.Evidence == Stated && overdue != "":
		return Unknown, "What was stated is past its review date."
	case c.Evidence == Stated:
		return Unknown, "Nobody has stated anything, and Hallmark cannot measure it."
	case j == nil:
		return Unknown, "Hallmark does not yet measure this."
	case j.Status != Met || !c.NeedsStatement() || s != nil:
		return j.Status, j.Reason
	case overdue != "":
		return Unknown, "What is measured is met, but the statement is past its review date. " + j.Reason
	}
	return Unknown, "What is measured is met, but the statement that belongs to it is not on file. " + j.Reason
}

// evaluator judges a control by a snapshot. What it says is good for as long as fresh.
type evaluator struct {
	judge func(Snapshot) Judgement
	fresh time.Duration
}

// measure asks the evaluator, and does not believe it when its evidence is old or is not there.
func (e evaluator) measure(s Snapshot) *Judgement {
	j := e.judge(s)
	switch {
	case j.Status == Unknown:
	case j.Status != Met && j.Status != NotMet:
		j.Status, j.Reason = Unknown, "The evaluation gave no answer."
	case j.Newest.IsZero():
		j.Status, j.Reason = Unknown, "There is no evidence of when this was so."
	case s.At.Sub(j.Newest) > e.fresh:
		j.Status, j.Reason = Unknown, fmt.Sprintf("The newest evidence is of %s; what is older than %s says nothing of today.", day(j.Newest), span(e.fresh))
	}
	return &j
}

// justified judges the control that asks for a reason wherever a recommendation is not followed (EN 303 645, 5.0-1).
func justified(all []Assessment, at time.Time) *Judgement {
	var lacking, open, reasoned int
	for _, a := range all {
		switch {
		case !a.Recommended():
		case a.Standing == NotMet && a.Lacks != "":
			lacking++
		case a.Standing == NotMet, a.Standing == NotApplicable:
			reasoned++
		case a.Standing == Unknown:
			open++
		}
	}
	j := Judgement{Oldest: at, Newest: at, Figures: []Figure{
		{What: "recommendations not followed, with a reason", N: reasoned},
		{What: "recommendations not followed, without", N: lacking},
		{What: "recommendations nobody knows of", N: open},
	}}
	switch {
	case lacking > 0:
		j.Status, j.Reason = NotMet, fleet.Count(lacking, "recommendation is", "recommendations are")+" not followed, and nobody has said why."
	case open > 0:
		j.Status, j.Reason = Unknown, fleet.Count(open, "recommendation", "recommendations")+" may or may not be followed: nobody knows."
	default:
		j.Status, j.Reason = Met, "Each recommendation that is not followed has its reason on file."
	}
	return &j
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func span(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		if d == 24*time.Hour {
			return "a day"
		}
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.String()
}

// list links a page of the console; pairs are its query.
func list(text, page string, pairs ...string) Link {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	if len(v) > 0 {
		page += "?" + v.Encode()
	}
	return Link{Text: text, List: page}
}

// fact links a fact, if there is one.
func fact(text string, ref *ledger.Ref) []Link {
	if ref == nil {
		return nil
	}
	return []Link{{Text: text, Fact: ref}}
}
