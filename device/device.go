package device

import (
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/window"
)

// Device is one row of the registry.
type Device struct {
	ID         string // 32 hex digits
	Product    string
	Group      string // of the product: "eu/berlin"; empty: in none
	Hardware   string // hardware revision
	State      State
	Legitimacy Legitimacy
	Order      string    // production order
	Station    string    // that made it
	Made       time.Time // zero: not by us
	AttestKey  []byte    // SubjectPublicKeyInfo (DER) of the attestation key, as recorded in production
	KeyOrigin  string    // of that key: soft, isolated, tpm, pkcs11, station
	Rekeyed    time.Time // when it got its keys in the field, by a voucher; zero: they are the factory's
	Virtual    bool      // a simulation, and says so
	Assurance  Assurance // what its word is worth
	Replaces   string    // the device this one took over from
	ReplacedBy string    // the device that took over from this one
	Counter    uint64    // last directive counter given out
	AckedSeq   uint64    // last result taken
	LastSeen   time.Time // last check-in; zero: never. Behind by up to the flush interval after a crash
	Since      time.Time // of the state
	Owned      time.Time // since when it belongs to its owner, who sees nothing of before; zero: to nobody
	GuardUntil time.Time // when the device ends its guarded state (quarantine, dormant) by itself; zero: none
	Token      string    // digest of the rolling token that it is to have; empty: none yet; TokenAwaited: it has to enrol anew first
	TokenAnew  bool      // it has enrolled anew since, and may begin with a new one
	Restored   time.Time // since when what is known of it is a backup's, and it has not called; zero: it is its own word
	Twin       Twin
}

// Twin is what is wanted of a device and what it says it has.
type Twin struct {
	Desired   []byte             `json:"desired,omitempty"`  // configuration that it was told and did
	Reported  []wire.ConfigEntry `json:"reported,omitempty"` // configuration last reported
	Programs  []wire.ProgramTold `json:"programs,omitempty"` // what its programs said of the parameters that they are told
	Release   []byte             `json:"release,omitempty"`  // digest of what runs
	Version   string             `json:"version,omitempty"`
	Said      time.Time          `json:"said,omitzero"`     // when a client of another update system last said which version it runs
	Trial     bool               `json:"trial,omitempty"`   // runs, not confirmed
	Good      []byte             `json:"good,omitempty"`    // digest of what last ran confirmed and in good health
	Agent     string             `json:"agent,omitempty"`   // the agent's own state: active, quarantined, dormant, recovery
	Healthy   bool               `json:"healthy,omitempty"` // neither this nor Sick: it is not known
	Sick      bool               `json:"sick,omitempty"`
	Told      string             `json:"told,omitempty"`   // "healthy" or "unhealthy": the last that was a fact
	Health    string             `json:"health,omitempty"` // what the program said
	Bundle    uint64             `json:"bundle,omitempty"` // trust bundle version
	BootCount uint64             `json:"boot_count,omitempty"`
	Accepted  uint64             `json:"accepted,omitempty"` // highest directive counter it said it accepted
	Suspect   string             `json:"suspect,omitempty"`  // what it said that cannot be true of one device; cleared by Clear
	Sides     []Side             `json:"sides,omitempty"`    // what each holder of the identity was seen with; of a suspect
	Progress  *wire.Progress     `json:"progress,omitempty"` // of a running update
	Room      *wire.Room         `json:"room,omitempty"`     // of its flash; nil: not known
	Left      [][]byte           `json:"left,omitempty"`     // releases (digest) that it was sent back from, and refuses
	Zone      string             `json:"zone,omitempty"`     // where it says it is; empty: it does not say
	Waits     *wire.Waits        `json:"waits,omitempty"`    // an install that it has, and that waits; nil: none
	Knows     []string           `json:"knows,omitempty"`    // kinds of message that it understands beyond the first: see wire.Checkin
	Carried   time.Time          `json:"carried,omitzero"`   // when it said all this, if somebody brought it; zero: it said it over a line
	Forgotten time.Time          `json:"forgotten,omitzero"` // since when all of this is gone, for good
}

// Query selects devices. Empty fields do not select.
type Query struct {
	Product string
	State   State
	Release []byte   // running this
	After   string   // keyset: the last ID of the page before; order is by (product, state, id) as far as those are given, then ID
	Limit   int      // at most MaxPage; 0 means MaxPage
	IDs     []string // only these, at most MaxPage
}

// MaxPage bounds a page of a list.
const MaxPage = 1000

// Instruction is what an operator, a rollout or a reaction wants done, before it is signed.
type Instruction struct {
	Product    string
	Act        wire.Act
	Devices    []string
	Release    []byte // digest, for acts that bring code
	Rollout    string
	Wave       uint
	TTL        time.Duration // guarded acts: how long until the device ends it by itself; 0: DefaultTTL
	Config     []byte        //
	Hours      *window.Hours // when devices may carry it out, in their own time; nil: always
	Manner     wire.Manner   // what has to be before they do
	Grace      time.Duration // of wire.Soft
	Kept       []string      // what of hours and manner is told, because all the devices know how to keep to it (wire.Knows…). The rest is kept here, as far as that can be
	Reason     string        //
	Valid      time.Duration // how long a device that was away may still be told; 0: DefaultValid
	Cause      *ledger.Ref   // the fact that led here
	WarrantUID *[16]byte     // UID of the warrant.issued fact, for acts that need one
	Priority   int           // among acts of the same urgency, higher first
	Alone      bool          // install: may be carried to devices that no line reaches, see wire.Command
	Once       string        // names the decision: what was commanded by this name is not again; empty: of its own
}

// Defaults of an Instruction.
const (
	DefaultTTL   = 24 * time.Hour
	DefaultValid = 30 * 24 * time.Hour
)

// Standing is where one device is with one command.
type Standing string

// The standings. Every one but Pending and Delivered is final.
const (
	Pending   Standing = "pending"   // not told yet
	Delivered Standing = "delivered" // told, no result yet
	Done      Standing = "done"
	Refused   Standing = "refused" // a check on the device failed, nothing was touched
	Failed    Standing = "failed"  // acted on, did not work, the old state stands
	Cancelled Standing = "cancelled"
	Expired   Standing = "expired" // never told in time: what it did is unknown, and not good
)

// Command is a stored command.
type Command struct {
	ID       string
	UID      [16]byte // of its command.issued fact
	Digest   [32]byte // of its payload; results name it
	Wire     wire.Command
	Config   []byte // configure: salt and entries, of which the command has the digest
	Reason   string // why; devices are not told, and the log has it in private
	Priority int
	Warrant  *[16]byte // UID of the warrant's fact
	Issued   time.Time
	Expires  time.Time
	Ended    time.Time     // cancelled; zero: stands
	Hours    *window.Hours // when devices may be given it; nil: always, as when they keep to them themselves
	Manner   wire.Manner   // what clients of other update systems are told of it; our agents are told by what is signed
	Grace    time.Duration // of wire.Soft
	Within   []string      // of PutCommand: the scope that its devices have to be in when it is stored; empty: anywhere; kept nowhere
}

// unlessTold keeps nothing here that the devices were told to keep to themselves.
func (c Command) unlessTold() Command {
	if c.Wire.Window != nil {
		c.Hours = nil
	}
	if c.Wire.Manner != wire.Forced {
		c.Manner, c.Grace = wire.Forced, 0
	}
	return c
}

// opens gives when a device that says where it is may be given the command, which may be over; zero: always.
func (c Command) opens(now time.Time, zone string) (opens time.Time) {
	if c.Hours != nil {
		opens, _ = c.Hours.Next(now, zone)
	}
	return opens
}

// earlier gives the earlier of two times, of which zero is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// CommandDevice is one device's part in a command.
type CommandDevice struct {
	Command  string
	Device   string
	Act      wire.Act
	Release  []byte
	Standing Standing
	Attempts int    // deliveries
	Code     string // of the device's result
	Text     string
	At       time.Time // of the last change
	Issued   time.Time // when it was commanded
}

// Warrant is a stored warrant.
type Warrant struct {
	UID  [16]byte // of its warrant.issued fact
	Wire wire.Warrant
}

// Bundle is a stored trust bundle.
type Bundle struct {
	UID      [16]byte // of its bundle.published fact
	Wire     wire.Bundle
	Envelope []byte
}
