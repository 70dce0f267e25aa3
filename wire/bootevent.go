package wire

import (
	"crypto/sha256"
	"fmt"
)

// BootEvent is one line of a start's log: what a stage measured before it gave way to it.
type BootEvent struct {
	Stage  string `cbor:"1,keyasint" json:"stage"`  // who measured: StageROM, StageBoot
	Kind   string `cbor:"2,keyasint" json:"kind"`   // what
	Digest []byte `cbor:"3,keyasint" json:"digest"` // SHA-256
	Text   string `cbor:"4,keyasint,omitempty" json:"text,omitempty"`
}

// The stages of a start.
const (
	StageROM  = "rom"
	StageBoot = "boot-manager"
)

// What is measured.
const (
	EventBootManager = "boot-manager" // its code
	EventRelease     = "release"      // the signed release that runs; thirty-two zeros: none, the device is in recovery
)

// Bounds of a log of events.
const (
	MaxBootEvents = 32
	maxEventText  = 200
)

// CheckEvents refuses a log that no start writes.
func CheckEvents(events []BootEvent) error {
	if len(events) > MaxBootEvents {
		return fmt.Errorf("%d boot events, at most %d", len(events), MaxBootEvents)
	}
	for _, e := range events {
		if e.Stage == "" || e.Kind == "" || len(e.Stage) > maxEventText || len(e.Kind) > maxEventText || len(e.Text) > maxEventText || len(e.Digest) != sha256.Size {
			return fmt.Errorf("boot event %.40q of %.40q: no digest of 32 bytes, or texts out of bounds", e.Kind, e.Stage)
		}
	}
	return nil
}
