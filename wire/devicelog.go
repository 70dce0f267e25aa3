package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// LogRef names an entry of one of the server's logs as the cause of a device's event.
type LogRef struct {
	Origin string `cbor:"1,keyasint" json:"origin"`
	Index  uint64 `cbor:"2,keyasint" json:"index"`
}

// LogEvent is one entry of a device's own log. Seq counts from 1 and never restarts; Epoch is the boot count at the time, so
// that it never falls as Seq rises.
type LogEvent struct {
	Seq   uint64  `cbor:"1,keyasint" json:"seq"`
	Epoch uint64  `cbor:"2,keyasint" json:"epoch"`
	At    uint64  `cbor:"3,keyasint" json:"at"` // the device's clock, seconds since 1970; may be wrong
	Kind  string  `cbor:"4,keyasint" json:"kind"`
	Cause *LogRef `cbor:"5,keyasint,omitempty" json:"cause,omitempty"`
	Data  []byte  `cbor:"6,keyasint,omitempty" json:"data,omitempty"` // UTF-8 text for people
}

// LogGap says that the events First..Last are lost on the device, and what the chain was before and after them. An overflow
// is never silent: the gap is in a signed batch and is itself an event of the log.
type LogGap struct {
	First uint64 `cbor:"1,keyasint" json:"first"`
	Last  uint64 `cbor:"2,keyasint" json:"last"`
	Prev  []byte `cbor:"3,keyasint" json:"prev"` // head after First-1
	Head  []byte `cbor:"4,keyasint" json:"head"` // head after Last
}

// The events a log adds of itself. A gap is explained when one of them is in the batch that has it.
const (
	LogOverflow = "log.overflow" // no room for what nobody had fetched yet
	LogDamaged  = "log.damaged"  // what the flash holds does not lead to the head
	LogRollback = "log.rollback" // the flash was set back to an earlier state
)

// LogBatch is a stretch of a device's own log, signed by its attestation key. Its steps are the Gap, if any, then the Events,
// contiguous from First; a batch without either is a heartbeat, which bounds how much of the tail can be cut off unseen. Trees
// tell what the logs showed this device, signed by them: whoever reads batches of many devices sees a log that shows two faces.
type LogBatch struct {
	Device    string     `cbor:"1,keyasint" json:"device"`
	First     uint64     `cbor:"2,keyasint" json:"first"` // sequence number after Prev
	Last      uint64     `cbor:"3,keyasint" json:"last"`  // First-1 in a heartbeat
	Prev      []byte     `cbor:"4,keyasint" json:"prev"`  // head before First
	Head      []byte     `cbor:"5,keyasint" json:"head"`  // head after Last
	BootCount uint64     `cbor:"6,keyasint" json:"boot_count"`
	Trees     []TreeHead `cbor:"7,keyasint,omitempty" json:"trees,omitempty"` // largest witnessed tree accepted of each log
	Gap       *LogGap    `cbor:"8,keyasint,omitempty" json:"gap,omitempty"`
	Events    []LogEvent `cbor:"9,keyasint,omitempty" json:"events,omitempty"`
	Sent      uint64     `cbor:"10,keyasint" json:"sent"`
	Counter   uint64     `cbor:"11,keyasint,omitempty" json:"counter,omitempty"` // hardware counter the log is bound to; 0: none
}

// LogReply is the server's answer to a batch. The device trims its log by Anchor alone, after verifying its inclusion.
type LogReply struct {
	Acked  uint64  `cbor:"1,keyasint"`           // durable up to here
	Need   uint64  `cbor:"2,keyasint,omitempty"` // not contiguous: send again from here
	Fork   bool    `cbor:"3,keyasint,omitempty"` // the batch contradicts what was sent before; an alarm has been raised
	Anchor *Logged `cbor:"4,keyasint,omitempty"` // events log, device.log.anchored: its data is a batch of this device
}

// Bounds of the device log's messages.
const (
	MaxLogBatch  = 48 << 10
	MaxLogEvents = 128 // in a batch
	MaxLogData   = 1 << 10
	MaxLogTrees  = 4 // in a batch
	MaxLogReply  = MaxLogged + 256

	maxLogNumber = 1 << 62 // no event, start or counter has one above: nothing overflows that is added to them
)

// LogOrigin is the head before the first event: it binds the device's name and its attestation key.
func LogOrigin(device string, attestSPKI []byte) [32]byte {
	key := sha256.Sum256(attestSPKI)
	h := sha256.New()
	h.Write([]byte("hallmark-device-log-origin\x00"))
	h.Write([]byte(device))
	h.Write(key[:])
	return [32]byte(h.Sum(nil))
}

// NextLogHead gives the head after e: SHA-256(tag ‖ device ‖ epoch ‖ seq ‖ prev ‖ SHA-256(e)).
func NextLogHead(prev [32]byte, device string, e LogEvent) ([32]byte, error) {
	if err := e.check(); err != nil {
		return [32]byte{}, err
	}
	body, err := Marshal(e)
	if err != nil {
		return [32]byte{}, err
	}
	sum := sha256.Sum256(body)
	b := make([]byte, 0, 160)
	b = append(b, "hallmark-device-log\x00"...)
	b = append(b, byte(len(device)))
	b = append(b, device...)
	b = binary.BigEndian.AppendUint64(b, e.Epoch)
	b = binary.BigEndian.AppendUint64(b, e.Seq)
	b = append(b, prev[:]...)
	b = append(b, sum[:]...)
	return sha256.Sum256(b), nil
}

// LostLogHead is the head after an event whose bytes are lost together with what was before it: SHA-256(tag ‖ device ‖ seq ‖ prev), prev
// being the last head that is known. With it the log goes on behind a gap.
func LostLogHead(prev [32]byte, device string, seq uint64) [32]byte {
	b := make([]byte, 0, 160)
	b = append(b, "hallmark-device-log-lost\x00"...)
	b = append(b, byte(len(device)))
	b = append(b, device...)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = append(b, prev[:]...)
	return sha256.Sum256(b)
}

func (e LogEvent) check() error {
	switch {
	case e.Seq == 0:
		return errors.New("device log: event without a sequence number")
	case e.Kind == "" || len(e.Kind) > 48:
		return fmt.Errorf("device log: event %d: kind of %d bytes", e.Seq, len(e.Kind))
	case len(e.Data) > MaxLogData:
		return fmt.Errorf("device log: event %d: %w: data of %d bytes", e.Seq, ErrTooLarge, len(e.Data))
	case e.Cause != nil && (e.Cause.Origin == "" || len(e.Cause.Origin) > 128):
		return fmt.Errorf("device log: event %d: cause without an origin", e.Seq)
	}
	return nil
}

// EncodeLogEvent writes e.
func EncodeLogEvent(e LogEvent) ([]byte, error) { return encode(e, MaxLogData+512) }

// DecodeLogEvent reads an event.
func DecodeLogEvent(data []byte) (LogEvent, error) { return decode[LogEvent](data, MaxLogData+512) }

// EncodeLogBatch writes b, after checking that its chain holds.
func EncodeLogBatch(b LogBatch) ([]byte, error) { return encode(b, MaxLogBatch) }

// DecodeLogBatch reads a batch whose chain holds from Prev to Head. Whether Prev is where the device's log was is for the
// receiver to compare.
func DecodeLogBatch(data []byte) (LogBatch, error) { return decode[LogBatch](data, MaxLogBatch) }

func (b LogBatch) check() error {
	if b.Device == "" || len(b.Device) > 64 || len(b.Prev) != 32 || len(b.Head) != 32 || b.First == 0 {
		return errors.New("device log: batch without device, first number or 32-byte heads")
	}
	if b.First > maxLogNumber || b.Last > maxLogNumber || b.BootCount > maxLogNumber || b.Counter > maxLogNumber || b.Gap != nil && b.Gap.Last > maxLogNumber {
		return fmt.Errorf("device log: batch with a number above %d", uint64(maxLogNumber))
	}
	if len(b.Events) > MaxLogEvents {
		return fmt.Errorf("device log: %d events in a batch, at most %d", len(b.Events), MaxLogEvents)
	}
	if err := checkTrees(b.Trees); err != nil {
		return fmt.Errorf("device log: %w", err)
	}
	head, next := [32]byte(b.Prev), b.First
	if g := b.Gap; g != nil {
		if g.First != next || g.Last < g.First || len(g.Head) != 32 || !bytes.Equal(g.Prev, head[:]) {
			return fmt.Errorf("device log: gap %d to %d does not follow %d", g.First, g.Last, next-1)
		}
		head, next = [32]byte(g.Head), g.Last+1
	}
	epoch := uint64(0)
	for _, e := range b.Events {
		if e.Seq != next || e.Epoch < epoch || e.Epoch > b.BootCount {
			return fmt.Errorf("device log: event %d of epoch %d does not follow", e.Seq, e.Epoch)
		}
		var err error
		if head, err = NextLogHead(head, b.Device, e); err != nil {
			return err
		}
		next, epoch = e.Seq+1, e.Epoch
	}
	if b.Last != next-1 || !bytes.Equal(b.Head, head[:]) {
		return fmt.Errorf("device log: batch does not lead to its head at %d", b.Last)
	}
	if b.Counter > 0 && b.Counter < b.Last {
		return fmt.Errorf("device log: events to %d, but the hardware counter is at %d", b.Last, b.Counter)
	}
	return nil
}

func checkTrees(trees []TreeHead) error {
	if len(trees) > MaxLogTrees {
		return fmt.Errorf("%d tree heads, at most %d", len(trees), MaxLogTrees)
	}
	for i, t := range trees {
		if err := t.check(); err != nil {
			return err
		}
		for _, o := range trees[:i] {
			if o.Origin == t.Origin {
				return fmt.Errorf("two tree heads of %s", t.Origin)
			}
		}
	}
	return nil
}

// HeadAt gives the head after event seq, as far as the batch says it: ok is false outside of it and within its gap.
func (b LogBatch) HeadAt(seq uint64) (head [32]byte, ok bool) {
	head, at := [32]byte(b.Prev), b.First-1
	if g := b.Gap; g != nil && seq > at {
		head, at = [32]byte(g.Head), g.Last
	}
	for _, e := range b.Events {
		if at >= seq {
			break
		}
		var err error
		if head, err = NextLogHead(head, b.Device, e); err != nil {
			return [32]byte{}, false
		}
		at = e.Seq
	}
	return head, at == seq
}

// EncodeLogReply writes r.
func EncodeLogReply(r LogReply) ([]byte, error) { return bounded(r, MaxLogReply) }

// DecodeLogReply reads the answer to a batch.
func DecodeLogReply(data []byte) (LogReply, error) {
	var r LogReply
	return r, Unmarshal(data, &r, MaxLogReply)
}
