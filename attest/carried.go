package attest

import (
	"context"
	"crypto/subtle"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/wire"
)

// A device that no line reaches cannot be challenged. What it proves is over a nonce that holds the directive which it was given by hand, and so is of after that: see wire/carton.

// Signed opens evidence of the device that is over nonce.
func (s *Service) Signed(ctx context.Context, device string, envelope, nonce []byte) (wire.Evidence, error) {
	d, err := s.cfg.Store.Device(ctx, device)
	if err != nil {
		return wire.Evidence{}, err
	}
	e, _, err := s.over(ctx, d, envelope, nonce)
	return e, err
}

// over opens evidence that has to be over a nonce.
func (s *Service) over(ctx context.Context, d device.Device, envelope, nonce []byte) (wire.Evidence, Expect, error) {
	e, x, err := s.prepare(ctx, d, envelope)
	if err == nil && subtle.ConstantTimeCompare(e.Nonce, nonce) != 1 {
		err = errors.New("its evidence is over something else than what it says")
	}
	return e, x, err
}

// Carried judges such evidence, which is of the time at, and stores the verdict. The same again is another verdict that says the same.
func (s *Service) Carried(ctx context.Context, caller access.Caller, device string, envelope, nonce []byte, at time.Time) error {
	d, err := s.open(ctx, caller, access.DeviceAttest, device)
	if err != nil {
		return err
	}
	e, x, err := s.over(ctx, d, envelope, nonce)
	if err != nil {
		return err
	}
	_, err = s.judge(ctx, caller, d, e, x, at)
	return err
}
