package attest

import (
	"context"
	"crypto/subtle"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/wire"
)

// A device that no line reaches cannot be challenged. What it proves is over a nonce that holds the directive which it was given by hand, and so is of after that: see wire/carton.

// Signed opens evidence of the device that is over nonce.
func (s *Service) Signed(ctx context.Context, device string, envelope, nonce []byte) (wire.Evidence, error) {
	d, err := s.cfg.Store.Device(ctx, device)
	if err != nil {
		return wire.Evidence{}, err
	}
	e, _, err := s.prepare(ctx, d, envelope)
	if err != nil {
		return wire.Evidence{}, err
	}
	if subtle.ConstantTimeCompare(e.Nonce, nonce) != 1 {
		return wire.Evidence{}, errors.New("its evidence is over something else than what it says")
	}
	return e, nil
}

// Carried judges such evidence, which is of the time at, and stores the verdict. The same again is another verdict that says the same.
func (s *Service) Carried(ctx context.Context, caller access.Caller, device string, envelope, nonce []byte, at time.Time) error {
	d, err := s.open(ctx, caller, access.DeviceAttest, device)
	if err != nil {
		return err
	}
	e, x, err := s.prepare(ctx, d, envelope)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(e.Nonce, nonce) != 1 {
		return errors.New("attest: evidence over another nonce")
	}
	_, err = s.judge(ctx, caller, d, e, x, at)
	return err
}
