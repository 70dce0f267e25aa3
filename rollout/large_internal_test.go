package rollout

import (
	"testing"
	"time"
)

// What a Tick saw is shown of a wave that takes long to read, and of no other.
func TestWhatIsKeptOfLargeWaves(t *testing.T) {
	two := []Status{{Device: "a"}, {Device: "b"}}
	for name, c := range map[string]struct {
		snap []Status
		took time.Duration
		from int
		to   int
		kept bool
	}{
		"read in no time":       {two, slowAfter - 1, 1, 1, false},
		"takes long":            {two, slowAfter, 1, 1, true},
		"another wave":          {two, slowAfter, 2, 2, false},
		"more waves":            {two, slowAfter, 1, 2, false},
		"too many for memory":   {make([]Status, maxKept+1), time.Second, 1, 1, false},
		"as many as memory has": {make([]Status, maxKept), time.Second, 1, 1, true},
	} {
		var l lastSeen
		l.keep("r", 1, 1, c.snap, c.took)
		if got := l.of("r", c.from, c.to); (got != nil) != c.kept {
			t.Errorf("%s: kept %v", name, got != nil)
		}
	}
	var l lastSeen
	l.keep("r", 1, 1, two, slowAfter)
	l.keep("r", 1, 1, two, 0)
	if l.of("r", 1, 1) != nil {
		t.Error("what is read in no time again is still shown from before")
	}
	l.keep("r", 1, 1, two, slowAfter)
	l.keep("ended", 1, 1, two, slowAfter)
	if l.forget([]Rollout{{Spec: Spec{ID: "r"}}}); l.of("r", 1, 1) == nil || l.all["ended"].snap != nil {
		t.Error("what was seen of a rollout that has ended is kept, or that of one that goes on is not")
	}
}
