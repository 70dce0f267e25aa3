package device

import (
	"crypto/rand"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hallmark-iot/hallmark/wire"
)

// holder is one that holds a device's memory: the flash survives a power cut, the rest does not.
type holder struct {
	flash *wire.Token
	ran   bool // rolled in this run
	due   bool
}

func (h *holder) roll() {
	next := make([]byte, wire.TokenSize)
	_, _ = rand.Read(next)
	t := &wire.Token{Next: next}
	if h.flash != nil {
		t.Last = h.flash.Next
	}
	h.flash, h.ran, h.due = t, true, false
}

// call is a contact with the server; the answer may be lost, and the power may fail after it came. It gives what the server makes of it.
func (h *holder) call(d *Device, answered bool) bool {
	if h.flash == nil {
		h.roll()
	}
	token, ok := rolled(*d, h.flash)
	if ok {
		if d.Token != token {
			d.TokenAnew = false
		}
		d.Token = token
	}
	if ok && answered && (!h.ran || h.due) {
		h.roll()
	}
	return ok
}

func (h *holder) restart() { h.ran = false }

func TestOneDeviceNeverLooksLikeTwo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, h := &Device{}, &holder{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				h.restart()
			case 1:
				h.due = true
			default:
				if !h.call(d, rapid.Bool().Draw(t, "answered")) {
					t.Fatal("one device, and it is taken for two")
				}
			}
		}
	})
}

// A copy has to be started: it rolls at the first answer that it gets and shows the new pair at its next call. From then on the device's
// own next call alarms, if nothing has before.
func TestACopyShowsWhenBothHaveSpoken(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, h := &Device{}, &holder{}
		for range rapid.IntRange(1, 20).Draw(t, "life before") {
			if rapid.Bool().Draw(t, "restart") {
				h.restart()
			}
			h.call(d, rapid.Bool().Draw(t, "answered"))
		}
		c := &holder{flash: h.flash}
		alarm, heard := false, 0 // calls of the copy that were answered
		for range rapid.IntRange(0, 20).Draw(t, "interleaved") {
			switch rapid.IntRange(0, 3).Draw(t, "who") {
			case 0:
				h.due = true
			case 1:
				alarm = !h.call(d, rapid.Bool().Draw(t, "answered")) || alarm
			default:
				answered := rapid.Bool().Draw(t, "answered")
				alarm = !c.call(d, answered) || alarm
				if answered {
					heard++
				}
			}
		}
		for ; heard < 2; heard++ {
			alarm = !c.call(d, true) || alarm
		}
		if alarm = !h.call(d, true) || alarm; !alarm {
			t.Fatal("the copy was answered twice, then the device called, and nothing was seen")
		}
	})
}

func TestWhatATokenIsTakenFor(t *testing.T) {
	a, b, c := make([]byte, 16), []byte("bbbbbbbbbbbbbbbb"), []byte("cccccccccccccccc")
	for name, x := range map[string]struct {
		d    Device
		t    *wire.Token
		good bool
	}{
		"an old agent":                              {Device{}, nil, true},
		"the first token":                           {Device{}, &wire.Token{Next: b}, true},
		"after a cleared suspicion":                 {Device{}, &wire.Token{Last: a, Next: b}, true},
		"the next":                                  {Device{Token: tokenDigest(a)}, &wire.Token{Last: a, Next: b}, true},
		"again, its answer lost":                    {Device{Token: tokenDigest(b)}, &wire.Token{Last: a, Next: b}, true},
		"another's":                                 {Device{Token: tokenDigest(c)}, &wire.Token{Last: a, Next: b}, false},
		"none, and it had one":                      {Device{Token: tokenDigest(a)}, nil, false},
		"none, and it had one, enrolled anew":       {Device{Token: tokenDigest(a), TokenAnew: true}, nil, false},
		"a lost memory that nobody vouches for":     {Device{Token: tokenDigest(a)}, &wire.Token{Next: b}, false},
		"a lost memory, enrolled anew":              {Device{Token: tokenDigest(a), TokenAnew: true}, &wire.Token{Next: b}, true},
		"an old token is no lost memory":            {Device{Token: tokenDigest(a), TokenAnew: true}, &wire.Token{Last: c, Next: b}, false},
		"the device, after a copy enrolled anew":    {Device{Token: tokenDigest(c)}, &wire.Token{Last: a, Next: b}, false},
		"an empty last is not the token nobody has": {Device{Token: tokenDigest(nil)}, &wire.Token{Next: b}, false},
	} {
		if _, ok := rolled(x.d, x.t); ok != x.good {
			t.Errorf("%s: good %v, want %v", name, ok, x.good)
		}
	}
}

func TestTwoLinesThatAlternateAreTwoPrograms(t *testing.T) {
	at := time.Unix(1e9, 0)
	play := func(calls ...string) (alarms int) {
		var l lines
		for _, line := range calls {
			at = at.Add(time.Minute)
			if v := l.note("d", line, at); v != nil && v.alternates {
				alarms++
			}
		}
		return alarms
	}
	const a, b, a2 = "192.0.2.1:1000", "198.51.100.7:2000", "192.0.2.1:3000"
	if play(a, b, a, b, a, b, a, b) == 0 {
		t.Error("two programs that take turns are not seen")
	}
	for name, calls := range map[string][]string{
		"one line":                         {a, a, a, a, a, a, a, a, a},
		"changes networks, each time anew": {a, "198.51.100.7:1", "192.0.2.1:2", "198.51.100.7:3", "192.0.2.1:4", "198.51.100.7:5", "192.0.2.1:6"},
		"takes an old line up again, once": {a, b, a, a, a, a},
		"two lines of one program":         {a, a2, a, a2, a, a2, a, a2, a, a2},
		"a third line in between":          {a, b, a, b, a2, b, a2, a, b, a, b},
		"behind an unknown line":           {"", "", ""},
	} {
		if n := play(calls...); n != 0 {
			t.Errorf("%s: %d alarms", name, n)
		}
	}
}
