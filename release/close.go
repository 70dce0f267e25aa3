package release

import (
	"context"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/device"
)

// installed refuses a release that no device would install: its security counter is below what the product's trust bundle has installed.
func (s *Service) installed(ctx context.Context, product, id string, counter uint32) error {
	b, err := s.cfg.Trust.Bundle(ctx, product, 0)
	if errors.Is(err, device.ErrNotFound) {
		return nil
	}
	if err != nil || counter >= b.Wire.Least() {
		return err
	}
	return conflict("release.closed", fmt.Sprintf("release %s has security counter %d, and devices of %s install from %d on: every device would refuse it",
		id, counter, product, b.Wire.Least()), fmt.Sprintf("propose it with --counter %d or above", b.Wire.Least()))
}
