package rollout

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/window"
)

// Mark is where a device of a rollout stands, as it is kept and counted.
type Mark string

// The marks while waves go on.
const (
	Queued  Mark = "queued"  // not told yet
	Held    Mark = "held"    // another rollout has it
	Awaited Mark = "waiting" // told
	Proving Mark = "proving" // was good when the soak began, and has to show it once more
	Well    Mark = "good"
	Worded  Mark = "good-by-word" // nothing but its own word says so
	Erred   Mark = "error"        // said no, fell back, or is bad with it
	Missed  Mark = "no-show"      // did not show in time that it is good
	Waived  Mark = "declined"     // somebody beside it did not agree
	Gone    Mark = "left"         // its end was decided, or it is not where the rollout is
)

// The marks after a halt.
const (
	Settled  Mark = "settled"     // it does not run the release
	Returned Mark = "rolled-back" // it went back by command
	Returns  Mark = "to-return"   // it runs the release and is to be sent back
	Moving   Mark = "moving"      // it may yet change, by itself or by command
	Stranded Mark = "stranded"    // it runs the release and stays there
)

// Class is how the gate sees a device.
type Class string

// The classes. Only Good lets a wave pass; what is not known is Waiting, and Failed after the deadline.
const (
	Waiting Class = "waiting"
	Good    Class = "good"
	Failed  Class = "failed"
	Left    Class = "left"
)

// Class gives the class of a mark. After a halt, Failed is who stays with what was halted, and Left who does not run it any more.
func (k Mark) Class() Class {
	switch k {
	case Well, Worded:
		return Good
	case Erred, Missed, Stranded:
		return Failed
	case Gone, Waived, Settled, Returned:
		return Left
	default:
		return Waiting
	}
}

// Tally is how many devices of each wave have which mark.
type Tally map[int]map[Mark]int

// Add counts devices.
func (t Tally) Add(wave int, k Mark, n int) {
	if t[wave] == nil {
		t[wave] = map[Mark]int{}
	}
	t[wave][k] += n
}

// Counts gives the waves from and to, and those between, in numbers.
func (t Tally) Counts(from, to int) (c Counts) {
	for wave, marks := range t {
		if wave < from || wave > to {
			continue
		}
		for k, n := range marks {
			c.add(k, n)
		}
	}
	return c
}

// plus adds what became of the devices of waves that have passed.
func (c Counts) plus(o Counts) Counts {
	c.Devices, c.Good, c.ByWord = c.Devices+o.Devices, c.Good+o.Good, c.ByWord+o.ByWord
	c.Failed, c.NoShows, c.Left, c.Declined = c.Failed+o.Failed, c.NoShows+o.NoShows, c.Left+o.Left, c.Declined+o.Declined
	return c
}

func (c *Counts) add(k Mark, n int) {
	if k == Held {
		c.Held += n
		return // it is of the rollout that has it
	}
	c.Devices += n
	switch k {
	case Well:
		c.Good += n
	case Worded:
		c.Good += n
		c.ByWord += n
	case Queued:
		c.Untold += n
		c.Waiting += n
	case Awaited, Proving:
		c.Waiting += n
	case Missed:
		c.NoShows += n
		c.Failed += n
	case Erred, Settled:
		c.Failed += n
	case Gone:
		c.Left += n
	case Waived:
		c.Declined += n
	case Returned:
		c.Returned += n
	case Stranded:
		c.Stranded += n
	case Returns, Moving:
		c.Unknown += n
	case Held:
	}
}

// contraindicated is the EAR status (draft-ietf-rats-ear) that speaks against a device at once.
const contraindicated = "contraindicated"

// Moment is the time of a decision, and what silence is at that time.
type Moment struct {
	Now     time.Time
	Since   time.Time     // since when devices are listened to: what was not heard before is not their silence
	Contact time.Duration // how long a device may be unheard of in a wave that does not say
}

// contact is how long a device of a wave may be unheard of.
func (m Moment) contact(rule Wave) time.Duration {
	if rule.Contact > 0 {
		return rule.Contact.D()
	}
	return m.Contact
}

// MarkOf gives a device's mark and why, as Decide wants it.
func MarkOf(m Moment, r Rollout, backs Ways, s Status) (Mark, string) {
	if r.Halted.IsZero() {
		return gate(m, r, s)
	}
	return whereBack(m, r, backs, s), ""
}

// Judge classes a device of a wave. Good is who runs the release, confirmed it, says so now and has proven it; when the soak
// is over, who has said and proven it since the soak began.
func Judge(m Moment, r Rollout, s Status) (Class, string) {
	mark, why := gate(m, r, s)
	return mark.Class(), why
}

func gate(m Moment, r Rollout, s Status) (Mark, string) {
	mark, why := judge(m, r, s)
	if mark.Class() != Good || !again(m, r, s) {
		return mark, why
	}
	const unproven = "has not proven it since the soak began"
	if until := proofUntil(m, r, s); !until.IsZero() && !m.Now.Before(until) {
		return Missed, unproven
	}
	return Proving, unproven
}

// proofUntil is when a device that was asked for proof after the soak has to have given it; zero: nobody asked.
func proofUntil(m Moment, r Rollout, s Status) time.Time {
	w := r.Waves[s.Wave-1]
	if w.Asked.IsZero() {
		return time.Time{}
	}
	return later(deadline(r, s), later(w.Asked, m.Since).Add(m.contact(r.Spec.Waves[w.Rule])))
}

// again reports whether a device that was good when the soak began has still to show that it is, now that the soak is over. Silence does
// not show it, and evidence from before the soak does not either. A wave without a soak asks for nothing twice.
func again(m Moment, r Rollout, s Status) bool {
	w := r.Waves[s.Wave-1]
	rule := r.Spec.Waves[w.Rule]
	if w.SoakFrom.IsZero() || rule.Soak == 0 || m.Now.Sub(w.SoakFrom) < rule.Soak.D() {
		return false
	}
	showed := s.VerdictAt
	if byWord(s) { // that it calls says nothing of what it runs
		showed = s.Said
	}
	return !s.Seen.After(w.SoakFrom) || m.Now.Sub(s.Seen) > m.contact(rule) || !showed.After(w.SoakFrom)
}

// deadline is when a device that is not good has failed; where it may put it off, or waits for its hours, it counts from their end.
func deadline(r Rollout, s Status) time.Time {
	w := r.Waves[s.Wave-1]
	from := r.tranche(s).At.Add(r.Spec.Grace.D())
	if r.Spec.Window != nil {
		_, from = r.Spec.Window.Next(from, s.Zone)
	}
	return from.Add(r.Spec.Waves[w.Rule].Deadline.D() + w.Away.D())
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func judge(m Moment, r Rollout, s Status) (Mark, string) {
	mark, why := judgeStep(m, r, s)
	if t := r.tranche(s); len(t.Release) > 0 && (mark == Awaited || mark == Erred || mark == Missed) {
		why = "on its way over " + t.Version + ": " + why
	}
	return mark, why
}

// judgeStep judges a device by what it was told last: a stepping stone, or the release.
func judgeStep(m Moment, r Rollout, s Status) (Mark, string) {
	late := func(why string) (Mark, string) {
		if m.Now.Before(deadline(r, s)) {
			return Awaited, why
		}
		return Missed, "deadline: " + why
	}
	switch {
	case gone(s.State):
		return Gone, string(s.State)
	case s.Holder != "":
		return Held, "rollout " + s.Holder + " has it"
	case s.Closed, s.Strayed && s.Install.Standing == "":
		return Gone, "has left the group of the rollout, and was not told"
	case s.Tranche == 0:
		return Queued, "not told yet"
	}
	t := r.tranche(s)
	if t.Lost != "" {
		return Missed, t.Lost
	}
	switch standing := s.Install.standing(m.Now); standing {
	case device.Refused, device.Failed:
		if s.Install.Code == wire.CodeDeclined {
			return Waived, declined
		}
		return Erred, string(standing)
	case device.Cancelled, device.Expired:
		return Missed, string(standing)
	case device.Done:
	case device.Pending, device.Delivered:
		if w := s.Waits; w != nil && standing == device.Delivered {
			return late(w.Text())
		}
		if h := r.Spec.Window; h != nil && !slices.Contains(t.Kept, wire.KnowsWindow) && !h.Open(m.Now, s.Zone) {
			opens, _ := h.Next(m.Now, s.Zone)
			return late(string(standing) + ": its window opens " + opens.Format("2006-01-02 15:04 -07:00"))
		}
		return late(string(standing))
	default:
		return late("not told")
	}
	switch wants := r.Brings(t); {
	case !bytes.Equal(s.Running, wants):
		return late("does not run it")
	case s.Trial:
		return late("on trial")
	case ill(t, s) != "":
		return Erred, ill(t, s)
	case s.Health != Healthy || !s.Seen.After(t.At):
		return late("health unknown")
	case byWord(s): // it gives no evidence
	case !wire.Acceptable(s.Verdict) || !s.VerdictAt.After(t.At) || !bytes.Equal(s.Proven, wants):
		return late("not proven")
	}
	switch {
	case len(t.Release) > 0 && s.Strayed:
		return Gone, "has left the group of the rollout, and is told no more"
	case len(t.Release) > 0: // it showed once that it is good there, and does not stay
		return Queued, "good with " + t.Version + ", and not told what comes next"
	}
	if m.Now.Sub(later(s.Seen, m.Since)) > m.contact(r.Spec.Waves[r.Waves[s.Wave-1].Rule]) {
		return late("silent: last heard of at " + s.Seen.UTC().Format(time.RFC3339))
	}
	if byWord(s) {
		return Worded, "by its own word"
	}
	return Well, ""
}

const declined = "declined: somebody beside it did not agree"

// keeps is what of the rollout's window and manner a device can keep to itself, by the words in which it says so. Of a window it has to say where it is.
func (s Spec) keeps(d Candidate) (words []string) {
	if s.Manner != wire.Forced && slices.Contains(d.Knows, wire.KnowsManner) {
		words = append(words, wire.KnowsManner)
	}
	if _, err := window.Zone(d.Zone); err == nil && d.Zone != "" && s.Window != nil && slices.Contains(d.Knows, wire.KnowsWindow) {
		words = append(words, wire.KnowsWindow)
	}
	return words
}

// MannerText says in words what has to be before a device takes a release.
func MannerText(s Spec) string {
	switch s.Manner {
	case wire.Soft:
		return fmt.Sprintf("soft: a device that is busy puts it off, for %s at most", s.Grace.Text())
	case wire.Consent:
		return "consent: a device takes it when somebody beside it agreed"
	case wire.Forced:
	}
	return "forced"
}

// ill says what speaks against a device since it was told; empty: nothing does.
func ill(t Tranche, s Status) string {
	switch {
	case s.Health == Unhealthy && s.Seen.After(t.At):
		return "unhealthy"
	case s.Verdict == contraindicated && s.VerdictAt.After(t.At):
		return contraindicated
	}
	return ""
}

// byWord reports whether nothing but a device's own word says what it runs.
func byWord(s Status) bool { return s.Assurance == device.Says }

// gone reports whether a device's end has been decided: it is neither a failure of the release nor a proof of it.
func gone(s device.State) bool { return s == device.Decommissioning || device.Ended(s) }

// restarts is how long after its success a client of another update system may say what it ran before: it has not restarted yet.
const restarts = 10 * time.Minute

// whereBack is where a device is after a halt.
func whereBack(m Moment, r Rollout, backs Ways, s Status) Mark {
	t := r.tranche(s)
	onStone := len(t.Release) > 0 && bytes.Equal(s.Running, t.Release)
	runs := bytes.Equal(s.Running, r.Spec.Release) || onStone
	switch {
	case gone(s.State):
		return Gone
	case s.Holder != "":
		return Held
	case s.Tranche == 0:
		return Settled // never told: what it runs it has from others
	case s.Back.Command != "":
		return afterOrder(m.Now, s, runs)
	case runs && s.Trial:
		return Moving // it confirms it or falls back by itself
	case onStone && ill(t, s) == "":
		return onItsWay(m, r, s)
	case runs:
		if _, ok := backs.target(r.Spec, s); !ok {
			return Stranded
		}
		return Returns
	case s.Install.Attempts == 0:
		return Settled // it never got to know
	case len(s.Running) == 0:
		return Moving // told, and nobody knows what it runs
	case s.Install.Standing == device.Refused && s.Install.Code == wire.CodeDeclined:
		return Waived
	case s.Install.Standing == device.Refused || s.Install.Standing == device.Failed:
		return Settled
	case s.Install.Standing == device.Done && byWord(s) && s.Said.Sub(s.Install.At) < restarts:
		return Moving // such clients are done before they restart
	case s.Install.Standing == device.Done && s.Seen.After(r.Halted):
		return Settled // it had it, and fell back
	}
	return Moving // told, and no result: it may still be at it
}

// onItsWay is where a device is after a halt that runs a stepping stone, and is not ill with it: it stays there when it was found good. To be sent back would
// bar it from what it has to be taken over again.
func onItsWay(m Moment, r Rollout, s Status) Mark {
	if mark, _ := judge(m, r, s); mark == Queued {
		return Settled
	}
	return Moving
}

func afterOrder(now time.Time, s Status, runs bool) Mark {
	switch s.Back.standing(now) {
	case device.Done:
		if runs {
			return Moving // the result is here, the next check-in is not
		}
		return Returned
	case device.Refused, device.Failed, device.Cancelled, device.Expired:
		if runs {
			return Stranded
		}
		return Settled
	case device.Pending, device.Delivered:
	}
	return Moving
}

// grain is what times are kept to.
const grain = time.Millisecond

// DueOf is when a device's mark may change by time alone, at the earliest; zero: never. The soak's end is none of it: then the rollout turns.
func DueOf(m Moment, r Rollout, s Status) (due time.Time) {
	at := []time.Time{s.Install.Expires, s.Back.Expires}
	if r.Halted.IsZero() && s.Tranche > 0 {
		contact := m.contact(r.Spec.Waves[r.Waves[s.Wave-1].Rule]) + grain
		at = append(at, deadline(r, s), s.Seen.Add(contact), later(s.Seen, m.Since).Add(contact), proofUntil(m, r, s))
	}
	for _, t := range at {
		if t.After(m.Now) && (due.IsZero() || t.Before(due)) {
			due = t
		}
	}
	return due
}

// Whole tallies devices as they are, without what was kept of them: what is kept has to come to the same.
func Whole(m Moment, r Rollout, backs Ways, snap []Status) Tally {
	t := Tally{}
	for _, s := range snap {
		mark, _ := MarkOf(m, r, backs, s)
		t.Add(s.Wave, mark, 1)
	}
	return t
}
