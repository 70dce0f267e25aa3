package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"time"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/renewal"
	"github.com/hallmark-iot/hallmark/wire"
)

// The events of the device's log.
const (
	eventBoot      = "boot"
	eventPOST      = "post"
	eventNote      = "boot.note"
	eventEnrolled  = "enrolled"
	eventAccepted  = "directive.accepted"
	eventRefused   = "directive.refused"
	eventStaged    = "update.staged"
	eventTrial     = "update.trial"
	eventConfirmed = "update.confirmed"
	eventFailed    = "update.failed"
	eventBundle    = "bundle.replaced"
	eventGuard     = "guard.began"
	eventGuardEnd  = "guard.ended"
	eventConfig    = "config.changed"
	eventWipe      = "wipe.began"
	eventAdopted   = "owner.adopted"
	eventDisowned  = "owner.ended"
	eventLeaving   = "home.leaving"
	eventTold      = "history.told"
)

// maxPoll bounds what a server may ask: a device that is told never to come back comes back.
const maxPoll = 24 * time.Hour

// Run works until ctx ends (nil), the device must restart (ErrReset), its life is over (ErrOver) or its hardware failed.
func (a *Agent) Run(ctx context.Context) error {
	defer a.stopStaging()
	err := a.run(ctx)
	if errors.Is(err, ErrReset) {
		a.endTelemetry(ctx)
	}
	return err
}

func (a *Agent) run(ctx context.Context) error {
	if a.c.Machine.Facts().Lifecycle == wire.LifecycleDecommissioned {
		return ErrOver
	}
	if err := a.begin(ctx); err != nil {
		return err
	}
	failures := 0
	for {
		wait, err := a.turn(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was told to end, and what that broke off is no failure
		case fatal(err):
			return err
		case err != nil:
			failures++
			doubts, known := a.m.Doubts, !a.disowned
			if err := a.doubt(err, a.now()); err != nil {
				return err
			}
			if doubts == 0 && a.m.Doubts > 0 { // it answers: how long it was away before says nothing any more
				failures = 1
			}
			wait = renewal.Again(a.c.PollMin, maxBackoff, failures, askedToWait(err), mrand.Float64())
			switch a.strays(err, 0); {
			case a.astray || known && a.disowned: // the next turn tries another way
				wait = jitter(a.c.PollMin)
			case a.disowned: // to show a certificate that is refused brings nothing: it goes by when it may ask for another
				wait = min(max(a.c.PollMin, a.againAt.Sub(a.now())), maxBackoff)
			}
			a.log.Warn("check-in failed", "error", err, "again_in", wait)
		default:
			failures, a.doubtAt, a.disowned = 0, time.Time{}, false
			if err := a.reassured(); err != nil {
				return err
			}
		}
		if a.c.Once && a.staging == nil {
			return err
		}
		if err := a.pause(ctx, wait); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// fatal errors end the run: everything that is not the network or the server.
func fatal(err error) bool {
	return errors.Is(err, ErrReset) || errors.Is(err, ErrOver) || errors.Is(err, hw.ErrPowerCut) || errors.As(err, new(*localError))
}

// localError is a failure of the device itself: its flash, its keys. The device starts again rather than work on with it.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

func local(err error) error {
	if err == nil || errors.Is(err, ErrReset) || errors.Is(err, ErrOver) {
		return err
	}
	return &localError{err}
}

// maxBackoff is the longest pause after failures that the server did not ask for.
const maxBackoff = 15 * time.Minute

// backoff doubles from base to 15 minutes, and spreads: half of it is random.
func backoff(base time.Duration, failures int) time.Duration {
	return renewal.Again(base, maxBackoff, failures, 0, mrand.Float64())
}

// askedToWait is how long the server that gave err asked to be left alone.
func askedToWait(err error) time.Duration {
	if asked, ok := errors.AsType[interface {
		error
		RetryAfter() time.Duration
	}](err); ok {
		return asked.RetryAfter()
	}
	return 0
}

// jitter spreads a pause by a tenth to each side, so that a fleet that started together does not stay together.
func jitter(d time.Duration) time.Duration { return d - d/10 + mrand.N(d/5+1) }

// begin writes the start into the log and takes up what the last run left.
func (a *Agent) begin(ctx context.Context) error {
	f, now := a.c.Machine.Facts(), a.now()
	if f.BootCount != a.m.Booted {
		what := "recovery"
		if f.Current != nil {
			what = fmt.Sprintf("%s from slot %s, trial %v", f.Current.Release.Version, f.Slot, f.Trial)
		}
		if err := a.record(eventBoot, a.restartedBy(f), what); err != nil {
			return err
		}
		for _, n := range f.Notes {
			if err := a.record(eventNote, nil, n); err != nil {
				return err
			}
		}
		if err := a.c.Params.Fault(); err != nil {
			if err := a.record(eventNote, nil, "parameters: "+err.Error()); err != nil {
				return err
			}
		}
		failed := 0
		for _, t := range f.POST {
			if !t.Passed {
				failed++
				if err := a.record(eventPOST, nil, "failed: "+t.Name+": "+t.Detail); err != nil {
					return err
				}
			}
		}
		if failed == 0 {
			if err := a.record(eventPOST, nil, fmt.Sprintf("%d self tests passed", len(f.POST))); err != nil {
				return err
			}
		}
		next := a.m
		next.Booted, next.Restart = f.BootCount, nil
		if err := a.save(next); err != nil {
			return local(err)
		}
	}
	if err := a.applyGuard(); err != nil {
		return err
	}
	if err := a.applyConfig(); err != nil {
		a.log.Warn("configuration not taken", "error", err)
	}
	return a.resume(ctx, now)
}

// restartedBy is the command that this start follows from, if it follows from one.
func (a *Agent) restartedBy(f Facts) *wire.LogRef {
	if t := a.m.Task; t != nil && t.Phase == phaseTrial && f.BootCount == t.Tried+1 {
		return &t.Cause
	}
	return a.m.Restart
}

// record adds an event to the device's log; it is durable before what it tells of takes effect.
func (a *Agent) record(kind string, cause *wire.LogRef, text string) error {
	a.log.Info(kind, "text", text)
	if a.silent() {
		return nil
	}
	return local(a.c.Log.Append(a.c.Machine.Facts().BootCount, a.now(), kind, cause, text))
}

// turn is one check-in and what follows from it. It gives the time to the next.
func (a *Agent) turn(ctx context.Context) (time.Duration, error) {
	if err := a.housekeep(ctx); err != nil {
		return 0, err
	}
	if err := a.maybeMove(); err != nil {
		return 0, err
	}
	if err := a.regain(ctx); err != nil {
		return 0, err
	}
	if err := a.connect(ctx); err != nil {
		return 0, err
	}
	if a.m.Task != nil && a.m.Task.Phase == phaseSend {
		return 0, a.finishWipe(ctx)
	}
	if err := a.moveAttestation(ctx); err != nil {
		return 0, err
	}
	in, err := a.checkin()
	if err != nil {
		return 0, err
	}
	reply, err := a.server.Checkin(ctx, in)
	if err != nil {
		return 0, err
	}
	a.period = &reply.Period
	if err := a.tokenAcked(reply); err != nil {
		return 0, err
	}
	if err := a.acked(reply.AckedSeq); err != nil {
		return 0, local(err)
	}
	if err := a.maybeMove(); err != nil {
		return 0, err
	}
	wait := jitter(clamp(time.Duration(min(reply.NextPoll, uint64(maxPoll/time.Millisecond)))*time.Millisecond, a.c.PollMin, maxPoll))
	if a.strays(nil, reply.Bundle); a.astray {
		wait = a.c.PollMin
	}
	if len(reply.Delivery) > 0 {
		nonce := a.nonce
		a.nonce = nil
		r, err := a.receive(ctx, reply.Delivery, nonce)
		if err != nil {
			return 0, err
		}
		a.log.Info("delivery", "act", r.Act, "outcome", r.Outcome, "code", r.Code, "text", r.Text)
		wait = a.c.PollMin // report at once
	}
	if a.silent() {
		return a.c.PollMin, nil // its end has begun: nothing else is said, and the key to say it with may be gone
	}
	if a.server == nil {
		return a.c.PollMin, nil // the anchors have changed: the rest is said on a new line
	}
	if len(reply.Challenge) > 0 {
		if err := a.attest(ctx, reply.Challenge); err != nil {
			return 0, err
		}
	}
	if err := a.leaveCopy(ctx); err != nil {
		return 0, err
	}
	if err := a.sendLog(ctx, reply.Time); err != nil {
		return 0, err
	}
	if err := a.tellReadings(ctx); err != nil {
		return 0, err
	}
	if err := a.trial(ctx, a.now()); err != nil {
		return 0, err
	}
	if a.c.Machine.Facts().Trial {
		wait = min(wait, 5*time.Second)
	}
	return wait, nil
}

func clamp(d, low, high time.Duration) time.Duration { return min(max(d, low), high) }

// housekeep does what is due by time alone.
func (a *Agent) housekeep(ctx context.Context) error {
	now := a.now()
	if g := a.m.Guard; g != nil && uint64(now.Unix()) >= g.Until {
		if err := a.endGuard("its time to live ran out"); err != nil {
			return err
		}
	}
	if err := a.reap(ctx); err != nil {
		return err
	}
	a.watch()
	return a.trial(ctx, now)
}

// knows are the kinds of message that this device understands beyond those that every one does, in rising order.
func (a *Agent) knows() []string {
	kinds := []string{wire.KnowsAfter, wire.KnowsCarton}
	if _, ok := a.c.Machine.(Readable); ok {
		kinds = append(kinds, wire.FormDelta)
	}
	kinds = append(kinds, wire.KnowsManner)
	if _, ok := a.c.Machine.(Keyed); ok {
		kinds = append(kinds, wire.KnowsSealedImage)
	}
	return append(kinds, wire.KnowsWindow)
}

func (a *Agent) checkin() (wire.Checkin, error) {
	nonce := make([]byte, 32)
	if _, err := io.ReadFull(a.random(), nonce); err != nil {
		return wire.Checkin{}, local(err)
	}
	a.nonce = nonce
	return a.says(nonce)
}

// says is what the device has to say of itself.
func (a *Agent) says(nonce []byte) (wire.Checkin, error) {
	f := a.c.Machine.Facts()
	in := wire.Checkin{
		Nonce: nonce, State: a.state(), Counter: a.m.Counter, Bundle: f.Bundle.Version, TreeSize: a.m.treeSize(f.Bundle.Control.Origin),
		BootCount: f.BootCount, Results: a.m.Results, Trial: f.Trial, Reported: a.told(),
		Locked: a.locked(), Room: &f.Room, Left: a.m.Ways.Behind(f.Fuses), Knows: a.knows(), Zone: a.c.Zone, Waits: a.waits(a.now()),
	}
	if f.Current != nil {
		in.Release, in.Version = f.Current.Digest[:], f.Current.Release.Version
	}
	h, text := a.health()
	in.Healthy, in.Sick, in.Health = h == HealthGood, h == HealthSick, cut(text, 1024)
	select {
	case p := <-a.progress:
		a.lastProg = &p
	default:
	}
	if c, ok := a.c.Program.(Configurable); ok {
		in.Programs = c.Told()
	}
	if a.staging != nil {
		in.Progress = a.lastProg
	}
	var err error
	in.Token, err = a.token()
	return in, err
}

func (a *Agent) random() io.Reader {
	if a.c.Random != nil {
		return a.c.Random
	}
	return rand.Reader
}

// health is what the programs say, and why the server gives no key to what waits for one: it is looked for where the device is shown, and not in its log.
func (a *Agent) health() (h Health, text string) {
	h, text = HealthUnknown, "no program runs"
	if a.c.Program != nil {
		h, text = a.c.Program.Health()
	}
	if a.noKeys != "" && a.locked() {
		text = "what is protected has no key: " + a.noKeys + "; " + text
	}
	return h, text
}

// pause waits, and answers the local socket meanwhile. A finished download ends it early.
func (a *Agent) pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var due <-chan time.Time
	if at := a.due(); at > 0 {
		t := time.NewTimer(max(time.Unix(int64(min(at, 1<<33)), 0).Sub(a.now()), 0))
		defer t.Stop()
		due = t.C
	}
	var sampling *time.Timer
	var samples <-chan time.Time
	if a.c.Telemetry != nil {
		sampling = time.NewTimer(time.Until(a.sampleAt))
		defer sampling.Stop()
		samples = sampling.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			return nil
		case <-samples:
			if err := a.sample(ctx); err != nil {
				return err
			}
			sampling.Reset(a.c.Sampling)
		case <-due:
			return nil
		case err := <-a.staging:
			if err := a.staged(ctx, err); err != nil {
				return err
			}
			return nil
		case o := <-a.ops:
			r, err := a.serve(ctx, o)
			o.reply <- r
			if err != nil {
				return err
			}
			if r.Outcome != "" && r.Outcome != wire.OutcomeRefused {
				return nil
			}
		}
	}
}

// due is when something ends by time alone, whether or not the server can be reached; 0: nothing does.
func (a *Agent) due() uint64 {
	at := uint64(0)
	if g := a.m.Guard; g != nil {
		at = g.Until
	}
	if t := a.m.Task; t != nil && t.Phase == phaseTrial {
		end := t.Deadline
		if alone := a.aloneAt(); alone > uint64(a.now().Unix()) {
			end = alone
		}
		if at == 0 || end < at {
			at = end
		}
	}
	if t := a.m.Task; t != nil && t.Phase == phaseWait {
		if due := a.waitDue(t, a.now()); at == 0 || due < at {
			at = due
		}
	}
	return at
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
