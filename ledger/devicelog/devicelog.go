// Package devicelog takes in the logs that devices keep of themselves, and anchors them in the events log.
//
// Stage 3, field. A batch is accepted only where the device's chain was left: the same again is acknowledged again, a gap is
// asked for, another history is an alarm that stays. Acceptance is a fact whose data is the signed batch, so the device can
// trim what it can prove to be kept, and nobody can later say that it never said so.
package devicelog

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Head is where a device's chain is, as far as the server knows.
type Head struct {
	Seq    uint64
	Head   [32]byte
	Anchor [16]byte // UID of the newest device.log.anchored fact; zero: none
}

// Store keeps heads. Each write is durable, with its facts, when it returns nil.
type Store interface {
	// LogHead gives the head and the attestation key (SPKI); at first Seq is 0 and Head the log's origin.
	LogHead(ctx context.Context, device string) (h Head, attest []byte, err error)
	// AdvanceLog moves the head if it is still at from, else ErrChanged.
	AdvanceLog(ctx context.Context, device string, from, to Head, fact ledger.Fact) error
	// AlarmLog appends the finding of a fork once per device and sequence number.
	AlarmLog(ctx context.Context, device string, seq uint64, fact ledger.Fact) error
}

// ErrChanged says that another batch of the device came first.
var ErrChanged = errors.New("the device's log moved meanwhile")

// Prover proves facts; *ledger.Reader is one.
type Prover interface {
	Logged(ctx context.Context, uid [16]byte) (wire.Logged, error)
}

// Service is the stage.
type Service struct {
	store  Store
	prover Prover
	guard  *access.Guard
	now    func() time.Time
}

// NewService makes the stage.
func NewService(store Store, prover Prover, guard *access.Guard) *Service {
	return &Service{store: store, prover: prover, guard: guard, now: time.Now}
}

// Ingest takes a signed batch of device.
func (s *Service) Ingest(ctx context.Context, caller access.Caller, device string, envelope []byte) (wire.LogReply, error) {
	if err := s.guard.Check(ctx, caller, access.DeviceCheckin, access.Resource{Type: "device", ID: device}); err != nil {
		return wire.LogReply{}, err
	}
	head, spki, err := s.store.LogHead(ctx, device)
	if err != nil {
		return wire.LogReply{}, err
	}
	b, err := verify(envelope, device, spki)
	if err != nil {
		return wire.LogReply{}, fault.Newf(fault.Invalid, "devicelog.batch", "log batch of device %s: %w", device, err)
	}
	switch {
	case b.First > head.Seq+1:
		return s.reply(ctx, head, wire.LogReply{Acked: head.Seq, Need: head.Seq + 1})
	case b.First <= head.Seq && b.Last <= head.Seq:
		if b.Last == head.Seq && !bytes.Equal(b.Head, head.Head[:]) {
			return s.forked(ctx, caller, head, b)
		}
		return s.reply(ctx, head, wire.LogReply{Acked: head.Seq})
	case b.First <= head.Seq:
		return s.reply(ctx, head, wire.LogReply{Acked: head.Seq, Need: head.Seq + 1})
	case !bytes.Equal(b.Prev, head.Head[:]):
		return s.forked(ctx, caller, head, b)
	case b.Last < b.First:
		return s.reply(ctx, head, wire.LogReply{Acked: head.Seq}) // a heartbeat
	}
	f := ledger.New(ledger.Events, ledger.KindDeviceLogAnchored, s.now(), caller.ID, device, nil, envelope)
	next := Head{Seq: b.Last, Head: [32]byte(b.Head), Anchor: f.UID}
	if err := s.store.AdvanceLog(ctx, device, head, next, f); err != nil {
		if errors.Is(err, ErrChanged) {
			return wire.LogReply{}, fault.Newf(fault.Unavailable, "devicelog.busy", "log of device %s: %w", device, err)
		}
		return wire.LogReply{}, err
	}
	return s.reply(ctx, next, wire.LogReply{Acked: next.Seq})
}

func verify(envelope []byte, device string, spki []byte) (wire.LogBatch, error) {
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return wire.LogBatch{}, fmt.Errorf("its recorded attestation key: %w", err)
	}
	payload, err := wire.Verify1(wire.TypeDeviceLog, envelope, crypto.PublicKey(key))
	if err != nil {
		return wire.LogBatch{}, err
	}
	b, err := wire.DecodeLogBatch(payload)
	if err == nil && b.Device != device {
		err = fmt.Errorf("it is of device %s", b.Device)
	}
	return b, err
}

// reply adds the anchor when it can be proven by now; the device asks again otherwise.
func (s *Service) reply(ctx context.Context, h Head, r wire.LogReply) (wire.LogReply, error) {
	if h.Anchor == ([16]byte{}) {
		return r, nil
	}
	l, err := s.prover.Logged(ctx, h.Anchor)
	if errors.Is(err, ledger.ErrNotYetWitnessed) {
		return r, nil
	}
	if err != nil {
		return wire.LogReply{}, err
	}
	r.Anchor = &l
	return r, nil
}

// Fork is the data of device.log.forked, told when a device's log contradicts itself: a copy of the device, or a restored state.
type Fork struct {
	Code   string `json:"code"` // devicelog.fork
	Device string `json:"device"`
	Seq    uint64 `json:"seq"`
	Known  string `json:"known"` // head the server has, hex
	Said   string `json:"said"`  // what the batch says it was, or is
}

func (s *Service) forked(ctx context.Context, caller access.Caller, h Head, b wire.LogBatch) (wire.LogReply, error) {
	said := b.Prev
	if b.First <= h.Seq {
		said = b.Head
	}
	data, err := json.Marshal(Fork{
		Code: "devicelog.fork", Device: b.Device, Seq: h.Seq, Known: fmt.Sprintf("%x", h.Head), Said: fmt.Sprintf("%x", said),
	})
	if err != nil {
		return wire.LogReply{}, err
	}
	f := ledger.New(ledger.Events, ledger.KindDeviceLogForked, s.now(), caller.ID, b.Device, nil, data)
	if err := s.store.AlarmLog(ctx, b.Device, h.Seq, f); err != nil {
		return wire.LogReply{}, err
	}
	return wire.LogReply{Acked: h.Seq, Fork: true}, nil
}
