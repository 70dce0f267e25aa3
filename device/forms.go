package device

import (
	"context"
	"crypto/sha256"
	"slices"

	"github.com/hallmark-iot/hallmark/wire"
)

// forms are the ways to a release's components that a device knows, and has what they need for. A device that does not say what it knows is told of none: it would refuse the delivery.
func (s *Service) forms(ctx context.Context, in wire.Checkin, release []byte) ([]wire.Form, error) {
	if !slices.Contains(in.Knows, wire.FormDelta) || len(in.Release) != sha256.Size || slices.Equal(in.Release, release) {
		return nil, nil
	}
	return s.cfg.Releases.Forms(ctx, [32]byte(in.Release), [32]byte(release))
}
