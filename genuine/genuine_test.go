package genuine

import (
	"slices"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/device"
)

var now = time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)

func words(j Judgement) (out []Word) {
	for _, s := range j.Says {
		out = append(out, s.Word)
	}
	return out
}

func TestWhatIsSaidOfADevice(t *testing.T) {
	good := func(change func(*Record)) Record {
		r := Record{Known: true, Support: now.AddDate(1, 0, 0), Device: device.Device{State: device.Active, Legitimacy: device.Genuine}}
		if change != nil {
			change(&r)
		}
		return r
	}
	for name, c := range map[string]struct {
		r    Record
		head Word
		says []Word
	}{
		"a good one":                    {good(nil), Genuine, []Word{Genuine, SupportEnds}},
		"nobody knows it":               {Record{}, Unknown, []Word{Unknown}},
		"without a verified record":     {good(func(r *Record) { r.Device.Legitimacy = device.Unknown }), Unknown, []Word{Unknown}},
		"a legitimacy of another age":   {good(func(r *Record) { r.Device.Legitimacy = "blessed" }), Unknown, []Word{Unknown}},
		"a state of another age":        {good(func(r *Record) { r.Device.State = "blessed" }), Unknown, []Word{Unknown}},
		"unknown hides what else is":    {Record{Known: true, Rekeyed: now, Device: device.Device{State: device.Active, ReplacedBy: "x"}}, Unknown, []Word{Unknown}},
		"another maker's":               {good(func(r *Record) { r.Imported, r.Device.Legitimacy = true, device.Unknown }), Imported, []Word{Imported, SupportEnds}},
		"stolen, whatever else":         {good(func(r *Record) { r.Device.Legitimacy, r.Device.State = device.Stolen, device.Decommissioned }), Stolen, []Word{Genuine, Stolen, Decommissioned, SupportEnds}},
		"recalled and in quarantine":    {good(func(r *Record) { r.Device.Legitimacy, r.Device.State = device.Recalled, device.Quarantined }), Recalled, []Word{Genuine, Recalled, HeldBack, SupportEnds}},
		"two say they are it":           {good(func(r *Record) { r.Device.State = device.Suspected }), SuspectedClone, []Word{Genuine, SuspectedClone, SupportEnds}},
		"two may say so, not looked at": {good(func(r *Record) { r.Device.Twin.Suspect = "x" }), SuspectedClone, []Word{Genuine, SuspectedClone, SupportEnds}},
		"lost":                          {good(func(r *Record) { r.Device.State = device.Lost }), Lost, []Word{Genuine, Lost, SupportEnds}},
		"its end is decided":            {good(func(r *Record) { r.Device.State = device.Decommissioning }), Decommissioned, []Word{Genuine, Decommissioned, SupportEnds}},
		"replaced":                      {good(func(r *Record) { r.Device.ReplacedBy = "x" }), Replaced, []Word{Genuine, Replaced, SupportEnds}},
		"took another's place":          {good(func(r *Record) { r.Device.Replaces = "x" }), Genuine, []Word{Genuine, Replacement, SupportEnds}},
		"new keys":                      {good(func(r *Record) { r.Rekeyed = now }), Genuine, []Word{Genuine, Rekeyed, SupportEnds}},
		"refurbished":                   {good(func(r *Record) { r.Device.Legitimacy = device.Refurbished }), Refurbished, []Word{Genuine, Refurbished, SupportEnds}},
		"resold":                        {good(func(r *Record) { r.Device.Legitimacy = device.Resold }), Resold, []Word{Genuine, Resold, SupportEnds}},
		"no longer supported":           {good(func(r *Record) { r.Support = now }), SupportEnded, []Word{Genuine, SupportEnded}},
		"nobody said until when":        {good(func(r *Record) { r.Support = time.Time{} }), Genuine, []Word{Genuine}},
		"a simulation":                  {good(func(r *Record) { r.Device.Virtual = true }), Genuine, []Word{Genuine, SupportEnds, Simulated}},
	} {
		j := Judge(c.r, now)
		if j.Headline != c.head || !slices.Equal(words(j), c.says) {
			t.Errorf("%s: %s of %v, want %s of %v", name, j.Headline, words(j), c.head, c.says)
		}
	}
}

// Whatever combination a device is in, its headline looks good only when nothing that is said beside it warns.
func TestAGoodHeadlineHidesNoWarning(t *testing.T) {
	for _, state := range append(device.States(), "new") {
		for _, l := range []device.Legitimacy{device.Genuine, device.Recalled, device.Refurbished, device.Resold, device.Stolen, device.Unknown, ""} {
			for bits := range 32 {
				r := Record{Known: bits&1 == 0, Imported: bits&2 != 0, Support: now.Add(time.Hour), Device: device.Device{State: state, Legitimacy: l}}
				if bits&4 != 0 {
					r.Support = now
				}
				if bits&8 != 0 {
					r.Device.ReplacedBy = "x"
				}
				if bits&16 != 0 {
					r.Device.Twin.Suspect = "x"
				}
				j := Judge(r, now)
				if j.Headline == "" || j.Headline.Title() == "" || j.Headline.Advice() == "" {
					t.Fatalf("%+v: no headline, or none that says what to do: %q", r, j.Headline)
				}
				for _, s := range j.Says {
					if tone := s.Word.Tone(); j.Headline.Tone() == "good" && (tone == "warn" || tone == "bad") {
						t.Fatalf("%+v: %s looks good, and %s is said", r, j.Headline, s.Word)
					}
				}
			}
		}
	}
}

func TestATimeIsTheDayOnly(t *testing.T) {
	r := Record{Known: true, Device: device.Device{State: device.Active, Legitimacy: device.Recalled, Made: now}, Since: map[Word]time.Time{Recalled: now}}
	g := payload("acme", r, Judge(r, now), now, time.Hour)
	for _, s := range g.Says {
		if s.Since%86400 != 0 {
			t.Errorf("%s since %d", s.Word, s.Since)
		}
	}
	if at := time.Unix(int64(g.Made), 0).UTC(); at.Day() != 1 || at.Hour() != 0 {
		t.Errorf("made %s", at)
	}
}
