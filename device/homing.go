package device

import (
	"context"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// Records keeps copies of trust records, of devices that came here from another home: see agent.Homing. Nothing in one is secret, and nothing of it is
// believed here.
type Records interface {
	// KeepRecord stores a device's, in the place of the one before; the same again writes nothing.
	KeepRecord(ctx context.Context, device string, record []byte) error
	// Record gives it; ErrNotFound.
	Record(ctx context.Context, device string) ([]byte, error)
}

// KeepRecord takes the copy that a device leaves of its trust record.
func (s *Service) KeepRecord(ctx context.Context, caller access.Caller, id string, record []byte) error {
	d, err := s.open(ctx, caller, access.DeviceCheckin, id)
	if err != nil {
		return err
	}
	if caller.Kind == access.Device && caller.ID != access.DeviceCaller(id).ID {
		return fault.New(fault.Denied, "device.other", "a device leaves a copy of its own trust record only", "leave it under the ID that the certificate names")
	}
	if Ended(d.State) {
		return fault.New(fault.Denied, "device.state", fmt.Sprintf("device %s is %s", id, d.State), "only a device in service leaves one")
	}
	if len(record) == 0 || len(record) > wire.MaxTrust {
		return fault.New(fault.Invalid, "trust.record", fmt.Sprintf("a trust record of %d bytes: it has 1 to %d", len(record), wire.MaxTrust), "see what the device's software sends")
	}
	return s.cfg.Records.KeepRecord(ctx, id, record)
}

// Record gives the copy of a device's trust record, for anybody: the device believes nobody when it asks, and who it says it is counts for nothing. There is none
// (nil) of a device that was never handed to here.
func (s *Service) Record(ctx context.Context, product, id string) ([]byte, error) {
	d, err := s.cfg.Registry.Device(ctx, id)
	if errors.Is(err, ErrNotFound) || err == nil && d.Product != product {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := s.cfg.Records.Record(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return r, err
}
