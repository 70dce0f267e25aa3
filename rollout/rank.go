package rollout

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
)

// ranking gives devices their places in a rollout: the canaries come first, and the others by a hash that differs for each rollout. Neighbours in
// production do not end up in one wave, and nobody is always first. Who comes later has a place by it, too.
type ranking struct {
	id     string
	canary map[string]int64
}

func rankingOf(spec Spec) ranking {
	r := ranking{id: spec.ID, canary: make(map[string]int64, len(spec.Canaries))}
	for i, id := range spec.Canaries {
		r.canary[id] = int64(i)
	}
	return r
}

// of gives a device's rank.
func (r ranking) of(device string) int64 {
	if place, ok := r.canary[device]; ok {
		return place
	}
	sum := sha256.Sum256([]byte(r.id + "\x00" + device))
	hash := int64(binary.BigEndian.Uint64(sum[:8]) >> 1)
	return max(hash, int64(len(r.canary)))
}

// placed is one of the devices that are dealt, with its rank.
type placed struct {
	rank int64
	i    int
}

// Deal puts devices into the waves of a plan, and gives them in the order in which they would be told.
func Deal(spec Spec, devices []Member) ([]Member, []WaveState, error) {
	ranks := rankingOf(spec)
	all := make([]placed, len(devices))
	for i, m := range devices {
		all[i] = placed{ranks.of(m.Device), i}
	}
	slices.SortFunc(all, func(a, b placed) int {
		if c := cmp.Compare(a.rank, b.rank); c != 0 {
			return c
		}
		return strings.Compare(devices[a.i].Device, devices[b.i].Device)
	})
	states, err := deal(spec.Waves, all)
	members := make([]Member, len(all))
	for i, p := range all {
		members[i] = devices[p.i]
		members[i].Wave, members[i].Rank = waveOf(states, p.rank), p.rank
	}
	return members, states, err
}

// deal gives the waves their shares of devices in order of rank, as the ranks that each is below. Waves that nobody is left for fall away; devices
// that no wave is left for are an error.
func deal(waves []Wave, fit []placed) ([]WaveState, error) {
	var states []WaveState
	done := 0
	for i, w := range waves {
		left := len(fit) - done
		n := left
		if w.Size > 0 {
			n = min(w.Size, left)
		} else if w.Percent > 0 {
			n = min((len(fit)*w.Percent+99)/100, left)
		}
		if n == 0 {
			continue
		}
		done += n
		below := int64(math.MaxInt64)
		if done < len(fit) {
			below = max(fit[done].rank, 1)
		}
		states = append(states, WaveState{Rule: i, Devices: n, Below: below})
	}
	if done < len(fit) {
		return nil, bad("waves", fmt.Sprintf("the waves take %d of %d devices", done, len(fit)), "let the last wave take the rest")
	}
	return states, nil
}

// waveOf gives the wave of a rank, from 1.
func waveOf(waves []WaveState, rank int64) int {
	for i, w := range waves {
		if rank < w.Below {
			return i + 1
		}
	}
	return len(waves)
}
