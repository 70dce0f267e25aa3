package server

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/remedy"
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
		ledger.KindVerdict:             {i.raise, i.cure, i.activate, i.judged},
		ledger.KindDeviceHealthy:       {i.cure},
		ledger.KindDeviceUpdated:       {i.cure},
		ledger.KindDeviceState:         {i.over, i.cleared, i.cure},
		ledger.KindDeviceRekeyed:       {i.cure},
		ledger.KindEnrolRefused:        {i.raise},
		ledger.KindRecordRefused:       {i.raise},
		ledger.KindVoucherIssued:       {i.raise},
		ledger.KindVoucherRevoked:      {i.raise},
		ledger.KindVoucherGuessed:      {i.raise},
		ledger.KindDeviceLogForked:     {i.raise},
		ledger.KindDeviceReprovisioned: {i.remade},
		ledger.KindDeviceRefused:       {i.raise},
		ledger.KindDeviceUnhealthy:     {i.raise, i.remade},
		ledger.KindDeviceInconsistent:  {i.raise, i.cloned},
		ledger.KindDeviceQuarantined:   {i.quarantined},
		ledger.KindDeviceReleased:      {i.released, i.reactivate},
		ledger.KindLotRecalled:         {i.lot},
		ledger.KindLotCleared:          {i.lot},
		ledger.KindOrderLotsNamed:      {i.lotsNamed},
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
	var unknown *fault.Fault
	if errors.As(err, &unknown) && unknown.Kind == fault.NotFound { // somebody calls himself so: that is the finding
		err = nil
	}
	if err != nil {
		return err
	}
	f.Product = d.Product
	if digest, bad := hex.DecodeString(f.Release); bad == nil && len(digest) == 32 {
		rel, err := i.release.Find(ctx, [32]byte(digest))
		if err != nil && fault.KindOf(err) != fault.NotFound {
			return err
		}
		f.Version = rel.Manifest.Version
	}
	_, err = i.monitor.Raise(ctx, caller, f)
	return err
}

// cure closes the findings that a fact puts an end to.
func (i *Instance) cure(ctx context.Context, caller access.Caller, s seen) error {
	return i.monitor.Cure(ctx, caller, s.Fact, s.at)
}

// over ends what is under way about a device whose life has ended, or that nobody has any more: there is nothing left to contain or to look
// into. What it is told when it comes back begins anew.
func (i *Instance) over(ctx context.Context, caller access.Caller, s seen) error {
	var c device.StateChange
	if err := json.Unmarshal(s.Data, &c); err != nil || !remedy.Over(c.To) {
		return err
	}
	reason := "the device is " + string(c.To)
	if err := i.remedy.Ended(ctx, caller, s.Subject, s.at, reason); err != nil {
		return err
	}
	return i.monitor.Settle(ctx, caller, s.Subject, reason, caused(s))
}

// cleared takes the operational certificates of a device that was suspected of being two: its copy may hold them. Who has the factory's key enrols anew.
func (i *Instance) cleared(ctx context.Context, caller access.Caller, s seen) error {
	var c device.StateChange
	if err := json.Unmarshal(s.Data, &c); err != nil || c.Event != device.Clear {
		return err
	}
	d, err := i.device.Get(ctx, caller, s.Subject)
	if err != nil {
		return err
	}
	return i.pki.RevokeOperational(ctx, caller, d.ID, access.Join(d.Product, d.Group), s.At, pki.KeyCompromise)
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

func (v verdict) good() bool { return wire.Acceptable(v.Word) }

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

// reactivate makes a device active that came back from quarantine, when what is known of it is good already.
func (i *Instance) reactivate(ctx context.Context, caller access.Caller, s seen) error {
	v, err := i.attest.Current(ctx, caller, s.Subject)
	if err != nil || !wire.Acceptable(v.Word) {
		return err
	}
	d, err := i.device.Get(ctx, caller, s.Subject)
	if err != nil || d.State != device.Onboarded {
		return err
	}
	_, err = i.device.Move(ctx, caller, s.Subject, device.Activate, caused(s), "back, and its evidence is "+v.Word)
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
	return i.every(ctx, "reactions", reactEvery, i.alone("reactions", func(ctx context.Context) error {
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
	}))
}

func (i *Instance) reactTo(ctx context.Context, caller access.Caller, table map[ledger.Kind][]func(context.Context, access.Caller, seen) error,
	at ledger.Ref, entry []byte,
) error {
	w, err := wire.DecodeFact(entry)
	if err != nil {
		// Nothing can follow from what cannot be read, and what comes after it must not wait.
		i.log.ErrorContext(ctx, "an entry of the log cannot be read, nothing follows from it", "log", at.Log, "index", at.Index, "error", err)
		return nil
	}
	kind := ledger.Kind(w.Kind)
	if len(table[kind]) == 0 {
		return nil
	}
	private, err := i.logs.reader.Private(ctx, w)
	if errors.Is(err, ledger.ErrPrivate) { // it would not open the next time either: what follows does so without words
		i.log.ErrorContext(ctx, "what a fact says in private cannot be read", "kind", kind, "log", at.Log, "index", at.Index, "error", err)
		err = nil
	}
	if err != nil {
		return err
	}
	s := seen{Fact: ledger.Fact{
		Log: at.Log, UID: [16]byte(w.UID), Kind: kind, At: time.UnixMilli(w.At).UTC(), Actor: w.Actor, Subject: w.Subject, Data: ledger.Merge(w.Data, private),
	}, at: at}
	for _, do := range table[s.Kind] {
		err := do(ctx, caller, s)
		var f *fault.Fault
		if errors.As(err, &f) && f.Kind != fault.Unavailable && f.Kind != fault.Internal {
			// The stage refused for good: the state of things is another by now. It is on record where it matters.
			i.log.WarnContext(ctx, "reaction refused", "kind", s.Kind, "subject", s.Subject, "index", at.Index, "error", err)
			continue
		}
		if unreadable(err) {
			i.log.ErrorContext(ctx, "a fact's data cannot be read, nothing follows from it", "kind", s.Kind, "index", at.Index, "error", err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func unreadable(err error) bool {
	_, syntax := errors.AsType[*json.SyntaxError](err)
	_, typ := errors.AsType[*json.UnmarshalTypeError](err)
	return syntax || typ
}
