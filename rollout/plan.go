package rollout

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/wire"
)

// Kind is what is decided.
type Kind string

// The decisions.
const (
	StartWave   Kind = "start-wave"   // command Devices to install
	BeginSoak   Kind = "begin-soak"   // nobody is waited for any more
	BreakSoak   Kind = "break-soak"   // a device that was good is not
	AskProof    Kind = "ask-proof"    // the soak is over: command Devices to show once more that they are good
	PassWave    Kind = "pass-wave"    // the gate is open
	Complete    Kind = "complete"     // that was the last
	Halt        Kind = "halt"         // too many failures
	Cancel      Kind = "cancel"       // the wave's command, for whom it has not reached
	SendBack    Kind = "send-back"    // command Devices to roll back to Release
	CancelBack  Kind = "cancel-back"  // a SendBack's command, for whom it has not reached
	EndRollback Kind = "end-rollback" // all that can be back is back
	EndAbort    Kind = "end-abort"
)

// Decision is one step of a rollout.
type Decision struct {
	Kind    Kind
	Wave    int
	Devices []string  // whom a command is for; of a Halt, who failed
	Release []byte    // of SendBack: where to
	Command string    // of Cancel and CancelBack; of StartWave: issued before a crash, not to be issued again; empty: to be issued
	Issued  time.Time // of Command
	Reason  string
	Counts  Counts
}

// Class is how the gate sees a device.
type Class int

// The classes. Only Good lets a wave pass; what is not known is Waiting, and Failed after the deadline.
const (
	Waiting Class = iota
	Good
	Failed
	Left
)

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

// Judge classes a device of the current wave. Good is who runs the release, confirmed it, says so now and has proven it; when the soak
// is over, who has said and proven it since the soak began.
func Judge(m Moment, r Rollout, s Status) (Class, string) {
	class, why := judge(m, r, s)
	if class != Good || !again(m, r, s) {
		return class, why
	}
	w := r.Waves[r.Wave-1]
	const unproven = "has not proven it since the soak began"
	if until := later(deadline(r), later(w.Asked, m.Since).Add(m.contact(r.Spec.Waves[w.Rule]))); !w.Asked.IsZero() && !m.Now.Before(until) {
		return Failed, unproven
	}
	return Waiting, unproven
}

// again reports whether a device that was good when the soak began has still to show that it is, now that the soak is over. Silence does
// not show it, and evidence from before the soak does not either. A wave without a soak asks for nothing twice.
func again(m Moment, r Rollout, s Status) bool {
	w := r.Waves[r.Wave-1]
	rule := r.Spec.Waves[w.Rule]
	if w.SoakFrom.IsZero() || rule.Soak == 0 || m.Now.Sub(w.SoakFrom) < rule.Soak.D() {
		return false
	}
	return !s.Seen.After(w.SoakFrom) || m.Now.Sub(s.Seen) > m.contact(rule) || !byWord(s) && !s.VerdictAt.After(w.SoakFrom)
}

// deadline is when those of the current wave who are not good have failed.
func deadline(r Rollout) time.Time {
	w := r.Waves[r.Wave-1]
	return w.Started.Add(r.Spec.Waves[w.Rule].Deadline.D())
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func judge(m Moment, r Rollout, s Status) (Class, string) {
	w := r.Waves[r.Wave-1]
	late := func(why string) (Class, string) {
		if m.Now.Before(deadline(r)) {
			return Waiting, why
		}
		return Failed, "deadline: " + why
	}
	if gone(s.State) {
		return Left, string(s.State)
	}
	switch standing := s.Install.standing(m.Now); standing {
	case device.Refused, device.Failed, device.Cancelled, device.Expired:
		return Failed, string(standing)
	case device.Done:
	case device.Pending, device.Delivered:
		return late(string(standing))
	default:
		return late("not told")
	}
	switch {
	case !bytes.Equal(s.Running, r.Spec.Release):
		return late("does not run it")
	case s.Trial:
		return late("on trial")
	case s.Health == Unhealthy && s.Seen.After(w.Started):
		return Failed, "unhealthy"
	case s.Verdict == contraindicated && s.VerdictAt.After(w.Started):
		return Failed, contraindicated
	case s.Health != Healthy || !s.Seen.After(w.Started):
		return late("health unknown")
	case byWord(s): // it gives no evidence
	case !wire.Acceptable(s.Verdict) || !s.VerdictAt.After(w.Started) || !bytes.Equal(s.Proven, r.Spec.Release):
		return late("not proven")
	}
	if m.Now.Sub(later(s.Seen, m.Since)) > m.contact(r.Spec.Waves[w.Rule]) {
		return late("silent: last heard of at " + s.Seen.UTC().Format(time.RFC3339))
	}
	if byWord(s) {
		return Good, "by its own word"
	}
	return Good, ""
}

// byWord reports whether nothing but a device's own word says what it runs.
func byWord(s Status) bool { return s.Assurance == device.Says }

// gone reports whether a device's end has been decided: it is neither a failure of the release nor a proof of it.
func gone(s device.State) bool { return s == device.Decommissioning || device.Ended(s) }

// Cap is the number of failures a wave of n devices bears.
func (w Wave) Cap(n int) int {
	rate := w.MaxFailuresRate * n / 100
	switch {
	case w.MaxFailuresRate == 0:
		return w.MaxFailures
	case w.MaxFailures == 0:
		return rate
	}
	return min(rate, w.MaxFailures)
}

// Plan gives the next decisions, in the order they are to be done: at most one changes the phase or the wave, and it is the
// last. snap is of the devices of the waves that the rollout watches. Nothing to do gives nil.
func Plan(m Moment, r Rollout, bad wire.Release, snap []Status) []Decision {
	if r.Wave < 1 || r.Wave > len(r.Waves) {
		return nil
	}
	switch r.Phase {
	case Running, Paused:
		return planWave(m, r, snap)
	case Halted:
		return planBack(m.Now, r, bad, snap)
	case Aborting:
		return append(planCancel(r, snap), planStay(m.Now, r, snap, Decision{Kind: EndAbort, Wave: r.Wave})...)
	case Created, RolledBack, Aborted, Completed:
	}
	return nil
}

func planWave(m Moment, r Rollout, snap []Status) []Decision {
	w, rule := r.Waves[r.Wave-1], r.Spec.Waves[r.Waves[r.Wave-1].Rule]
	one := func(d Decision) []Decision { d.Wave = r.Wave; return []Decision{d} }
	if !w.Succeeded.IsZero() { // the last wave; a middle one moves on when it passes
		return one(Decision{Kind: Complete})
	}
	if w.Started.IsZero() {
		return planStart(r, snap)
	}
	counts, failed, proving := tally(m, r, snap)
	limit := rule.Cap(w.Devices)
	switch {
	case counts.Failed > limit:
		return one(Decision{
			Kind: Halt, Devices: failed, Counts: counts,
			Reason: fmt.Sprintf("wave %d: %d of %d devices failed, at most %d may", r.Wave, counts.Failed, counts.Devices, limit),
		})
	case counts.Waiting == 0 && counts.Good == 0 && counts.Failed > 0:
		return one(Decision{Kind: Halt, Devices: failed, Counts: counts, Reason: fmt.Sprintf("wave %d: no device is good", r.Wave)})
	case counts.Waiting > len(proving) && !w.SoakFrom.IsZero():
		return one(Decision{Kind: BreakSoak, Counts: counts})
	case counts.Waiting > len(proving):
		return nil
	case w.SoakFrom.IsZero():
		return one(Decision{Kind: BeginSoak, Counts: counts})
	case m.Now.Sub(w.SoakFrom) < rule.Soak.D():
		return nil
	case len(proving) > 0 && w.Asked.IsZero():
		return one(Decision{Kind: AskProof, Devices: proving, Reason: "the soak is over", Counts: counts})
	case len(proving) > 0:
		return nil
	}
	return one(Decision{Kind: PassWave, Counts: counts})
}

// commanded finds the current wave's command: what is recorded, or what was issued before a crash, or before somebody turned the rollout,
// kept it from being recorded.
func commanded(r Rollout, snap []Status) (id string, at time.Time) {
	w := r.Waves[r.Wave-1]
	if w.Command != "" {
		return w.Command, w.Started
	}
	for _, s := range snap {
		if s.Wave == r.Wave && s.Install.Command != "" {
			return s.Install.Command, s.Install.Issued
		}
	}
	return "", time.Time{}
}

// planCancel ends the current wave's command, if there is one.
func planCancel(r Rollout, snap []Status) []Decision {
	id, at := commanded(r, snap)
	if id == "" || r.Waves[r.Wave-1].Cancelled {
		return nil
	}
	return []Decision{{Kind: Cancel, Wave: r.Wave, Command: id, Issued: at, Reason: r.Reason}}
}

// planStay ends a rollout that was halted: who is still to be sent back is not any more, for what has ended tells nobody anything.
func planStay(now time.Time, r Rollout, snap []Status, end Decision) []Decision {
	open := map[string]bool{}
	for _, s := range snap {
		if st := s.Back.standing(now); s.Back.Command != "" && (st == device.Pending || st == device.Delivered) {
			open[s.Back.Command] = true
		}
	}
	var out []Decision
	for _, id := range slices.Sorted(maps.Keys(open)) {
		out = append(out, Decision{Kind: CancelBack, Wave: r.Wave, Command: id, Reason: r.Reason})
	}
	return append(out, end)
}

func planStart(r Rollout, snap []Status) []Decision {
	d := Decision{Kind: StartWave, Wave: r.Wave, Counts: Counts{Devices: len(snap)}}
	if d.Command, d.Issued = commanded(r, snap); d.Command == "" && r.Phase != Running {
		return nil // a pause lets no wave go; one that was told before is under way
	}
	for _, s := range snap {
		if gone(s.State) {
			d.Counts.Left++
			continue
		}
		d.Devices = append(d.Devices, s.Device)
		d.Counts.Waiting++
	}
	if len(d.Devices) == 0 && d.Command == "" {
		d.Kind = PassWave
	}
	return []Decision{d}
}

// tally counts the wave. Who is proving is waiting, for something that does not break the soak.
func tally(m Moment, r Rollout, snap []Status) (c Counts, failed, proving []string) {
	c.Devices = len(snap)
	for _, s := range snap {
		switch class, _ := Judge(m, r, s); class {
		case Good:
			c.Good++
			if byWord(s) {
				c.ByWord++
			}
		case Waiting:
			c.Waiting++
			if was, _ := judge(m, r, s); was == Good {
				proving = append(proving, s.Device)
			}
		case Failed:
			c.Failed++
			failed = append(failed, s.Device)
		case Left:
			c.Left++
		}
	}
	return c, failed, proving
}

// back is where a device is after a halt.
type back int

const (
	settled  back = iota // it does not run the release
	returned             // it went back by command
	confirms             // it runs the release and is to be sent back
	underway             // it may yet change by itself or by command
	stranded             // it runs the release and stays there
	unclear              // nobody knows what it runs
	departed
)

func planBack(now time.Time, r Rollout, bad wire.Release, snap []Status) []Decision {
	w := r.Waves[r.Wave-1]
	out := planCancel(r, snap)
	over := !now.Before(r.Halted.Add(r.Spec.Waves[w.Rule].Deadline.D()))
	groups := map[string][]string{}
	c, open := Counts{Devices: len(snap)}, false
	for _, s := range snap {
		switch stand, to := whereBack(now, r, bad, s); stand {
		case confirms:
			groups[string(to)] = append(groups[string(to)], s.Device)
		case returned:
			c.Returned++
		case stranded:
			c.Stranded++
		case underway:
			open = true
			c.Unknown++
		case unclear:
			open = open || s.Install.Attempts > 0
			c.Unknown++
		case departed:
			c.Left++
		case settled:
			c.Failed++
		}
	}
	for _, to := range slices.Sorted(maps.Keys(groups)) {
		out = append(out, Decision{Kind: SendBack, Wave: r.Wave, Devices: groups[to], Release: []byte(to), Reason: r.Reason})
	}
	if len(groups) == 0 && (!open || over) {
		out = append(out, planStay(now, r, snap, Decision{Kind: EndRollback, Wave: r.Wave, Counts: c})...)
	}
	return out
}

func whereBack(now time.Time, r Rollout, bad wire.Release, s Status) (back, []byte) {
	runs := bytes.Equal(s.Running, r.Spec.Release)
	switch {
	case gone(s.State):
		return departed, nil
	case s.Back.Command != "":
		return afterOrder(now, s, runs), nil
	case runs && s.Trial:
		return underway, nil // it confirms it or falls back by itself
	case runs:
		to, ok := target(r.Spec, bad, s.Previous)
		if !ok {
			return stranded, nil
		}
		return confirms, to
	case s.Install.Attempts == 0:
		return settled, nil // never told
	case len(s.Running) == 0:
		return unclear, nil
	case s.Install.Standing == device.Refused || s.Install.Standing == device.Failed:
		return settled, nil
	case s.Install.Standing == device.Done && s.Seen.After(r.Halted):
		return settled, nil // it had it, and fell back
	}
	return underway, nil // told, and no result: it may still be at it
}

func afterOrder(now time.Time, s Status, runs bool) back {
	switch s.Back.standing(now) {
	case device.Done:
		if runs {
			return underway // the result is here, the next check-in is not
		}
		return returned
	case device.Refused, device.Failed, device.Cancelled, device.Expired:
		if runs {
			return stranded
		}
		return settled
	case device.Pending, device.Delivered:
	}
	return underway
}

// Apply gives the rollout after d was done at now; command is the ID of the command a StartWave issued.
func Apply(now time.Time, r Rollout, d Decision, command string) Rollout {
	r.Waves = slices.Clone(r.Waves)
	w := &r.Waves[r.Wave-1]
	if d.Counts != (Counts{}) {
		r.Last = d.Counts
	}
	switch d.Kind {
	case StartWave:
		w.Started, w.Command = now, command
		if d.Command != "" {
			w.Started, w.Command = d.Issued, d.Command
		}
	case BeginSoak:
		w.SoakFrom = now
	case BreakSoak:
		w.SoakFrom, w.Asked = time.Time{}, time.Time{}
	case AskProof:
		w.Asked = now
	case PassWave:
		w.Succeeded = now
		if r.Wave < len(r.Waves) {
			r.Wave++
		}
	case Complete:
		r.Phase, r.Ended = Completed, now
	case Halt:
		r.Phase, r.Halted, r.Reason = Halted, now, d.Reason
	case Cancel:
		w.Started, w.Command, w.Cancelled = d.Issued, d.Command, true
	case SendBack, CancelBack: // the commands tell of it
	case EndRollback:
		r.Phase, r.Ended = RolledBack, now
	case EndAbort:
		r.Phase, r.Ended = Aborted, now
	}
	return r
}
