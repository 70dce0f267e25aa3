package gate

import (
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// clock is the time by which one delivery is judged. The device brings what it knows: its clock, or, where that is behind, the latest
// time that was signed to it before. That may be far behind: a device may have no clock, or one that lost its battery. Then two who
// do not depend on each other can tell it the time together: the directive authority, which answers this device's nonce and so
// speaks now, and the quorum of witnesses, of whom a checkpoint is believed for the bundle's maximum age. Neither can alone: a
// thief of the directive key cannot make an old checkpoint fresh, and witnesses gone astray cannot end the life of all devices.
type clock struct {
	now    time.Time // the device's, or later, as far as the two agree
	told   time.Time // by the directive
	known  time.Time // before this delivery
	maxAge time.Duration
}

// readClock gives the time, as directive and the checkpoint of its command tell it.
func readClock(b wire.Bundle, issued uint64, cosigned, now time.Time) clock {
	c := clock{now: now, known: now, told: time.Unix(int64(min(issued, 1<<40)), 0)}
	// A maximum age of 0 in the bundle means that its signers set none.
	c.maxAge = time.Duration(min(b.MaxAge, 1<<32)) * time.Second
	if cosigned.IsZero() { // no witnesses: nobody else is there to say that it is later
		return c
	}
	vouched := c.told
	if limit := cosigned.Add(c.maxAge); c.maxAge > 0 && limit.Before(vouched) {
		vouched = limit
	}
	if vouched.After(c.now) {
		c.now = vouched
	}
	return c
}

// signed is the latest time that the two have both signed: it can only be later, for good.
func (c clock) signed(cosigned time.Time) time.Time {
	switch {
	case cosigned.IsZero():
		return time.Time{}
	case cosigned.Before(c.told):
		return cosigned
	}
	return c.told
}

// after is the device's own time once it has kept what was signed: what it promises an end for is measured by that.
func (c clock) after(signed time.Time) time.Time {
	if signed.After(c.known) {
		return signed
	}
	return c.known
}

// fresh checks that enough witnesses have seen the log lately.
func (c clock) fresh(what string, cosigned time.Time) *Refusal {
	if cosigned.IsZero() { // without witnesses in the bundle there is no time of theirs to bound
		return nil
	}
	now := c.now
	if c.told.After(now) && cosigned.After(c.known) { // the device's clock is behind, and the directive knows better
		now = c.told
	}
	switch age := now.Sub(cosigned); {
	case c.maxAge > 0 && age > c.maxAge:
		return refuse(StaleCheckpoint, "%s: cosigned at %s, older than %s at %s", what, cosigned, c.maxAge, now.UTC())
	case age < -Skew:
		return refuse(Future, "%s: cosigned at %s, the clock says %s", what, cosigned, now.UTC())
	}
	return nil
}

// within checks that a message is of now.
func (c clock) within(what string, issued, expires uint64) *Refusal {
	t := c.now.Unix()
	switch {
	case t < 0 || issued > uint64(t)+uint64(Skew/time.Second):
		return refuse(Future, "%s issued at %d, the clock says %d", what, issued, t)
	case expires <= uint64(t):
		return refuse(Expired, "%s expired at %d, the clock says %d", what, expires, t)
	}
	return nil
}
