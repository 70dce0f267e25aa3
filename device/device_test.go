package device

import (
	"fmt"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/hallmark-iot/hallmark/wire"
)

// events are all there are.
func events() []Event {
	return []Event{
		Onboard, Activate, Quarantine, Release, Sleep, Wake, Maintain, Resume, Retire, Wiped, Dispose, Lose, Find,
		Suspect, Clear, Reinstate, Reonboard, Remake,
	}
}

func TestNoLifeComesBackFromItsEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, onboarded := Provisioned, false
		for range 40 {
			ev := rapid.SampledFrom(events()).Draw(t, "event")
			to, err := Next(s, ev)
			if err != nil {
				continue
			}
			switch {
			case !Known(to):
				t.Fatalf("%s led from %s to unknown state %q", ev, s, to)
			case s == Disposed:
				t.Fatalf("%s after disposal", ev)
			case Ended(s) && to != Disposed && ev != Remake:
				t.Fatalf("%s revived a device that was %s", ev, s)
			case to == Active && !onboarded:
				t.Fatal("active without ever having been onboarded")
			case to == Active && (s == Lost || s == Suspected || s == Decommissioning):
				t.Fatalf("from %s straight to active", s)
			case to == Decommissioned && s != Decommissioning:
				t.Fatalf("decommissioned from %s", s)
			}
			if s = to; s == Onboarded {
				onboarded = true
			}
			if s == Provisioned {
				onboarded = false
			}
		}
	})
}

func TestTheKeptTreeGivesThePathsOfWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := make([]string, rapid.IntRange(1, 70).Draw(t, "n"))
		for i := range ids {
			ids[i] = fmt.Sprintf("%04d", i)
		}
		id := rapid.SampledFrom(ids).Draw(t, "id")
		want, err := wire.MembershipOf(ids, id)
		if err != nil {
			t.Fatal(err)
		}
		tree := newSetTree(ids)
		got, err := tree.membership(id)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%v, %v, want %v", got, err, want)
		}
		if _, err := tree.membership("stranger"); err == nil {
			t.Fatal("a stranger is a member")
		}
	})
}

func TestWhatContainsHarmComesFirst(t *testing.T) {
	code := Instruction{Act: wire.ActInstall, Priority: 1 << 20}.Rank()
	for _, a := range []wire.Act{wire.ActWipe, wire.ActQuarantine} {
		if (Instruction{Act: a, Priority: -1 << 20}).Rank() <= code {
			t.Errorf("%s waits for an install", a)
		}
	}
}
