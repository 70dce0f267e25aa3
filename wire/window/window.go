// Package window says when a device may be worked on: hours of its own day, wherever it is.
//
// Under all stages. Windows go by the clock on the wall of the device's zone. Where that clock is put forward over the opening, the window opens when the
// clock runs on; where it is put back, it opens the first time. The zones are the machine's own (Go looks there first), and those that came with the program where it has
// none: nodes whose machines know different ones go by different hours.
package window

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // for machines that have no zones

	"github.com/hallmark-iot/hallmark/wire"
)

// Window is the same hours of days of the week.
type Window struct {
	Days    uint8  `json:"days,omitempty"` // on which it opens: 1 Monday, 2 Tuesday, 4 Wednesday … 64 Sunday, added; 0: every day
	From    uint16 `json:"from"`           // when it opens: minute of the day
	Minutes uint16 `json:"minutes"`        // how long it is open, to 1440; it may go over midnight
}

// Longest is how long a window may be waited for, and be open.
const Longest = 9 * 24 * time.Hour

// Check refuses a window that never opens, or that opens twice a day.
func (w Window) Check() error {
	return wire.Window{Days: w.Days, From: w.From, Minutes: w.Minutes}.Check()
}

var names = []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

// Parse reads "02:00+4h", "sat,sun 22:30+90m" or "mon-fri 02:00+4h".
func Parse(text string) (w Window, err error) {
	wrong := fmt.Errorf("%.64q is no window: write it as 02:00+4h, mon-fri 22:30+90m or sat,sun 02:00+4h", text)
	days, hours, found := strings.Cut(strings.ToLower(strings.TrimSpace(text)), " ")
	if !found {
		days, hours = "", days
	}
	for part := range strings.SplitSeq(days, ",") {
		if part == "" && days == "" {
			break
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, to := slices.Index(names, first), slices.Index(names, last)
		if from < 0 || to < 0 {
			return w, wrong
		}
		for i := from; ; i = (i + 1) % 7 {
			w.Days |= 1 << i
			if i == to {
				break
			}
		}
	}
	at, length, _ := strings.Cut(strings.TrimSpace(hours), "+")
	opens, err1 := time.Parse("15:04", at)
	open, err2 := time.ParseDuration(length)
	if err1 != nil || err2 != nil || open < time.Minute || open > 24*time.Hour || open%time.Minute != 0 {
		return w, wrong
	}
	w.From, w.Minutes = uint16(opens.Hour()*60+opens.Minute()), uint16(open/time.Minute)
	return w, w.Check()
}

// String writes it as Parse reads it.
func (w Window) String() string {
	var days []string
	for i, name := range names {
		if w.Days&(1<<i) != 0 {
			days = append(days, name)
		}
	}
	text := fmt.Sprintf("%02d:%02d+%dm", w.From/60, w.From%60, w.Minutes)
	if w.Minutes%60 == 0 {
		text = fmt.Sprintf("%02d:%02d+%dh", w.From/60, w.From%60, w.Minutes/60)
	}
	return strings.TrimSpace(strings.Join(days, ",") + " " + text)
}

var (
	offset = regexp.MustCompile(`^([+-])([01][0-9]):([0-5][0-9])$`)
	loaded sync.Map // name of a zone → *time.Location; there are some 600
)

// Zone gives a zone by its name (Europe/Berlin) or its distance from UTC (+02:00); without a name UTC.
func Zone(name string) (*time.Location, error) {
	if zone, ok := loaded.Load(name); ok {
		return zone.(*time.Location), nil
	}
	if m := offset.FindStringSubmatch(name); m != nil {
		hours, err1 := strconv.Atoi(m[2])
		minutes, err2 := strconv.Atoi(m[3])
		east := hours*3600 + minutes*60
		if m[1] == "-" {
			east = -east
		}
		return time.FixedZone(name, east), errors.Join(err1, err2)
	}
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" || len(name) > wire.MaxZone {
		return nil, fmt.Errorf("there is no time zone %.40q: give its name, as Europe/Berlin, or its distance from UTC, as +02:00", name)
	}
	loaded.Store(name, zone)
	return zone, nil
}

// Next gives the window that is open at now, or opens next.
func Next(now time.Time, zone *time.Location, w Window) (opens, closes time.Time) {
	year, month, date := now.In(zone).Date()
	for i := -1; i <= 8; i++ { // from yesterday, for what goes over midnight
		at := time.Date(year, month, date+i, 0, 0, 0, 0, time.UTC)
		if weekday := (int(at.Weekday()) + 6) % 7; w.Days != 0 && w.Days&(1<<weekday) == 0 {
			continue
		}
		opens = shows(at.Add(time.Duration(w.From)*time.Minute), zone)
		closes = shows(at.Add(time.Duration(w.From+w.Minutes)*time.Minute), zone)
		if !closes.After(opens) { // the clock was put forward over all of it
			closes = opens.Add(time.Duration(w.Minutes) * time.Minute)
		}
		if closes.After(now) {
			return opens, closes
		}
	}
	return opens, closes // not reached: each day of the week comes within eight
}

// shows gives the first moment at which the clock of a zone shows a time or a later one; wall is that time as if it were UTC.
func shows(wall time.Time, zone *time.Location) time.Time {
	before, after := east(wall.Add(-36*time.Hour), zone), east(wall.Add(36*time.Hour), zone)
	one, other := wall.Add(-before), wall.Add(-after)
	if other.Before(one) {
		one, other = other, one
	}
	if wall.Equal(one.Add(east(one, zone))) {
		return one
	}
	seconds := int(other.Sub(one) / time.Second)
	n := sort.Search(seconds, func(i int) bool {
		t := one.Add(time.Duration(i) * time.Second)
		return !t.Add(east(t, zone)).Before(wall)
	})
	return one.Add(time.Duration(n) * time.Second)
}

// east is how far a zone's clock is before UTC's.
func east(t time.Time, zone *time.Location) time.Duration {
	_, seconds := t.In(zone).Zone()
	return time.Duration(seconds) * time.Second
}

// Hours are windows of many devices, each in its own zone.
type Hours struct {
	Window
	Zone string `json:"zone,omitempty"` // of devices that say none, and of those whose own is not known here; empty: UTC
}

// Check refuses what no device could go by.
func (h Hours) Check() error {
	_, err := Zone(h.Zone)
	return errors.Join(h.Window.Check(), err)
}

// Next gives the window of a device that says where it is, in the time of that place: the one that is open at now, or opens next.
func (h Hours) Next(now time.Time, said string) (opens, closes time.Time) {
	zone, err := Zone(said)
	if said == "" || err != nil {
		if zone, err = Zone(h.Zone); err != nil {
			zone = time.UTC // Check refused it
		}
	}
	opens, closes = Next(now, zone, h.Window)
	return opens.In(zone), closes.In(zone)
}

// Text says when devices are worked on.
func (h Hours) Text() string {
	zone := h.Zone
	if zone == "" {
		zone = "UTC"
	}
	return fmt.Sprintf("%s in each device's own time; %s where it does not say", h.Window, zone)
}

// Told is what a device is told that keeps to it itself.
func (w Window) Told() *wire.Window {
	return &wire.Window{Days: w.Days, From: w.From, Minutes: w.Minutes}
}

// Of gives the window that a device was told.
func Of(w wire.Window) Window {
	return Window{Days: w.Days, From: w.From, Minutes: w.Minutes}
}

// Open reports whether a device that says where it is may be worked on at now.
func (h Hours) Open(now time.Time, said string) bool {
	opens, _ := h.Next(now, said)
	return !opens.After(now)
}
