package carton

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/hallmark-iot/hallmark/wire"
)

// Bounds of a history.
const (
	MaxHistory = 4 << 20 // bytes
	MaxBatches = 1024    // one for each history that was written since the device heard how far its log is
)

// History is what a device says that installed from a carton. The evidence makes it the device's own: it is over Nonce, which holds what the device says, its log and the
// directive that it follows from, so that all of it is of after the carton was written.
type History struct {
	V         uint     `cbor:"1,keyasint"` // 1
	Device    string   `cbor:"2,keyasint"`
	At        uint64   `cbor:"3,keyasint"`           // by the device's clock, seconds since 1970
	Directive []byte   `cbor:"4,keyasint"`           // the last that it accepted out of a carton
	Checkin   []byte   `cbor:"5,keyasint"`           // an encoded wire.Checkin, whose nonce is the directive's SHA-256
	Evidence  []byte   `cbor:"6,keyasint"`           // COSE_Sign1(wire.Evidence)
	Log       [][]byte `cbor:"7,keyasint,omitempty"` // COSE_Sign1(wire.LogBatch), in their order
}

func (h History) check() error {
	switch {
	case h.V != 1:
		return fmt.Errorf("history: version %d, this program knows 1", h.V)
	case h.Device == "" || len(h.Device) > maxID || len(h.Directive) == 0 || len(h.Evidence) == 0:
		return fmt.Errorf("history: it names no device or directive, or has no evidence")
	case len(h.Checkin) == 0 || len(h.Checkin) > wire.MaxCheckin || len(h.Log) > MaxBatches:
		return fmt.Errorf("history: %d bytes of a check-in and %d batches of the log, at most %d and %d", len(h.Checkin), len(h.Log), wire.MaxCheckin, MaxBatches)
	}
	return nil
}

// EncodeHistory writes h.
func EncodeHistory(h History) ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	out, err := wire.Marshal(h)
	if err == nil && len(out) > MaxHistory {
		err = fmt.Errorf("history: %w: %d bytes, at most %d", wire.ErrTooLarge, len(out), MaxHistory)
	}
	return out, err
}

// DecodeHistory reads one.
func DecodeHistory(data []byte) (History, error) {
	var h History
	if err := wire.Unmarshal(data, &h, MaxHistory); err != nil {
		return History{}, err
	}
	return h, h.check()
}

// Nonce is what the evidence of a history is over:
//
//	SHA-256("hallmark-carton-history" ‖ 0x00 ‖ length of device ‖ device ‖ at ‖ SHA-256(directive) ‖ SHA-256(check-in) ‖ SHA-256(SHA-256(batch) ‖ …))
//
// The length is one byte, and at eight, the highest first. Without a log the last is SHA-256 of nothing.
func (h History) Nonce() [32]byte {
	directive, checkin := sha256.Sum256(h.Directive), sha256.Sum256(h.Checkin)
	b := append([]byte("hallmark-carton-history\x00"), byte(len(h.Device)))
	b = append(b, h.Device...)
	b = binary.BigEndian.AppendUint64(b, h.At)
	b = append(b, directive[:]...)
	b = append(b, checkin[:]...)
	log := sha256.New()
	for _, batch := range h.Log {
		sum := sha256.Sum256(batch)
		_, _ = log.Write(sum[:]) // a hash takes everything
	}
	return sha256.Sum256(log.Sum(b))
}
