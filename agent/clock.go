package agent

import (
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/agent/gate"
)

// keepFloor is by how much the floor must rise to be worth wearing the flash for, when nothing else is saved.
const keepFloor = time.Hour

// clock is the device's time: its hardware's, but never before the floor, the latest time that was signed to it. A device without
// a clock, or with one that was reset, goes on from the floor for as long as it runs: it may be late by what it slept, and is
// never early. The floor is in the agent's record, so that "no clock" is at no start "no limit of age".
type clock struct {
	mu    sync.Mutex // over all below: handshakes of downloads ask the time too
	floor time.Time
	since time.Time // when the floor was learnt, by the monotonic clock of this run
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := time.Now()
	if c.floor.IsZero() {
		return t
	}
	if least := c.floor.Add(t.Sub(c.since)); least.After(t) {
		return least
	}
	return t
}

// learn raises the floor. What is earlier than the device's time already says nothing new.
func (c *clock) learn(floor uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := time.Unix(int64(min(floor, 1<<40)), 0); c.floor.IsZero() || t.After(c.floor.Add(time.Since(c.since))) {
		c.floor, c.since = t, time.Now()
	}
}

// now is the device's time.
func (a *Agent) now() time.Time { return a.clock.now() }

// accept takes what a plan proves into a copy of m: its counter, the tree it stands under, the time that was signed with it.
func accept(m memory, p gate.Plan) memory {
	m.Counter = p.Counter
	m.Trees = gate.Grown(m.Trees, p.Tree)
	if !p.Signed.IsZero() {
		m.Floor = max(m.Floor, uint64(p.Signed.Unix()))
	}
	return m
}
