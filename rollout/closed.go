package rollout

import (
	"context"
	"fmt"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// least is the lowest security counter that the product's devices install; below it every device refuses, whoever tells it.
func (s *Service) least(ctx context.Context, product string) (uint32, error) {
	b, err := s.cfg.Devices.CurrentBundle(ctx, product)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return 0, err
	}
	return b.Wire.Least(), nil
}

// closed refuses a release that no device would install.
func (s *Service) closed(ctx context.Context, m wire.Release) error {
	least, err := s.least(ctx, m.Product)
	if err != nil || m.Counter >= least {
		return err
	}
	return fault.New(fault.Conflict, "rollout.closed",
		fmt.Sprintf("release %s has security counter %d, and devices of %s install from %d on", m.ID, m.Counter, m.Product, least), "roll out the release that mends it")
}

// outrun says why a device that has confirmed a release would refuse another that it is below; empty when it would not, and when nobody here knows.
func outrun(c Candidate, runs *wire.Release, m wire.Release) string {
	if !c.Trial && runs != nil && runs.Counter > m.Counter {
		return fmt.Sprintf("has confirmed security counter %d, and the release has %d", runs.Counter, m.Counter)
	}
	return ""
}
