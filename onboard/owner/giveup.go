package owner

import (
	"context"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// givenUp is the Data of device.transfer.given-up. Reason and who did it are private.
type givenUp struct {
	Device string `json:"device"`
	Period int    `json:"period"`
	Reason string `json:"reason"`
	By     string `json:"by"`
}

// GiveUp takes a handover to another instance back, as long as the device has not been told of it, or has refused: its time with its owner goes
// on. One that was told may have gone, whether or not it was heard of since, and stays what is being handed over. What the beginning
// destroyed, sealed data and settings, does not come back.
func (s *Service) GiveUp(ctx context.Context, caller access.Caller, id, reason string) (Transfer, error) {
	if _, err := s.open(ctx, caller, access.DeviceTransfer, id); err != nil {
		return Transfer{}, err
	}
	if reason == "" || len(reason) > MaxReason {
		return Transfer{}, fault.New(fault.Invalid, "transfer.reason", "giving a handover up needs a reason", fmt.Sprintf("at most %d bytes", MaxReason))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.cfg.Transfers.Transfer(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Transfer{}, err
	}
	if err != nil || t.Kind != Rehome || !t.Done.IsZero() {
		return Transfer{}, fault.New(fault.Conflict, "rehome.none", fmt.Sprintf("device %s is not being handed over", id), "a resale is not given up: its old owner claims it again with the code")
	}
	gone := fault.New(fault.Conflict, "rehome.told", fmt.Sprintf("device %s was told to go, and may have gone", id), "wait for its answer: a device that refuses can stay")
	last, err := s.cfg.Transfers.Answer(ctx, id, wire.ActRehome, t.Begun)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Transfer{}, err
	}
	if t.LetGo || err == nil && (last.Standing == device.Delivered || last.Standing == device.Done) {
		return Transfer{}, gone
	}
	at := s.cfg.Now().UTC()
	who := caller.ID
	if t.Period > 0 {
		p, err := s.last(ctx, id)
		if err != nil {
			return Transfer{}, err
		}
		who = actor(p)
	}
	f, err := fact(ledger.KindTransferGivenUp, at, who, id, s.cause(ctx, t.BegunUID), givenUp{Device: id, Period: t.Period, Reason: reason, By: caller.ID})
	if err != nil {
		return Transfer{}, err
	}
	t.GivenUp, t.Done, t.Offer = at, at, nil
	err = s.cfg.Returns.GiveUp(ctx, t, f)
	if errors.Is(err, ErrChanged) {
		return Transfer{}, gone
	}
	return shown(t), err
}
