// Package watch follows both logs of an instance and names what should not be in them.
//
// Over all stages. Witnesses see that a log is only ever added to; what is added is nobody's concern of theirs. A watcher reads every
// entry: it knows from a policy, and from the log's own past, who may sign a release, which authorities there are, that no device has a
// certificate before it was made. So whoever owns the server and its keys cannot act unseen. It judges nothing that it has not verified
// to be under a checkpoint which the log signed and a quorum of witnesses cosigned; it trusts the keys and the policy it is given, and
// nobody who serves files. Rules are functions of an entry and of what was remembered of those before it.
package watch

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
)

// Severity says how soon a person should look.
type Severity string

// The severities.
const (
	Info     Severity = "info"
	Low      Severity = "low"
	Medium   Severity = "medium"
	High     Severity = "high"
	Critical Severity = "critical"
)

// Alert is one thing that should not be.
type Alert struct {
	ID       string      `json:"id"` // the same for the same thing, whenever and by whomever it is found
	At       time.Time   `json:"at"` // of the entry, or when it was found
	Severity Severity    `json:"severity"`
	Rule     string      `json:"rule"`
	Log      ledger.Log  `json:"log"`
	Index    *uint64     `json:"index,omitempty"` // of the entry; none when it is about the log itself
	Kind     ledger.Kind `json:"kind,omitempty"`
	Actor    string      `json:"actor,omitempty"`
	Subject  string      `json:"subject,omitempty"`
	What     string      `json:"what"`
	Do       string      `json:"do"`
	Over     bool        `json:"over,omitempty"` // what was told of a log is over
}

// Notice is an alert with what proves it to others.
type Notice struct {
	Alert Alert      `json:"alert"`
	Log   ledger.Log `json:"log"`
	Index *uint64    `json:"index,omitempty"`
	Entry []byte     `json:"entry,omitempty"` // whose hash is the leaf
	Proof string     `json:"proof,omitempty"` // c2sp.org/tlog-proof, with the cosigned checkpoint
	// Of a log that forked or shrank: the checkpoint that was kept, and the one that was shown then.
	Kept  string `json:"kept,omitempty"`
	Shown string `json:"shown,omitempty"`
}

// String is the alert in a line.
func (a Alert) String() string {
	where := string(a.Log)
	if a.Index != nil {
		where = fmt.Sprintf("%s/%d", a.Log, *a.Index)
	}
	if a.Subject != "" {
		where += " " + a.Subject
	}
	if a.Over {
		return fmt.Sprintf("%s over %s %s: %s", a.At.UTC().Format(time.RFC3339), a.Rule, where, a.What)
	}
	return fmt.Sprintf("%s %s %s %s: %s; %s", a.At.UTC().Format(time.RFC3339), a.Severity, a.Rule, where, a.What, a.Do)
}

// alertID names a thing by what it is about.
func alertID(parts ...any) string {
	sum := sha256.Sum256(fmt.Appendln([]byte("hallmark-alert-1 "), parts...))
	return hex.EncodeToString(sum[:16])
}

// Judge judges entries in the order of their logs.
type Judge struct {
	policy Policy
	memory *Memory
}

// NewJudge makes a judge that goes on from what memory holds; nil is the beginning of the logs.
func NewJudge(p Policy, m *Memory) *Judge {
	if m == nil {
		m = NewMemory()
	}
	m.Policy = p.Digest()
	return &Judge{policy: p, memory: m}
}

// Memory is what it remembers.
func (j *Judge) Memory() *Memory { return j.memory }

// Entry judges the next entry of a log, which has been verified to be there. Witnesses had seen it at the time seen.
func (j *Judge) Entry(ref ledger.Ref, entry []byte, seen time.Time) []Alert {
	l := read(ref, entry, seen)
	wrong := map[string]bool{}
	var out []Alert
	for _, r := range rules {
		if r.judge == nil || !r.about(l) {
			continue
		}
		what := r.judge(j.memory, j.policy, l)
		if what == "" {
			continue
		}
		wrong[r.Name] = true
		if j.policy.isOff(r.Name) {
			continue
		}
		out = append(out, alertOf(r.Name, l, entry, what))
	}
	j.memory.learn(j.policy, l, wrong)
	return out
}

// alertOf is the alert that an entry breaks a rule.
func alertOf(rule string, l *line, entry []byte, what string) Alert {
	r := rules[slices.IndexFunc(rules, func(r Rule) bool { return r.Name == rule })]
	at := l.at
	if l.err != nil && at.IsZero() {
		at = l.seen
	}
	return Alert{
		ID: alertID(rule, l.Log, l.Index, sha256.Sum256(entry)), At: at.UTC(), Severity: r.Severity, Rule: rule, Log: l.Log,
		Index: &l.Index, Kind: l.kind, Actor: l.fact.Actor, Subject: l.fact.Subject, What: what, Do: r.Do,
	}
}
