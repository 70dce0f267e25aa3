package rollout

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Whoever there is room for is of lower rank than whoever there is none for, and the bound lies between them.
func TestTheLowestRanksAreKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 4*maxOwed).Draw(t, "devices")
		end := int64(math.MaxInt64)
		l := lowest{most: rapid.IntRange(1, 2*maxOwed).Draw(t, "room"), below: end}
		ranks := rankingOf(Spec{ID: rapid.StringN(1, 4, 4).Draw(t, "rollout")})
		var all []int64
		for i := range n {
			id := fmt.Sprint(i)
			all = append(all, ranks.of(id))
			l.add(Member{Device: id, Rank: ranks.of(id)})
		}
		slices.Sort(all)
		bound := l.bound()
		if len(all) > l.most {
			end, all = all[l.most], all[:l.most]
		}
		var kept []int64
		for _, m := range l.members {
			kept = append(kept, m.Rank)
		}
		slices.Sort(kept)
		if bound != end || !slices.Equal(kept, all) {
			t.Fatalf("%d are kept below %d; want %d below %d", len(kept), bound, len(all), end)
		}
	})
}
