package gate

import (
	"crypto"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// The kinds of control-log entries a device acts on.
const (
	kindCommand = "command.issued"
	kindRelease = "release.published"
	kindWarrant = "warrant.issued"
	kindBundle  = "bundle.published"
)

type logged struct {
	data []byte // the signed envelope
	ref  wire.LogRef
	size uint64
}

// openLogged believes an entry of the control log when enough witnesses have lately seen the log that holds it.
func openLogged(s State, what, kind string, l wire.Logged, now time.Time) (logged, *Refusal) {
	cp, r := checkLogged(s.Bundle, s.Bundle.Control, what, l, now)
	if r != nil {
		return logged{}, r
	}
	if cp.Size < s.TreeSize {
		return logged{}, refuse(ShrunkLog, "%s: log %s has %d entries, it had %d", what, cp.Origin, cp.Size, s.TreeSize)
	}
	fact, err := wire.DecodeFact(l.Entry)
	if err != nil {
		return logged{}, refuse(Malformed, "%s: %v", what, err)
	}
	if fact.Kind != kind {
		return logged{}, refuse(NotLogged, "%s: entry %d is of kind %s, want %s", what, l.Proof.Index, fact.Kind, kind)
	}
	return logged{
		data: fact.Data, ref: wire.LogRef{Origin: cp.Origin, Index: l.Proof.Index}, size: cp.Size,
	}, nil
}

func checkLogged(b wire.Bundle, log wire.LogTrust, what string, l wire.Logged, now time.Time) (wire.Checkpoint, *Refusal) {
	cp, err := l.Proof.Verify(b.Policy(log), l.Entry)
	switch {
	case errors.Is(err, wire.ErrNotWitnessed):
		return cp, refuse(NotWitnessed, "%s: %v", what, err)
	case err != nil:
		return cp, refuse(NotLogged, "%s: %v", what, err)
	}
	// Without witnesses in the bundle there is no time of theirs to bound.
	if b.Quorum == 0 {
		return cp, nil
	}
	// A maximum age of 0 in the bundle means that its signers set none.
	switch age := now.Sub(cp.Cosigned); {
	case age < -Skew:
		return cp, refuse(Future, "%s: cosigned at %s, the clock says %s", what, cp.Cosigned, now.UTC())
	case b.MaxAge > 0 && age > time.Duration(min(b.MaxAge, 1<<32))*time.Second:
		return cp, refuse(StaleCheckpoint, "%s: cosigned at %s, older than %d s", what, cp.Cosigned, b.MaxAge)
	}
	return cp, nil
}

// Anchored opens the anchor of a stretch of the device's own log: an entry of the events log, witnessed, whatever its age.
func Anchored(b wire.Bundle, device string, key crypto.PublicKey, l wire.Logged) (wire.LogBatch, error) {
	if _, err := l.Proof.Verify(b.Policy(b.Events), l.Entry); err != nil {
		return wire.LogBatch{}, refuse(NotLogged, "anchor: %v", err)
	}
	fact, err := wire.DecodeFact(l.Entry)
	if err != nil || fact.Kind != "device.log.anchored" {
		return wire.LogBatch{}, refuse(Malformed, "anchor: entry %d is no anchor", l.Proof.Index)
	}
	payload, err := wire.Verify1(wire.TypeDeviceLog, fact.Data, key)
	if err != nil {
		return wire.LogBatch{}, refuse(Signature, "anchor: %v", err)
	}
	batch, err := wire.DecodeLogBatch(payload)
	if err != nil {
		return wire.LogBatch{}, refuse(Malformed, "anchor: %v", err)
	}
	if batch.Device != device {
		return wire.LogBatch{}, refuse(NotForMe, "anchor of %s, this is %s", batch.Device, device)
	}
	return batch, nil
}
