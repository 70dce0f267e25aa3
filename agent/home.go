package agent

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// lastWords is how many check-ins a device that leaves makes at most to tell so; it leaves without an answer as well, because who would
// keep it could keep silent.
const lastWords = 5

// setOut accepts that the device goes to another home. The result is told to the server here first: nothing of here is believed afterwards, and so nothing
// can be said.
func (a *Agent) setOut(next memory, t task, p gate.Plan, now time.Time) (wire.Result, error) {
	if err := a.record(eventLeaving, &p.Cause, fmt.Sprintf("to where trust bundle %x is in force, by warrant %s", p.Warrant.Home.Bundle, p.Warrant.ID)); err != nil {
		return wire.Result{}, err
	}
	next = withResult(next, t.Command, t.Act, wire.OutcomeDone, "", "", now)
	t.Phase, t.Warrant, t.Handover, t.Said = phaseLeave, p.Warrant.ID, p.Handover, next.Seq
	next.Task = &t
	if err := a.save(next); err != nil {
		return wire.Result{}, local(err)
	}
	return a.m.Results[len(a.m.Results)-1], nil
}

// maybeMove moves a device that has told that it leaves, or has tried for long enough.
func (a *Agent) maybeMove() error {
	t := a.m.Task
	if t == nil || t.Phase != phaseLeave {
		return nil
	}
	told := true
	for _, r := range a.m.Results {
		told = told && r.Seq != t.Said
	}
	if a.leaving++; !told && a.leaving <= lastWords && uint64(a.now().Unix()) < t.Expires {
		return nil
	}
	return a.move(t)
}

// move takes the device to its new home. The first step is one write, by which another trust bundle is in force; who it believed before is
// nobody to it from then on, and a start after a cut goes on here before it speaks to anybody. What the device kept in its time here is then
// forgotten: keys, settings, what programs keep, counters, log. It restarts as a device that was never switched on, but for what it runs.
func (a *Agent) move(t *task) error {
	if t.Handover == nil {
		return a.finish(wire.OutcomeFailed, codeSafety, "there is no handover")
	}
	if err := a.c.Machine.Move(*t.Handover); err != nil {
		if fatal(local(err)) && errors.Is(err, hw.ErrPowerCut) {
			return local(err)
		}
		return a.finish(wire.OutcomeFailed, codeSafety, err.Error())
	}
	for _, name := range append(hw.Names(hw.KeyLDevID), hw.KeyCode) {
		if err := a.c.Keys.Destroy(name); err != nil {
			return local(err)
		}
	}
	if err := a.c.Machine.Forget(); err != nil {
		return local(err)
	}
	if err := a.clear(); err != nil {
		return local(err)
	}
	next := memory{Attest: true, Signs: a.m.Signs, Next: a.m.Next}
	if h := a.c.Machine.Facts().Home; h != nil {
		next.Home = h.Server
	}
	if err := a.save(next); err != nil {
		return local(err)
	}
	a.hangUp()
	return ErrReset
}

// leads reports whether h is where the task's handover leads.
func (t *task) leads(h wire.Home) bool {
	payload, _, err := wire.ThresholdPayload(wire.TypeWarrant, t.Handover.Warrant)
	if err != nil {
		return false
	}
	w, err := wire.DecodeWarrant(payload)
	return err == nil && w.Home != nil && bytes.Equal(w.Home.Bundle, h.Bundle) && w.Home.Server == h.Server
}
