package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/agent/forms"
	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// The agent's own codes of results, beside the gate's.
const (
	codeBusy     = "busy"          // another act is under way
	codeStage    = "stage"         // the release could not be brought into the idle slot
	codeReverted = "reverted"      // the boot manager went back, or never started it
	codeSick     = "sick"          // the program on trial is not well
	codeVerdict  = "not-affirmed"  // the verifier does not accept it
	codeTimeout  = "trial-timeout" // not confirmed in time
	codeSafety   = "not-possible"  // this device cannot do it
	codeDeclined = wire.CodeDeclined
	codeHeld     = "quarantined" // it is held, and sleeping or waking does not end that
)

// gateState is what the device holds when it judges.
func (a *Agent) gateState() gate.State {
	f := a.c.Machine.Facts()
	return gate.State{
		Device: f.Device, Product: f.Product, Hardware: f.Hardware, Model: f.Model, Lifecycle: f.Lifecycle,
		Bundle: f.Bundle, Counter: a.m.Counter, Trees: a.m.Trees, Fuses: f.Fuses, Current: f.Current, Owner: a.m.Owner,
		Params: a.params(), Ways: a.m.Ways,
	}
}

// receive judges a delivery and, if it must, begins to act. The result is what stands when it returns; an act that takes
// longer has an empty outcome and reports later. The error is of the device itself.
func (a *Agent) receive(ctx context.Context, delivery, nonce []byte) (wire.Result, error) {
	now := a.now()
	plan, err := gate.Judge(a.gateState(), delivery, nonce, now)
	if err != nil {
		command, act := gate.Peek(delivery)
		return a.turnDown(err, command, act)
	}
	return a.obey(ctx, plan, now, nil)
}

// turnDown reports what the gate did not let pass.
func (a *Agent) turnDown(err error, command []byte, act wire.Act) (wire.Result, error) {
	code, text, cause := gate.Malformed, err.Error(), (*wire.LogRef)(nil)
	if r, ok := errors.AsType[*gate.Refusal](err); ok {
		code, text, cause = r.Code, r.Text, r.Cause
	}
	next := a.m
	if t := next.Task; t != nil && t.Phase == phaseWait && cause != nil && lasts(code) && bytes.Equal(t.Command, command) {
		next.Task = nil
	}
	return a.refused(next, cause, command, act, string(code), text)
}

// obey begins to act on a plan, if the device is free to. by is where it came from, if not over a line.
func (a *Agent) obey(ctx context.Context, plan gate.Plan, now time.Time, by *brought) (wire.Result, error) {
	if t := a.m.Task; t != nil && bytes.Equal(t.Command, plan.CommandDigest[:]) {
		return wire.Result{Command: t.Command, Act: t.Act}, a.again(ctx, plan)
	}
	if a.busy(plan.Act) {
		return a.declined(plan, codeBusy, "another act is under way: "+string(a.m.Task.Act))
	}
	if h := plan.Handover; h != nil {
		if err := a.c.Machine.MayMove(*h); err != nil {
			return a.declined(plan, codeSafety, err.Error())
		}
	}
	if plan.Act == wire.ActUnlock {
		return a.declined(plan, codeSafety, "the debug port of this board is closed for good")
	}
	// Its digest, because a log with two faces could show others a harmless command of that name in that place.
	if err := a.record(eventAccepted, &plan.Cause, fmt.Sprintf("%s by command %s, SHA-256 %x", plan.Act, plan.Command.ID, plan.CommandDigest)); err != nil {
		return wire.Result{}, err
	}
	return a.act(ctx, plan, now, by)
}

// busy reports whether act has to wait for the task under way. A wipe waits for nothing, and nothing for what waits itself: another task takes its place, and it is told again. What a release on trial would be told might not fit the one before, to
// which the device may go back at any time.
func (a *Agent) busy(act wire.Act) bool {
	if a.m.Task == nil || act == wire.ActWipe || a.m.Task.Phase == phaseWait {
		return false
	}
	switch {
	case act == wire.ActConfigure:
		return a.m.Task.Phase == phaseTrial
	case act == wire.ActBundle && a.m.Task.Phase == phaseStage: // it may close what is fetched
		return false
	}
	return wire.ClassOf(act) == wire.Fatal || act == wire.ActReset
}

// declined reports that a plan that was good is not followed. Its counters are kept, so that it cannot come again.
func (a *Agent) declined(p gate.Plan, code, text string) (wire.Result, error) {
	return a.refused(accept(a.m, p), &p.Cause, p.CommandDigest[:], p.Act, code, text)
}

// refused reports a refusal, and makes next the record. The words are in the result alone, which is kept in private: the device's log is
// public for ever, and they may be the program's, or of its configuration.
func (a *Agent) refused(next memory, cause *wire.LogRef, command []byte, act wire.Act, code, text string) (wire.Result, error) {
	text = cut(text, 1000)
	if err := a.record(eventRefused, cause, code); err != nil {
		return wire.Result{}, err
	}
	next = withResult(next, command, act, wire.OutcomeRefused, code, text, a.now())
	if err := a.save(next); err != nil {
		return wire.Result{}, local(err)
	}
	return a.m.Results[len(a.m.Results)-1], nil
}

// act carries a plan out, or makes it a task. One save takes counters and task, or counters and result, together.
func (a *Agent) act(ctx context.Context, p gate.Plan, now time.Time, by *brought) (wire.Result, error) {
	next := accept(a.m, p)
	if p.Act == wire.ActBundle && next.Task != nil && next.Task.Phase == phaseStage {
		return a.bundleBeside(ctx, p, now)
	}
	t := &task{
		Act: p.Act, Command: p.CommandDigest[:], Cause: p.Cause, Expires: p.Command.Expires, Release: p.Envelope,
	}
	switch p.Act {
	case wire.ActInstall, wire.ActRollback, wire.ActReprovide:
		t.Phase, t.Digest, t.Forms, a.source = phaseStage, p.Digest[:], p.Forms, nil
		t.Window, t.Manner, t.Grace, t.Since = p.Command.Window, p.Command.Manner, p.Command.Grace, uint64(now.Unix())
		if cur := a.c.Machine.Facts().Current; cur != nil {
			t.Before, t.Counter = cur.Digest[:], cur.Release.Counter
		}
		if by != nil {
			t.Carton, next.Carried = by.path, by.directive
		}
	case wire.ActBundle:
		t.Phase, t.Version = phaseBundle, p.Bundle.Version
	case wire.ActWipe:
		t.Phase, t.Warrant = phaseErase, p.Warrant.ID
	case wire.ActRehome:
		return a.setOut(next, *t, p, now)
	default:
		return a.actNow(next, p, now)
	}
	next.Task = t
	if err := a.save(next); err != nil {
		return wire.Result{}, local(err)
	}
	return wire.Result{Command: t.Command, Act: t.Act}, a.resume(ctx, now)
}

// actNow does what one save does, and before it what of the device's keeping the act changes: after a cut in between the command comes again, and is done
// again, which changes nothing. The event comes before both: a cut then tells it twice, never not at all.
func (a *Agent) actNow(next memory, p gate.Plan, now time.Time) (wire.Result, error) {
	event, text := "", ""
	if (p.Act == wire.ActDormant || p.Act == wire.ActWake) && a.m.Guard != nil && a.m.Guard.State == "quarantined" {
		return a.declined(p, codeHeld, "the device is quarantined: a release ends that") // sleep, and the end of it, are for a device that is free
	}
	switch p.Act { //nolint:exhaustive // the others are tasks, and never come here
	case wire.ActQuarantine:
		next.Guard = &guard{State: "quarantined", Until: uint64(p.Until.Unix()), Cause: p.Cause}
	case wire.ActDormant:
		next.Guard = &guard{State: "dormant", Until: uint64(p.Until.Unix()), Cause: p.Cause}
	case wire.ActRelease, wire.ActWake:
		next.Guard = nil
		if a.m.Guard != nil {
			event, text = eventGuardEnd, a.m.Guard.State+": commanded"
		}
	case wire.ActConfigure:
		if err := a.c.Params.May(merge(a.c.Params.Operational(), p.Config)); err != nil {
			return a.declined(p, string(gate.BadConfig), err.Error())
		}
		event, text = eventConfig, fmt.Sprintf("%d entries", len(p.Config))
	case wire.ActAttest:
		next.Attest = true
	case wire.ActReset:
		next.Restart = &p.Cause
	case wire.ActAdopt:
		next.Owner = p.Owner
		event, text = eventAdopted, fmt.Sprintf("ownership %x", p.Owner.Owner)
	case wire.ActDisown:
		next, event, text = a.letGo(next, p.Cause)
	}
	if next.Guard != nil && next.Guard != a.m.Guard {
		event, text = eventGuard, next.Guard.State+" until "+p.Until.UTC().Format(time.RFC3339)
	}
	if event != "" {
		if err := a.record(event, &p.Cause, text); err != nil {
			return wire.Result{}, err
		}
	}
	if err := a.setKept(p); err != nil {
		return wire.Result{}, local(err)
	}
	next = withResult(next, p.CommandDigest[:], p.Act, wire.OutcomeDone, "", "", now)
	if err := a.save(next); err != nil {
		return wire.Result{}, local(err)
	}
	r := a.m.Results[len(a.m.Results)-1]
	switch p.Act { //nolint:exhaustive // the others change nothing but the record and the program's isolation
	case wire.ActReset:
		return r, ErrReset
	case wire.ActDisown:
		return r, a.leave()
	case wire.ActConfigure:
		return r, local(a.applyConfig())
	}
	return r, a.applyGuard()
}

// setKept makes parameters, and what programs keep, what the act makes of them.
func (a *Agent) setKept(p gate.Plan) error {
	switch p.Act { //nolint:exhaustive // the others leave them as they are
	case wire.ActConfigure:
		return a.c.Params.Set(merge(a.c.Params.Operational(), p.Config))
	case wire.ActDisown:
		return a.clear()
	}
	return nil
}

// merge lays entries over have, in rising order of names. What was a secret stays one.
func merge(have, entries []wire.ConfigEntry) []wire.ConfigEntry {
	out := slices.Clone(entries)
	for _, e := range have {
		i := slices.IndexFunc(entries, func(n wire.ConfigEntry) bool { return n.Name == e.Name })
		if i < 0 {
			out = append(out, e)
			continue
		}
		out[i].Secret = out[i].Secret || e.Secret
	}
	slices.SortFunc(out, func(x, y wire.ConfigEntry) int { return strings.Compare(x.Name, y.Name) })
	return out
}

func (a *Agent) applyConfig() error {
	c, ok := a.c.Program.(Configurable)
	if !ok {
		return nil
	}
	return c.Configure(a.params())
}

// applyGuard makes the program's outside world agree with the guarded state.
func (a *Agent) applyGuard() error {
	if a.c.Program == nil {
		return nil
	}
	if err := a.c.Program.Isolate(a.m.Guard != nil); err != nil {
		return local(fmt.Errorf("isolate the program: %w", err))
	}
	return nil
}

func (a *Agent) endGuard(why string) error {
	if err := a.record(eventGuardEnd, &a.m.Guard.Cause, a.m.Guard.State+": "+why); err != nil {
		return err
	}
	next := a.m
	next.Guard = nil
	if err := a.save(next); err != nil {
		return local(err)
	}
	return a.applyGuard()
}

// resume takes up the task, wherever it stands. It is the one way a task goes on, after acceptance as after a restart.
func (a *Agent) resume(ctx context.Context, now time.Time) error {
	t := a.m.Task
	if t == nil {
		return nil
	}
	switch t.Phase {
	case phaseStage:
		if uint64(now.Unix()) >= t.Expires {
			return a.finish(wire.OutcomeFailed, string(gate.Expired), "the command expired before the release was here")
		}
		a.stage(ctx, *t)
		return nil
	case phaseWait:
		if uint64(now.Unix()) >= t.Expires {
			return a.finish(wire.OutcomeFailed, string(gate.Expired), "the command expired while it waited")
		}
		return nil
	case phaseTrial:
		return a.afterRestart(ctx, t)
	case phaseBundle:
		return a.replaceBundle(t)
	case phaseErase:
		a.stopStaging()
		return a.wipe(t)
	case phaseSend:
		return nil
	case phaseEnd:
		return a.end()
	case phaseLeave:
		if h := a.c.Machine.Facts().Home; h != nil && t.Handover != nil && t.leads(*h) { // the power went behind the first step
			return a.move(t)
		}
		return nil
	}
	return a.finish(wire.OutcomeFailed, codeSafety, "the task's phase is unknown: "+t.Phase)
}

// finish ends the task with a result. The log, which is public, has its code and not its words.
func (a *Agent) finish(o wire.Outcome, code, text string) error {
	if o != wire.OutcomeDone {
		if err := a.record(eventFailed, &a.m.Task.Cause, code); err != nil {
			return err
		}
	}
	return a.settle(o, code, text)
}

// settle ends the task with a result that the log tells of already.
func (a *Agent) settle(o wire.Outcome, code, text string) error {
	t := a.m.Task
	next := withResult(a.m, t.Command, t.Act, o, code, cut(text, 1000), a.now())
	next.Task = nil
	if t.Phase == phaseTrial && o == wire.OutcomeDone {
		next.Ways = next.Ways.After(t.Act, gate.Left{Release: t.Before, Counter: t.Counter}, t.Digest, a.c.Machine.Facts().Fuses, a.now())
	}
	return local(a.save(next))
}

// stage begins the download beside the loop, which goes on checking in.
func (a *Agent) stage(ctx context.Context, t task) {
	if a.staging != nil {
		return
	}
	done := make(chan error, 1)
	work, stop := context.WithTimeout(ctx, time.Unix(int64(min(t.Expires, 1<<33)), 0).Sub(a.now()))
	a.staging, a.stopWork = done, stop
	if a.source == nil {
		fetch := a.fetch
		if t.Carton != "" {
			fetch = a.outOf(t.Carton)
		}
		a.source = forms.New(fetch, a.old, t.Forms)
	}
	source := a.source
	progress := func(done, of uint64) {
		select {
		case <-a.progress:
		default:
		}
		select {
		case a.progress <- wire.Progress{Done: done, Of: of}:
		default:
		}
	}
	var wait time.Duration
	if a.stageFails > 0 {
		wait = backoff(a.c.PollMin, a.stageFails)
	}
	go func() {
		select {
		case <-work.Done():
			done <- work.Err()
		case <-time.After(wait):
			done <- a.c.Machine.Stage(work, t.Release, source.Open, progress)
		}
	}()
}

// fetch opens bytes at the server.
func (a *Agent) fetch(ctx context.Context, digest []byte, offset int64) (io.ReadCloser, error) {
	s := a.line.Load()
	if s == nil {
		return nil, errors.New("not connected yet")
	}
	return (*s).Artifact(ctx, digest, offset)
}

// old opens the bytes of a component that runs.
func (a *Agent) old(digest []byte) (io.ReaderAt, bool) {
	if m, ok := a.c.Machine.(Readable); ok {
		return m.Running(digest)
	}
	return nil, false
}

func (a *Agent) stopStaging() {
	if a.staging == nil {
		return
	}
	a.stopWork()
	<-a.staging //nolint:errcheck // it was told to stop
	a.staging, a.lastProg = nil, nil
}

// reap looks, without waiting, whether the download has ended; and begins it again after a failure that may pass.
func (a *Agent) reap(ctx context.Context) error {
	if a.staging == nil {
		if t := a.m.Task; t != nil && (t.Phase == phaseStage || t.Phase == phaseWait) {
			return a.resume(ctx, a.now())
		}
		return nil
	}
	select {
	case err := <-a.staging:
		return a.staged(ctx, err)
	default:
		return nil
	}
}

// ErrUnfit says, from Machine.Stage, that trying again cannot help: the bytes are not what the release says, or do not fit.
var ErrUnfit = errors.New("the release cannot be staged")

// staged ends the download: the release is tried, unless something holds it up.
func (a *Agent) staged(ctx context.Context, err error) error {
	a.stopWork()
	a.staging, a.lastProg = nil, nil
	t := a.m.Task
	switch {
	case errors.Is(err, hw.ErrPowerCut):
		return local(err)
	case errors.Is(err, ErrUnfit): // all of it came, or none ever will: the next one has not failed yet
		a.stageFails = 0
		return a.finish(wire.OutcomeFailed, codeStage, err.Error())
	case err != nil:
		a.stageFails++
		a.log.Warn("download broke off; it goes on from where it was", "error", err)
		return nil
	}
	a.stageFails = 0
	if err := a.record(eventStaged, &t.Cause, fmt.Sprintf("release %x", t.Digest)); err != nil {
		return err
	}
	if what, _ := a.waiting(t, a.now()); what != "" {
		return a.hold(t, what)
	}
	return a.try(ctx, t)
}

// try has a staged release tried: at the next start, or at once where that takes none.
func (a *Agent) try(ctx context.Context, t *task) error {
	if code, err := a.stands(t); err != nil {
		return a.finish(wire.OutcomeFailed, string(code), err.Error())
	}
	next := a.m
	nt := *t
	nt.Phase, nt.Forms, nt.Tried = phaseTrial, nil, a.c.Machine.Facts().BootCount
	nt.Deadline = uint64(a.now().Add(a.c.TrialTime).Unix())
	next.Task = &nt
	if err := a.save(next); err != nil {
		return local(err)
	}
	if err := a.c.Machine.Activate([32]byte(t.Digest)); err != nil {
		return local(err)
	}
	return a.change(ctx)
}

// stands says why the release of a task is not tried any more: parameters and trust bundle may have changed while it came.
func (a *Agent) stands(t *task) (gate.Code, error) {
	payload, _, err := wire.ThresholdPayload(wire.TypeRelease, t.Release)
	if err != nil {
		return gate.Malformed, err
	}
	r, err := wire.DecodeRelease(payload)
	if err != nil {
		return gate.Malformed, err
	}
	f := a.c.Machine.Facts()
	again := t.Act == wire.ActReprovide && f.Current != nil && bytes.Equal(f.Current.Digest[:], t.Digest)
	switch b := f.Bundle; {
	case r.Counter < b.Floor:
		return gate.SecurityCounter, fmt.Errorf("release %s has security counter %d, the floor is %d by now", r.ID, r.Counter, b.Floor)
	case r.Counter < b.Least() && !again:
		return gate.Closed, fmt.Errorf("release %s has security counter %d, and trust bundle %d, which came meanwhile, has %d and above installed", r.ID, r.Counter, b.Version, b.Least())
	}
	return gate.Parameters, r.Parameters.Holds(a.params())
}

// change has what the boot manager would start now run: by a start, or, where only some programs change, without one. What did not change goes on.
func (a *Agent) change(ctx context.Context) error {
	s, ok := a.c.Machine.(Switcher)
	if !ok {
		return ErrReset
	}
	done, err := s.Switch()
	if err != nil {
		return local(err)
	}
	if !done {
		return ErrReset
	}
	a.verdict, a.sick = "", 0
	if err := a.applyGuard(); err != nil {
		return err
	}
	if err := a.applyConfig(); err != nil {
		a.log.Warn("configuration not taken", "error", err)
	}
	return a.resume(ctx, a.now())
}

// afterRestart compares what runs with what was to be tried.
func (a *Agent) afterRestart(ctx context.Context, t *task) error {
	f := a.c.Machine.Facts()
	running := f.Current != nil && bytes.Equal(f.Current.Digest[:], t.Digest)
	switch {
	case running && f.Trial:
		return a.record(eventTrial, &t.Cause, f.Current.Release.Version)
	case running: // confirmed before the power went; the log may have it already
		if err := a.record(eventConfirmed, &t.Cause, fmt.Sprintf("release %x", t.Digest)); err != nil {
			return err
		}
		return a.keep(ctx, t)
	}
	switch err := a.c.Machine.Activate([32]byte(t.Digest)); {
	case err == nil: // the power went before the activation: it was never tried
		return ErrReset
	case !errors.Is(err, ErrNotStaged):
		return local(err)
	}
	return a.finish(wire.OutcomeFailed, codeReverted, "the boot manager went back to the release before: "+strings.Join(f.Notes, "; "))
}

// trial decides what becomes of a release on trial.
func (a *Agent) trial(ctx context.Context, now time.Time) error {
	t := a.m.Task
	if t == nil || t.Phase != phaseTrial {
		return nil
	}
	h, text := a.health()
	switch {
	case a.sick >= a.c.SickLimit:
		return a.revert(ctx, codeSick, text)
	case a.verdict == "contraindicated":
		return a.revert(ctx, codeVerdict, "the verifier answered contraindicated")
	case h == HealthGood && (a.affirmed() || a.aloneAt() > 0 && uint64(now.Unix()) >= a.aloneAt()):
		if err := a.record(eventConfirmed, &t.Cause, fmt.Sprintf("release %x", t.Digest)); err != nil {
			return err
		}
		if err := a.c.Machine.Confirm(); err != nil {
			return local(err)
		}
		return a.keep(ctx, t)
	case uint64(now.Unix()) >= t.Deadline:
		return a.revert(ctx, codeTimeout, fmt.Sprintf("not confirmed in time: health %q, verdict %q", text, a.verdict))
	}
	return nil
}

// keep ends the task of a release that is confirmed. The trust bundles that waited for it come first: the task is what knows of them after a cut, and its carton is refused once it is spent.
func (a *Agent) keep(ctx context.Context, t *task) error {
	if t.Carton != "" {
		if err := a.climb(ctx, t.Carton); err != nil {
			return err
		}
	}
	return a.settle(wire.OutcomeDone, "", "")
}

// watch counts the checks in a row that a release on trial has failed: one alone may be a program that is busy.
func (a *Agent) watch() {
	if a.sick++; !a.c.Machine.Facts().Trial {
		a.sick = 0
	} else if h, _ := a.health(); h != HealthSick {
		a.sick = 0
	}
}

// affirmed reports whether the verifier accepted what runs.
func (a *Agent) affirmed() bool { return wire.Acceptable(a.verdict) }

// revert gives a release on trial up: the log tells of it first, and what follows finds nothing to try.
func (a *Agent) revert(ctx context.Context, code, text string) error {
	if err := a.record(eventFailed, &a.m.Task.Cause, code); err != nil {
		return err
	}
	if err := a.c.Machine.Revert(); err != nil {
		return local(err)
	}
	if err := a.settle(wire.OutcomeFailed, code, text); err != nil {
		return err
	}
	return a.change(ctx)
}

// untaken says of a trust bundle that the board refuses that it does: a fault of the board's own is no refusal.
func (a *Agent) untaken(err error, say func(text string) error) error {
	if errors.Is(err, hw.ErrPowerCut) {
		return local(err)
	}
	return say(err.Error())
}

func (a *Agent) replaceBundle(t *task) error {
	text, err := a.setBundle(t.Version, t.Release, &t.Cause)
	switch {
	case err != nil:
		return err
	case text != "": // what a device cannot take is told, and does not stop it for ever
		return a.finish(wire.OutcomeFailed, codeSafety, text)
	}
	return a.finish(wire.OutcomeDone, "", "")
}

// setBundle has a trust bundle in force that the gate let pass; refused is why the board does not take it.
func (a *Agent) setBundle(version uint64, envelope []byte, cause *wire.LogRef) (refused string, err error) {
	if a.c.Machine.Facts().Bundle.Version < version {
		if err := a.c.Machine.MaySet(envelope); err != nil {
			return err.Error(), a.untaken(err, func(string) error { return nil })
		}
		if err := a.record(eventBundle, cause, fmt.Sprintf("version %d", version)); err != nil {
			return "", err
		}
		if err := a.c.Machine.SetBundle(envelope); err != nil {
			return "", local(err)
		}
		a.clock.learn(a.c.Machine.Facts().Bundle.Issued)
	}
	a.hangUp() // the anchors may have changed
	return "", nil
}

// bundleBeside takes a trust bundle while a release is fetched, in one step: it may close that release. What is good under it goes on where it was. After a cut in between the gate
// refuses the command, and the server sees that the bundle is in force.
func (a *Agent) bundleBeside(ctx context.Context, p gate.Plan, now time.Time) (wire.Result, error) {
	a.stopStaging()
	text, err := a.setBundle(p.Bundle.Version, p.Envelope, &p.Cause)
	switch {
	case err != nil:
		return wire.Result{}, err
	case text != "":
		return a.declined(p, codeSafety, text)
	}
	next := withResult(accept(a.m, p), p.CommandDigest[:], p.Act, wire.OutcomeDone, "", "", now)
	if err := a.save(next); err != nil {
		return wire.Result{}, local(err)
	}
	r := next.Results[len(next.Results)-1]
	if code, err := a.stands(a.m.Task); err != nil {
		return r, a.finish(wire.OutcomeFailed, string(code), err.Error())
	}
	return r, a.resume(ctx, now)
}
