package rollout

import (
	"context"
	"fmt"

	"github.com/dustin/go-humanize"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/ledger"
)

// Bandwidth bounds the bytes that leave this server for a rollout's devices, whatever they fetch and by whichever protocol. What a cache or a carton gives them is not counted.
type Bandwidth struct {
	All  uint64 `json:"all,omitempty" doc:"bytes a second for all of its devices together, from each node of the server; 0: no limit"`
	Each uint64 `json:"each,omitempty" doc:"bytes a second for one device; 0: no limit"`
}

// MinBandwidth is the lowest that there is, bytes a second: clients give a line up that is slower.
const MinBandwidth = 1 << 10

func (b *Bandwidth) check() error {
	if b == nil {
		return nil
	}
	for _, n := range []uint64{b.All, b.Each} {
		if n != 0 && (n < MinBandwidth || n > 1<<40) {
			return bad("bandwidth", fmt.Sprintf("%d bytes a second: want %d to %d, or 0 for no limit", n, MinBandwidth, uint64(1)<<40), "give it as --bandwidth 20MB/s, --device-bandwidth 64kB/s")
		}
	}
	return nil
}

// Text says it as people do.
func (b *Bandwidth) Text() string {
	rate := func(n uint64, whose string) string { return humanize.Bytes(n) + "/s for " + whose }
	switch {
	case b == nil || b.All == 0 && b.Each == 0:
		return "as fast as it can"
	case b.Each == 0:
		return rate(b.All, "all together")
	case b.All == 0:
		return rate(b.Each, "each device")
	}
	return rate(b.All, "all together") + ", " + rate(b.Each, "each device")
}

// SetBandwidth changes how fast the bytes of a rollout leave, from the next request of each device on.
func (s *Service) SetBandwidth(ctx context.Context, caller access.Caller, id string, b Bandwidth, reason string) (Rollout, error) {
	if err := b.check(); err != nil { // it says what the caller said: a stranger may know
		return Rollout{}, err
	}
	return s.turn(ctx, caller, id, reason, ledger.KindRolloutPaced, map[string]any{"bandwidth": b}, "given another bandwidth", func(r *Rollout) bool {
		r.Spec.Bandwidth = &b
		return !r.Phase.Ended()
	})
}

// BandwidthOf gives the rollout that a device is in, if it is in one, and how fast its bytes may leave.
func (s *Service) BandwidthOf(ctx context.Context, device string) (id string, b Bandwidth, err error) {
	spec, ok, err := s.cfg.Store.SpecOf(ctx, device)
	if err != nil || !ok || spec.Bandwidth == nil {
		return "", Bandwidth{}, err
	}
	return spec.ID, *spec.Bandwidth, nil
}
