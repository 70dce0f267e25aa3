// Package gate is the device's own judgement: does this delivery oblige me to act?
//
// Stage 3, field, on the device. Decide is a pure function of what the device holds, what came in, the nonce it gave and the
// time. It guarantees that a Plan comes out only when every check has passed, in the order of the Codes; that nothing has been
// touched when it has not; and that the reason is one of the stable codes. The caller persists Plan.Counter, Plan.Tree and
// Plan.Signed before it acts.
//
// It trusts the trust bundle in State and nobody else: not the server, whose directive key could be stolen, not the network,
// not the log, which must show itself to witnesses. What a thief of the directive key can do is what Routine and Guarded acts
// allow; code needs the release keys' threshold, a wipe the warrant keys'.
package gate

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// Skew is how far ahead of the device's clock a message may have been issued.
const Skew = 5 * time.Minute

// Installed is the release a device runs.
type Installed struct {
	Digest  [32]byte
	Release wire.Release
}

// State is what the device knows of itself when it judges.
type State struct {
	Device    string
	Product   string
	Hardware  string             // revision
	Model     wire.UpdateModel   // of the product
	Lifecycle uint               // PSA
	Bundle    wire.Bundle        // whom it believes
	Counter   uint64             // highest directive counter accepted
	Trees     []wire.TreeHead    // the largest tree accepted of each log
	Fuses     uint32             // security counter in the fuses
	Current   *Installed         // nil: nothing that verifies is installed
	Owner     *wire.Ownership    // whom it belongs to, with their key; nil: nobody it would defend
	Params    []wire.ConfigEntry // what it was told to use, and what its factory laid down
	Ways      Ways               // by which it came to what it runs
}

// Plan is what the device is obliged to do.
type Plan struct {
	Act           wire.Act
	Command       wire.Command
	CommandDigest [32]byte
	Cause         wire.LogRef   // of the command's entry
	Counter       uint64        // persist before acting
	Tree          wire.TreeHead // persist before acting
	Signed        time.Time     // directive authority and witnesses agree that it is later; zero: no witnesses. Persist before acting

	Until    time.Time          // guarded acts: when the device ends it by itself
	Config   []wire.ConfigEntry // configure
	Warrant  *wire.Warrant      // acts that need one
	Owner    *wire.Ownership    // adopt
	Release  *wire.Release      // acts that bring code
	Digest   [32]byte           // of Release
	Envelope []byte             // signed Release or Bundle, to be kept
	Forms    []wire.Form        // of the release's components: ways to fetch them that nobody vouches for
	Bundle   *wire.Bundle       // bundle
	Handover *wire.Handover     // rehome: what the board is led there by

	clock clock
}

// Judge decodes a delivery and decides. now is the device's clock, or what it knows better: clock.
func Judge(s State, delivery, nonce []byte, now time.Time) (Plan, error) {
	d, err := wire.DecodeDelivery(delivery)
	if err != nil {
		return Plan{}, refuse(Malformed, "delivery: %v", err)
	}
	return Decide(s, d, nonce, now)
}

// Decide gives the Plan, or a *Refusal.
func Decide(s State, d wire.Delivery, nonce []byte, now time.Time) (Plan, error) {
	dir, r := checkDirective(s, d.Directive, nonce)
	if r != nil {
		return Plan{}, r
	}
	entry, r := openLogged(s, "command", kindCommand, d.Command)
	if r != nil {
		return Plan{}, r
	}
	p, r := checkCommand(s, d, dir, entry, now)
	if r == nil {
		r = checkAct(s, d, &p)
	}
	if r != nil {
		r.Cause = &entry.ref
		return Plan{}, r
	}
	return p, nil
}

func checkAct(s State, d wire.Delivery, p *Plan) *Refusal {
	switch {
	case wire.NeedsRelease(p.Act):
		return checkRelease(s, d, p)
	case p.Act == wire.ActBundle:
		return checkBundle(s, d, p)
	case wire.ChangesOwner(p.Act):
		return checkOwner(s, d, p)
	case p.Act == wire.ActRehome:
		return checkHome(s, d, p)
	case wire.NeedsWarrant(p.Act):
		r := checkWarrant(s, d, p, s.Bundle.Warrant)
		if r == nil && p.Act != wire.ActWipe && p.Act != wire.ActUnlock {
			r = refuse(UnknownAct, "act %q", p.Act)
		}
		return r
	case wire.ClassOf(p.Act) == wire.Guarded:
		return checkGuarded(p)
	case p.Act == wire.ActConfigure:
		return checkConfig(s, d, p)
	case p.Act == wire.ActAttest:
		return nil
	}
	return refuse(UnknownAct, "act %q", p.Act)
}

// Peek reads, without believing anything, which command a delivery is about, so that a refusal can name it.
func Peek(delivery []byte) (command []byte, act wire.Act) {
	d, err := wire.DecodeDelivery(delivery)
	if err != nil {
		return nil, ""
	}
	o, err := wire.Parse1(wire.TypeDirective, d.Directive)
	if err != nil {
		return nil, ""
	}
	dir, err := wire.DecodeDirective(o.Payload)
	if err != nil || len(dir.Act) > 32 {
		return nil, ""
	}
	return dir.Command, dir.Act
}

func checkDirective(s State, envelope, nonce []byte) (wire.Directive, *Refusal) {
	payload, r := forField(s, wire.TypeDirective, envelope)
	if r != nil {
		return wire.Directive{}, r
	}
	dir, err := wire.DecodeDirective(payload)
	switch {
	case err != nil:
		return dir, refuse(Malformed, "%v", err)
	case dir.Device != s.Device:
		return dir, notForMe(s, dir)
	case len(nonce) != 32 || subtle.ConstantTimeCompare(dir.Nonce, nonce) != 1:
		return dir, refuse(WrongNonce, "directive does not answer the nonce that was given")
	}
	return dir, checkCounter(s, dir)
}

// forField opens a directive of either type, if the device is one that takes any.
func forField(s State, typ wire.Type, envelope []byte) ([]byte, *Refusal) {
	if s.Lifecycle == wire.LifecycleDecommissioned {
		return nil, refuse(Ended, "device %s is decommissioned", s.Device)
	}
	if s.Lifecycle != wire.LifecycleSecured && s.Lifecycle != wire.LifecycleDebug {
		return nil, refuse(NotSecured, "life cycle %#04x", s.Lifecycle)
	}
	return directiveRole(s.Bundle, typ, envelope)
}

func notForMe(s State, dir wire.Directive) *Refusal {
	return refuse(NotForMe, "directive for %s, this is %s", dir.Device, s.Device)
}

// checkCounter checks for whom a directive is, and that it is above all that were accepted.
func checkCounter(s State, dir wire.Directive) *Refusal {
	switch {
	case dir.Device != s.Device:
		return notForMe(s, dir)
	case dir.Counter <= s.Counter:
		return refuse(Replayed, "counter %d, accepted %d already", dir.Counter, s.Counter)
	case dir.Counter-s.Counter > wire.MaxCounterGap:
		return refuse(CounterGap, "counter %d, accepted %d so far: it rises by %d at most", dir.Counter, s.Counter, wire.MaxCounterGap)
	}
	return nil
}

// directiveRole opens a message one key of the role signs. A role that asks for more than one cannot be filled by it.
func directiveRole(b wire.Bundle, typ wire.Type, envelope []byte) ([]byte, *Refusal) {
	if b.Directive.Threshold != 1 {
		return nil, refuse(Signature, "the trust bundle asks for %d directive signatures, the message has room for one",
			b.Directive.Threshold)
	}
	payload, err := b.Directive.Verify1(typ, envelope)
	if err != nil {
		if s := b.Foreign1(typ, envelope); s != "" {
			return nil, refuse(Suite, "signed in %s, the trust bundle accepts %v: %v", s, b.Suites, err)
		}
		return nil, refuse(Signature, "%v", err)
	}
	return payload, nil
}

// threshold opens what the offline signers of a role have signed.
func threshold(b wire.Bundle, typ wire.Type, envelope []byte, role wire.KeySet) ([]byte, *Refusal) {
	payload, err := wire.VerifyThreshold(typ, envelope, role)
	if err != nil {
		if s := b.Foreign(typ, envelope); s != "" {
			return nil, refuse(Suite, "signed in %s, the trust bundle accepts %v: %v", s, b.Suites, err)
		}
		return nil, refuse(Threshold, "%v", err)
	}
	return payload, nil
}

func checkCommand(s State, d wire.Delivery, dir wire.Directive, entry logged, now time.Time) (Plan, *Refusal) {
	clock := readClock(s.Bundle, dir.Issued, entry.cosigned, now)
	if r := clock.fresh("command", entry.cosigned); r != nil {
		return Plan{}, r
	}
	if r := clock.within("directive", dir.Issued, dir.Expires); r != nil {
		return Plan{}, r
	}
	payload, r := directiveRole(s.Bundle, wire.TypeCommand, entry.data)
	if r != nil {
		return Plan{}, r
	}
	cmd, err := wire.DecodeCommand(payload)
	if err != nil {
		return Plan{}, refuse(Malformed, "%v", err)
	}
	digest := sha256.Sum256(payload)
	switch {
	case !bytes.Equal(digest[:], dir.Command):
		return Plan{}, refuse(OtherCommand, "directive is for command %x, this is %x", dir.Command, digest)
	case cmd.Act != dir.Act:
		return Plan{}, refuse(ActMismatch, "directive says %s, command %s says %s", dir.Act, cmd.ID, cmd.Act)
	case cmd.Product != s.Product:
		return Plan{}, refuse(OtherProduct, "command %s is for %q, this is %q", cmd.ID, cmd.Product, s.Product)
	}
	if err := d.Member.Verify(cmd.Devices, s.Device); err != nil {
		return Plan{}, refuse(NotInSet, "command %s: %v", cmd.ID, err)
	}
	if r := clock.within("command "+cmd.ID, cmd.Issued, cmd.Expires); r != nil {
		return Plan{}, r
	}
	return Plan{
		Act: cmd.Act, Command: cmd, CommandDigest: digest, Cause: entry.ref, Counter: dir.Counter, Tree: entry.tree,
		Signed: clock.signed(entry.cosigned), clock: clock,
	}, nil
}

func checkGuarded(p *Plan) *Refusal {
	if p.Act == wire.ActQuarantine || p.Act == wire.ActDormant {
		if p.Command.TTL == 0 || p.Command.TTL > wire.MaxGuardedTTL {
			return refuse(BadTTL, "command %s: %d s, must be 1 to %d", p.Command.ID, p.Command.TTL, wire.MaxGuardedTTL)
		}
		p.Until = p.clock.after(p.Signed).Add(time.Duration(p.Command.TTL) * time.Second)
	}
	return nil
}

// checkConfig: what runs says which parameters there are. Where nothing does, none is taken: what would start later might not go together with it.
func checkConfig(s State, d wire.Delivery, p *Plan) *Refusal {
	entries, err := wire.OpenConfig(d.Config, p.Command.Config)
	if err != nil {
		return refuse(BadConfig, "command %s: %v", p.Command.ID, err)
	}
	if s.Current == nil {
		return refuse(BadConfig, "command %s: nothing runs that says what may be set", p.Command.ID)
	}
	schema := s.Current.Release.Parameters
	if err := schema.Admit(entries); err != nil {
		return refuse(BadConfig, "command %s: release %s: %v", p.Command.ID, s.Current.Release.ID, err)
	}
	p.Config = schema.Mark(entries)
	return nil
}

func checkRelease(s State, d wire.Delivery, p *Plan) *Refusal {
	if d.Release == nil {
		return refuse(ReleaseMissing, "command %s brings code, but no release came with it", p.Command.ID)
	}
	entry, r := openPart(s, "release", kindRelease, *d.Release, p)
	if r != nil {
		return r
	}
	payload, r := threshold(s.Bundle, wire.TypeRelease, entry.data, s.Bundle.Release)
	if r != nil {
		return r
	}
	rel, err := wire.DecodeRelease(payload)
	if err != nil {
		return refuse(Malformed, "%v", err)
	}
	digest := wire.ReleaseDigest(payload)
	switch {
	case !bytes.Equal(digest[:], p.Command.Release):
		return refuse(OtherRelease, "command %s names release %x, this is %x", p.Command.ID, p.Command.Release, digest)
	case rel.Product != s.Product || rel.Product != s.Bundle.Product:
		return refuse(OtherProduct, "release %s is for %q, this is %q", rel.ID, rel.Product, s.Product)
	case !rel.RunsOn(s.Hardware):
		return refuse(Hardware, "release %s is for %v, this is %s", rel.ID, rel.Hardware, s.Hardware)
	case s.Model == wire.ModelOTP || rel.Model == wire.ModelOTP:
		return refuse(ModelOTP, "software of %s is programmed once", s.Product)
	case rel.Model != s.Model:
		return refuse(OtherModel, "release %s is of model %s, this is %s", rel.ID, rel.Model, s.Model)
	case rel.Counter < s.Fuses || rel.Counter < s.Bundle.Floor:
		return refuse(SecurityCounter, "release %s has security counter %d, fuses hold %d, floor is %d",
			rel.ID, rel.Counter, s.Fuses, s.Bundle.Floor)
	case rel.Counter < s.Bundle.Least() && !s.again(p.Act, digest):
		return refuse(Closed, "release %s has security counter %d, trust bundle %d has %d and above installed: install the release that mends it",
			rel.ID, rel.Counter, s.Bundle.Version, s.Bundle.Least())
	}
	if err := rel.Compatible(); err != nil {
		return refuse(Incompatible, "release %s: %v", rel.ID, err)
	}
	if err := rel.Parameters.Holds(s.Params); err != nil {
		return refuse(Parameters, "release %s: %v: configure the device first", rel.ID, err)
	}
	if r := checkVersion(s.Current, p.Act, rel, digest); r != nil {
		return r
	}
	if r := s.Ways.check(s, p, rel, digest); r != nil {
		return r
	}
	p.Release, p.Digest, p.Envelope, p.Forms = &rel, digest, entry.data, d.Forms
	return nil
}

// checkVersion: forward only, unless the approvers of what runs allowed going back to just this.
func checkVersion(cur *Installed, act wire.Act, rel wire.Release, digest [32]byte) *Refusal {
	if cur == nil {
		if act == wire.ActRollback {
			return refuse(OlderVersion, "nothing is installed that could be rolled back from")
		}
		return nil
	}
	newer := wire.CompareVersions(rel.Version, cur.Release.Version) > 0
	switch {
	case act == wire.ActRollback && !cur.Release.MayReturnTo(digest):
		return refuse(OlderVersion, "release %s does not allow going back to %s", cur.Release.ID, rel.ID)
	case act == wire.ActInstall && !newer:
		return refuse(OlderVersion, "version %s is not newer than %s", rel.Version, cur.Release.Version)
	case act == wire.ActReprovide && !newer && digest != cur.Digest:
		return refuse(OlderVersion, "version %s is neither newer than %s nor the same release", rel.Version, cur.Release.Version)
	case act != wire.ActRollback && digest != cur.Digest && !rel.InstallsOver(cur.Release.Version):
		return refuse(SteppingStone, "release %s is installed over versions %v, and %s runs: install what comes between first", rel.ID, rel.Over, cur.Release.Version)
	}
	return nil
}

// again reports whether an act brings what runs once more: that changes nothing of what the device is.
func (s State) again(act wire.Act, digest [32]byte) bool {
	return act == wire.ActReprovide && s.Current != nil && digest == s.Current.Digest
}

func checkBundle(s State, d wire.Delivery, p *Plan) *Refusal {
	if d.Bundle == nil {
		return refuse(BundleMissing, "command %s brings a trust bundle, but none came with it", p.Command.ID)
	}
	entry, r := openPart(s, "bundle", kindBundle, *d.Bundle, p)
	if r != nil {
		return r
	}
	next, err := wire.VerifyBundle(&s.Bundle, entry.data)
	if err != nil {
		return refuse(BundleRefused, "%v", err)
	}
	p.Bundle, p.Envelope = &next, entry.data
	return nil
}

// checkOwner: whoever has the directive key may have a device adopted that belongs to nobody, and have it forget what it was told. Once it
// belongs to somebody with a key, only that key or the product's warrant threshold let it go.
func checkOwner(s State, d wire.Delivery, p *Plan) *Refusal {
	if p.Act == wire.ActAdopt {
		o, err := wire.OpenOwnership(d.Config, p.Command.Config)
		if err != nil {
			return refuse(BadOwner, "command %s: %v", p.Command.ID, err)
		}
		p.Owner = &o
	}
	switch {
	case s.Owner == nil, p.Owner != nil && p.Owner.Equal(*s.Owner): // or it was told before
		return nil
	case d.Warrant == nil || d.WarrantMember == nil:
		return refuse(Owned, "the device belongs to %x: %s needs a warrant of its key, or of the warrant keys", s.Owner.Owner, p.Act)
	}
	theirs := checkWarrant(s, d, p, s.Owner.Keys())
	if theirs != nil && (theirs.Code == Threshold || theirs.Code == Suite) {
		if r := checkWarrant(s, d, p, s.Bundle.Warrant); r != nil {
			return r
		}
		if len(p.Warrant.Owner) == 0 { // the warrant keys may let go of any
			return nil
		}
	} else if theirs != nil {
		return theirs
	}
	if !bytes.Equal(p.Warrant.Owner, s.Owner.Owner) {
		return refuse(OtherOwner, "warrant %s ends the ownership %x, the device belongs to %x", p.Warrant.ID, p.Warrant.Owner, s.Owner.Owner)
	}
	return nil
}

// checkHome: the warrant keys send a device to another instance, and of one that belongs to somebody the owner's key as well, by one document
// that both have signed: neither may give away what is the other's.
func checkHome(s State, d wire.Delivery, p *Plan) *Refusal {
	if r := checkWarrant(s, d, p, s.Bundle.Warrant); r != nil {
		return r
	}
	envelope, err := wire.WarrantIn(d.Warrant.Entry)
	if err != nil {
		return refuse(Malformed, "%v", err)
	}
	var owner []byte
	if s.Owner != nil {
		owner = s.Owner.Owner
		if _, err := wire.VerifyThreshold(wire.TypeWarrant, envelope, s.Owner.Keys()); err != nil {
			return refuse(Owned, "the device belongs to %x: its key has to sign as well: %v", owner, err)
		}
	}
	if !bytes.Equal(p.Warrant.Owner, owner) {
		return refuse(OtherOwner, "warrant %s ends the ownership %x, the device belongs to %x", p.Warrant.ID, p.Warrant.Owner, owner)
	}
	h := wire.Handover{Warrant: envelope, Member: *d.WarrantMember, Bundle: d.Config}
	next, _, err := h.Leads(s.Bundle, s.Device)
	if err != nil {
		return refuse(BadHome, "%v", err)
	}
	if s.Current != nil {
		if err := s.Current.Release.Admissible(next); err != nil {
			return refuse(BadHome, "what runs could not start there: %v", err)
		}
	}
	p.Handover = &h
	return nil
}

// checkWarrant wants the offline leave of whom.
func checkWarrant(s State, d wire.Delivery, p *Plan, whom wire.KeySet) *Refusal {
	if d.Warrant == nil || d.WarrantMember == nil {
		return refuse(WarrantMissing, "%s needs a warrant, and none came with command %s", p.Act, p.Command.ID)
	}
	entry, r := openPart(s, "warrant", kindWarrant, *d.Warrant, p)
	if r != nil {
		return r
	}
	payload, r := threshold(s.Bundle, wire.TypeWarrant, entry.data, whom)
	if r != nil {
		return r
	}
	w, err := wire.DecodeWarrant(payload)
	if err != nil {
		return refuse(Malformed, "%v", err)
	}
	switch {
	case w.Act != p.Act:
		return refuse(ActMismatch, "warrant %s is for %s, the command for %s", w.ID, w.Act, p.Act)
	case w.Product != s.Product:
		return refuse(OtherProduct, "warrant %s is for %q, this is %q", w.ID, w.Product, s.Product)
	}
	if err := d.WarrantMember.Verify(w.Devices, s.Device); err != nil {
		return refuse(NotInSet, "warrant %s: %v", w.ID, err)
	}
	if r := p.clock.within("warrant "+w.ID, w.Issued, w.Expires); r != nil {
		return r
	}
	p.Warrant = &w
	return nil
}
