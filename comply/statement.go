package comply

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
)

// Kind says what a statement states.
type Kind string

// The kinds.
const (
	Fulfilled    Kind = "statement"      // how the part that a person answers for is met
	Inapplicable Kind = "not-applicable" // why the control does not apply to the product
	Rationale    Kind = "rationale"      // why a recommendation is not followed
)

// Bounds of a statement.
const (
	MaxText   = 4096
	MaxReview = 2 * 365 * 24 * time.Hour // how far ahead its review may be
)

// Statement is what a person answers for, of one control of one product. A newer one takes its place; the ledger keeps them all.
type Statement struct {
	Product   string    `json:"product"`
	Framework string    `json:"framework"`
	Control   string    `json:"control"`
	Kind      Kind      `json:"kind" enum:"statement,not-applicable,rationale"`
	Text      string    `json:"text"`
	By        string    `json:"by"`
	At        time.Time `json:"at"`
	ReviewBy  time.Time `json:"review_by"` // from then on it counts for nothing
	Rev       int64     `json:"rev"`       // 1 is the first
	Evidence  *Link     `json:"evidence,omitempty" doc:"its fact, once that has its place in the ledger"`
}

// Key names what the statement is about.
func (s Statement) Key() string { return s.Product + "/" + s.Framework + "/" + s.Control }

// Words is what a person says.
type Words struct {
	Kind     Kind      `json:"kind" enum:"statement,not-applicable,rationale"`
	Text     string    `json:"text" minLength:"1" maxLength:"4096" doc:"how it is met, why it does not apply, or why it is not followed"`
	ReviewBy time.Time `json:"review_by" doc:"from then on it counts for nothing; at most two years ahead"`
}

// state makes the statement, or says what is wrong with it.
func state(c Control, product string, caller access.Caller, w Words, now time.Time) (Statement, error) {
	s := Statement{
		Product: product, Framework: c.Framework, Control: c.ID, Kind: w.Kind, Text: strings.TrimSpace(w.Text), By: caller.ID,
		At: now.UTC().Truncate(time.Second), ReviewBy: w.ReviewBy.UTC().Truncate(time.Second),
	}
	var wrong error
	switch {
	case s.Kind != Fulfilled && s.Kind != Inapplicable && s.Kind != Rationale:
		wrong = fmt.Errorf("kind %q: it is a statement, not-applicable or a rationale", w.Kind)
	case s.Text == "" || len(s.Text) > MaxText || !utf8.ValidString(s.Text):
		wrong = fmt.Errorf("it needs a text of 1 to %d bytes of UTF-8", MaxText)
	case !s.ReviewBy.After(s.At) || s.ReviewBy.Sub(s.At) > MaxReview:
		wrong = errors.New("its review must be ahead, by two years at most")
	case s.Kind == Inapplicable && c.Always():
		wrong = errors.New("it is mandatory for every product: it cannot be not applicable")
	case s.Kind == Rationale && !c.Recommended():
		wrong = errors.New("it is mandatory: only a recommendation can be left out for a reason")
	case s.Kind == Fulfilled && !c.NeedsStatement():
		wrong = errors.New("it is measured, and a statement would add nothing")
	}
	if wrong != nil {
		return s, fault.Newf(fault.Invalid, "compliance.statement", "statement on %s: %w", c.Key(), wrong).With("correct the statement, and make it again")
	}
	return s, nil
}
