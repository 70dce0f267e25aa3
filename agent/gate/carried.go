package gate

import (
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// Carried decides on an install that somebody brought by hand: d is as ever, with a wire.OfflineDirective in the place of the directive. Nobody was asked for it with a nonce, so it is
// of now as far as its counter, its end and the age of its proofs say. What has become of the release since they were made, such a device cannot know; it knows what the newest trust bundle
// that it has met closes. That the command may be carried out this way is in the ledger, as the command is.
func Carried(s State, d wire.Delivery, now time.Time) (Plan, error) {
	if s.Bundle.Offline > 0 {
		s.Bundle.MaxAge = s.Bundle.Offline
	}
	dir, r := checkOffline(s, d.Directive)
	if r != nil {
		return Plan{}, r
	}
	entry, r := openLogged(s, "command", kindCommand, d.Command)
	if r != nil {
		return Plan{}, r
	}
	p, r := checkCommand(s, d, dir, entry, now)
	if r == nil && !p.Command.Alone {
		r = refuse(NotAlone, "command %s is not one that may be brought by hand: `hallmark rollout create --alone` makes such", p.Command.ID)
	}
	if r == nil {
		r = checkAct(s, d, &p)
	}
	if r != nil {
		r.Cause = &entry.ref
		return Plan{}, r
	}
	return p, nil
}

func checkOffline(s State, envelope []byte) (wire.Directive, *Refusal) {
	payload, r := forField(s, wire.TypeOffline, envelope)
	if r != nil {
		return wire.Directive{}, r
	}
	o, err := wire.DecodeOfflineDirective(payload)
	if err != nil {
		return wire.Directive{}, refuse(Malformed, "%v", err)
	}
	dir := wire.Directive{Device: o.Device, Counter: o.Counter, Act: wire.ActInstall, Command: o.Command, Issued: o.Issued, Expires: o.Expires}
	return dir, checkCounter(s, dir)
}
