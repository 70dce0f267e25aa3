// Package devicelog takes in the logs that devices keep of themselves, and anchors them in the events log.
//
// Stage 3, field. A batch is accepted only where the device's chain was left: the same again is acknowledged again, a gap is
// asked for, another history is an alarm that stays, and so is a device that has forgotten what it had said: its flash was set back.
// Acceptance is a fact whose data is the signed batch, so the device can trim what it can prove to be kept, and nobody can later
// say that it never said so. What the log then amounts to, and when it was last heard of, is kept beside (Tally).
package devicelog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Head is where a device's chain is, as far as the server knows.
type Head struct {
	Seq     uint64
	Head    [32]byte
	Anchor  [16]byte  // UID of the newest device.log.anchored fact; zero: none
	Boots   uint64    // the highest boot count a batch was signed under
	Counter uint64    // the highest hardware counter; 0: the device has none
	Heard   time.Time // last batch or heartbeat
	Tally   Tally
}

// Tally is what a device's log amounts to from its first event on. It is whole when each gap in it was explained by an event behind it,
// and nothing contradicts it.
type Tally struct {
	Gaps        uint64 // stretches that are lost on the device
	Lost        uint64 // events in them
	Unexplained uint64 // gaps that no event of the log has told of yet
}

// Add is the tally after b.
func (t Tally) Add(b wire.LogBatch) Tally {
	if g := b.Gap; g != nil {
		t.Gaps++
		t.Unexplained++
		t.Lost += g.Last - g.First + 1
	}
	for _, kind := range []string{wire.LogOverflow, wire.LogDamaged, wire.LogRollback} {
		if _, ok := event(b, kind); ok {
			t.Unexplained = 0
		}
	}
	return t
}

// event finds the first event of a kind.
func event(b wire.LogBatch, kind string) (wire.LogEvent, bool) {
	i := slices.IndexFunc(b.Events, func(e wire.LogEvent) bool { return e.Kind == kind })
	if i < 0 {
		return wire.LogEvent{}, false
	}
	return b.Events[i], true
}

// Store keeps heads. Each write is durable, with its facts, when it returns nil.
type Store interface {
	// LogHead gives the head and the attestation key (SPKI); at first Seq is 0 and Head the log's origin.
	LogHead(ctx context.Context, device string) (h Head, attest []byte, err error)
	// LoggedHead gives the head after event seq as the device's anchored batches say it; ok is false when none of the newest does.
	LoggedHead(ctx context.Context, device string, seq uint64) (head [32]byte, ok bool, err error)
	// AdvanceLog moves the head if it is still at from, else ErrChanged.
	AdvanceLog(ctx context.Context, device string, from, to Head, facts ...ledger.Fact) error
	// HeardLog notes a heartbeat: Boots, Counter and Heard of h.
	HeardLog(ctx context.Context, device string, h Head) error
	// AlarmLog appends the finding of a contradiction once per device and sequence number.
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
	may    allowance
}

// NewService makes the stage.
func NewService(store Store, prover Prover, guard *access.Guard) *Service {
	return &Service{store: store, prover: prover, guard: guard, now: time.Now}
}

// Reached gives the number of the last event of a device that is here.
func (s *Service) Reached(ctx context.Context, device string) (uint64, error) {
	h, _, err := s.store.LogHead(ctx, device)
	return h.Seq, err
}

// Anchor proves how far the log of a device is; nil: nothing of it is witnessed yet.
func (s *Service) Anchor(ctx context.Context, device string) (*wire.Logged, error) {
	h, _, err := s.store.LogHead(ctx, device)
	if err != nil {
		return nil, err
	}
	r, err := s.reply(ctx, h, wire.LogReply{})
	return r.Anchor, err
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
		return wire.LogReply{}, fault.Newf(fault.Invalid, "devicelog.batch", "log batch of device %s: %w", device, err).With("the device sends it again; see which version of the agent it runs")
	}
	switch known, ok := b.HeadAt(head.Seq); {
	case b.First > head.Seq+1:
		return s.reply(ctx, head, wire.LogReply{Acked: head.Seq, Need: head.Seq + 1})
	case b.Last < head.Seq:
		return s.old(ctx, caller, head, b)
	case ok && known != head.Head:
		return s.alarm(ctx, caller, head, b, Fork{Code: CodeFork, Said: fmt.Sprintf("%x", known)})
	case b.Last == head.Seq && b.First <= head.Seq && ok:
		return s.reply(ctx, head, wire.LogReply{Acked: head.Seq}) // the same again
	case b.First <= head.Seq:
		return s.reply(ctx, head, wire.LogReply{Acked: head.Seq, Need: head.Seq + 1})
	case b.BootCount < head.Boots:
		return s.alarm(ctx, caller, head, b, Fork{Code: CodeFork, Said: fmt.Sprintf("start %d after start %d", b.BootCount, head.Boots)})
	case b.Counter < head.Counter:
		return s.alarm(ctx, caller, head, b, Fork{Code: CodeFork, Said: fmt.Sprintf("hardware counter %d after %d", b.Counter, head.Counter)})
	}
	return s.advance(ctx, caller, head, b, envelope)
}

// old answers a batch that ends before what the server has. A device sends no such thing: it knows what it has said. So it was on its way
// for long, or, when the device has started again since, its flash was set back.
func (s *Service) old(ctx context.Context, caller access.Caller, head Head, b wire.LogBatch) (wire.LogReply, error) {
	if b.BootCount > head.Boots {
		return s.alarm(ctx, caller, head, b, Fork{Code: CodeRollback, Said: fmt.Sprintf("after start %d its last event was %d", b.BootCount, b.Last)})
	}
	known, ok, err := s.store.LoggedHead(ctx, b.Device, b.Last)
	if err != nil {
		return wire.LogReply{}, err
	}
	if ok && !bytes.Equal(known[:], b.Head) {
		return s.alarm(ctx, caller, head, b, Fork{Code: CodeFork, Said: fmt.Sprintf("%x at event %d", b.Head, b.Last)})
	}
	return s.reply(ctx, head, wire.LogReply{Acked: head.Seq})
}

// advance takes in what follows the head: a heartbeat, when nothing does.
func (s *Service) advance(ctx context.Context, caller access.Caller, head Head, b wire.LogBatch, envelope []byte) (wire.LogReply, error) {
	next := head
	next.Boots, next.Counter, next.Heard = b.BootCount, b.Counter, s.now()
	if b.Last < b.First {
		if err := s.store.HeardLog(ctx, b.Device, next); err != nil {
			return wire.LogReply{}, err
		}
		return s.reply(ctx, head, wire.LogReply{Acked: head.Seq})
	}
	if !s.may.takes(b.Device, len(envelope), next.Heard) { // it comes again
		return s.reply(ctx, head, wire.LogReply{Acked: head.Seq})
	}
	f := ledger.New(ledger.KindDeviceLogAnchored, s.now(), caller.ID, b.Device, nil, envelope)
	facts := []ledger.Fact{f}
	if e, ok := event(b, wire.LogRollback); ok {
		told, err := s.fact(caller, head, b, Fork{Code: CodeSetBack, Said: string(e.Data)})
		if err != nil {
			return wire.LogReply{}, err
		}
		facts = append(facts, told)
	}
	next.Seq, next.Head, next.Anchor, next.Tally = b.Last, [32]byte(b.Head), f.UID, head.Tally.Add(b)
	if err := s.store.AdvanceLog(ctx, b.Device, head, next, facts...); err != nil {
		if errors.Is(err, ErrChanged) {
			return wire.LogReply{}, fault.Newf(fault.Unavailable, "devicelog.busy", "log of device %s: %w", b.Device, err).With("the device sends it again")
		}
		return wire.LogReply{}, err
	}
	return s.reply(ctx, next, wire.LogReply{Acked: next.Seq})
}

func verify(envelope []byte, device string, spki []byte) (wire.LogBatch, error) {
	key, err := wire.ParseKey(spki)
	if err != nil {
		return wire.LogBatch{}, fmt.Errorf("its recorded attestation key: %w", err)
	}
	payload, err := wire.Verify1(wire.TypeDeviceLog, envelope, key)
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

// The codes of a Fork.
const (
	CodeFork     = "devicelog.fork"     // two histories of one device
	CodeRollback = "devicelog.rollback" // one that has forgotten its end, without saying so
	CodeSetBack  = "devicelog.setback"  // the device says that its log was set back: no contradiction, its log tells of it
)

// Fork is the data of device.log.forked, told when a device's log contradicts itself: a copy of the device, or a restored state.
type Fork struct {
	Code   string `json:"code"`
	Device string `json:"device"`
	Seq    uint64 `json:"seq"`   // the server has events up to here
	Known  string `json:"known"` // and this head after them, hex
	Said   string `json:"said"`  // what the device says instead
}

// alarm refuses a batch for good, and says so to the device, with the anchor that it can go on from.
func (s *Service) alarm(ctx context.Context, caller access.Caller, h Head, b wire.LogBatch, f Fork) (wire.LogReply, error) {
	told, err := s.fact(caller, h, b, f)
	if err != nil {
		return wire.LogReply{}, err
	}
	if err := s.store.AlarmLog(ctx, b.Device, h.Seq, told); err != nil {
		return wire.LogReply{}, err
	}
	return s.reply(ctx, h, wire.LogReply{Acked: h.Seq, Fork: true})
}

func (s *Service) fact(caller access.Caller, h Head, b wire.LogBatch, f Fork) (ledger.Fact, error) {
	f.Device, f.Seq, f.Known = b.Device, h.Seq, fmt.Sprintf("%x", h.Head)
	data, err := json.Marshal(f)
	if err != nil {
		return ledger.Fact{}, err
	}
	return ledger.New(ledger.KindDeviceLogForked, s.now(), caller.ID, b.Device, nil, data), nil
}
