package factory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Errors of the store.
var (
	ErrNotFound = errors.New("order not found")
	ErrExists   = errors.New("order exists already")
	ErrChanged  = errors.New("order changed meanwhile")
	ErrUsed     = errors.New("order has records")
)

// LotError says that an order cannot be made of a lot of parts.
type LotError struct {
	Lot      string
	Recalled bool // else there is no such lot
}

func (e *LotError) Error() string {
	if e.Recalled {
		return "lot " + e.Lot + " was recalled"
	}
	return "there is no lot " + e.Lot
}

// State is where an order is.
type State string

// The states of an order.
const (
	Open      State = "open"
	Closed    State = "closed"    // the station ended it, and all its records are here
	Cancelled State = "cancelled" // its file never came to use
	Abandoned State = "abandoned" // its station is gone
)

// Void reports whether no record that comes now can be one of the order's, whatever the station says.
func (s State) Void() bool { return s == Cancelled || s == Abandoned }

// Order is one production order as the OEM keeps it.
type Order struct {
	ID           string             `json:"id"`
	OEM          string             `json:"oem"`
	Product      string             `json:"product"`
	Hardware     string             `json:"hardware"`
	Quota        uint32             `json:"quota"`
	NotBefore    time.Time          `json:"not_before"`
	NotAfter     time.Time          `json:"not_after"`
	State        State              `json:"state"`
	Station      string             `json:"station"`      // hex of SHA-256 of its record key
	StationName  string             `json:"station_name"` // as it calls itself
	Module       string             `json:"module"`       // of the station
	Release      string             `json:"release"`      // digest, hex
	Version      string             `json:"version"`      // of the release
	Bundle       uint64             `json:"bundle"`       // version of the trust bundle devices leave with
	Created      time.Time          `json:"created"`
	Closed       time.Time          `json:"closed,omitzero"`
	FirstArticle bool               `json:"first_article,omitempty"` // one is made and inspected before the others
	Chips        string             `json:"chips,omitempty"`         // vendor whose chips it demands
	Keys         string             `json:"keys,omitempty"`          // who may make devices' keys, beside the device itself
	UID          [16]byte           `json:"uid"`                     // of the order.created fact
	Envelope     []byte             `json:"envelope"`                // COSE_Sign1(Order)
	RecordKey    []byte             `json:"record_key"`              // the station's, SPKI
	Components   []wire.NamedDigest `json:"components"`              // what must be read back
	ReleaseSum   []byte             `json:"release_sum"`             // SHA-256 of the release's envelope
	ParamsSum    []byte             `json:"params_sum"`              // SHA-256 of the encoded parameters
	Secret       []byte             `json:"secret,omitempty"`        // ticket seed and return key, sealed by the Vault
	JobEnd       []byte             `json:"job_end,omitempty"`       // COSE_Sign1(JobEnd), once imported
	ClosedUID    [16]byte           `json:"closed_uid,omitzero"`     // of the order.closed fact
	Desk         string             `json:"desk,omitempty"`          // that wrapped it; empty: this instance
	Master       *MasterRef         `json:"master,omitempty"`        // that it was made of

	Lots []string `json:"-"` // that it names when it is created; from then on package supply/parts has them
}

// shown is the order without its secrets: the ticket seed and the return key are sealed, and still nobody's business.
func (o Order) shown() Order {
	o.Secret = nil
	return o
}

// End is what a station ended an order with.
type End struct {
	Closed  bool     // the OEM has closed the order
	Void    State    // or declared it void: how
	Ended   bool     // the station has
	Records uint32   // how many records there are
	Last    [32]byte // hash of the last one
}

// End reads the job-end certificate that is kept with the order. It was verified before it was stored.
func (o Order) End() (End, error) {
	e := End{Closed: o.State != Open, Ended: len(o.JobEnd) > 0}
	if o.State.Void() {
		e.Void = o.State
	}
	if !e.Ended {
		return e, nil
	}
	env, err := wire.Parse1(wire.TypeJobEnd, o.JobEnd)
	if err != nil {
		return e, fmt.Errorf("order %s: job end: %w", o.ID, err)
	}
	j, err := wire.DecodeJobEnd(env.Payload)
	if err != nil {
		return e, fmt.Errorf("order %s: job end: %w", o.ID, err)
	}
	e.Records, e.Last = j.Records, [32]byte(j.Last)
	return e, nil
}

// Refuses says why a new record cannot be one the station had when it ended the order; empty when it can.
func (e End) Refuses(seq uint32, hash [32]byte) string {
	switch {
	case e.Void != "":
		return fmt.Sprintf("record %d came after the order was %s", seq, e.Void)
	case e.Closed && !e.Ended:
		return fmt.Sprintf("record %d is new, and the order is closed", seq)
	case e.Ended && seq > e.Records:
		return fmt.Sprintf("record %d, but the station ended the order with %d records: its state was rolled back", seq, e.Records)
	case e.Ended && seq == e.Records && hash != e.Last:
		return fmt.Sprintf("record %d is not the one the station ended the order with: its state was rolled back", seq)
	}
	return ""
}

// Candidate is an authentic record on its way in. Its signature, order, station and possession proofs were checked.
type Candidate struct {
	Seq      uint32
	Hash     [32]byte // of the envelope
	Prev     [32]byte
	Ticket   uint32
	Serial   string // device ID the record names
	Rework   uint32 // the record of the same piece before; 0: none
	Outcome  wire.PieceOutcome
	Device   device.Device // to be registered, if made and accepted
	IDevID   []byte        // certificate (DER)
	ChipUID  []byte        // nil when unknown
	Identity []byte        // SHA-256 of the identity key (SPKI), nil when unknown
	Attest   []byte        // SHA-256 of the attestation key (SPKI), nil when unknown
	Chips    string        // vendor whose chips the order demands, by its manifests; empty: any
	Envelope []byte
	Bad      string                          // why it must not be accepted whatever the store holds; empty: nothing found
	Accept   ledger.Fact                     // device.provisioned
	Alarm    func(reason string) ledger.Fact // order.record.refused
}

// Standing is what became of a candidate.
type Standing struct {
	Seq    uint32
	State  string // Accepted, NotMade, Known, Alarmed, Waiting
	Reason string // Alarmed, Waiting
}

// What becomes of a record.
const (
	Accepted = "accepted" // a device was registered
	NotMade  = "not-made" // a scrap or interrupted record, counted
	Known    = "known"    // it was here before
	Alarmed  = "alarmed"  // authentic and impossible
	Waiting  = "waiting"  // its chip is in no manifest that is here: it was not taken, and is missing until it comes again
)

// Tally is the counts of an order.
type Tally struct {
	Ordered     uint32 `json:"ordered"`
	Records     uint32 `json:"records"`
	LastSeq     uint32 `json:"last_seq"` // Records < LastSeq: some are missing
	Made        uint32 `json:"made"`     // accepted as devices
	Scrapped    uint32 `json:"scrapped"`
	Interrupted uint32 `json:"interrupted"`
	Reworked    uint32 `json:"reworked"` // records of pieces that failed before, whatever became of them
	Refused     uint32 `json:"refused"`  // records of pieces said to be made, not accepted
	Alarms      uint32 `json:"alarms"`
	FirstSeen   uint32 `json:"first_seen"` // devices that have been in contact
	Last        []byte `json:"last"`       // hash of record LastSeq
}

// Store keeps orders and records. Every write is durable, with its facts, when it returns nil.
type Store interface {
	// CreateOrder returns ErrExists for an ID that is taken, and *OldMasterError for a master that does not follow the one of which an order of this
	// product and hardware was made last; *LotError for a lot that is not there, or was recalled.
	CreateOrder(ctx context.Context, o Order, facts ...ledger.Fact) error
	// Order returns ErrNotFound for an ID it does not hold.
	Order(ctx context.Context, id string) (Order, error)
	// Orders gives those of a product, all with an empty one, newest first, from behind the one with the ID after on, at most limit; 0:
	// all.
	Orders(ctx context.Context, product, after string, limit int) ([]Order, error)
	// AddRecords decides each candidate, in one transaction: one that is here already, by (order, sequence, hash), is Known; one
	// at a sequence that holds another, that the order's End refuses, that does not link with its neighbours, or that repeats a
	// ticket, chip or key of any order, or that is the rework of a device or of another chip, is Alarmed; one of a chip whose manifest
	// is not here, where the order demands one, is Waiting, and leaves no trace; the others are counted, and their devices registered with the fact.
	AddRecords(ctx context.Context, order string, batch []Candidate) ([]Standing, error)
	// Tally counts.
	Tally(ctx context.Context, order string) (Tally, error)
	// PutJobEnd keeps the certificate; ErrChanged when another is there. Records that are here already and that the order's End refuses
	// get their alarm, with the fact.
	PutJobEnd(ctx context.Context, order string, envelope []byte, alarm func(record []byte, reason string) (ledger.Fact, error)) error
	// EndOrder puts an open order into another state; ErrChanged when it is not open, and ErrUsed when it is to be cancelled and has records or
	// a job end.
	EndOrder(ctx context.Context, order string, to State, at time.Time, fact ledger.Fact) error
}
