package factory

import (
	"testing"
)

// What was asked for lately stays when there are too many serials; what was not goes, and no more of it than must.
func TestSerialsThatNobodyAsksForAreForgotten(t *testing.T) {
	const third = maxPlanned / 3
	var p planned
	for _, id := range []string{"a", "b", "c"} {
		p.keep(id, make([]uint64, third))
	}
	if p.known("a") == nil { // it is asked for again and again
		t.Fatal("a is forgotten though there is room")
	}
	p.keep("d", make([]uint64, third))
	for id, want := range map[string]bool{"a": true, "b": false, "c": true, "d": true} {
		if got := p.by[id] != nil; got != want {
			t.Errorf("%s is remembered: %v, want %v", id, got, want)
		}
	}
	p.keep("whole", make([]uint64, maxPlanned))
	if len(p.by) != 1 || len(p.use) != 1 || p.n != maxPlanned {
		t.Errorf("%d orders and %d serials are remembered beside the one that takes all the room", len(p.by), p.n)
	}
}
