package wire

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// Manner is what has to be before a device carries out an install that it was told.
type Manner string

// The manners.
const (
	Forced  Manner = ""        // nothing
	Soft    Manner = "soft"    // it is not busy, or the command's grace is over
	Consent Manner = "consent" // somebody beside it agreed
)

// Check refuses a manner that there is not, and a grace that is none.
func (m Manner) Check(grace time.Duration) error {
	switch {
	case m != Forced && m != Soft && m != Consent:
		return fmt.Errorf("no manner is called %.16q: it is soft, consent, or left out", string(m))
	case (m == Soft) != (grace > 0) || grace > MaxGrace:
		return fmt.Errorf("a grace of %s for manner %q: soft has one of at most %s, and the others have none", grace, string(m), MaxGrace)
	}
	return nil
}

// MaxGrace bounds how long a device may put off what it was told softly.
const MaxGrace = 30 * 24 * time.Hour

// CodeDeclined is the code of a refusal for which nobody is to blame: somebody beside the device did not agree.
const CodeDeclined = "declined"

// What a device says that it knows (Checkin.Knows) when it keeps to windows, and to manners.
const (
	KnowsWindow = "window1"
	KnowsManner = "manner1"
)

// Window is the same hours of days of the week, of the time of the zone that a device says it is in: who says none is not told of a window. It has no zone, because commands are public.
type Window struct {
	Days    uint8  `cbor:"1,keyasint,omitempty" json:"days,omitempty"` // on which it opens: 1 Monday, 2 Tuesday, 4 Wednesday … 64 Sunday, added; 0: every day
	From    uint16 `cbor:"2,keyasint" json:"from"`                     // when it opens: minute of the day
	Minutes uint16 `cbor:"3,keyasint" json:"minutes"`                  // how long it is open; it may go over midnight
}

const minutesOfDay = 24 * 60

// Check refuses a window that never opens, or that opens twice a day.
func (w Window) Check() error {
	if w.Days > 127 || w.From >= minutesOfDay || w.Minutes == 0 || w.Minutes > minutesOfDay {
		return fmt.Errorf("a window opens on days of the week (1 to 127), at a minute of the day (0 to %d), for 1 to %d minutes: not %d, %d, %d", minutesOfDay-1, minutesOfDay, w.Days, w.From, w.Minutes)
	}
	return nil
}

func (c Command) checkManner() error {
	if c.Act != ActInstall && (c.Window != nil || c.Manner != Forced || c.Grace != 0) {
		return fmt.Errorf("a window, manner or grace for act %s", c.Act)
	}
	if c.Window != nil {
		if err := c.Window.Check(); err != nil {
			return err
		}
	}
	if c.Grace > uint64(MaxGrace/time.Second) {
		return fmt.Errorf("a grace of %d s, at most %d", c.Grace, MaxGrace/time.Second)
	}
	return c.Manner.Check(time.Duration(c.Grace) * time.Second)
}

// What an install that a device accepted waits for.
const (
	WaitsForConsent = "consent"
	WaitsForWindow  = "window"
	WaitsForGrace   = "grace" // it is busy
)

// Waits is an install that a device has accepted, and has here, and does not carry out yet. It is told again when it says no more that it waits: what was taken back meanwhile is
// not, and is never carried out.
type Waits struct {
	For     string `cbor:"1,keyasint" json:"for"`
	Command []byte `cbor:"2,keyasint" json:"command"`                   // its digest
	Since   uint64 `cbor:"3,keyasint" json:"since"`                     // seconds
	Until   uint64 `cbor:"4,keyasint,omitempty" json:"until,omitempty"` // when its window opens, or its grace is over, as it reckons; 0: nobody can tell
}

func (w *Waits) check() error {
	switch {
	case w == nil:
		return nil
	case w.For != WaitsForConsent && w.For != WaitsForWindow && w.For != WaitsForGrace:
		return fmt.Errorf("check-in: it waits for %.16q", w.For)
	case len(w.Command) != sha256.Size || w.Since > maxMoment || w.Until > maxMoment:
		return errors.New("check-in: what it waits with is out of bounds")
	}
	return nil
}

// maxMoment bounds a time in seconds that somebody else gave.
const maxMoment = 1 << 40

// Text says in words what it waits for.
func (w Waits) Text() string {
	day := func(at uint64) string {
		return time.Unix(int64(min(at, maxMoment)), 0).UTC().Format("2006-01-02 15:04Z")
	}
	switch w.For {
	case WaitsForConsent:
		return "waits for consent since " + day(w.Since)
	case WaitsForWindow:
		return "waits for its window, which opens " + day(w.Until)
	}
	return "is busy, and puts it off until " + day(w.Until) + " at most"
}
