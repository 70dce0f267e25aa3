package device

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/carton"
)

// Evidence judges what devices prove that nobody could ask; *attest.Service is one.
type Evidence interface {
	// Signed opens evidence of the device that is over nonce.
	Signed(ctx context.Context, device string, envelope, nonce []byte) (wire.Evidence, error)
	// Carried judges such evidence, which is of the time at, and keeps the verdict.
	Carried(ctx context.Context, caller access.Caller, device string, envelope, nonce []byte, at time.Time) error
}

// Journal takes devices' own logs; *devicelog.Service is one.
type Journal interface {
	Anchor(ctx context.Context, device string) (*wire.Logged, error) // how far it is; nil: nothing of it is witnessed yet
	// Reached gives the number of the last event that is here.
	Reached(ctx context.Context, device string) (uint64, error)
	Ingest(ctx context.Context, caller access.Caller, device string, envelope []byte) (wire.LogReply, error)
}

// Taken says what was taken in of a history.
type Taken struct {
	Device string    `json:"device"`
	At     time.Time `json:"at" doc:"when the device said it: by its clock, and neither before the carton was written nor after now"`
	Known  bool      `json:"known,omitempty" doc:"nothing but its log counts: all of it was here already, or something later, or the device has been handed on since"`
	Log    uint64    `json:"log" doc:"number of the last event of the device's own log that is here"`
	Behind uint64    `json:"behind,omitempty" doc:"events of its log that are not: they come when this history, or a later one, is taken in again, or over a line"`
}

// TakeHistory takes in what a device says that installed from a carton. It is the device's own by its evidence, and of after the carton by the directive that it answers. Of a history that was taken in,
// or is of before what is known, nothing counts but what its log adds, so that files may come twice and in any order. All of it is durable when it returns nil; where it broke off, it is taken in again.
func (s *Service) TakeHistory(ctx context.Context, caller access.Caller, data []byte) (Taken, error) {
	invalid := func(err error) (Taken, error) {
		return Taken{}, fault.Newf(fault.Invalid, "history.invalid", "the history: %w", err).With("write it again on the device: `hallmark-agent history`")
	}
	if s.cfg.Evidence == nil || s.cfg.Journal == nil {
		return Taken{}, fault.New(fault.Unavailable, "history.closed", "no histories are taken in here", "give it to the server that wrote the carton")
	}
	h, err := carton.DecodeHistory(data)
	if err != nil {
		return invalid(err)
	}
	d, err := s.open(ctx, caller, access.DeviceCommand, h.Device)
	if err != nil {
		return Taken{}, err
	}
	own := access.DeviceCaller(d.ID)
	if err := heeded(own, d); err != nil {
		return Taken{}, err
	}
	in, e, err := s.ofDevice(ctx, h)
	if err != nil {
		return invalid(err)
	}
	written, err := s.answers(ctx, d, h, in)
	if err != nil {
		return invalid(err)
	}
	now := s.cfg.Now().UTC()
	out := Taken{Device: d.ID, At: between(written, time.Unix(int64(min(h.At, 1<<40)), 0).UTC(), now)}
	if out.Log, err = s.cfg.Journal.Reached(ctx, d.ID); err != nil {
		return Taken{}, err
	}
	if out.Known = out.Log >= e.LogSeq || past(d, in, out.At); !out.Known {
		if _, err := s.ingest(ctx, d, in, now, out.At); err != nil {
			return Taken{}, err
		}
		nonce := h.Nonce()
		if err := s.cfg.Evidence.Carried(ctx, own, d.ID, h.Evidence, nonce[:], out.At); err != nil {
			return Taken{}, err
		}
	}
	// The log comes last: that it reaches as far as the evidence says that all before it was taken in.
	if out.Log, err = s.journal(ctx, own, d.ID, h.Log, out.Log); err != nil {
		return Taken{}, err
	}
	out.Behind = e.LogSeq - min(e.LogSeq, out.Log)
	return out, nil
}

// past reports whether what is carried is of before what is known of the device, by its counters or the time, or of before it was its owner's. What couriers bring first, or again, is theirs
// to choose, and accuses nobody: a copy with an older memory shows over a line.
func past(d Device, in wire.Checkin, at time.Time) bool {
	had := d.Twin
	if startsAnew(d, in) {
		had = forgetful(had)
	}
	return in.BootCount < had.BootCount || in.Counter < had.Accepted || in.Bundle < had.Bundle ||
		at.Before(d.LastSeen.Truncate(time.Second)) || at.Before(d.Owned) // devices tell the time in seconds
}

// ofDevice opens what a history says, if its evidence makes it the device's.
func (s *Service) ofDevice(ctx context.Context, h carton.History) (in wire.Checkin, e wire.Evidence, err error) {
	nonce := h.Nonce()
	if e, err = s.cfg.Evidence.Signed(ctx, h.Device, h.Evidence, nonce[:]); err != nil {
		return in, e, err
	}
	in, err = wire.DecodeCheckin(h.Checkin)
	return in, e, err
}

// answers says when the carton was written that a history follows from.
func (s *Service) answers(ctx context.Context, d Device, h carton.History, in wire.Checkin) (written time.Time, err error) {
	b, err := s.cfg.Trust.Bundle(ctx, d.Product, in.Bundle)
	if errors.Is(err, ErrNotFound) || in.Bundle == 0 {
		return written, fmt.Errorf("the device says that it has trust bundle %d, and there is none", in.Bundle)
	}
	if err != nil {
		return written, err
	}
	payload, err := b.Wire.Directive.Verify1(wire.TypeOffline, h.Directive)
	if err != nil {
		return written, fmt.Errorf("the directive that it answers: %w", err)
	}
	o, err := wire.DecodeOfflineDirective(payload)
	if err != nil {
		return written, err
	}
	if sum := sha256.Sum256(h.Directive); o.Device != d.ID || in.Counter < o.Counter || !bytes.Equal(in.Nonce, sum[:]) {
		return written, fmt.Errorf("it answers directive %d to device %s, and says otherwise itself", o.Counter, o.Device)
	}
	return time.Unix(int64(min(o.Issued, 1<<40)), 0).UTC(), nil
}

// between gives t, or the nearer of the two times that it is not between.
func between(least, t, most time.Time) time.Time {
	if t.Before(least) {
		t = least
	}
	if t.After(most) {
		return most
	}
	return t
}

// journal takes in the batches that go on from where the log is, and says how far the log is then. The evidence beside them is over them.
func (s *Service) journal(ctx context.Context, own access.Caller, id string, batches [][]byte, reached uint64) (uint64, error) {
	for _, envelope := range batches {
		last, err := lastOf(envelope)
		if err != nil {
			return reached, fault.Newf(fault.Invalid, "history.invalid", "the history's log: %w", err).With("write it again on the device: `hallmark-agent history`")
		}
		if last <= reached {
			continue
		}
		r, err := s.cfg.Journal.Ingest(ctx, own, id, envelope)
		if err != nil {
			return reached, err
		}
		if r.Acked < last { // it does not go on from there, contradicts what is here, or is too much for today
			return r.Acked, nil
		}
		reached = r.Acked
	}
	return reached, nil
}

// lastOf reads, without believing anything, where a batch ends.
func lastOf(envelope []byte) (uint64, error) {
	o, err := wire.Parse1(wire.TypeDeviceLog, envelope)
	if err != nil {
		return 0, err
	}
	b, err := wire.DecodeLogBatch(o.Payload)
	return b.Last, err
}
