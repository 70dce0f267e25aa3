package device

import (
	"context"
	"crypto/ed25519"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Errors of the stores.
var (
	ErrNotFound = errors.New("not found")
	ErrChanged  = errors.New("changed meanwhile") // a compare-and-swap lost
	ErrExists   = errors.New("exists already")
	ErrForeign  = errors.New("a device is unknown, ended or of another product")
)

// Registry keeps devices. Every write is durable, with its facts, when it returns nil.
type Registry interface {
	// Device returns ErrNotFound for an ID it does not hold.
	Device(ctx context.Context, id string) (Device, error)
	// Devices gives a page in the order of (state, ID) within the query.
	Devices(ctx context.Context, q Query) ([]Device, error)
	// MoveDevice changes the state if it is still c.From, else ErrChanged.
	MoveDevice(ctx context.Context, c Change) error
	// JudgeDevice changes the legitimacy if it is still from, else ErrChanged.
	JudgeDevice(ctx context.Context, id string, from, to Legitimacy, fact ledger.Fact) error
	// ReplaceDevice links old and new; ErrChanged if either has a link on that side already.
	ReplaceDevice(ctx context.Context, before, after string, fact ledger.Fact) error
	// Schemas gives those that the devices hold what they are told against, each once: of the releases that they run, and of the product itself for those of which
	// nobody knows what they run. One that has no parameters is among them.
	Schemas(ctx context.Context, product string, devices []string) ([]wire.Schema, error)
	// CountDevices counts by state.
	CountDevices(ctx context.Context, product string) (map[State]int, error)
}

// Change is one transition.
type Change struct {
	Device     string
	From, To   State
	At         time.Time
	GuardUntil time.Time // zero: none
	Absolve    bool      // a suspicion is over: forget it and what rests on it, the verdict as well; nothing but a new enrolment makes the device known again
	Fact       ledger.Fact
}

// Reports takes what devices say.
type Reports interface {
	// ApplyReport stores what a check-in changed, with its facts, in one transaction. It is done only while the device's state,
	// acknowledged result and token are those of r.From, and what is known of it as restored as it was, else ErrChanged. From then on it is not.
	ApplyReport(ctx context.Context, r Report) error
	// Outstanding gives the device's commands without a final result whose time has not run out at now, most urgent first.
	Outstanding(ctx context.Context, id string, now time.Time) ([]Command, error)
	// NextCounter raises the device's directive counter above both the stored and floor, marks the command delivered, and
	// returns the counter when it is durable. ErrChanged when the command no longer stands for the device. What is carried is
	// told, and no further attempt: nobody knows which of the cartons a device ever sees.
	NextCounter(ctx context.Context, id, command string, floor uint64, carried bool, at time.Time) (uint64, error)
	// MarkSeen stores last check-ins in one batch; it may be repeated, and never moves a time back.
	MarkSeen(ctx context.Context, seen map[string]time.Time) error
}

// Report is what one check-in changes.
type Report struct {
	From       Device // as it was read
	State      State  // to be; From.State when it does not move
	GuardUntil time.Time
	Twin       Twin
	AckedSeq   uint64
	Token      string // to be; From.Token when it stays
	OnTrust    bool   // it said more than a restored backup knows, and is believed
	At         time.Time
	Results    []CommandDevice // final standings
	Action     *Action         // of a client of another update system: what ended, while it is as it was read
	Facts      []ledger.Fact
}

// Said is when the device said it: when it was carried here, before it came.
func (r Report) Said() time.Time {
	if !r.Twin.Carried.IsZero() {
		return r.Twin.Carried
	}
	return r.At
}

// Commands keeps commands and warrants.
type Commands interface {
	// PutCommand stores the command, one Pending row for each device, and the fact, all or nothing. ErrExists when its ID is taken;
	// ErrForeign when a device is unknown, ended, or not of the command's product.
	PutCommand(ctx context.Context, c Command, devices []string, fact ledger.Fact) error
	// Command finds by ID; ErrNotFound. CommandTo finds by payload digest the command that the device was given, with its standing
	// there; ErrNotFound when there is none, or it was never delivered to that device.
	Command(ctx context.Context, id string) (Command, error)
	CommandTo(ctx context.Context, digest [32]byte, device string) (Command, Standing, error)
	// CancelCommand ends it for every device without a result; ErrChanged when it has ended.
	CancelCommand(ctx context.Context, id string, at time.Time, fact ledger.Fact) error
	// CommandsFor lists a product's commands that bring the release and may still be told to somebody at now.
	CommandsFor(ctx context.Context, product string, release []byte, now time.Time) ([]Command, error)
	// CommandDevices lists by device ID, after (exclusive), as it stands at now; limit 0 means all.
	CommandDevices(ctx context.Context, id string, now time.Time, after string, limit int) ([]CommandDevice, error)
	// CommandSet gives the IDs of all devices that it was given to, rising.
	CommandSet(ctx context.Context, id string) ([]string, error)
	// CountCommand counts the devices by standing at now.
	CountCommand(ctx context.Context, id string, now time.Time) (map[Standing]int, error)
	// DeviceCommands lists a device's commands as they stand at now, newest first, from behind the command after on.
	DeviceCommands(ctx context.Context, device string, now time.Time, after string, limit int) ([]CommandDevice, error)
}

// Trust keeps bundles and warrants.
type Trust interface {
	// PutBundle stores the next version; ErrChanged when the current one is not its predecessor.
	PutBundle(ctx context.Context, b Bundle, fact ledger.Fact) error
	// Bundle gives a version, 0 the current; ErrNotFound.
	Bundle(ctx context.Context, product string, version uint64) (Bundle, error)
	// DevicesBehind lists devices in the field with a bundle older than version that have not been told to take a newer one, or
	// not within the hour before now, since it was published, if they did not do it; at most MaxBehind.
	DevicesBehind(ctx context.Context, product string, version uint64, now time.Time) ([]string, error)
	// PutWarrant stores it with its devices; ErrExists when its ID is known.
	PutWarrant(ctx context.Context, w Warrant, devices []string, fact ledger.Fact) error
	// Warrant finds by the UID of its fact; ErrNotFound.
	Warrant(ctx context.Context, uid [16]byte) (Warrant, error)
	// Warrants lists a product's, everybody's with an empty one, by ID, from behind after on, at most limit.
	Warrants(ctx context.Context, product, after string, limit int) ([]Warrant, error)
	// WarrantDevices lists the devices it names.
	WarrantDevices(ctx context.Context, uid [16]byte) ([]string, error)
}

// Ledger finds facts and proves them.
type Ledger interface {
	// Locate gives the place of the fact, false while it has none.
	Locate(ctx context.Context, uid [16]byte) (ledger.Ref, bool, error)
	// Logged gives the fact with proof under the latest witnessed checkpoint; ledger.ErrNotYetWitnessed until there is one.
	Logged(ctx context.Context, uid [16]byte) (wire.Logged, error)
	// SignedBy gives a proof under the newest checkpoint as one of the log's keys signed it; false when that one has not.
	SignedBy(ctx context.Context, log ledger.Log, p wire.Proof, key ed25519.PublicKey) (wire.Proof, bool, error)
}

// Releases proves releases.
type Releases interface {
	// Logged gives the release.published fact of the release with proof; ledger.ErrNotYetWitnessed until there is one.
	Logged(ctx context.Context, digest [32]byte) (wire.Logged, error)
	// Manifest gives what a release says, and whether it is handed out; a fault of kind NotFound for one that is not known.
	Manifest(ctx context.Context, digest [32]byte) (m wire.Release, open bool, err error)
	// HandsOut reports whether a release is handed out; one that is not known is not.
	HandsOut(ctx context.Context, digest [32]byte) (bool, error)
	// Forms gives other ways to the components of to for a device that runs from: see wire.Form.
	Forms(ctx context.Context, from, to [32]byte) ([]wire.Form, error)
}

// Challenger decides when a device must attest.
type Challenger interface {
	// Due gives a fresh 32-byte nonce when it must; nil when it need not. That it need not holds until then, while the device, what it says and the verdict
	// on it stay as they are; zero: for no time at all.
	Due(ctx context.Context, d Device, in wire.Checkin) (nonce []byte, until time.Time)
	// Waits reports whether somebody waits for evidence of the device.
	Waits(id string) bool
}

// Wakes tells what was written that the answer to a device without news is made from.
type Wakes interface {
	// OnWake has fn called with the devices, nil for all, when it is stored and before the write is acknowledged.
	OnWake(fn func(devices []string))
	// HearsAll reports whether all that other nodes wrote until a moment ago was told.
	HearsAll() bool
}
