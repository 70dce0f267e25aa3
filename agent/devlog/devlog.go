// Package devlog is the device's own log: what it booted, what it was told, what it did about it.
//
// Stage 3, field, on the device. Events are hash-chained from an origin that binds the device's name and attestation key;
// numbers never restart. Append is durable when it returns, and survives a power cut in any of its writes: the log then ends
// before or after the event. What is lost, by overflow or damage, becomes a gap in the next signed batch and an event of the
// log: never silence. Room is freed only for events the ledger answers for (Anchored).
//
// It trusts the flash to keep what was programmed, no further: a tail that is missing or changed against the head slot shows
// as a gap with cause "damaged". Who can write the flash at will can set it back to an earlier state. A hardware counter that
// holds the number of the last event shows that at the next start; without one the server, which has the later heads, does.
// Either way the log goes on from where the ledger proves that it was (Rejoin), behind a gap, and says so.
package devlog

import (
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// Config is what a log is opened with.
type Config struct {
	Region  hw.Region
	Device  string
	Origin  [32]byte   // wire.LogOrigin
	Counter hw.Counter // is raised to each event's number; nil: the board has none for it
	Epoch   uint64     // current boot count, for the event that reports damage
	Now     time.Time
}

// Log is an open log. Its methods may be called from several goroutines.
type Log struct {
	mu      sync.Mutex // over all below
	r       hw.Region
	device  string
	counter hw.Counter
	bound   uint64 // value of the counter
	slot    slot
	live    []sector // oldest first; the last takes the next event
}

// Open reads the log in c.Region, or begins one.
func Open(c Config) (*Log, error) {
	if err := checkRegion(c.Region); err != nil {
		return nil, err
	}
	l := &Log{r: c.Region, device: c.Device, counter: c.Counter}
	if err := l.open(c); err != nil {
		return nil, fmt.Errorf("device log: %w", err)
	}
	return l, nil
}

func (l *Log) open(c Config) error {
	s, found, err := l.readSlot()
	if err != nil {
		return err
	}
	if !found {
		s = slot{head: c.Origin, ackedHead: c.Origin, sector: 1}
	}
	l.slot = s
	ring, err := l.scan()
	if err != nil {
		return err
	}
	damage, err := l.adopt(ring, found)
	if err != nil {
		return err
	}
	if l.counter != nil {
		if l.bound, err = l.counter.Value(); err != nil {
			return err
		}
	}
	e := wire.LogEvent{Epoch: c.Epoch, At: uint64(c.Now.Unix())}
	switch {
	case l.bound > l.slot.seq:
		e.Kind, e.Data = wire.LogRollback, fmt.Appendf(nil, "the hardware counter is at %d, the log ends at %d", l.bound, l.slot.seq)
		l.lose(l.bound + 1)
	case damage != "":
		e.Kind, e.Data = wire.LogDamaged, []byte(damage)
		l.slot.told = l.slot.seq
	case l.untold() > 0: // the power went between making room and telling of it
		e.Kind, e.Data = wire.LogOverflow, l.tell(l.untold())
	case !found: // a head from the start: that none is found later is then damage, never a cut
		return l.writeSlot(l.slot)
	default:
		return l.bind()
	}
	return l.append(e)
}

// lose gives up what the log holds, and every number up to seq: the next event is behind a gap. It is durable with that event. The number
// itself was nobody's, so that the gap is never empty, however much of the log the server has.
func (l *Log) lose(seq uint64) {
	l.slot.head = wire.LostLogHead(l.slot.head, l.device, seq)
	l.slot.seq, l.slot.told, l.live = seq, seq, nil
}

// untold is the last event that is lost without the log telling of it; 0: none.
func (l *Log) untold() uint64 {
	if oldest, _ := l.oldest(); oldest-1 > max(l.slot.acked, l.slot.told) {
		return oldest - 1
	}
	return 0
}

// tell says what is lost up to last. It is told with the event that says it.
func (l *Log) tell(last uint64) []byte {
	first := max(l.slot.acked, l.slot.told) + 1
	l.slot.told = last
	return fmt.Appendf(nil, "events %d to %d are lost", first, last)
}

// bind raises the hardware counter to the last event's number.
func (l *Log) bind() error {
	if l.counter == nil || l.bound >= l.slot.seq {
		return nil
	}
	if err := l.counter.Raise(l.slot.seq); err != nil {
		return fmt.Errorf("its hardware counter: %w", err)
	}
	l.bound = l.slot.seq
	return nil
}

// run is the newest unbroken stretch of ring sectors, and the head it leads to.
type run struct {
	sectors []sector
	head    [32]byte
	heads   map[uint64][32]byte // head after the events that matter: the slot's, and the last
}

func (l *Log) scan() (run, error) {
	var all []sector
	for phys := int64(headSectors); phys < l.r.Size()/l.r.Sector(); phys++ {
		s, ok, err := l.readHeader(phys)
		if err != nil {
			return run{}, err
		}
		if ok {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b sector) int {
		switch {
		case a.first != b.first:
			return int(int64(a.first) - int64(b.first))
		default:
			return int(a.phys - b.phys)
		}
	})
	out := run{heads: map[uint64][32]byte{}}
	for _, s := range all {
		if n := len(out.sectors); n > 0 && (s.prev != out.head || s.first != out.sectors[n-1].last()+1) {
			out = run{heads: map[uint64][32]byte{}}
		}
		out.heads[s.first-1] = s.prev
		out.head = s.prev
		s, err := l.walk(s, func(e wire.LogEvent, head [32]byte) bool {
			out.head = head
			if e.Seq == l.slot.seq {
				out.heads[e.Seq] = head
			}
			return true
		})
		if err != nil {
			return run{}, err
		}
		if s.count == 0 && s.end == l.r.Sector() { // its first record was torn: nothing to keep
			continue
		}
		out.sectors = append(out.sectors, s)
	}
	return out, nil
}

// adopt reconciles the head slot with the ring. The slot is written after the event: the ring may be one event ahead of it,
// anything else is damage.
func (l *Log) adopt(ring run, found bool) (damage string, err error) {
	n := len(ring.sectors)
	if n == 0 {
		if l.slot.seq > l.slot.anchored {
			return fmt.Sprintf("events %d to %d are gone", l.slot.anchored+1, l.slot.seq), nil
		}
		return "", nil
	}
	last := ring.sectors[n-1].last()
	if !found {
		l.slot.seq, l.slot.head = last, ring.head
		first := ring.sectors[0]
		l.slot.acked, l.slot.ackedHead = first.first-1, first.prev
		l.live = ring.sectors
		return "both head slots are lost", nil
	}
	head, ok := ring.heads[l.slot.seq]
	if !ok || head != l.slot.head || last > l.slot.seq+1 {
		return fmt.Sprintf("events up to %d do not lead to the head", l.slot.seq), nil
	}
	l.live = ring.sectors
	if last == l.slot.seq+1 {
		s := l.slot
		s.seq, s.head = last, ring.head
		return "", l.writeSlot(s)
	}
	return "", nil
}

// Append adds an event. It is durable when Append returns nil.
func (l *Log) Append(epoch uint64, now time.Time, kind string, cause *wire.LogRef, text string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(text) > wire.MaxLogData {
		text = strings.ToValidUTF8(text[:wire.MaxLogData], "")
	}
	e := wire.LogEvent{Epoch: epoch, At: uint64(now.Unix()), Kind: kind, Cause: cause}
	if text != "" {
		e.Data = []byte(text)
	}
	if err := l.append(e); err != nil {
		return fmt.Errorf("device log: %w", err)
	}
	return nil
}

func (l *Log) append(e wire.LogEvent) error {
	e.Seq = l.slot.seq + 1
	body, err := wire.EncodeLogEvent(e)
	if err != nil {
		return err
	}
	rec := l.pad(encodeRecord(body))
	n := len(l.live)
	if n == 0 || l.live[n-1].end+int64(len(rec)) > l.r.Sector() {
		dropped, err := l.openSector()
		if err != nil {
			return err
		}
		if dropped > 0 {
			if err := l.append(wire.LogEvent{Epoch: e.Epoch, At: e.At, Kind: wire.LogOverflow, Data: l.tell(dropped)}); err != nil {
				return err
			}
			return l.append(e)
		}
		n = len(l.live)
	}
	cur := &l.live[n-1]
	head, err := wire.NextLogHead(l.slot.head, l.device, e)
	if err != nil {
		return err
	}
	if err := l.r.Program(cur.phys*l.r.Sector()+cur.end, rec); err != nil {
		return err
	}
	cur.end += int64(len(rec))
	cur.count++
	s := l.slot
	s.seq, s.head = e.Seq, head
	if err := l.writeSlot(s); err != nil {
		return err
	}
	return l.bind()
}

// openSector takes the next sector of the ring. When that held events nobody has yet, it gives the last of them.
func (l *Log) openSector() (dropped uint64, err error) {
	next := int64(headSectors)
	if n := len(l.live); n > 0 {
		next = l.live[n-1].phys + 1
		if next >= l.r.Size()/l.r.Sector() {
			next = headSectors
		}
	}
	for len(l.live) > 0 && l.live[0].phys == next {
		if old := l.live[0]; old.count > 0 && old.last() > l.slot.acked {
			dropped = old.last()
		}
		l.live = l.live[1:]
	}
	if err := l.r.Erase(next); err != nil {
		return 0, err
	}
	if err := l.r.Program(next*l.r.Sector(), l.pad(encodeHeader(l.slot.seq+1, l.slot.head))); err != nil {
		return 0, err
	}
	l.live = append(l.live, sector{
		phys: next, first: l.slot.seq + 1, prev: l.slot.head, end: roundUp(headerLen, l.r.Page()),
	})
	return dropped, nil
}

// Head is the last event's number and the chain's head after it.
func (l *Log) Head() (seq uint64, head [32]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.slot.seq, l.slot.head
}

// Acked is the number up to which the server has the log.
func (l *Log) Acked() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.slot.acked
}

// AnchoredTo is the number up to which the ledger answers for the log.
func (l *Log) AnchoredTo() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.slot.anchored
}

// Events calls fn for the events from number from on, as far as they are still here.
func (l *Log) Events(from uint64, fn func(e wire.LogEvent, head [32]byte) bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events(from, fn)
}

func (l *Log) events(from uint64, fn func(e wire.LogEvent, head [32]byte) bool) error {
	more := true
	for _, s := range l.live {
		if !more {
			return nil
		}
		if s.count == 0 || s.last() < from {
			continue
		}
		last := s.last()
		if _, err := l.walk(s, func(e wire.LogEvent, head [32]byte) bool {
			if e.Seq >= from {
				more = fn(e, head)
			}
			return more && e.Seq < last
		}); err != nil {
			return fmt.Errorf("device log: %w", err)
		}
	}
	return nil
}

// EndsWith reports whether the last event is of a kind.
func (l *Log) EndsWith(kind string) (is bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err = l.events(l.slot.seq, func(e wire.LogEvent, _ [32]byte) bool {
		is = e.Kind == kind
		return false
	})
	return is, err
}

// batchBytes leaves room for the frame within MaxLogBatch.
const batchBytes = wire.MaxLogBatch - 4<<10

// Says is what a batch tells beside the log.
type Says struct {
	Boots uint64
	Trees []wire.TreeHead // the largest accepted of each of the server's logs
	Now   time.Time
}

// Batch signs what the server does not have yet, or a heartbeat, and says up to where it reaches.
func (l *Log) Batch(key crypto.Signer, s Says) (envelope []byte, last uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, err := l.stretch(l.slot.acked+1, l.slot.ackedHead, s, "")
	if err != nil {
		return nil, 0, err
	}
	envelope, err = sign(b, key)
	return envelope, b.Last, err
}

// Batches signs all that the server does not have yet, as far as most of them hold it. Each ends behind an event of kind ends, if one comes: who has some of the events has whole batches.
func (l *Log) Batches(key crypto.Signer, s Says, ends string, most int) (envelopes [][]byte, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next, head := l.slot.acked+1, l.slot.ackedHead
	for next <= l.slot.seq && len(envelopes) < most {
		b, err := l.stretch(next, head, s, ends)
		if err != nil {
			return nil, err
		}
		envelope, err := sign(b, key)
		if err != nil {
			return nil, err
		}
		envelopes = append(envelopes, envelope)
		next, head = b.Last+1, [32]byte(b.Head)
	}
	return envelopes, nil
}

func sign(b wire.LogBatch, key crypto.Signer) ([]byte, error) {
	payload, err := wire.EncodeLogBatch(b)
	if err != nil {
		return nil, err
	}
	return wire.Sign1(wire.TypeDeviceLog, payload, key)
}

// stretch is what one batch holds from the event first on, behind the head prev.
func (l *Log) stretch(first uint64, prev [32]byte, s Says, ends string) (wire.LogBatch, error) {
	b := wire.LogBatch{
		Device: l.device, First: first, Prev: prev[:],
		BootCount: s.Boots, Trees: s.Trees, Sent: uint64(s.Now.Unix()), Counter: l.bound,
	}
	next, head := b.First, prev
	if oldest, prev := l.oldest(); oldest > next {
		b.Gap = &wire.LogGap{First: next, Last: oldest - 1, Prev: b.Prev, Head: prev[:]}
		next, head = oldest, prev
	}
	size, ended := 0, false
	if err := l.events(next, func(e wire.LogEvent, h [32]byte) bool {
		size += len(e.Data) + len(e.Kind) + 256
		if ended || size > batchBytes || len(b.Events) == wire.MaxLogEvents {
			return false
		}
		b.Events = append(b.Events, e)
		head, next = h, e.Seq+1
		ended = ends != "" && e.Kind == ends
		return true
	}); err != nil {
		return b, err
	}
	b.Last, b.Head = next-1, head[:]
	return b, nil
}

// oldest is the first event still here and the head before it; the next event's when there is none.
func (l *Log) oldest() (uint64, [32]byte) {
	for _, s := range l.live {
		if s.count > 0 {
			return s.first, s.prev
		}
	}
	return l.slot.seq + 1, l.slot.head
}

// ErrContradicted says that what the server said does not agree with this log. The log is as it was.
var ErrContradicted = errors.New("device log: contradicted")

// Ack takes the server's answer: the log is durable there up to acked. With need not 0 it wants the log from need again.
func (l *Log) Ack(acked, need uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	to := acked
	if need > 0 {
		to = need - 1
	}
	if to > l.slot.seq {
		return fmt.Errorf("%w: the server has events to %d, the log ends at %d", ErrContradicted, to, l.slot.seq)
	}
	if to == l.slot.acked {
		return nil
	}
	head, ok, err := l.headAt(to)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: asked for event %d, which is anchored or lost", ErrContradicted, to+1)
	}
	s := l.slot
	s.acked, s.ackedHead = to, head
	s.anchored = min(s.anchored, to)
	return l.writeSlot(s)
}

// headAt computes the head after event seq, as far as the log reaches back.
func (l *Log) headAt(seq uint64) (head [32]byte, ok bool, err error) {
	switch oldest, prev := l.oldest(); {
	case seq == l.slot.seq:
		return l.slot.head, true, nil
	case seq == l.slot.acked:
		return l.slot.ackedHead, true, nil
	case seq == oldest-1:
		return prev, true, nil
	case seq < oldest:
		return head, false, nil
	}
	err = l.events(seq, func(e wire.LogEvent, h [32]byte) bool {
		head, ok = h, e.Seq == seq
		return false
	})
	return head, ok, err
}

// Anchored takes a batch whose place in the ledger has been verified: the events up to its last may be overwritten. One that
// contradicts the log is an error.
func (l *Log) Anchored(a wire.LogBatch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.Device != l.device || a.Last > l.slot.acked {
		return fmt.Errorf("%w: anchor of %s to %d, acknowledged to %d", ErrContradicted, a.Device, a.Last, l.slot.acked)
	}
	if a.Last <= l.slot.anchored {
		return nil
	}
	head, ok, err := l.headAt(a.Last)
	if err != nil {
		return err
	}
	if !ok || string(head[:]) != string(a.Head) {
		return fmt.Errorf("%w: anchor at %d does not hold this log's head", ErrContradicted, a.Last)
	}
	s := l.slot
	s.anchored = a.Last
	if err := l.writeSlot(s); err != nil {
		return err
	}
	for len(l.live) > 1 && l.live[0].last() <= a.Last {
		l.live = l.live[1:]
	}
	return nil
}

// Contradicts reports whether a, a batch that this device's key signed and whose place in the ledger has been verified, is of another
// history than this log: then the flash was set back since, or another device has the key.
func (l *Log) Contradicts(a wire.LogBatch) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.contradicts(a)
}

func (l *Log) contradicts(a wire.LogBatch) (bool, error) {
	if a.Device != l.device || a.Last < l.slot.anchored {
		return false, nil
	}
	if a.Last > l.slot.seq {
		return true, nil
	}
	head, ok, err := l.headAt(a.Last)
	switch {
	case err != nil:
		return false, err
	case !ok:
		return a.Last > l.slot.acked, nil // within a gap that the server knows nothing of
	}
	return string(head[:]) != string(a.Head), nil
}

// Rejoin takes the log up where a proves that it was, when a contradicts it. What was lost in between becomes a gap, and the log tells of
// that; events that were appended behind such a gap already are kept.
func (l *Log) Rejoin(a wire.LogBatch, epoch uint64, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if other, err := l.contradicts(a); err != nil || !other {
		return err
	}
	s := l.slot
	s.acked, s.ackedHead, s.anchored = a.Last, [32]byte(a.Head), a.Last
	if oldest, _ := l.oldest(); oldest > a.Last+1 {
		if err := l.writeSlot(s); err != nil {
			return fmt.Errorf("device log: %w", err)
		}
		return nil
	}
	text := fmt.Sprintf("the ledger holds events to %d, the log ended at %d or had others", a.Last, s.seq)
	l.slot = s
	l.lose(max(s.seq, a.Last) + 1)
	if err := l.append(wire.LogEvent{Epoch: epoch, At: uint64(now.Unix()), Kind: wire.LogRollback, Data: []byte(text)}); err != nil {
		return fmt.Errorf("device log: %w", err)
	}
	return nil
}
