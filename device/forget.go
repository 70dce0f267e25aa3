package device

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Forgetter destroys what is known of a device beside the ledger.
type Forgetter interface {
	// ForgetDevice destroys what was said of the device in private with its key and salts, its settings, its group, its sealed data with
	// their keys, and the words in what is kept about it; it marks the device as forgotten. All or nothing, with the fact, and durable,
	// also where deleted rows would linger, when it returns nil. ErrChanged when the device is in another state, or forgotten.
	ForgetDevice(ctx context.Context, d Device, at time.Time, fact ledger.Fact) error
}

// Forgotten is the Data of the fact that a device was forgotten.
type Forgotten struct {
	Device string `json:"device"`
}

// Forget destroys what a device's record holds of people and places, for good, once its life has ended. The ledger stays as it is, and
// verifies: it never held any of it. Again changes nothing.
func (s *Service) Forget(ctx context.Context, caller access.Caller, id string) (Device, error) {
	d, err := s.open(ctx, caller, access.DeviceForget, id)
	if err != nil || !d.Twin.Forgotten.IsZero() {
		return d, err
	}
	if !Ended(d.State) {
		return Device{}, fault.New(fault.Conflict, "device.living", fmt.Sprintf("device %s is %s: it would go on telling", id, d.State),
			"retire it first")
	}
	now := s.cfg.Now().UTC()
	f, err := jsonFact(ledger.KindDeviceForgotten, now, caller.ID, id, nil, Forgotten{Device: id})
	if err != nil {
		return Device{}, err
	}
	err = s.cfg.Forgetter.ForgetDevice(ctx, d, now, f)
	if errors.Is(err, ErrChanged) {
		return Device{}, changed(id, err)
	}
	if err != nil {
		return Device{}, err
	}
	s.mu.Lock()
	delete(s.seen, id) // it would be written again
	s.mu.Unlock()
	return s.cfg.Registry.Device(ctx, id)
}
