package device

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// A client of another update system is offered what our agent would be given, and answers in its own words. It can judge nothing of it, so the server holds
// for it what it cannot: nothing is offered whose command the witnesses have not seen, or whose release has not the signatures that the product asks for.

// Said is what a client said of what it was offered.
type Said string

// What clients say. Succeeded, Failed and GaveUp end an action; what was said before counts no more.
const (
	Working   Said = "works"     // it is at it
	Succeeded Said = "succeeded" // it has done it, which is not yet that it runs it
	Failing   Said = "failed"    // it did not work, and what it had stands
	GaveUp    Said = "gave up"   // it leaves off, because it was told to, or because somebody there did
	KeepsOn   Said = "keeps on"  // it was told to leave off, and is too far for that
	Agrees    Said = "agrees"    // whoever has it agrees to the update
	Declines  Said = "declines"  // they do not: for now, or for good where the command asks for it
)

func (s Said) ends() bool { return s == Succeeded || s == Failing || s == GaveUp }

// Action is a command as one client knows it: by a number.
type Action struct {
	Number   int32 // positive, and rises
	Device   string
	Command  Command
	Standing Standing // of the command for the device, as it is stored
	Offered  time.Time
	Ended    time.Time // zero: open
	Note     ActionNote
	Rev      int64
}

// ActionNote is what a client said of an action.
type ActionNote struct {
	Said    Said      `json:"said,omitempty"` // the last
	Text    string    `json:"text,omitempty"`
	KeepsOn time.Time `json:"kept_on,omitzero"` // when it first said, told to leave off, that it does not; zero: never
	Agreed  bool      `json:"agreed,omitempty"`
}

// begun reports whether a client said that it is at it.
func (n ActionNote) begun() bool { return n.Said != "" && n.Said != Agrees && n.Said != Declines }

// over reports whether the client is to leave off: nobody wants it any more, or its time is up.
func (a Action) over(now time.Time) bool {
	return a.Standing == Cancelled || !a.Command.Expires.After(now)
}

// Offers keeps actions. Every write is durable, with its facts, when it returns nil.
type Offers interface {
	// Actions gives a device's newest, the newest first, at most limit.
	Actions(ctx context.Context, device string, limit int) ([]Action, error)
	// Action finds by number; ErrNotFound when the device has none of it.
	Action(ctx context.Context, device string, number int32) (Action, error)
	// NewAction gives a command that stands for the device its number there, and counts it as delivered; ErrChanged when it does not stand any more.
	NewAction(ctx context.Context, device, command string, at time.Time) (Action, error)
	// NoteAction stores what was said, while the action is as it was read, else ErrChanged.
	NoteAction(ctx context.Context, a Action) error
	// Doubted reports whether a rollout waits for the device to say once more what it runs.
	Doubted(ctx context.Context, device string) (bool, error)
	// Versioned gives the digest of the product's release of that version, if there was ever one published; nil: there was not.
	Versioned(ctx context.Context, product, version string) ([]byte, error)
}

// Offer is what a client is to do.
type Offer struct {
	Number  int32 // zero: nothing
	Cancel  bool  // leave off with that
	Act     wire.Act
	Release wire.Release // not of a Cancel
	Digest  []byte       // of that
	Note    ActionNote
	Manner  wire.Manner // what has to be before it is carried out; Soft for as long as it may be put off
	Hours   bool        // it is for certain hours
	Shut    bool        // they are not now, and it was not begun in them
	Running string      // the version that it said last that it runs
	Until   time.Time   // it is nothing until then, if nothing wakes it; zero: nobody knows
	Unsure  bool        // it said that an update succeeded, and has still to say that it runs it, or once more
}

// unsureFor is how long a client is asked what it runs after it said that an update succeeded.
const unsureFor = 24 * time.Hour

// keepsOnFor is how long a client that does not leave off is waited for: what it is at comes to its own end first. After that it is given what is next.
const keepsOnFor = 24 * time.Hour

// maxActions is how many of a device's actions are looked at for one that is open.
const maxActions = 8

// Offer gives what a client that calls is to do now.
func (s *Service) Offer(ctx context.Context, caller access.Caller, id string) (Offer, error) {
	d, err := s.client(ctx, caller, id)
	if err != nil {
		return Offer{}, err
	}
	now := s.cfg.Now().UTC()
	s.saw(id, now)
	actions, err := s.cfg.Offers.Actions(ctx, id, maxActions)
	if err != nil {
		return Offer{}, err
	}
	unsure, err := s.unsure(ctx, d, actions, now)
	if err != nil {
		return Offer{}, err
	}
	for _, a := range actions {
		if !a.Ended.IsZero() {
			continue
		}
		if kept := a.Note.KeepsOn; kept.IsZero() { // what it is at comes to its own end first
			o, err := s.offer(ctx, d, a, now)
			if errors.Is(err, ledger.ErrNotYetWitnessed) {
				return Offer{Unsure: unsure, Running: d.Twin.Version}, nil
			}
			return o, err
		} else if now.Sub(kept) < keepsOnFor {
			return Offer{Unsure: unsure, Running: d.Twin.Version}, nil // it knows, and says itself how it ends
		}
		a.Note.Said, a.Note.Text, a.Ended = GaveUp, "told to leave off, it went on, and did not say how that ended", now
		if err := s.settle(ctx, d, a, now); err != nil && !errors.Is(err, ErrChanged) {
			return Offer{}, err
		}
	}
	a, waits, err := s.next(ctx, d, now)
	if err != nil || a.Number == 0 {
		out := Offer{Unsure: unsure, Running: d.Twin.Version}
		if !unsure && !waits {
			out.Until = now.Add(2 * s.cfg.Poll)
		}
		return out, err
	}
	return s.offer(ctx, d, a, now)
}

// unsure reports whether a client has to be asked what it runs: it said that its last update succeeded, and nothing of it since, or a rollout wants to hear it again.
func (s *Service) unsure(ctx context.Context, d Device, actions []Action, now time.Time) (bool, error) {
	if len(actions) == 0 || actions[0].Note.Said != Succeeded {
		return false, nil
	}
	if last := actions[0]; !bytes.Equal(last.Command.Wire.Release, d.Twin.Release) {
		return now.Sub(last.Ended) < unsureFor, nil
	}
	return s.cfg.Offers.Doubted(ctx, d.ID)
}

// Offered gives an action again, by the number that the client was told.
func (s *Service) Offered(ctx context.Context, caller access.Caller, id string, number int32) (Offer, error) {
	d, err := s.client(ctx, caller, id)
	if err != nil {
		return Offer{}, err
	}
	a, err := s.action(ctx, id, number)
	if err != nil {
		return Offer{}, err
	}
	if !a.Ended.IsZero() {
		return Offer{}, endedAction(number)
	}
	return s.offer(ctx, d, a, s.cfg.Now().UTC())
}

func endedAction(number int32) error {
	return fault.New(fault.Conflict, "offer.ended", fmt.Sprintf("action %d has ended", number), "ask what is to be done now")
}

func (s *Service) action(ctx context.Context, id string, number int32) (Action, error) {
	a, err := s.cfg.Offers.Action(ctx, id, number)
	if errors.Is(err, ErrNotFound) {
		return a, fault.New(fault.NotFound, "offer.unknown", fmt.Sprintf("device %s was offered no action %d", id, number), "ask what is to be done now")
	}
	return a, err
}

// client finds the device that calls, and refuses one that enforces what it is told: our agent does not ask this way, and whoever does has stolen something.
func (s *Service) client(ctx context.Context, caller access.Caller, id string) (Device, error) {
	if s.cfg.Offers == nil {
		return Device{}, fault.New(fault.Denied, "offer.none", "clients of other update systems are not served here", "serve them: `legacy` in config.json")
	}
	d, err := s.open(ctx, caller, access.DeviceCheckin, id)
	if err != nil {
		return Device{}, err
	}
	if caller.Kind == access.Device && caller.ID != access.DeviceCaller(id).ID {
		return Device{}, fault.New(fault.Denied, "device.other", "a device calls for itself only", "call under the ID that the token or the certificate names")
	}
	if d.Assurance == Enforces {
		return Device{}, fault.New(fault.Denied, "offer.enforces", fmt.Sprintf("device %s takes only what is proven to it", id), "it checks in at the devices' own listener")
	}
	if Ended(d.State) || d.State == Provisioned {
		return Device{}, fault.New(fault.Denied, "device.state", fmt.Sprintf("device %s is %s", id, d.State), "only a device in service is offered anything")
	}
	return d, nil
}

// next gives the most urgent command that a client can carry out and that can be proven now its number; zero: there is none, though some may wait.
func (s *Service) next(ctx context.Context, d Device, now time.Time) (a Action, waits bool, err error) {
	list, err := s.cfg.Reports.Outstanding(ctx, d.ID, now)
	if err != nil {
		return Action{}, false, err
	}
	for _, c := range list {
		if c.Wire.Act != wire.ActInstall && c.Wire.Act != wire.ActRollback {
			continue // it cannot be told of that
		}
		waits = true
		if c.opens(now, d.Twin.Zone).After(now) {
			continue
		}
		_, err := s.cfg.Ledger.Logged(ctx, c.UID)
		if err == nil {
			_, err = s.given(ctx, d, c)
		}
		if errors.Is(err, ledger.ErrNotYetWitnessed) || refused(err) {
			continue
		}
		if err != nil {
			return Action{}, true, err
		}
		a, err := s.cfg.Offers.NewAction(ctx, d.ID, c.ID, now)
		if errors.Is(err, ErrChanged) {
			continue // it was called off meanwhile
		}
		return a, true, err
	}
	return Action{}, waits, nil
}

// refused reports whether err says no, and not only that nobody can tell now.
func refused(err error) bool {
	f, ok := errors.AsType[*fault.Fault](err)
	return ok && f.Kind != fault.Internal && f.Kind != fault.Unavailable
}

// offer says what a client is to do with an action: carry it out, or leave off, when nobody wants that any more, its time is up, or it may not have the release now.
func (s *Service) offer(ctx context.Context, d Device, a Action, now time.Time) (Offer, error) {
	out := Offer{Number: a.Number, Act: a.Command.Wire.Act, Note: a.Note, Running: d.Twin.Version}
	if a.over(now) || !a.Note.KeepsOn.IsZero() {
		out.Cancel = true
		return out, nil
	}
	m, err := s.given(ctx, d, a.Command)
	if refused(err) {
		out.Cancel = true
		return out, nil
	}
	if err != nil {
		return Offer{}, err
	}
	out.Release, out.Digest, out.Manner = m, a.Command.Wire.Release, a.Command.Manner
	if out.Manner == wire.Soft && !now.Before(a.Offered.Add(a.Command.Grace)) {
		out.Manner = wire.Forced
	}
	out.Hours = a.Command.Hours != nil
	out.Shut = a.Command.opens(now, d.Twin.Zone).After(now) && !a.Note.begun()
	return out, nil
}

// given gives the release of a command as our agent would believe it: published, in the witnessed log, signed by as many as the product's trust bundle asks for, and one that this client
// may take.
func (s *Service) given(ctx context.Context, d Device, c Command) (wire.Release, error) {
	digest := c.Wire.Release
	if len(digest) != 32 {
		return wire.Release{}, fmt.Errorf("release digest of %d bytes", len(digest))
	}
	l, err := s.cfg.Releases.Logged(ctx, [32]byte(digest))
	if err != nil {
		return wire.Release{}, err
	}
	f, err := wire.DecodeFact(l.Entry)
	if err != nil {
		return wire.Release{}, err
	}
	b, err := s.CurrentBundle(ctx, d.Product)
	if err != nil {
		return wire.Release{}, err
	}
	m, sum, err := wire.VerifyRelease(b.Wire, f.Data)
	if err == nil && string(sum[:]) != string(digest) {
		err = errors.New("the log has another release in its place")
	}
	if err != nil {
		return m, fault.Newf(fault.Conflict, "offer.release", "release %x is offered to nobody: %w", digest, err).With("publish it, or roll out another")
	}
	return m, s.mayTake(ctx, d, c, m, b.Wire)
}

// mayTake refuses a client what a device of ours would refuse by itself. What the client runs is its own word; of one that does not say it nobody can tell that this is newer.
func (s *Service) mayTake(ctx context.Context, d Device, c Command, m wire.Release, b wire.Bundle) error {
	no := func(format string, a ...any) error {
		return fault.New(fault.Conflict, "offer.unfit", fmt.Sprintf("release %s is not for device %s: ", m.ID, d.ID)+fmt.Sprintf(format, a...), "roll out a release that names this hardware and has the client's format")
	}
	switch {
	case !fits(d, wire.Checkin{}, c):
		return no("it is %s", d.State)
	case !m.RunsOn(d.Hardware):
		return no("it is hardware %s", d.Hardware)
	case m.Sealed():
		return no("it has what is protected, and nothing there opens that")
	case m.Counter < b.Least():
		return no("security counter %d, and trust bundle %d has %d and above installed", m.Counter, b.Version, b.Least())
	case bytes.Equal(d.Twin.Release, c.Wire.Release):
		return nil // it is there already, and has only not said that it is done
	}
	var runs *wire.Release
	if len(d.Twin.Release) == sha256.Size {
		r, _, err := s.cfg.Releases.Manifest(ctx, [32]byte(d.Twin.Release))
		if err := unlessUnknown(err); err != nil {
			return err
		}
		if err == nil {
			runs = &r
		}
	}
	switch version := d.Twin.Version; {
	case runs != nil && runs.Counter > m.Counter:
		return no("it runs security counter %d, and this has %d", runs.Counter, m.Counter)
	case c.Wire.Act == wire.ActRollback && (runs == nil || !runs.MayReturnTo([32]byte(c.Wire.Release))):
		return no("the approvers of what it runs, %q, did not allow going back to this", version)
	case c.Wire.Act == wire.ActRollback:
	case !wire.ValidVersion(version):
		return no("it says that it runs version %q, which is no version", version)
	case wire.CompareVersions(m.Version, version) <= 0:
		return no("it runs %s, which is not older", version)
	case !m.InstallsOver(version):
		return no("it runs %s, and this is installed over versions %v", version, m.Over)
	}
	return nil
}

// Answer is what a client says of an action.
type Answer struct {
	Number int32
	Said   Said
	Text   string // why; cut to MaxAnswer bytes
}

// MaxAnswer bounds the text of an answer, bytes.
const MaxAnswer = 1024

// maxTries is how often an answer is tried again that another of the same device came between.
const maxTries = 4

// Answer takes what a client says of an action. It is durable when it returns nil; the same again changes nothing, and so does what comes too late. What contradicts
// the end of the action is refused.
func (s *Service) Answer(ctx context.Context, caller access.Caller, id string, in Answer) error {
	in.Text = clip(in.Text)
	for range maxTries {
		d, err := s.client(ctx, caller, id)
		if err != nil {
			return err
		}
		s.saw(id, s.cfg.Now().UTC())
		a, err := s.action(ctx, id, in.Number)
		if err != nil {
			return err
		}
		if !a.Ended.IsZero() {
			if in.Said.ends() && in.Said != a.Note.Said {
				return endedAction(in.Number)
			}
			return nil
		}
		if err = s.answer(ctx, d, a, in); !errors.Is(err, ErrChanged) {
			return err
		}
	}
	return fault.New(fault.Unavailable, "device.busy", fmt.Sprintf("device %s changed while it answered", id), "say it again")
}

func clip(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) > MaxAnswer {
		text = strings.ToValidUTF8(text[:MaxAnswer], "")
	}
	return text
}

func (s *Service) answer(ctx context.Context, d Device, a Action, in Answer) error {
	now := s.cfg.Now().UTC()
	note := a.Note
	note.Said, note.Text = in.Said, in.Text
	switch in.Said {
	case Working:
	case KeepsOn:
		if note.KeepsOn.IsZero() {
			note.KeepsOn = now
		}
	case Agrees, Declines:
		note.Agreed = in.Said == Agrees
		if in.Said == Declines && a.Command.Manner == wire.Consent {
			a.Note, a.Ended = note, now
			return s.settle(ctx, d, a, now)
		}
	case Succeeded, Failing, GaveUp:
		a.Note, a.Ended = note, now
		return s.settle(ctx, d, a, now)
	default:
		return fault.New(fault.Invalid, "offer.answer", fmt.Sprintf("no answer is called %q", in.Said), "answer confirmed or denied")
	}
	if note == a.Note {
		return nil
	}
	a.Note = note
	return s.cfg.Offers.NoteAction(ctx, a)
}

// settle ends an action, with the standing of its command and the fact.
func (s *Service) settle(ctx context.Context, d Device, a Action, now time.Time) error {
	r := Report{From: d, State: d.State, GuardUntil: d.GuardUntil, Twin: d.Twin, AckedSeq: d.AckedSeq, Token: d.Token, At: now, Action: &a}
	outcome, standing, kind := wire.OutcomeDone, Done, ledger.KindDeviceUpdated
	switch {
	case a.Note.Said == Failing:
		outcome, standing, kind = wire.OutcomeFailed, Failed, ledger.KindDeviceUnhealthy
	case a.Note.Said == GaveUp && a.over(now):
		return s.cfg.Reports.ApplyReport(ctx, r) // as it was told; the command says so itself
	case a.Note.Said == GaveUp, a.Note.Said == Declines:
		outcome, standing, kind = wire.OutcomeRefused, Refused, ledger.KindDeviceRefused
	}
	code := ""
	switch {
	case a.Note.Said == Declines:
		code = wire.CodeDeclined
	case outcome != wire.OutcomeDone:
		code = "client"
	}
	c := a.Command
	r.Results = []CommandDevice{{Command: c.ID, Device: d.ID, Act: c.Wire.Act, Standing: standing, Code: code, Text: a.Note.Text, At: now}}
	var cause *ledger.Ref
	if ref, ok, err := s.cfg.Ledger.Locate(ctx, c.UID); err != nil {
		return err
	} else if ok {
		cause = &ref
	}
	f, err := jsonFact(kind, now, access.DeviceCaller(d.ID).ID, d.ID, cause, ResultData{
		Device: d.ID, Command: c.ID, Digest: hex.EncodeToString(c.Digest[:]), Act: c.Wire.Act, Outcome: outcome, Code: code, Text: a.Note.Text,
		Release: hex.EncodeToString(c.Wire.Release), Rollout: c.Wire.Rollout, At: uint64(now.Unix()),
	})
	if err != nil {
		return err
	}
	r.Facts = append(r.Facts, f)
	return s.cfg.Reports.ApplyReport(ctx, r)
}

// MaxVersion bounds what a client calls its version, bytes.
const MaxVersion = 128

// Runs takes what version a client says that it runs. A release that the product has under that version is what it is taken to run, by its own word; any other
// version is shown as it was said, and is no release.
func (s *Service) Runs(ctx context.Context, caller access.Caller, id, version string) error {
	if len(version) > MaxVersion {
		return fault.New(fault.Invalid, "offer.version", fmt.Sprintf("a version of %d bytes", len(version)), fmt.Sprintf("at most %d", MaxVersion))
	}
	version = strings.ToValidUTF8(version, "\uFFFD")
	d, err := s.client(ctx, caller, id)
	if err != nil {
		return err
	}
	now := s.cfg.Now().UTC()
	s.saw(id, now)
	digest, err := s.cfg.Offers.Versioned(ctx, d.Product, version)
	if err != nil {
		return err
	}
	r := Report{From: d, State: d.State, GuardUntil: d.GuardUntil, Twin: d.Twin, AckedSeq: d.AckedSeq, Token: d.Token, At: now}
	r.Twin.Version, r.Twin.Release, r.Twin.Healthy, r.Twin.Sick, r.Twin.Said = version, digest, version != "", false, now
	if digest != nil {
		r.Twin.Good = digest
	}
	if err := s.health(&r, wire.Checkin{Release: digest, Version: version, Healthy: r.Twin.Healthy}); err != nil {
		return err
	}
	if err := s.cfg.Reports.ApplyReport(ctx, r); errors.Is(err, ErrChanged) {
		return fault.New(fault.Unavailable, "device.busy", fmt.Sprintf("device %s changed while it called", id), "say it again")
	} else if err != nil {
		return err
	}
	return nil
}
