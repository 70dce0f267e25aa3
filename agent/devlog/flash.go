package devlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
)

// The region, in sectors: two that take turns holding head slots, the rest a ring of events.
//
//	head slot   = magic u32, generation u64, seq u64, head 32, acked u64, acked head 32, anchored u64, told u64, crc u32
//	ring sector = header page (magic u32, first u64, prev 32, crc u32), then records
//	record      = length u16, ^length u16, crc u32, event (CBOR)
//
// Slots, headers and records begin on a page; numbers are big-endian; each crc (IEEE) is over all before it, a record's over
// the event. The first page of a record's place that reads as erased ends the sector's events; one that is neither erased nor
// valid was torn by a power cut and closes the sector.
const (
	slotMagic   = 0x484c4733 // "HLG3"
	sectorMagic = 0x484c4732
	slotLen     = 4 + 8 + 8 + 32 + 8 + 32 + 8 + 8 + 4
	headerLen   = 4 + 8 + 32 + 4
	recordHead  = 2 + 2 + 4
	headSectors = 2
	maxEvent    = wire.MaxLogData + 512
)

// slot is the log's durable head.
type slot struct {
	gen          uint64
	seq          uint64 // of the last event
	head         [32]byte
	acked        uint64 // the server has these
	ackedHead    [32]byte
	anchored     uint64 // and these are in the ledger: their place may be used again
	told         uint64 // whatever is lost up to here, the log tells of
	sector, next int64  // where it was found, and the offset of the place after it
}

// sector is one ring sector that holds events.
type sector struct {
	phys  int64 // sector number in the region
	first uint64
	prev  [32]byte // head before first
	count uint64
	end   int64 // offset in the sector where the next record goes; the sector's size when closed
}

func (s sector) last() uint64 { return s.first + s.count - 1 } // first-1 when empty

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

func (l *Log) pad(b []byte) []byte {
	out := make([]byte, roundUp(int64(len(b)), l.r.Page()))
	n := copy(out, b)
	for i := n; i < len(out); i++ {
		out[i] = 0xff
	}
	return out
}

func encodeSlot(s slot) []byte {
	b := make([]byte, 0, slotLen)
	b = binary.BigEndian.AppendUint32(b, slotMagic)
	b = binary.BigEndian.AppendUint64(b, s.gen)
	b = binary.BigEndian.AppendUint64(b, s.seq)
	b = append(b, s.head[:]...)
	b = binary.BigEndian.AppendUint64(b, s.acked)
	b = append(b, s.ackedHead[:]...)
	b = binary.BigEndian.AppendUint64(b, s.anchored)
	b = binary.BigEndian.AppendUint64(b, s.told)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

func decodeSlot(b []byte) (slot, bool) {
	if len(b) < slotLen || binary.BigEndian.Uint32(b) != slotMagic ||
		crc32.ChecksumIEEE(b[:slotLen-4]) != binary.BigEndian.Uint32(b[slotLen-4:]) {
		return slot{}, false
	}
	s := slot{gen: binary.BigEndian.Uint64(b[4:]), seq: binary.BigEndian.Uint64(b[12:])}
	copy(s.head[:], b[20:])
	s.acked = binary.BigEndian.Uint64(b[52:])
	copy(s.ackedHead[:], b[60:])
	s.anchored, s.told = binary.BigEndian.Uint64(b[92:]), binary.BigEndian.Uint64(b[100:])
	return s, s.acked <= s.seq && s.anchored <= s.acked
}

// readSlot finds the newest valid head slot.
func (l *Log) readSlot() (best slot, found bool, err error) {
	step := roundUp(slotLen, l.r.Page())
	buf := make([]byte, slotLen)
	for sec := range int64(headSectors) {
		for off := int64(0); off+step <= l.r.Sector(); off += step {
			if _, err := l.r.ReadAt(buf, sec*l.r.Sector()+off); err != nil {
				return slot{}, false, err
			}
			if s, ok := decodeSlot(buf); ok && (!found || s.gen > best.gen) {
				s.sector, s.next = sec, off+step
				best, found = s, true
			}
		}
	}
	return best, found, nil
}

// writeSlot makes s the durable head. The slot before it stays readable until this one is complete.
func (l *Log) writeSlot(s slot) error {
	step := roundUp(slotLen, l.r.Page())
	s.gen, s.sector, s.next = l.slot.gen+1, l.slot.sector, l.slot.next
	for ; s.next+step <= l.r.Sector(); s.next += step {
		err := l.r.Blank(s.sector*l.r.Sector()+s.next, step)
		if err == nil {
			break
		}
		if !errors.Is(err, hw.ErrNotErased) {
			return err
		}
	}
	if s.next+step > l.r.Sector() || l.slot.gen == 0 {
		s.sector, s.next = (s.sector+1)%headSectors, 0
		if err := l.r.Erase(s.sector); err != nil {
			return err
		}
	}
	if err := l.r.Program(s.sector*l.r.Sector()+s.next, l.pad(encodeSlot(s))); err != nil {
		return err
	}
	s.next += step
	l.slot = s
	return nil
}

func (l *Log) readHeader(phys int64) (sector, bool, error) {
	b := make([]byte, headerLen)
	if _, err := l.r.ReadAt(b, phys*l.r.Sector()); err != nil {
		return sector{}, false, err
	}
	if binary.BigEndian.Uint32(b) != sectorMagic ||
		crc32.ChecksumIEEE(b[:headerLen-4]) != binary.BigEndian.Uint32(b[headerLen-4:]) {
		return sector{}, false, nil
	}
	s := sector{phys: phys, first: binary.BigEndian.Uint64(b[4:]), end: roundUp(headerLen, l.r.Page())}
	copy(s.prev[:], b[12:])
	return s, s.first > 0, nil
}

func encodeHeader(first uint64, prev [32]byte) []byte {
	b := make([]byte, 0, headerLen)
	b = binary.BigEndian.AppendUint32(b, sectorMagic)
	b = binary.BigEndian.AppendUint64(b, first)
	b = append(b, prev[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

func encodeRecord(event []byte) []byte {
	b := make([]byte, 0, recordHead+len(event))
	b = binary.BigEndian.AppendUint16(b, uint16(len(event)))
	b = binary.BigEndian.AppendUint16(b, ^uint16(len(event)))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(event))
	return append(b, event...)
}

// walk calls fn for each event of s from its first, with the head after it; fn returns false to stop. It sets end and count
// of the sector it returns to what it found.
func (l *Log) walk(s sector, fn func(e wire.LogEvent, head [32]byte) bool) (sector, error) {
	buf := make([]byte, l.r.Sector())
	if _, err := l.r.ReadAt(buf, s.phys*l.r.Sector()); err != nil {
		return s, err
	}
	s.end, s.count = roundUp(headerLen, l.r.Page()), 0
	head := s.prev
	for s.end+recordHead <= int64(len(buf)) {
		e, n, state := parseRecord(buf[s.end:])
		if state == recordErased {
			return s, nil
		}
		if state == recordTorn || e.Seq != s.first+s.count {
			break
		}
		next, err := wire.NextLogHead(head, l.device, e)
		if err != nil {
			break
		}
		head = next
		s.end += roundUp(n, l.r.Page())
		s.count++
		if !fn(e, head) {
			return s, nil
		}
	}
	s.end = l.r.Sector()
	return s, nil //nolint:nilerr // what is no event ends the sector, as a torn record does
}

type recordState int

const (
	recordValid recordState = iota
	recordErased
	recordTorn
)

func parseRecord(b []byte) (wire.LogEvent, int64, recordState) {
	size := binary.BigEndian.Uint16(b)
	if size == 0xffff && binary.BigEndian.Uint16(b[2:]) == 0xffff && binary.BigEndian.Uint32(b[4:]) == 0xffffffff {
		return wire.LogEvent{}, 0, recordErased
	}
	if binary.BigEndian.Uint16(b[2:]) != ^size || int(size)+recordHead > len(b) {
		return wire.LogEvent{}, 0, recordTorn
	}
	data := b[recordHead : recordHead+int(size)]
	if crc32.ChecksumIEEE(data) != binary.BigEndian.Uint32(b[4:]) {
		return wire.LogEvent{}, 0, recordTorn
	}
	e, err := wire.DecodeLogEvent(data)
	if err != nil {
		return wire.LogEvent{}, 0, recordTorn
	}
	return e, recordHead + int64(size), recordValid
}

func checkRegion(r hw.Region) error {
	page := r.Page()
	need := roundUp(headerLen, page) + roundUp(recordHead+maxEvent, page)
	if r.Sector() < need || r.Sector() > 60<<10 || r.Size()/r.Sector() < headSectors+3 {
		return fmt.Errorf("device log: region of %d bytes in sectors of %d: needs %d sectors of at least %d bytes",
			r.Size(), r.Sector(), headSectors+3, need)
	}
	return nil
}
