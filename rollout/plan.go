package rollout

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Kind is what is decided.
type Kind string

// The decisions.
const (
	TakeWave    Kind = "take-wave"    // find the wave's devices
	StartWave   Kind = "start-wave"   // put N devices of the wave into its first tranche
	NextTranche Kind = "next-tranche" // the same, into one more
	Issue       Kind = "issue"        // command the last tranche, or way back, that is not yet
	BeginSoak   Kind = "begin-soak"   // nobody is waited for any more
	BreakSoak   Kind = "break-soak"   // a device that was good is not
	EndSoak     Kind = "end-soak"     // its time is over
	AskProof    Kind = "ask-proof"    // command those that are Proving to show once more that they are good
	PassWave    Kind = "pass-wave"    // the gate is open
	Settle      Kind = "settle"       // that was the last, and the next is of who joins later
	Complete    Kind = "complete"     // that was the last
	Halt        Kind = "halt"         // too many failures
	Cancel      Kind = "cancel"       // the commands of all waves, for whom they have not reached
	SendBack    Kind = "send-back"    // put those that are Returns into ways back
	CancelBacks Kind = "cancel-backs" // the commands of SendBacks, for whom they have not reached
	EndRollback Kind = "end-rollback" // all that can be back is back
	EndAbort    Kind = "end-abort"
)

// Decision is one step of a rollout.
type Decision struct {
	Kind   Kind
	Wave   int
	N      int // of StartWave and NextTranche: how many
	Reason string
	Counts Counts
}

// Decide gives the next decisions, in the order they are to be done: at most one changes the phase or the wave, and it is the
// last. t is of all waves that began, as of now. Nothing to do gives nil.
func Decide(m Moment, r Rollout, t Tally) []Decision {
	if r.Wave < 1 || r.Wave > len(r.Waves) {
		return nil
	}
	switch r.Phase {
	case Running, Paused:
		if d, ok := decideWave(m, r, t); ok {
			d.Wave = r.Wave
			if d.Kind == Complete && t.Counts(1, r.Wave).Left > 0 { // whose end was decided may be taken back
				return append(cancels(r), d)
			}
			return []Decision{d}
		}
	case Halted:
		return decideBack(m.Now, r, t)
	case Aborting:
		return append(cancels(r), Decision{Kind: CancelBacks, Wave: r.Wave, Reason: r.Reason}, Decision{Kind: EndAbort, Wave: r.Wave})
	case Created, RolledBack, Aborted, Completed:
	}
	return nil
}

func decideWave(m Moment, r Rollout, t Tally) (Decision, bool) {
	w := r.Waves[r.Wave-1]
	c := t.Counts(r.Wave, r.Wave)
	last := len(w.Tranches)
	switch {
	case last > 0 && !w.Tranches[last-1].Issued:
		return Decision{Kind: Issue}, true // decided before a pause, too
	case !w.Succeeded.IsZero() && r.Joins(): // the last wave; a middle one moves on when it passes
		return Decision{Kind: Settle, Counts: c}, true
	case !w.Succeeded.IsZero():
		return Decision{Kind: Complete, Counts: c}, true
	case c.Devices+c.Held+last == 0 && r.Spec.Dynamic && !r.Joins() && nobodyPlanned(r):
		return Decision{Kind: Complete, Counts: c}, true // nobody came, and nobody joins any more
	case !w.taken():
		return Decision{Kind: TakeWave}, r.Phase == Running
	case last == 0 && c.Untold == 0 && w.Open && r.Joins():
		return Decision{}, false // nobody came yet
	case last == 0 && c.Untold == 0 && w.Open:
		return Decision{Kind: Complete, Counts: c}, true
	case c.Devices+c.Held == 0 && gatesNobody(r):
		return Decision{Kind: PassWave, Counts: c}, true // nobody is in it any more
	}
	if d, ok := halts(r, w, c); ok {
		return d, true
	}
	if c.Untold > 0 {
		if !w.SoakFrom.IsZero() {
			return Decision{Kind: BreakSoak, Counts: c}, true
		}
		d := Decision{Kind: NextTranche, N: tell(m, r, w, c), Counts: c}
		if last == 0 {
			d.Kind = StartWave
		}
		return d, r.Phase == Running && d.N > 0 // a pause lets nobody go
	}
	if !w.Open && c.Good+c.Waiting == 0 && (c.Held > 0 || !gatesNobody(r)) {
		return Decision{}, false // others have all that could show that the release is good, or they are to join yet
	}
	return soak(m, r, w, c, t[r.Wave][Proving])
}

// nobodyPlanned reports whether the wave under way and those after it were to have those alone who joined.
func nobodyPlanned(r Rollout) bool {
	return !slices.ContainsFunc(r.Waves[r.Wave-1:], func(w WaveState) bool { return w.Devices > 0 })
}

// gatesNobody reports whether no wave follows, and one before was good.
func gatesNobody(r Rollout) bool { return r.Wave > 1 && r.Wave == len(r.Waves) }

// halts decides whether failures end the wave. A gate does not open on nobody: of a wave that others follow, some device has to be good.
func halts(r Rollout, w WaveState, c Counts) (Decision, bool) {
	d := Decision{Kind: Halt, Counts: c}
	before := Counts{}
	if w.Open && r.Spec.Again != nil {
		c = c.shown()
	}
	if w.Open { // it may be of one device: chance alone brings that above any percentage
		before = r.Later
	}
	why := r.Spec.Waves[w.Rule].TooMany(c, before)
	if why == "" && c.Waiting+c.Good+before.Good == 0 && (c.Failed > 0 || c.Held == 0 && !gatesNobody(r) && !r.Joins()) {
		why = "no device is good"
	}
	d.Reason = fmt.Sprintf("wave %d: %s", r.Wave, why)
	return d, why != ""
}

// tell gives how many devices of a wave may be told now.
func tell(m Moment, r Rollout, w WaveState, c Counts) int {
	rule := r.Spec.Waves[w.Rule]
	n := min(c.Untold, MaxTranche)
	if rule.Tranche > 0 {
		n = min(n, rule.Tranche-(c.Waiting-c.Untold))
	}
	if rule.PerHour > 0 {
		lately := 0
		for _, t := range w.Tranches {
			if m.Now.Sub(t.At) < time.Hour {
				lately += t.Devices
			}
		}
		n = min(n, rule.PerHour-lately)
	}
	return max(n, 0)
}

// soak decides about a wave that has told all its devices.
func soak(m Moment, r Rollout, w WaveState, c Counts, proving int) (Decision, bool) {
	rule := r.Spec.Waves[w.Rule]
	d := Decision{Counts: c}
	switch {
	case c.Waiting > proving && !w.SoakFrom.IsZero():
		d.Kind = BreakSoak
	case c.Waiting > proving:
		return d, false
	case w.SoakFrom.IsZero():
		d.Kind = BeginSoak
	case m.Now.Sub(w.SoakFrom) < rule.Soak.D():
		return d, false
	case !w.Soaked:
		d.Kind = EndSoak
	case proving > 0 && w.Asked.IsZero():
		d.Kind, d.Reason = AskProof, "the soak is over"
	case proving > 0:
		return d, false
	default:
		d.Kind = PassWave
	}
	return d, true
}

// cancels ends the commands of all waves, if there are any: whoever left may be back.
func cancels(r Rollout) []Decision {
	if !slices.ContainsFunc(r.Waves[:r.Wave], func(w WaveState) bool { return !w.Cancelled && len(w.Tranches) > 0 }) {
		return nil
	}
	return []Decision{{Kind: Cancel, Wave: r.Wave, Reason: r.Reason}}
}

func decideBack(now time.Time, r Rollout, t Tally) []Decision {
	w := r.Waves[r.Wave-1]
	out := cancels(r)
	if slices.ContainsFunc(r.Backs, func(b Tranche) bool { return !b.Issued }) {
		return append(out, Decision{Kind: Issue, Wave: r.Wave, Reason: r.Reason})
	}
	moving, returns := 0, 0
	from, to := r.watched()
	for wave := from; wave <= to; wave++ {
		moving += t[wave][Moving]
		returns += t[wave][Returns]
	}
	over := !now.Before(r.Halted.Add(r.Spec.Waves[w.Rule].Deadline.D() + w.Away.D()))
	switch {
	case returns > 0:
		out = append(out, Decision{Kind: SendBack, Wave: r.Wave, Reason: r.Reason})
	case moving == 0 || over: // what has ended tells nobody anything
		out = append(out, Decision{Kind: CancelBacks, Wave: r.Wave, Reason: r.Reason}, Decision{Kind: EndRollback, Wave: r.Wave, Counts: t.Counts(from, to)})
	}
	return out
}

// Apply gives the rollout after d was done at now. Of StartWave, NextTranche and SendBack, tranches are what was decided to tell.
func Apply(now time.Time, r Rollout, d Decision, tranches ...Tranche) Rollout {
	r.Waves = slices.Clone(r.Waves)
	r.Backs = slices.Clone(r.Backs)
	w := &r.Waves[r.Wave-1]
	if d.Counts != (Counts{}) {
		r.Last = d.Counts
	}
	switch d.Kind {
	case TakeWave:
		w.Taken, w.Devices = now, d.N
	case StartWave, NextTranche:
		w.Tranches = append(slices.Clone(w.Tranches), tranches...)
		w.Command, w.Started = w.Tranches[0].Command, w.Tranches[0].At
	case SendBack:
		r.Backs = append(r.Backs, tranches...)
	case Issue:
		if r.Halted.IsZero() {
			w.Tranches = issued(w.Tranches)
		}
		r.Backs = issued(r.Backs)
	case BeginSoak:
		w.SoakFrom = now
	case BreakSoak:
		w.SoakFrom, w.Soaked, w.Asked = time.Time{}, false, time.Time{}
		r.Turns++
	case EndSoak:
		w.Soaked = true
		r.Turns++
	case AskProof:
		w.Asked = now
		r.Turns++
	case PassWave:
		w.Succeeded, w.Devices = now, max(w.Devices, d.Counts.Devices) // with who came since it was taken
		if r.Wave < len(r.Waves) {
			r.Wave++
		}
	case Settle:
		return settle(now, r)
	case Complete:
		r.Phase, r.Ended = Completed, now
	case Halt:
		r.Phase, r.Halted, r.Reason = Halted, now, d.Reason
		r.Turns++
	case Cancel:
		for i := range r.Waves[:r.Wave] {
			r.Waves[i].Cancelled = len(r.Waves[i].Tranches) > 0
		}
		r.Turns++ // who was told is not any more
	case CancelBacks: // the commands tell of it
	case EndRollback:
		r.Phase, r.Ended = RolledBack, now
	case EndAbort:
		r.Phase, r.Ended = Aborted, now
	}
	return r
}

// settle begins a wave of who joins later, behind the last; that of those who did so before makes room for it, and is counted as it passed.
func settle(now time.Time, r Rollout) Rollout {
	w := r.Waves[r.Wave-1]
	next := WaveState{Rule: w.Rule, Open: true, Below: math.MaxInt64, Taken: now}
	if !w.Open {
		r.Waves = append(r.Waves, next)
		r.Wave++
		return r
	}
	last := r.Last
	if r.Spec.Again != nil {
		last = last.shown() // the others are counted when they have shown what they do
	}
	r.Waves[r.Wave-2].Devices += last.Devices
	r.Waves[r.Wave-1] = next
	r.Joined++
	r.Later = r.Later.plus(last)
	return r
}

func issued(all []Tranche) []Tranche {
	all = slices.Clone(all)
	for i := range all {
		all[i].Issued = true
	}
	return all
}
