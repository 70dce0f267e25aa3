package device

import (
	"context"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// Quiet memory: a device that says what it said last, while nothing has changed that the answer was made from, is answered the same again, without the
// database. A place in it is taken before the database is read, and whatever wakes the device meanwhile takes the place away, what its own check-in
// changes too: what was read before is never kept. It is kept only as long as time alone changes nothing, and two polls at most.

// quiet is the memory. Its zero value is empty and ready.
type quiet struct {
	mu sync.Mutex
	by map[string]*answered // guarded by mu; what it points to never changes
}

// answered is what a device was told.
type answered struct {
	said     [32]byte // wire.CheckinSum
	until    time.Time
	standing State
	acked    uint64
	period   uint64
	token    [wire.TokenSize]byte
	rolls    bool   // there is a token
	body     []byte // of a client of another update system, in the place of all but said and until
}

// maxQuiet bounds the devices that are remembered: some 200 MB.
const maxQuiet = 1 << 20

// place takes the place of a device in the memory, and gives what was there until then; nil: nothing.
func (q *quiet) place(id string) (place, before *answered) {
	place = &answered{}
	q.mu.Lock()
	defer q.mu.Unlock()
	before = q.by[id]
	if q.by == nil || len(q.by) >= maxQuiet {
		q.by = map[string]*answered{} // start over: simple, and rare
	}
	q.by[id] = place
	return place, before
}

// keep puts a into the place, if nothing has taken that away.
func (q *quiet) keep(id string, place *answered, a answered) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.by[id] == place {
		q.by[id] = &a
	}
}

// leave gives the place up, if nothing has taken it away.
func (q *quiet) leave(id string, place *answered) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.by[id] == place {
		delete(q.by, id)
	}
}

func (q *quiet) get(id string) *answered {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.by[id]
}

// wake forgets devices; nil: all.
func (q *quiet) wake(devices []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if devices == nil {
		q.by = nil
	}
	for _, id := range devices {
		delete(q.by, id)
	}
}

// Call is Checkin of what a device sent, as it is encoded: a device without news is answered from memory.
func (s *Service) Call(ctx context.Context, caller access.Caller, id string, body []byte) ([]byte, error) {
	sum, ok := wire.CheckinSum(body)
	ok = ok && s.cfg.Wakes != nil && caller.Kind == access.Device
	if ok {
		if r, ok := s.again(ctx, caller, id, sum); ok {
			return wire.EncodeCheckinReply(r)
		}
	}
	in, err := wire.DecodeCheckin(body)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "checkin.malformed", "check-in of device %s: %w", id, err).With("see which version of the agent the device runs")
	}
	var place *answered
	if ok {
		place, _ = s.quiet.place(id)
	}
	reply, until, err := s.checkin(ctx, caller, id, in)
	if err != nil {
		return nil, err
	}
	if place != nil && s.cfg.Now().Before(until) {
		a := answered{said: sum, until: until, standing: State(reply.Standing), acked: reply.AckedSeq, period: reply.Period}
		a.rolls = copy(a.token[:], reply.Token) > 0
		s.quiet.keep(id, place, a)
	}
	return wire.EncodeCheckinReply(reply)
}

// again gives the answer of before, when there is one that still holds.
func (s *Service) again(ctx context.Context, caller access.Caller, id string, sum [32]byte) (r wire.CheckinReply, ok bool) {
	a, now := s.quiet.get(id), s.cfg.Now().UTC()
	if a == nil || a.said != sum || !now.Before(a.until) || !s.cfg.Wakes.HearsAll() || caller.ID != access.DeviceCaller(id).ID {
		return r, false
	}
	if s.cfg.Challenger != nil && s.cfg.Challenger.Waits(id) {
		return r, false
	}
	if v := s.lines.note(id, lineOf(ctx), now); v != nil && v.alternates {
		return r, false
	}
	s.saw(id, now)
	r = s.reply(a.standing, a.acked, now)
	r.Period = a.period
	if a.rolls {
		r.Token, r.Roll = a.token[:], uint64(s.cfg.Roll/time.Second)
	}
	return r, true
}

// Repeat gives what a client of another update system that showed the same was answered last, without the database, while nothing has changed that it was answered
// from; else what answer gives, which is remembered until then. Who calls is found out by answer: when that fails, what was remembered stays.
func (s *Service) Repeat(ctx context.Context, id string, shows [32]byte, answer func(context.Context) (body []byte, until time.Time, err error)) ([]byte, error) {
	if s.cfg.Wakes == nil {
		body, _, err := answer(ctx)
		return body, err
	}
	known, now := s.quiet.get(id), s.cfg.Now().UTC()
	if known != nil && known.said == shows && now.Before(known.until) && s.cfg.Wakes.HearsAll() {
		s.saw(id, now)
		return known.body, nil
	}
	place, before := s.quiet.place(id) // at once: what is woken between a look and this is not put back
	body, until, err := answer(ctx)
	switch {
	case err == nil && now.Before(until):
		s.quiet.keep(id, place, answered{said: shows, until: until, body: body})
	case err != nil && before != nil: // whoever it was
		s.quiet.keep(id, place, *before)
	default:
		s.quiet.leave(id, place)
	}
	return body, err
}

// quietUntil is until when a device that says the same again is told the same, if nothing wakes it; zero: it is not quiet.
func (s *Service) quietUntil(d Device, in wire.Checkin, reply wire.CheckinReply, w word, rest, now time.Time) time.Time {
	if w.outstanding || w.delivery != nil || w.newest != 0 || reply.Challenge != nil || in.Trial || in.Progress != nil {
		return time.Time{}
	}
	if _, _, news := healthNews(d.Twin, d.Twin, in); news { // it is told when it may be
		return time.Time{}
	}
	until := now.Add(2 * s.cfg.Poll)
	for _, t := range []time.Time{rest, d.GuardUntil, w.opens} {
		if !t.IsZero() && t.Before(until) {
			until = t
		}
	}
	return until
}
