package device

import (
	"context"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// byRollout refuses to bring code past a rollout: its waves, its gate and its halt are what one person cannot do without. A rollout may be of
// one device. What is left beside it is to make a device anew, see Anew.
func byRollout(caller access.Caller, act wire.Act) error {
	if caller.Kind == access.System || act != wire.ActInstall && act != wire.ActRollback {
		return nil
	}
	return fault.New(fault.Denied, "command.rollout", fmt.Sprintf("%s is not commanded", act),
		"a rollout brings code, also to one device: `hallmark rollout create NAME --product PRODUCT --release RELEASE --device ID --start`; `hallmark rollout halt` takes it back")
}

// Anew reports whether a device is made anew with what it runs in good health already: that brings no other code than a rollout brought. With
// another release it is an update past the rollouts, which takes two people.
func Anew(d Device, release []byte) bool {
	return len(release) > 0 && string(d.Twin.Good) == string(release)
}

// grave reports whether it takes two people to give a command: over many devices, or of code that no rollout brought to one of them.
func (s *Service) grave(ctx context.Context, caller access.Caller, in Instruction) (bool, error) {
	if s.cfg.Guard.Many(caller, in.Devices) {
		return true, nil
	}
	return s.newCode(ctx, caller, in)
}

func (s *Service) newCode(ctx context.Context, caller access.Caller, in Instruction) (bool, error) {
	if in.Act != wire.ActReprovide || caller.Kind == access.System {
		return false, nil
	}
	for _, id := range in.Devices {
		d, err := s.cfg.Registry.Device(ctx, id)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return false, err
		}
		if !Anew(d, in.Release) { // one that is not there is refused behind
			return true, nil
		}
	}
	return false, nil
}
