package agent

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/window"
)

// An install that is here may have to wait: for hours of the device's own day, for somebody beside it to agree, or for what it is at to end. It is carried out when nothing holds it up
// any more and the server has told it once more: the gate then judges by what the device believes at that time, and what was taken back meanwhile is not told. That asks for a line to
// the server in the window; without one a release on trial would not be affirmed, and not stay.

const (
	phaseWait = "wait" // staged, and not to be tried yet

	eventWaits  = "update.waits"
	eventAgreed = "consent.given"
)

// waiting says what holds a task up at now, and until when; empty: nothing. Of consent nobody can tell when it comes.
func (a *Agent) waiting(t *task, now time.Time) (what string, until time.Time) {
	if t.Manner == wire.Consent && !bytes.Equal(a.m.Agreed, t.Command) {
		return wire.WaitsForConsent, time.Time{}
	}
	if t.Window != nil {
		if opens, _ := window.Next(now, a.zone, window.Of(*t.Window)); opens.After(now) {
			return wire.WaitsForWindow, opens
		}
	}
	if over := time.Unix(int64(t.Since+t.Grace), 0); t.Manner == wire.Soft && now.Before(over) && a.c.Busy != nil && a.c.Busy() {
		return wire.WaitsForGrace, over
	}
	return "", time.Time{}
}

// waits is what a check-in says of it. Nothing is also what an install says that wants to be told once more.
func (a *Agent) waits(now time.Time) *wire.Waits {
	t := a.m.Task
	if t == nil || t.Phase != phaseWait {
		return nil
	}
	what, until := a.waiting(t, now)
	if what == "" {
		return nil
	}
	w := &wire.Waits{For: what, Command: t.Command, Since: t.Since}
	if !until.IsZero() {
		w.Until = uint64(until.Unix())
	}
	return w
}

// waitDue is when what holds a task up ends by time alone, or its command does; 0: neither.
func (a *Agent) waitDue(t *task, now time.Time) uint64 {
	if _, until := a.waiting(t, now); !until.IsZero() {
		return min(uint64(until.Unix()), t.Expires)
	}
	return t.Expires
}

// again carries on with a task that was told once more.
func (a *Agent) again(ctx context.Context, p gate.Plan) error {
	if err := a.save(accept(a.m, p)); err != nil {
		return local(err)
	}
	t := a.m.Task
	if t.Phase != phaseWait {
		return nil // the power failed before the server could hear of it
	}
	if what, _ := a.waiting(t, a.now()); what != "" {
		return nil
	}
	return a.try(ctx, t)
}

// hold has a staged release wait.
func (a *Agent) hold(t *task, what string) error {
	if err := a.record(eventWaits, &t.Cause, what); err != nil {
		return err
	}
	next, nt := a.m, *t
	nt.Phase, nt.Forms = phaseWait, nil
	next.Task = &nt
	return local(a.save(next))
}

// lasts reports whether a refusal of what waits would be the same whenever it is told again.
func lasts(code gate.Code) bool {
	switch code { //nolint:exhaustive // the others last
	case gate.Expired, gate.Future, gate.NotWitnessed, gate.StaleCheckpoint, gate.ShrunkLog:
		return false
	}
	return true
}

// version is that of the release that a task brings; empty: it brings none.
func (t *task) version() string {
	payload, _, err := wire.ThresholdPayload(wire.TypeRelease, t.Release)
	if err != nil {
		return ""
	}
	r, err := wire.DecodeRelease(payload)
	if err != nil {
		return ""
	}
	return r.Version
}

// consent takes what somebody beside the device says of the install that it was told.
func (a *Agent) consent(answer string) (LocalReply, error) {
	t := a.m.Task
	if t == nil || t.Manner != wire.Consent || t.Phase != phaseStage && t.Phase != phaseWait {
		return LocalReply{Error: "nothing here waits for consent"}, nil
	}
	switch answer {
	case "yes":
		if err := a.record(eventAgreed, &t.Cause, ""); err != nil {
			return LocalReply{}, err
		}
		next := a.m
		next.Agreed = t.Command
		if err := a.save(next); err != nil {
			return LocalReply{}, local(err)
		}
	case "no":
		a.stopStaging()
		if err := a.record(eventRefused, &t.Cause, codeDeclined); err != nil {
			return LocalReply{}, err
		}
		if err := a.settle(wire.OutcomeRefused, codeDeclined, "somebody beside the device said no"); err != nil {
			return LocalReply{}, err
		}
	default:
		return LocalReply{Error: fmt.Sprintf("%.16q is no consent: say yes or no", answer)}, nil
	}
	return LocalReply{Act: t.Act, Outcome: wire.OutcomeDone}, nil
}
