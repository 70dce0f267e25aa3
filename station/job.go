package station

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/station/durable"
	"github.com/hallmark-iot/hallmark/wire"
)

// job is what the station has done for one order: the ticket journal and the spool of records.
//
//	tickets   one frame per consumed ticket, its number (uint32) and the piece it is for (wire.ChipHello); written before anything
//	          is signed for it
//	records   one frame per record envelope, in sequence
//	inspected one frame per inspection of a first article, its envelope
//	state     when the order came and when records were last exported
//	end       the job-end certificate's envelope, once closed
type job struct {
	dir     string
	order   string
	anchor  [32]byte // hash of the order's envelope; the first record's Prev
	tickets *durable.Log
	spool   *durable.Log
	book    *durable.Log // of inspections

	mu       sync.Mutex                 // guards everything below, and the order of appends
	used     uint32                     // tickets consumed: 0 … used-1
	open     map[uint32]*wire.ChipHello // tickets without a record; nil: of what piece is not known
	chips    map[chipMark]bool          // pieces with a record
	seq      uint32
	last     [32]byte
	lastTime uint64
	tree     wire.RecordTree
	first    *article // the last first article that was made
	seen     [][]byte // inspections, envelopes
	made     uint32
	scrapped uint32
	state    jobState
	end      []byte
}

// chipMark stands for a chip UID in memory; who meets one looks into the spool whether it is that chip.
type chipMark [8]byte

func markOf(uid []byte) chipMark {
	sum := sha256.Sum256(uid)
	return chipMark(sum[:8])
}

type jobState struct {
	Imported time.Time `json:"imported"`
	Exported time.Time `json:"exported"` // last, zero: never
}

func (s *Station) openJob(order string, anchor [32]byte) (*job, error) {
	j := &job{dir: s.orderDir(order), order: order, anchor: anchor, last: anchor, open: map[uint32]*wire.ChipHello{}, chips: map[chipMark]bool{}}
	if err := j.readState(); err != nil {
		return nil, err
	}
	var err error
	if j.tickets, err = durable.OpenLog(filepath.Join(j.dir, "tickets"), maxTicket, j.replayTicket); err != nil {
		return nil, fmt.Errorf("order %s: ticket journal: %w", order, err)
	}
	if j.spool, err = durable.OpenLog(filepath.Join(j.dir, "records"), wire.MaxEnvelope, j.replayRecord); err != nil {
		return nil, errors.Join(fmt.Errorf("order %s: records: %w", order, err), j.tickets.Close())
	}
	if j.book, err = durable.OpenLog(filepath.Join(j.dir, "inspected"), wire.MaxEnvelope, j.replayInspection); err != nil {
		return nil, errors.Join(fmt.Errorf("order %s: inspections: %w", order, err), j.tickets.Close(), j.spool.Close())
	}
	return j, nil
}

// maxTicket bounds a frame of the journal: four bytes, and what a piece says of itself.
const maxTicket = 512

func (j *job) readState() error {
	b, err := os.ReadFile(filepath.Join(j.dir, "state"))
	if err == nil {
		err = json.Unmarshal(b, &j.state)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("order %s: state: %w", j.order, err)
	}
	j.end, err = os.ReadFile(filepath.Join(j.dir, "end"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("order %s: %w", j.order, err)
	}
	return nil
}

func (j *job) writeState() error {
	b, err := json.Marshal(j.state)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(j.dir, "state"), b)
}

// touch notes when the order first came.
func (j *job) touch(now time.Time) error {
	if !j.state.Imported.IsZero() {
		return nil
	}
	j.state.Imported = now.UTC()
	return j.writeState()
}

func (j *job) close() error { return errors.Join(j.tickets.Close(), j.spool.Close(), j.book.Close()) }

func (j *job) replayTicket(frame []byte) error {
	if len(frame) < 4 || binary.BigEndian.Uint32(frame) != j.used {
		return fmt.Errorf("ticket journal: %x follows ticket %d", frame, j.used)
	}
	var chip *wire.ChipHello
	if len(frame) > 4 {
		chip = &wire.ChipHello{}
		if err := wire.Unmarshal(frame[4:], chip, maxTicket); err != nil {
			return fmt.Errorf("ticket journal: ticket %d: %w", j.used, err)
		}
	}
	j.open[j.used] = chip
	j.used++
	return nil
}

func (j *job) replayRecord(envelope []byte) error {
	r, err := decodeRecord(envelope)
	if err != nil {
		return err
	}
	if r.Seq != j.seq+1 || !bytes.Equal(r.Prev, j.last[:]) || !j.isOpen(r.Ticket) {
		return fmt.Errorf("record %d does not follow record %d", r.Seq, j.seq)
	}
	j.take(r, envelope)
	return nil
}

func (j *job) isOpen(ticket uint32) bool {
	_, open := j.open[ticket]
	return open
}

func decodeRecord(envelope []byte) (wire.Record, error) {
	p, err := wire.Parse1(wire.TypeRecord, envelope)
	if err != nil {
		return wire.Record{}, err
	}
	return wire.DecodeRecord(p.Payload)
}

// take counts a record.
func (j *job) take(r wire.Record, envelope []byte) {
	delete(j.open, r.Ticket)
	j.seq, j.last, j.lastTime = r.Seq, wire.RecordHash(envelope), max(j.lastTime, r.Time)
	j.tree.Add(envelope)
	if r.Chip != nil {
		j.chips[markOf(r.Chip.ChipUID)] = true
	}
	if r.Outcome != wire.Made {
		j.scrapped++
		return
	}
	j.made++
	if r.First {
		j.first = &article{device: r.Device, record: j.last}
	}
}

func quotaFault(order string, quota, left uint32, asked int) error {
	return fault.New(fault.Exhausted, "order.quota",
		fmt.Sprintf("order %s has %d of %d tickets left, %d asked for", order, left, quota, asked), "the OEM has to place another order")
}

// consume takes the next ticket. It is durable when consume returns, before anything is signed for it.
func (j *job) consume(quota uint32, chip wire.ChipHello) (uint32, error) {
	t, n, err := j.ticket(quota, chip)
	if err != nil {
		return 0, err
	}
	return t, j.tickets.Wait(n)
}

// ticket gives the next ticket a place in the journal.
func (j *job) ticket(quota uint32, chip wire.ChipHello) (t uint32, frame uint64, err error) {
	piece, err := wire.Marshal(chip)
	if err != nil {
		return 0, 0, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.used >= quota {
		return 0, 0, quotaFault(j.order, quota, 0, 1)
	}
	t = j.used
	if frame, err = j.tickets.Put(append(binary.BigEndian.AppendUint32(nil, t), piece...)); err != nil {
		return 0, 0, err
	}
	j.used, j.open[t] = t+1, &chip
	return t, frame, nil
}

// past is what the records of an order say of one chip.
type past struct {
	failed  uint32 // the last record of it, if it was not made
	secured bool   // it is a device, or its fuses were burnt: it has keys, and is never made anew
}

// of looks whether the chip was on the line before.
func (j *job) of(uid []byte) (p past, err error) {
	j.mu.Lock()
	marked := j.chips[markOf(uid)]
	j.mu.Unlock()
	if !marked {
		return p, nil
	}
	err = j.each(func(r wire.Record) {
		if r.Chip != nil && bytes.Equal(r.Chip.ChipUID, uid) {
			p.failed, p.secured = r.Seq, p.secured || r.Outcome == wire.Made || r.Fuses != nil
		}
	})
	return p, err
}

// each reads the records again.
func (j *job) each(do func(wire.Record)) error {
	return j.spool.Each(func(envelope []byte) error {
		r, err := decodeRecord(envelope)
		if err == nil {
			do(r)
		}
		return err
	})
}

// write completes, signs, and spools a record; it is durable on nil.
func (j *job) write(s *Station, r wire.Record, quota uint32, clock func() time.Time) (wire.Record, error) {
	r, n, err := j.put(s, r, quota, clock)
	if err != nil {
		return r, err
	}
	return r, j.spool.Wait(n)
}

// put gives a record its place, and the time when it took it: along the chain times do not fall, however many pieces end at once, and whatever is done to the
// clock while one is made. What follows it waits for the disk as it does, so that the chain on the disk has no hole.
func (j *job) put(s *Station, r wire.Record, quota uint32, clock func() time.Time) (wire.Record, uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r.Time = max(uint64(clock().Unix()), j.lastTime)
	r.Order, r.Station, r.Seq, r.Prev, r.Left = j.order, s.id[:], j.seq+1, bytes.Clone(j.last[:]), quota-j.used
	payload, err := wire.EncodeRecord(r)
	if err != nil {
		return r, 0, err
	}
	envelope, err := wire.Sign1(wire.TypeRecord, payload, s.record)
	if err != nil {
		return r, 0, err
	}
	n, err := j.spool.Put(envelope)
	if err != nil {
		return r, 0, err
	}
	j.take(r, envelope)
	return r, n, nil
}

// settle records every consumed ticket that has no record as interrupted: the station stopped before it could tell.
func (j *job) settle(s *Station, o *opened, now time.Time) error {
	for t := range j.used {
		if !j.isOpen(t) {
			continue
		}
		if _, err := j.write(s, wire.Record{
			Ticket: t, Device: wire.DeviceID(o.content.TicketSeed, t), Outcome: wire.Interrupted, Chip: j.open[t],
			Reason: "the station stopped while the piece was being made",
		}, o.order.Header.Quota, func() time.Time { return now }); err != nil {
			return err
		}
	}
	return nil
}
