package release

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
)

// A release is closed when no device is to install it again: not one that comes back in two years, and not by a stolen directive key. To withdraw it stops this server
// alone. What stops devices is their trust bundle, which says from which security counter on they install; it takes the root keys' threshold, so the server only says
// what is to be signed. Devices that run it go on.

// closed is the Data of release.closed.
type closed struct {
	Release string `json:"release"`
	ID      string `json:"id"`
	Install uint32 `json:"install"` // what the next trust bundle has to say
	Reason  string `json:"reason"`
}

// Install is the lowest security counter that devices install once the release is closed to them.
func (r Release) Install() uint32 { return r.Manifest.Counter + 1 }

// Close withdraws a published release for good, and says from which security counter on devices have to install. One fact says both. Done again, it completes what broke off.
func (s *Service) Close(ctx context.Context, caller access.Caller, digest [32]byte, reason string) (Release, error) {
	r, err := s.checked(ctx, caller, access.ReleasePublish, digest)
	switch {
	case err != nil:
		return Release{}, err
	case r.Published.IsZero():
		return Release{}, conflict("release.status", fmt.Sprintf("release %s is %s: no device installs what was never published", r.Manifest.ID, r.Status), "withdraw it")
	case r.Closed.IsZero():
		if err := reasoned("closing a release", reason); err != nil {
			return Release{}, err
		}
		data, err := json.Marshal(closed{hex.EncodeToString(digest[:]), r.Manifest.ID, r.Install(), reason})
		if err != nil {
			return Release{}, err
		}
		now := s.cfg.Now().UTC()
		r.Status, r.Closed, r.Reason = Withdrawn, now, reason
		if r, err = s.update(ctx, r, ledger.New(ledger.KindReleaseClosed, now, caller.ID, r.Manifest.ID, nil, data)); err != nil {
			return Release{}, err
		}
	}
	return r, s.recall(ctx, caller, r)
}

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
