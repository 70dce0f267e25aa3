package custody

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/audit"
	"github.com/hallmark-iot/hallmark/wire"
)

// Report is what a chain of custody shows.
type Report struct {
	Device    string   `json:"device"`
	Product   string   `json:"product"`
	Logs      []Head   `json:"logs"`
	Lines     []*Line  `json:"lines"`     // by time
	Problems  []string `json:"problems"`  // what does not hold
	Unchecked []string `json:"unchecked"` // what nobody could check with this alone

	Record  *wire.Record `json:"-"` // the production record, verified; nil: there is none
	Attest  []byte       `json:"-"` // its attestation key (SPKI) at the end of the chain; nil: unknown
	Factory []byte       `json:"-"` // its identity's certificate (DER) at the end of the chain: the factory's, or that of a voucher; nil: unknown
	Origin  string       `json:"-"` // of those keys
}

// Head is the checkpoint that all lines of a log are under.
type Head struct {
	Log ledger.Log `json:"log"`
	audit.Head
	Seen time.Time `json:"seen"` // by a quorum of witnesses
}

// Line is one fact of the chain. That it is in its log, under the witnessed checkpoint, has been verified.
type Line struct {
	ledger.Ref
	At      time.Time    `json:"at"`
	Kind    ledger.Kind  `json:"kind"`
	Actor   string       `json:"actor"`
	Subject string       `json:"subject"`
	Cause   *ledger.Ref  `json:"cause,omitempty"`    // the fact that led to it, as it says itself
	RestsOn []ledger.Ref `json:"rests_on,omitempty"` // facts that it refers to otherwise
	LedTo   []ledger.Ref `json:"led_to,omitempty"`   // facts whose Cause or RestsOn it is
	Checked string       `json:"checked,omitempty"`  // what was verified of what it says, besides its place
	Problem string       `json:"problem,omitempty"`
	Events  []Event      `json:"events,omitempty"` // of the device's own log, of the fact that anchors them
	Fact    wire.Fact    `json:"-"`
}

// Event is an event of a device's own log.
type Event struct {
	Seq   uint64      `json:"seq"`
	At    time.Time   `json:"at"` // by the device's clock
	Kind  string      `json:"kind"`
	Text  string      `json:"text,omitempty"`
	Cause *ledger.Ref `json:"cause,omitempty"`
}

// Verify checks a chain of custody by trust alone, and needs nothing and nobody else. An error says that it is not from the logs of trust,
// or was changed: then nothing in it counts. What is in the logs and still does not hold is in the report's Problems.
func Verify(c wire.Custody, trust audit.Trust) (Report, error) {
	r := Report{Device: c.Device, Problems: []string{}}
	j := judge{c: c, report: &r, at: map[ledger.Ref]*Line{}, origins: map[string]ledger.Log{}, quorum: trust.Quorum, made: newMade()}
	uids := map[string]bool{}
	for _, l := range c.Logs {
		i := slices.IndexFunc(trust.Logs, func(t audit.TrustedLog) bool { return t.Name == l.Name })
		if i < 0 {
			return r, fmt.Errorf("log %s is none of those to believe", l.Name)
		}
		head, err := open(l, trust.Policy(i))
		if err != nil {
			return r, fmt.Errorf("log %s: %w", l.Name, err)
		}
		log := ledger.Log(l.Name)
		r.Logs = append(r.Logs, Head{Log: log, Head: head, Seen: head.Seen(trust.Quorum)})
		for _, e := range l.Entries {
			f, err := wire.DecodeFact(e.Entry)
			if err != nil {
				return r, fmt.Errorf("%s entry %d: %w", log, e.Index, err)
			}
			if uids[string(f.UID)] {
				return r, fmt.Errorf("%s entry %d: fact %x is there twice", log, e.Index, f.UID)
			}
			uids[string(f.UID)] = true
			j.add(ledger.Ref{Log: log, Index: e.Index}, f)
		}
	}
	for _, t := range trust.Logs {
		j.origins[t.Origin] = ledger.Log(t.Name)
	}
	for _, l := range j.lines { // the control log first: what is in events rests on it
		j.judge(l)
	}
	j.finish()
	return r, nil
}

// open checks that the entries of a log are under a checkpoint that the policy believes.
func open(l wire.CustodyLog, p audit.Policy) (audit.Head, error) {
	head, err := audit.Checkpoint(p, []byte(l.Checkpoint))
	if err != nil {
		return head, err
	}
	root, err := l.Root()
	switch {
	case head.Size != l.Size:
		return head, fmt.Errorf("size %d, its checkpoint says %d: %w", l.Size, head.Size, wire.ErrInclusion)
	case err != nil:
		return head, fmt.Errorf("%w: %w", wire.ErrInclusion, err)
	case root != head.Root:
		return head, fmt.Errorf("the entries are not those under its checkpoint: %w", wire.ErrInclusion)
	}
	return head, nil
}

// judge is one Verify under way.
type judge struct {
	c       wire.Custody
	report  *Report
	lines   []*Line
	at      map[ledger.Ref]*Line
	origins map[string]ledger.Log
	quorum  int
	used    map[uint64]bool // memberships, by the place of their command or warrant
	made
}

func (j *judge) add(at ledger.Ref, f wire.Fact) {
	l := &Line{
		Ref: at, At: time.UnixMilli(f.At).UTC(), Kind: ledger.Kind(f.Kind), Actor: f.Actor, Subject: f.Subject, Fact: f,
	}
	if f.Cause != nil {
		l.Cause = &ledger.Ref{Log: ledger.Log(f.Cause.Log), Index: f.Cause.Index}
	}
	j.lines = append(j.lines, l)
	j.at[at] = l
}

// judge checks one line, all before it having been checked.
func (j *judge) judge(l *Line) {
	checked, err := j.check(l)
	l.Checked = checked
	if err == nil && l.Cause != nil {
		cause := j.at[*l.Cause]
		switch {
		case cause == nil:
			err = fmt.Errorf("its cause, %s, is not here", place(*l.Cause))
		case cause.Log == l.Log && cause.Index >= l.Index:
			err = fmt.Errorf("its cause, %s, comes after it", place(*l.Cause))
		}
	}
	if err != nil {
		j.problem(l, err)
	}
}

func (j *judge) problem(l *Line, err error) {
	l.Problem = err.Error()
	j.report.Problems = append(j.report.Problems, fmt.Sprintf("%s, %s: %v", place(l.Ref), l.Kind, err))
}

func place(r ledger.Ref) string { return fmt.Sprintf("%s/%d", r.Log, r.Index) }

// rests notes that l refers to the line at ref.
func (j *judge) rests(l *Line, ref ledger.Ref) {
	if !slices.Contains(l.RestsOn, ref) && (l.Cause == nil || *l.Cause != ref) {
		l.RestsOn = append(l.RestsOn, ref)
	}
}

// finish says what only the whole can say.
func (j *judge) finish() {
	r := j.report
	add := func(to *[]string, format string, args ...any) { *to = append(*to, fmt.Sprintf(format, args...)) }
	r.Product, r.Record = j.product, j.record
	if r.Factory, r.Origin = j.factory, j.origin; j.record != nil && j.factory == nil {
		r.Factory, r.Origin = j.record.Certificate, j.record.Keys.Origin
	}
	if j.attest != nil {
		r.Attest, _ = wire.SPKIOf(j.attest) // it was parsed from one
	}
	if j.record == nil {
		add(&r.Problems, "nothing here shows that device %s was made: no production record", j.c.Device)
	}
	for _, m := range j.c.Members {
		if !j.used[m.Index] {
			add(&r.Problems, "a membership is given for control/%d, which is no command or warrant that is here", m.Index)
		}
	}
	for _, l := range j.lines {
		for _, ref := range append(slices.Clone(l.RestsOn), causeOf(l)...) {
			if to := j.at[ref]; to != nil && !slices.Contains(to.LedTo, l.Ref) {
				to.LedTo = append(to.LedTo, l.Ref)
			}
		}
	}
	r.Lines = slices.Clone(j.lines)
	slices.SortStableFunc(r.Lines, func(a, b *Line) int { return cmp.Compare(a.Fact.At, b.Fact.At) })

	add(&r.Unchecked, "that nothing is left out: a proof shows what is in a log, not what is not; bound are the device's own log, its states, and the causes of what is here")
	add(&r.Unchecked, "that the witnesses are independent of each other and of the maker")
	if j.c.Left > 0 {
		add(&r.Unchecked, "%d older routine facts about the device, which the server says it left out", j.c.Left)
	}
	if j.c.Pending > 0 {
		add(&r.Unchecked, "%d facts about the device that the server says are too new to be witnessed: ask again", j.c.Pending)
	}
	if len(j.bundles) > 0 {
		add(&r.Unchecked, "the first trust bundle, which vouches for itself: compare its SHA-256 %s with what hallmark init said", hex.EncodeToString(j.bundles[0].digest[:]))
	}
	if j.record != nil && j.record.Seq > 1 {
		add(&r.Unchecked, "that production record %d of order %s follows the one before, which is of another piece", j.record.Seq, j.record.Order)
	}
	if slices.ContainsFunc(j.lines, func(l *Line) bool { return len(l.Fact.Private) > 0 }) {
		add(&r.Unchecked, "what was said in words: the logs hold commitments to it, and the words are kept beside them")
	}
	if slices.ContainsFunc(j.lines, func(l *Line) bool { return l.Kind == ledger.KindVerdict }) {
		add(&r.Unchecked, "the verdicts: they are the server's judgement, and the evidence is not in the ledger")
	}
}

// causeOf gives the causes of a line and of its events.
func causeOf(l *Line) []ledger.Ref {
	var out []ledger.Ref
	if l.Cause != nil {
		out = append(out, *l.Cause)
	}
	for _, e := range l.Events {
		if e.Cause != nil {
			out = append(out, *e.Cause)
		}
	}
	return out
}
