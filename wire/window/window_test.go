package window

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The hours of a window are those on the device's own wall, in summer and in winter, and in the nights between.
const day = 24 * 60 // minutes

func TestHawkbit2026WindowsAreTheDevicesOwn(t *testing.T) {
	for _, c := range []struct {
		what, now, zone, window string
		opens, closes           string
	}{
		{"a night of winter", "2026-01-15T12:00Z", "Europe/Berlin", "02:00+4h", "2026-01-16T01:00Z", "2026-01-16T05:00Z"},
		{"a night of summer", "2026-07-15T12:00Z", "Europe/Berlin", "02:00+4h", "2026-07-16T00:00Z", "2026-07-16T04:00Z"},
		{"elsewhere", "2026-07-15T12:00Z", "America/New_York", "02:00+4h", "2026-07-16T06:00Z", "2026-07-16T10:00Z"},
		{"half an hour aside", "2026-07-15T12:00Z", "Asia/Kolkata", "02:00+4h", "2026-07-15T20:30Z", "2026-07-16T00:30Z"},
		{"a distance", "2026-07-15T12:00Z", "-03:30", "02:00+4h", "2026-07-16T05:30Z", "2026-07-16T09:30Z"},
		{"nobody said where", "2026-07-15T12:00Z", "", "02:00+4h", "2026-07-16T02:00Z", "2026-07-16T06:00Z"},
		{"it is open", "2026-07-16T03:59Z", "Europe/Berlin", "02:00+4h", "2026-07-16T00:00Z", "2026-07-16T04:00Z"},
		{"it has just closed", "2026-07-16T04:00Z", "Europe/Berlin", "02:00+4h", "2026-07-17T00:00Z", "2026-07-17T04:00Z"},
		{"over midnight, after it", "2026-07-16T00:30Z", "UTC", "22:00+4h", "2026-07-15T22:00Z", "2026-07-16T02:00Z"},
		{"all day", "2026-07-16T00:30Z", "UTC", "00:00+24h", "2026-07-16T00:00Z", "2026-07-17T00:00Z"},
		{"on Sundays", "2026-07-15T12:00Z", "UTC", "sun 02:00+1h", "2026-07-19T02:00Z", "2026-07-19T03:00Z"},
		{"over the weekend's end", "2026-07-13T00:30Z", "UTC", "sat,sun 23:00+2h", "2026-07-12T23:00Z", "2026-07-13T01:00Z"},
		{"a week that turns", "2026-07-15T12:00Z", "UTC", "fri-mon 02:00+1h", "2026-07-17T02:00Z", "2026-07-17T03:00Z"},

		// Put forward in Berlin at 2026-03-29 02:00, which is 01:00Z: there is no 02:30.
		{"it opens in the hour that is missing", "2026-03-28T12:00Z", "Europe/Berlin", "02:30+2h", "2026-03-29T01:00Z", "2026-03-29T02:30Z"},
		{"all of it is missing", "2026-03-28T12:00Z", "Europe/Berlin", "02:10+30m", "2026-03-29T01:00Z", "2026-03-29T01:30Z"},
		{"it goes over the hour that is missing", "2026-03-28T12:00Z", "Europe/Berlin", "01:00+4h", "2026-03-29T00:00Z", "2026-03-29T03:00Z"},
		{"it closes in the hour that is missing", "2026-03-28T12:00Z", "Europe/Berlin", "01:00+90m", "2026-03-29T00:00Z", "2026-03-29T01:00Z"},
		{"the day after", "2026-03-29T12:00Z", "Europe/Berlin", "02:30+2h", "2026-03-30T00:30Z", "2026-03-30T02:30Z"},
		// Put back in Berlin at 2026-10-25 03:00, which is 01:00Z: 02:30 is twice.
		{"it opens in the hour that is twice", "2026-10-24T12:00Z", "Europe/Berlin", "02:30+2h", "2026-10-25T00:30Z", "2026-10-25T03:30Z"},
		{"it closes in the hour that is twice", "2026-10-24T12:00Z", "Europe/Berlin", "01:00+90m", "2026-10-24T23:00Z", "2026-10-25T00:30Z"},
		{"the second of the hour that is twice", "2026-10-25T01:45Z", "Europe/Berlin", "02:30+2h", "2026-10-25T00:30Z", "2026-10-25T03:30Z"},
		// Put forward by half an hour, and at midnight.
		{"Lord Howe", "2026-10-03T12:00Z", "Australia/Lord_Howe", "02:15+1h", "2026-10-03T15:30Z", "2026-10-03T16:15Z"},
		{"midnight is missing", "2026-04-23T12:00Z", "Africa/Cairo", "00:00+2h", "2026-04-23T22:00Z", "2026-04-23T23:00Z"},
		{"a day is missing", "2011-12-29T12:00Z", "Pacific/Apia", "fri 02:00+1h", "2011-12-30T10:00Z", "2011-12-30T11:00Z"},
	} {
		at := func(text string) time.Time {
			v, err := time.Parse("2006-01-02T15:04Z", text)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		w, err := Parse(c.window)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		zone, err := Zone(c.zone)
		if err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		opens, closes := Next(at(c.now), zone, w)
		if !opens.Equal(at(c.opens)) || !closes.Equal(at(c.closes)) {
			t.Errorf("%s: %s in %s is %s to %s, want %s to %s", c.what, c.window, c.zone, opens.UTC(), closes.UTC(), c.opens, c.closes)
		}
	}
}

func TestWhatIsNoWindowIsRefused(t *testing.T) {
	for _, text := range []string{"", "2", "02:00", "02:00+", "02:00+0m", "02:00+25h", "24:00+1h", "02:60+1h", "02:00+90s", "02:00-1h", "day 02:00+1h", "mon- 02:00+1h", ", 02:00+1h", "mon tue 02:00+1h"} {
		if w, err := Parse(text); err == nil {
			t.Errorf("%q is %v", text, w)
		}
	}
	for _, w := range []Window{{}, {Minutes: 1441}, {From: 1440, Minutes: 1}, {Days: 128, Minutes: 1}} {
		if w.Check() == nil {
			t.Errorf("%+v is taken", w)
		}
	}
	for _, name := range []string{"Local", "Europe/Atlantis", "+24:00", "+2", "../../etc/passwd", "02:00"} {
		if z, err := Zone(name); err == nil {
			t.Errorf("%q is %v", name, z)
		}
	}
}

// Wherever and whenever: a window is open when it is said to be, comes within its bound, and is read as it is written.
func TestAWindowComes(t *testing.T) {
	zones := []string{"UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Africa/Cairo", "Pacific/Apia", "America/Sao_Paulo", "-11:30"}
	rapid.Check(t, func(t *rapid.T) {
		w := Window{
			Days: uint8(rapid.IntRange(0, 127).Draw(t, "days")), From: uint16(rapid.IntRange(0, day-1).Draw(t, "from")), Minutes: uint16(rapid.IntRange(1, day).Draw(t, "minutes")),
		}
		if again, err := Parse(w.String()); err != nil || again != w {
			t.Fatalf("%v is read as %v (%v)", w, again, err)
		}
		zone, err := Zone(rapid.SampledFrom(zones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		now := time.Unix(rapid.Int64Range(1_262_304_000, 1_893_456_000).Draw(t, "now"), 0) // 2010 to 2030
		opens, closes := Next(now, zone, w)
		if !closes.After(now) || !closes.After(opens) || closes.Sub(now) > Longest || closes.Sub(opens) > 26*time.Hour {
			t.Fatalf("at %v %v is %v to %v", now, w, opens, closes)
		}
		if o, c := Next(opens, zone, w); w.Days != 0 && w.Minutes < day/2 && (!o.Equal(opens) || !c.Equal(closes)) {
			t.Fatalf("%v is %v to %v, and when it opens %v to %v", w, opens, closes, o, c)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("mon-fri 02:00+4h")
	f.Fuzz(func(t *testing.T, text string) {
		w, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(w.String()); err != nil || again != w {
			t.Fatalf("%q is %v, which is read as %v (%v)", text, w, again, err)
		}
	})
}
