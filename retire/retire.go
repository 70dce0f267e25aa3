// Package retire ends a device's life: warrant, wipe, receipt, revocation, disposal, and the proof of all of it.
//
// Stage 4, end. A wipe is fatal, so it takes a warrant signed offline by the threshold of the product's warrant keys, naming just
// these devices. The device wipes itself and signs, with the attestation key it is about to destroy, what it erased. Then its
// certificates are revoked and the keys of its data destroyed. The proof of disposal is a document of ledger entries with their
// inclusion proofs: anyone who has the product's trust bundle can check it, with VerifyProof, without asking this server.
//
// What it guarantees: no wipe without its warrant; no device counts as wiped without its signed receipt; a receipt counts though the
// command was cancelled since: the device is wiped; a device that cannot be reached is written off, which the proof says in so many
// words, with who decided it. Verbs record what was decided, on whichever node; one node, at its Tick, does what follows, and repeats it
// after a crash until it is done. It trusts the device stage to verify warrants, and nobody about receipts.
package retire

import (
	"context"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Phase is where a retirement is.
type Phase string

// The phases: decided; told to wipe; wiped by its own receipt; given up, without one; disposed of.
const (
	Ordered    Phase = "ordered"
	Wiping     Phase = "wiping"
	Wiped      Phase = "wiped"
	WrittenOff Phase = "written-off"
	Disposed   Phase = "disposed"
)

// Retirement is the end of one device.
type Retirement struct {
	Device     string    `json:"device"`
	Product    string    `json:"product"`
	Phase      Phase     `json:"phase"`
	Warrant    string    `json:"warrant"` // ID
	WarrantUID [16]byte  `json:"-"`       // of its fact
	OrderUID   [16]byte  `json:"-"`       // of the retire.ordered fact
	Command    string    `json:"command,omitempty"`
	Reason     string    `json:"reason"`
	By         string    `json:"by"`
	Ordered    time.Time `json:"ordered"`
	Receipt    []byte    `json:"receipt,omitempty"` // COSE_Sign1
	Ended      time.Time `json:"ended,omitzero"`    // wiped or written off
	Moved      bool      `json:"decommissioned"`    // the registry knows
	Revoked    bool      `json:"revoked"`           // its certificates are
	KeysGone   bool      `json:"keys_destroyed"`    // of its telemetry
	Disposed   time.Time `json:"disposed,omitzero"`
	How        string    `json:"how,omitempty"`     // what was done with the piece
	Settled    bool      `json:"settled,omitempty"` // the registry knows that it is disposed of
	EndUID     [16]byte  `json:"-"`                 // of the latest fact: the cause of what follows
	Rev        int64     `json:"-"`                 // rises with each change
}

// Errors of the store.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrChanged  = errors.New("changed meanwhile")
)

// Store keeps retirements. Writes are durable, with their facts, when they return nil.
type Store interface {
	// PutRetirements stores all or none; ErrExists when a device has one.
	PutRetirements(ctx context.Context, rs []Retirement, facts ...ledger.Fact) error
	// Retirement returns ErrNotFound.
	Retirement(ctx context.Context, device string) (Retirement, error)
	// OpenRetirements gives those with something left to do: Ordered; ended and not moved, revoked or without keys; disposed of and not
	// settled.
	OpenRetirements(ctx context.Context) ([]Retirement, error)
	// Retirements gives those in a scope, all with none, by device, from behind the device after on, at most limit.
	Retirements(ctx context.Context, scope []string, after string, limit int) ([]Retirement, error)
	// SaveRetirements replaces all or none, each if its stored Rev is its Rev, and raises Rev; else ErrChanged.
	SaveRetirements(ctx context.Context, rs []Retirement, facts ...ledger.Fact) error
	// KnownWarrant finds a submitted warrant by ID; ErrNotFound.
	KnownWarrant(ctx context.Context, id string) (device.Warrant, error)
	// WipeCommand finds the command that was issued with the warrant, be it cancelled since, with its payload's digest and its fact;
	// ErrNotFound.
	WipeCommand(ctx context.Context, warrant [16]byte) (Command, error)
	// Life gives what a proof needs from the device's own history: its order and provisioning, revocations and disposal.
	Life(ctx context.Context, device string) (Life, error)
}

// Command is the wipe of a warrant.
type Command struct {
	ID     string
	Digest [32]byte
	UID    [16]byte
}

// Life is a device's history, as far as a proof needs it.
type Life struct {
	Facts   []LifeFact // oldest first, those of its order at the end
	Station []byte     // record key (SPKI) of the station that made it; empty when its order is not here
}

// LifeFact is a fact by kind and UID.
type LifeFact struct {
	Kind ledger.Kind
	UID  [16]byte
}

// Devices is the registry and the authority; *device.Service is one.
type Devices interface {
	Get(ctx context.Context, caller access.Caller, id string) (device.Device, error)
	Move(ctx context.Context, caller access.Caller, id string, ev device.Event, cause *ledger.Ref, reason string) (device.Device, error)
	Command(ctx context.Context, caller access.Caller, in device.Instruction) (string, error)
	SubmitWarrant(ctx context.Context, caller access.Caller, envelope []byte, devices []string) (device.Warrant, error)
	HoldsWarrant(ctx context.Context, envelope []byte, devices []string) error
}

// Warrants knows which devices a warrant names; *device.Service's store is one.
type Warrants interface {
	WarrantDevices(ctx context.Context, uid [16]byte) ([]string, error)
}

// Revoker takes every identity of a device, for good, with a fact; again changes nothing. *pki.Service is one. Reasons are those of
// RFC 5280 §5.3.1.
type Revoker interface {
	RevokeDevice(ctx context.Context, caller access.Caller, device, product string, reason int) error
}

// cessation is cessationOfOperation.
const cessation = 5

// Keys destroys what opens a device's sealed data; again changes nothing. *telemetry.Service is one.
type Keys interface {
	DestroyDevice(ctx context.Context, caller access.Caller, device string, cause *ledger.Ref) error
}

// Ledger finds and proves facts; *ledger.Reader is one.
type Ledger interface {
	Locate(ctx context.Context, uid [16]byte) (ledger.Ref, bool, error)
	// Logged returns ledger.ErrNotYetWitnessed until the fact is under a witnessed checkpoint.
	Logged(ctx context.Context, uid [16]byte) (wire.Logged, error)
}

// Order is what Retire takes.
type Order struct {
	Product string   `json:"product"`
	Devices []string `json:"devices"`
	Reason  string   `json:"reason"`
	Warrant []byte   `json:"warrant"` // COSE_Sign(Warrant) for the act wipe, over just these devices
}

// WriteOff is the Data of the retire.written-off fact; its actor is who decided it.
type WriteOff struct {
	Device  string `json:"device"`
	Product string `json:"product"`
	Warrant string `json:"warrant"`
	Reason  string `json:"reason"`
}

// Disposal is the Data of the retire.disposed fact.
type Disposal struct {
	Device  string   `json:"device"`
	Product string   `json:"product"`
	Wiped   bool     `json:"wiped"` // by its own signed receipt; false: written off
	Warrant string   `json:"warrant,omitempty"`
	How     string   `json:"how"`   // what was done with the piece
	Facts   []string `json:"facts"` // UIDs, hex, of the facts this rests on
}
