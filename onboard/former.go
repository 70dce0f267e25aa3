package onboard

import (
	"context"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// FormerKey is the code of a refusal: somebody presents the factory identity that a device had before it was given another in the field.
const FormerKey = "enrol.former-key"

// revoked is what who presents a revoked certificate is told. When it is the former factory identity of a device that has another key by now, somebody
// has a key that was given up for lost, and that is put on record.
func (s *Service) revoked(ctx context.Context, caller access.Caller, d pki.Device, why error) error {
	f, ok := errors.AsType[*fault.Fault](why)
	if !ok || f.Code != "cert.revoked" || d.Identity.Kind != idevid.IDevID || caller.ID != access.DeviceCaller(d.Identity.DeviceID).ID {
		return why
	}
	st, err := s.c.Registry.Known(ctx, d.Identity.DeviceID)
	if err != nil {
		return fmt.Errorf("registry, device %s: %w", d.Identity.DeviceID, err)
	}
	if !st.Known || vouched(st, d) {
		return why
	}
	return s.refuse(ctx, caller, d, reason{
		FormerKey, "device " + d.Identity.DeviceID + " was given new keys, and somebody presents its former ones",
		"find out who has its former key: the device itself has new ones; if it was set back to what it had, give it new keys again",
	})
}
