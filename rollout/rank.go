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
	states, err := deal(spec, all)
	members := make([]Member, len(all))
	for i, p := range all {
		members[i] = devices[p.i]
		members[i].Wave, members[i].Rank = waveOf(states, p.rank), p.rank
	}
	return members, states, err
}

// deal gives the waves their shares of devices in order of rank, as the ranks that each is below, and as how many each takes at most: a fleet that grows
// makes the last wave grow, and no other. Waves that nobody is left for fall away; of a dynamic rollout they stay, for who comes. Devices that no wave is
// left for are an error.
func deal(spec Spec, fit []placed) ([]WaveState, error) {
	var states []WaveState
	done := 0
	for i, w := range spec.Waves {
		left := len(fit) - done
		n, most := left, 0
		switch {
		case w.Size > 0:
			n, most = min(w.Size, left), w.Size
		case w.Percent > 0:
			n = min((len(fit)*w.Percent+99)/100, left)
			if i < len(spec.Waves)-1 {
				most = max(n, 1)
			}
		}
		if n == 0 && !spec.Dynamic {
			continue
		}
		done += n
		below := int64(math.MaxInt64)
		if done < len(fit) {
			below = max(fit[done].rank, 1)
		}
		states = append(states, WaveState{Rule: i, Devices: n, Most: most, Below: below})
	}
	if done < len(fit) {
		return nil, bad("waves", fmt.Sprintf("the waves take %d of %d devices", done, len(fit)), "let the last wave take the rest")
	}
	return states, nil
}

// room gives how many devices more come into a wave, of which there are those of c.
func (w WaveState) room(c Counts) int { return w.places(c.plus(Counts{Devices: c.Held})) }

// places is room, of which those that others have take none.
func (w WaveState) places(c Counts) int {
	if w.Open || w.Most == 0 {
		return math.MaxInt
	}
	return max(0, w.Most-(c.Devices-c.Left))
}

// lowest keeps those of the lowest ranks, as many as there is room for.
type lowest struct {
	most    int
	members []Member
	below   int64 // the lowest rank that is not kept, or where the wave was to end
}

func (l *lowest) add(m Member) {
	if l.members = append(l.members, m); len(l.members)/2 >= max(l.most, maxOwed) { // now and then, so that few are held
		l.trim()
	}
}

// bound gives the rank that those who are kept are below.
func (l *lowest) bound() int64 {
	l.trim()
	return l.below
}

func (l *lowest) trim() {
	if len(l.members) <= l.most {
		return
	}
	byRank(l.members)
	l.below = min(l.below, max(l.members[l.most].Rank, 1))
	l.members = l.members[:l.most]
}

func byRank(all []Member) {
	slices.SortFunc(all, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Rank, b.Rank), strings.Compare(a.Device, b.Device))
	})
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
