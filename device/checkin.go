package device

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// MaxAttempts is how often a command is delivered to a device over its line before a refusal that might pass becomes final; the store holds it.
const MaxAttempts = 5

// Checkin takes what the device says and tells it what to do. Results are durable when it returns.
func (s *Service) Checkin(ctx context.Context, caller access.Caller, id string, in wire.Checkin) (wire.CheckinReply, error) {
	reply, _, err := s.checkin(ctx, caller, id, in)
	return reply, err
}

// checkin says beside the answer until when it is the same; see quietUntil.
func (s *Service) checkin(ctx context.Context, caller access.Caller, id string, in wire.Checkin) (reply wire.CheckinReply, until time.Time, err error) {
	d, err := s.open(ctx, caller, access.DeviceCheckin, id)
	if err != nil {
		return reply, until, err
	}
	if err := heeded(caller, d); err != nil {
		return reply, until, err
	}
	now := s.cfg.Now().UTC()
	if d, err = s.ingest(ctx, d, in, now, time.Time{}); err != nil {
		return reply, until, err
	}
	s.saw(id, now)
	reply = s.reply(d.State, d.AckedSeq, now)
	if !d.Owned.IsZero() {
		reply.Period = wire.PeriodOf(d.Owned)
	}
	if in.Token != nil && tokenDigest(in.Token.Next) == d.Token {
		reply.Token, reply.Roll = in.Token.Next, uint64(s.cfg.Roll/time.Second)
	}
	var rest time.Time
	if s.cfg.Challenger != nil {
		reply.Challenge, rest = s.cfg.Challenger.Due(ctx, d, in)
	}
	word, err := s.deliver(ctx, d, in, now)
	if err != nil {
		return reply, until, err
	}
	reply.Delivery, reply.Bundle = word.delivery, word.newest
	if word.outstanding || in.Trial || in.Progress != nil || reply.Challenge != nil {
		reply.NextPoll = uint64(s.cfg.Soon / time.Millisecond)
	}
	return reply, s.quietUntil(d, in, reply, word, rest, now), nil
}

// reply is the answer of which nothing else is to be said.
func (s *Service) reply(standing State, acked uint64, now time.Time) wire.CheckinReply {
	return wire.CheckinReply{Time: uint64(now.Unix()), NextPoll: uint64(s.cfg.Poll / time.Millisecond), AckedSeq: acked, Standing: string(standing)}
}

// heeded says why a device is not listened to, if it is not.
func heeded(caller access.Caller, d Device) error {
	if caller.Kind == access.Device && caller.ID != access.DeviceCaller(d.ID).ID {
		return fault.New(fault.Denied, "device.other", "a device checks in for itself only", "check in under the ID that the certificate names")
	}
	if d.State == Provisioned { // it has enrolled, or it had no certificate to call with
		return fault.New(fault.Conflict, "device.onboarding", fmt.Sprintf("the enrolment of device %s is not taken in yet", d.ID), "ask again; enrol anew if it stays so")
	}
	if mustEnrol(d) {
		return fault.New(fault.Denied, "device.enrol-anew",
			fmt.Sprintf("device %s was suspected of being two: it is heard again when it has enrolled with its factory identity", d.ID), "enrol anew with the IDevID")
	}
	if Ended(d.State) {
		return fault.New(fault.Denied, "device.state", fmt.Sprintf("device %s is %s", d.ID, d.State), "nothing: its life is over")
	}
	return nil
}

// ingest stores what the check-in changes, if anything, and gives the device as it is then. carried is when the device said it, if somebody brought it; zero: it says it now, over a line.
func (s *Service) ingest(ctx context.Context, d Device, in wire.Checkin, now, carried time.Time) (Device, error) {
	r := Report{From: d, State: d.State, GuardUntil: d.GuardUntil, Twin: twinOf(d.Twin, in), AckedSeq: d.AckedSeq, Token: d.Token, At: now}
	if startsAnew(d, in) {
		r.From.Twin, r.Twin = forgetful(d.Twin), twinOf(forgetful(d.Twin), in)
	}
	for _, res := range in.Results {
		if res.Seq <= r.AckedSeq || res.Seq > 1<<62 {
			continue
		}
		if err := s.result(ctx, &r, res); err != nil {
			return Device{}, err
		}
		r.AckedSeq = res.Seq
	}
	var before *visit
	if r.Twin.Carried = carried; carried.IsZero() {
		before = s.lines.note(d.ID, lineOf(ctx), now)
	}
	if err := s.inconsistent(&r, in, before); err != nil {
		return Device{}, err
	}
	if err := r.onTrust(in); err != nil {
		return Device{}, err
	}
	if err := s.guardOver(&r, in); err != nil {
		return Device{}, err
	}
	if err := s.health(&r, in); err != nil {
		return Device{}, err
	}
	if r.State == d.State && r.AckedSeq == d.AckedSeq && r.Token == d.Token && len(r.Facts) == 0 && d.Restored.IsZero() && reflect.DeepEqual(r.Twin, d.Twin) {
		return d, nil
	}
	if err := s.cfg.Reports.ApplyReport(ctx, r); err != nil {
		if errors.Is(err, ErrChanged) {
			return Device{}, fault.New(fault.Unavailable, "device.busy", fmt.Sprintf("device %s changed while it checked in", d.ID), "check in again")
		}
		return Device{}, err
	}
	if r.State != d.State {
		d.Since = now
	}
	d.State, d.GuardUntil, d.Twin, d.AckedSeq, d.Token, d.Restored = r.State, r.GuardUntil, r.Twin, r.AckedSeq, r.Token, time.Time{}
	return d, nil
}

// twinOf lays the check-in over the twin. What never goes back on one device is kept at its highest, so that a second device with
// the same identity shows.
func twinOf(t Twin, in wire.Checkin) Twin {
	t.Release, t.Version, t.Trial, t.Agent = nilIfEmpty(in.Release), in.Version, in.Trial, in.State
	t.Healthy, t.Sick, t.Health, t.Bundle = in.Healthy, in.Sick || in.State == stateRecovery, in.Health, max(t.Bundle, in.Bundle)
	t.BootCount, t.Accepted = max(t.BootCount, in.BootCount), max(t.Accepted, in.Counter)
	if in.Healthy && !in.Trial && len(in.Release) > 0 {
		t.Good = in.Release
	}
	t.Reported, t.Programs, t.Progress, t.Room, t.Left, t.Knows = in.Reported, in.Programs, in.Progress, in.Room, in.Left, in.Knows
	t.Zone, t.Waits = in.Zone, in.Waits
	return t
}

func nilIfEmpty(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// ResultData is the Data of a fact about a device's result.
type ResultData struct {
	Device  string       `json:"device"`
	Command string       `json:"command,omitempty"` // ID, empty when no such command was ever given
	Digest  string       `json:"digest"`            // what the device read
	Act     wire.Act     `json:"act"`
	Outcome wire.Outcome `json:"outcome"`
	Code    string       `json:"code,omitempty"`
	Text    string       `json:"text,omitempty"`
	Release string       `json:"release,omitempty"`
	Rollout string       `json:"rollout,omitempty"`
	At      uint64       `json:"at"`
	Seq     uint64       `json:"seq"`
}

// result takes one new result: the command's row, the fact, and what it means for the state.
func (s *Service) result(ctx context.Context, r *Report, res wire.Result) error {
	var c Command
	var cause *ledger.Ref
	known := false
	if len(res.Command) == 32 {
		var standing Standing
		var err error
		c, standing, err = s.cfg.Commands.CommandTo(ctx, [32]byte(res.Command), r.From.ID)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		// Commands are in the public log: a result counts only for one that this device was given and has not answered.
		known = err == nil && c.Wire.Act == res.Act && (standing == Delivered || standing == Pending || standing == Cancelled)
	}
	data := ResultData{
		Device: r.From.ID, Digest: hex.EncodeToString(res.Command), Act: res.Act, Outcome: res.Outcome, Code: res.Code, Text: res.Text,
		At: res.At, Seq: res.Seq,
	}
	if known {
		ref, ok, err := s.cfg.Ledger.Locate(ctx, c.UID)
		if err != nil {
			return err
		}
		if ok {
			cause = &ref
		}
		data.Command, data.Release, data.Rollout = c.ID, hex.EncodeToString(c.Wire.Release), c.Wire.Rollout
		r.Results = append(r.Results, CommandDevice{
			Command: c.ID, Device: r.From.ID, Act: res.Act, Standing: standingOf(res), Code: res.Code, Text: res.Text, At: r.At,
		})
	}
	if !known && !s.mayTell(r.From.ID, r.At) {
		return nil
	}
	kind := ledger.KindDeviceUpdated
	switch {
	case res.Outcome == wire.OutcomeRefused:
		kind = ledger.KindDeviceRefused
	case res.Outcome == wire.OutcomeFailed:
		kind = ledger.KindDeviceUnhealthy
	case res.Act == wire.ActReprovide:
		kind = ledger.KindDeviceReprovisioned
	case known:
		if moved, err := s.moveByResult(r, c, cause); err != nil || moved {
			return err
		}
	}
	f, err := jsonFact(kind, r.At, access.DeviceCaller(r.From.ID).ID, r.From.ID, cause, data)
	if err != nil {
		return err
	}
	r.Facts = append(r.Facts, f)
	return nil
}

// standingOf keeps the command open when the refusal may pass by itself; the store closes it after MaxAttempts.
func standingOf(res wire.Result) Standing {
	switch res.Outcome {
	case wire.OutcomeDone:
		return Done
	case wire.OutcomeFailed:
		return Failed
	case wire.OutcomeRefused:
		switch res.Code {
		case "nonce", "replayed", "expired", "future", "not-witnessed", "stale-checkpoint", "shrunk-log", "busy":
			return Pending
		}
	}
	return Refused
}

// moveByResult moves the state when a guarded act was done. A wipe does not end a life: its signed receipt does.
func (s *Service) moveByResult(r *Report, c Command, cause *ledger.Ref) (bool, error) {
	var ev Event
	var until time.Time
	switch c.Wire.Act {
	case wire.ActQuarantine:
		ev, until = Quarantine, r.At.Add(time.Duration(c.Wire.TTL)*time.Second)
	case wire.ActDormant:
		ev, until = Sleep, r.At.Add(time.Duration(c.Wire.TTL)*time.Second)
	case wire.ActRelease:
		ev = Release
	case wire.ActWake:
		ev = Wake
	case wire.ActConfigure:
		r.Twin.Desired = settle(r.Twin.Desired, c.Config[min(len(c.Config), wire.ConfigSalt):])
		return false, nil
	default:
		return false, nil
	}
	if (ev == Quarantine && r.State == Quarantined) || (ev == Sleep && r.State == Dormant) {
		r.GuardUntil = until // renewed
		return false, nil
	}
	return s.step(r, ev, until, access.DeviceCaller(r.From.ID).ID, cause, "done by the device: "+c.Reason)
}

// step adds a transition to the report. One the life cycle does not know is left out: the device did what was commanded, but its
// life has gone on since.
func (s *Service) step(r *Report, ev Event, until time.Time, actor string, cause *ledger.Ref, reason string) (bool, error) {
	to, ok := next(r.State, ev)
	if !ok {
		return false, nil
	}
	d := r.From
	d.State = r.State
	f, err := s.stateFact(d, to, ev, r.At, actor, cause, reason)
	if err != nil {
		return false, err
	}
	r.State, r.GuardUntil = to, until
	r.Facts = append(r.Facts, f)
	return true, nil
}

// guardOver follows a device that ended its quarantine or sleep by itself, as it must when its time to live runs out.
func (s *Service) guardOver(r *Report, in wire.Checkin) error {
	if in.State != string(Active) || r.GuardUntil.IsZero() || r.At.Before(r.GuardUntil) {
		return nil
	}
	ev := Release
	if r.State == Dormant {
		ev = Wake
	}
	_, err := s.step(r, ev, time.Time{}, access.DeviceCaller(r.From.ID).ID, nil, "its time to live ran out and was not renewed")
	return err
}

// HealthData is the Data of device.healthy and of a device.unhealthy that no command led to.
type HealthData struct {
	Device  string `json:"device"`
	Release string `json:"release"`
	Version string `json:"version"`
	Health  string `json:"health,omitempty"`
}

// stateRecovery is the agent's state when nothing runs.
const stateRecovery = "recovery"

func told(healthy bool) string {
	if healthy {
		return "healthy"
	}
	return "unhealthy"
}

// healthNews says what of a device's health is to be told: when it turns healthy on a confirmed release, or sick.
func healthNews(was, is Twin, in wire.Checkin) (kind ledger.Kind, word string, news bool) {
	same := string(was.Release) == string(in.Release)
	switch {
	case in.Trial: // its result comes
	case in.Healthy && (was.Told != told(true) || !same):
		return ledger.KindDeviceHealthy, told(true), true
	case is.Sick && was.Told != told(false):
		return ledger.KindDeviceUnhealthy, told(false), true
	}
	return "", "", false // nothing new, or not known: a device that has just started says neither
}

// health tells of it.
func (s *Service) health(r *Report, in wire.Checkin) error {
	kind, word, news := healthNews(r.From.Twin, r.Twin, in)
	if !news {
		return nil
	}
	if !s.mayTell(r.From.ID, r.At) {
		return nil // it is told when it may be
	}
	r.Twin.Told = word
	f, err := jsonFact(kind, r.At, access.DeviceCaller(r.From.ID).ID, r.From.ID, nil, HealthData{
		Device: r.From.ID, Release: hex.EncodeToString(in.Release), Version: in.Version, Health: in.Health,
	})
	if err != nil {
		return err
	}
	r.Facts = append(r.Facts, f)
	return nil
}
