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
		wave int
		kept bool
	}{
		"read in no time":       {two, slowAfter - 1, 1, false},
		"takes long":            {two, slowAfter, 1, true},
		"another wave":          {two, slowAfter, 2, false},
		"too many for memory":   {make([]Status, maxKept+1), time.Second, 1, false},
		"as many as memory has": {make([]Status, maxKept), time.Second, 1, true},
	} {
		var l lastSeen
		l.keep("r", 1, c.snap, c.took)
		if got := l.of("r", c.wave); (got != nil) != c.kept {
			t.Errorf("%s: kept %v", name, got != nil)
		}
	}
	var l lastSeen
	l.keep("r", 1, two, slowAfter)
	l.keep("r", 1, two, 0)
	if l.of("r", 1) != nil {
		t.Error("what is read in no time again is still shown from before")
	}
}
