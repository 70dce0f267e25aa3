package server

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/wire"
)

// seen is a fact with its place.
type seen struct {
	ledger.Fact
	at ledger.Ref
}

// reactions is the whole of what follows by itself from what happened: kind of fact → next command. Each is idempotent for its
// cause, because a crash between the command and the cursor tells it again.
func (i *Instance) reactions() map[ledger.Kind][]func(context.Context, access.Caller, seen) error {
	type r = []func(context.Context, access.Caller, seen) error
	return map[ledger.Kind]r{
		ledger.KindDeviceEnrolled:      {i.enrolled},
		ledger.KindVerdict:             {i.raise, i.activate, i.judged},
		ledger.KindDeviceReprovisioned: {i.remade},
		ledger.KindDeviceRefused:       {i.raise},
		ledger.KindDeviceUnhealthy:     {i.raise, i.remade},
		ledger.KindDeviceInconsistent:  {i.raise, i.cloned},
		ledger.KindDeviceQuarantined:   {i.quarantined},
		ledger.KindDeviceReleased:      {i.released},
	}
}

func caused(s seen) *ledger.Ref { return &s.at }

// raise makes a finding of what the monitor watches for.
func (i *Instance) raise(ctx context.Context, caller access.Caller, s seen) error {
	f, ok := monitor.FromFact(s.Fact, s.at)
	if !ok {
		return nil
	}
	d, err := i.device.Get(ctx, caller, s.Subject)
	if err != nil {
		return err
	}
	f.Product = d.Product
	_, err = i.monitor.Raise(ctx, caller, f)
	return err
}

// verdict is what reactions read of attest.verdict.
type verdict struct {
	At      time.Time `json:"at"`
	Word    string    `json:"word"`
	Reasons []string  `json:"reasons"`
}

func verdictOf(s seen) (verdict, error) {
	var v verdict
	return v, json.Unmarshal(s.Data, &v)
}

func (v verdict) good() bool { return v.Word == "affirming" || v.Word == "warning" }

// enrolled moves a device that enrolled for the first time; one that enrols again stays where it is.
func (i *Instance) enrolled(ctx context.Context, caller access.Caller, s seen) error {
	d, err := i.device.Get(ctx, caller, s.Subject)
	if err != nil || d.State != device.Provisioned {
		return err
	}
	_, err = i.device.Move(ctx, caller, s.Subject, device.Onboard, caused(s), "enrolled with its factory identity")
	return err
}

// activate begins the working life of a device at its first good evidence.
func (i *Instance) activate(ctx context.Context, caller access.Caller, s seen) error {
	v, err := verdictOf(s)
	if err != nil || !v.good() {
		return err
	}
	d, err := i.device.Get(ctx, caller, s.Subject)
	if err != nil || d.State != device.Onboarded {
		return err
	}
	_, err = i.device.Move(ctx, caller, s.Subject, device.Activate, caused(s), "first good evidence")
	return err
}

// judged lets the remedy stage contain a device whose evidence speaks against it, and release one whose evidence is good again.
func (i *Instance) judged(ctx context.Context, caller access.Caller, s seen) error {
	v, err := verdictOf(s)
	if err != nil {
		return err
	}
	reason := v.Word
	if len(v.Reasons) > 0 {
		reason += ": " + v.Reasons[0]
	}
	return i.remedy.Judged(ctx, caller, s.Subject, v.Word, v.At, reason, s.at)
}

// remade tells the remedy stage what became of a re-provisioning. A refusal is not a try: it passes, or a person looks at it.
func (i *Instance) remade(ctx context.Context, caller access.Caller, s seen) error {
	var r device.ResultData
	if err := json.Unmarshal(s.Data, &r); err != nil || r.Act != wire.ActReprovide || r.Command == "" {
		return err
	}
	return i.remedy.Remade(ctx, caller, s.Subject, r.Command, r.Outcome == wire.OutcomeDone, s.at, r.Text)
}

func (i *Instance) cloned(ctx context.Context, caller access.Caller, s seen) error {
	_, err := i.device.Move(ctx, caller, s.Subject, device.Suspect, caused(s), "what it says cannot be true of one device")
	return err
}

func (i *Instance) quarantined(ctx context.Context, caller access.Caller, s seen) error {
	return i.remedy.Quarantined(ctx, caller, s.Subject, s.at)
}

func (i *Instance) released(ctx context.Context, caller access.Caller, s seen) error {
	return i.remedy.Released(ctx, caller, s.Subject, s.at)
}

const reactEvery = 100 * time.Millisecond

// react follows the events log from a stored cursor.
func (i *Instance) react(ctx context.Context) error {
	caller := access.Internal("reactions")
	table := i.reactions()
	return every(ctx, reactEvery, func(ctx context.Context) error {
		from, err := i.db.Cursor(ctx, "reactions")
		if err != nil {
			return err
		}
		for {
			entries, err := i.logs.reader.Entries(ctx, ledger.Events, from, from+256)
			if err != nil || len(entries) == 0 {
				return err
			}
			for _, e := range entries {
				if err := i.reactTo(ctx, caller, table, ledger.Ref{Log: ledger.Events, Index: from}, e); err != nil {
					return err
				}
				from++
			}
			if err := i.db.SetCursor(ctx, "reactions", from); err != nil {
				return err
			}
		}
	}, i.report("reactions wait"))
}

func (i *Instance) reactTo(ctx context.Context, caller access.Caller, table map[ledger.Kind][]func(context.Context, access.Caller, seen) error,
	at ledger.Ref, entry []byte,
) error {
	w, err := wire.DecodeFact(entry)
	if err != nil {
		return err
	}
	s := seen{Fact: ledger.Fact{
		Log: at.Log, UID: [16]byte(w.UID), Kind: ledger.Kind(w.Kind), At: time.UnixMilli(w.At).UTC(), Actor: w.Actor, Subject: w.Subject, Data: w.Data,
	}, at: at}
	for _, do := range table[s.Kind] {
		err := do(ctx, caller, s)
		var f *fault.Fault
		if errors.As(err, &f) && f.Kind != fault.Unavailable && f.Kind != fault.Internal {
			// The stage refused for good: the state of things is another by now. It is on record where it matters.
			i.log.WarnContext(ctx, "reaction refused", "kind", s.Kind, "subject", s.Subject, "index", at.Index, "error", err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// runLoops runs what has to be done again and again.
func (i *Instance) runLoops(ctx context.Context, g *errgroup.Group) {
	g.Go(func() error { return i.react(ctx) })
	loop := func(name string, interval time.Duration, step func(context.Context) error) {
		g.Go(func() error { return every(ctx, interval, step, i.report(name)) })
	}
	loop("rollouts wait", 200*time.Millisecond, func(ctx context.Context) error { return i.rollout.Tick(ctx, time.Now()) })
	loop("remedies wait", 500*time.Millisecond, func(ctx context.Context) error { return i.remedy.Tick(ctx, time.Now()) })
	loop("retirements wait", 500*time.Millisecond, i.retire.Tick)
	loop("revocations are stale", 5*time.Second, i.pki.Refresh)
	loop("last contacts are not stored", 2*time.Second, i.device.Flush)
	loop("the monitor is blind", 30*time.Second, func(ctx context.Context) error {
		_, err := i.monitor.Sweep(ctx, time.Now())
		return err
	})
	g.Go(func() error {
		<-ctx.Done()
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return i.device.Flush(flush)
	})
}

func (i *Instance) report(what string) func(context.Context, error) {
	return func(ctx context.Context, err error) { i.log.ErrorContext(ctx, what, "error", err) }
}

// every runs step at intervals until ctx ends. An error is told, and tried again at the next interval.
func every(ctx context.Context, interval time.Duration, step func(context.Context) error, tell func(context.Context, error)) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := step(ctx); err != nil && ctx.Err() == nil {
			tell(ctx, err)
		}
	}
}
