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

// refuses says why a device that runs a release, or says that it runs its version, would refuse another; empty when it would not, and when nobody here knows.
func refuses(c Candidate, runs *wire.Release, m wire.Release) (kind, why string) {
	switch {
	case c.Trial:
	case c.Version != "" && !m.InstallsOver(c.Version):
		return "stepping stone", fmt.Sprintf("runs %s, and the release is installed over versions %v: roll out what comes between first", c.Version, m.Over)
	case runs != nil && runs.Counter > m.Counter:
		return "counter", fmt.Sprintf("has confirmed security counter %d, and the release has %d", runs.Counter, m.Counter)
	}
	return "", ""
}
