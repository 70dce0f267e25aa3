// Package rollout decides who gets a release, and when.
//
// Stage 3, field. A rollout takes a selection of devices through waves, and a wave in tranches, each of which is one signed and logged command; the next wave begins
// when every device of it has booted the release, proven it by fresh evidence and stayed healthy for the soak, or when those
// that did not are within what the wave tolerates. Beyond that the rollout halts, and the devices that confirmed the release, in this
// wave and those before, are sent back to what its approvers allowed. Silence is never good: a device that is not heard of for the contact time is waited for, a
// soak that it falls silent in begins anew, a wave passes on what its devices said and proved after the soak began, and who was not
// heard of by the deadline has failed. Only the server's own silence is not held against them.
//
// The decisions are a pure function, Decide, of the time, the rollout and how many of its devices have which mark; Apply is what a
// decision does to the rollout. The Service does them one at a time: the state and its fact commit together, and whether a
// command was issued is read from the commands themselves, so that a crash at any point neither repeats one nor loses one.
//
// It trusts the release stage to know what is published and the device stage to know what devices said; a device checks the
// release, the wave's command and the way back again.
package rollout

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/window"
)

// Seconds is a duration on the wire of the API.
type Seconds uint32

// D gives the duration.
func (s Seconds) D() time.Duration { return time.Duration(s) * time.Second }

// Text is the duration for people: 24h, and not 24h0m0s.
func (s Seconds) Text() string {
	text := s.D().String()
	if short, ok := strings.CutSuffix(text, "m0s"); ok {
		text = short + "m"
	}
	if short, ok := strings.CutSuffix(text, "h0m"); ok {
		text = short + "h"
	}
	return text
}

// Spec is what a rollout is created with.
type Spec struct {
	ID        string    `json:"id"` // 1 to 64 characters
	Product   string    `json:"product"`
	Release   []byte    `json:"release"` // digest of a published release
	Selection Selection `json:"selection"`
	Canaries  []string  `json:"canaries,omitempty"` // selected devices that come first, in the first wave
	Waves     []Wave    `json:"waves"`
	Rollback  []byte    `json:"rollback,omitempty"` // where devices go whose earlier release is no way back; digest in RollbackTo
	Priority  int       `json:"priority,omitempty"` // of two rollouts that wait for a device, the one with the higher gets it; then the one that started first: -100 to 100, and takes two people
	Dynamic   bool      `json:"dynamic,omitempty"`  // who comes to fit later joins, until it is shut; of all, of a state, or of a query
	Alone     bool      `json:"alone,omitempty"`    // for devices that no line reaches: it may be carried to them, and no verifier is asked before they keep it
	Reason    string    `json:"reason,omitempty"`

	// Below leaves out devices that run a release with this security counter or a higher one. Who runs what nobody here knows is not left out by it.
	Below uint32 `json:"below_counter,omitempty" doc:"only devices that run a release with a lower security counter, or one that is not known here"`

	// Again has who did not show in time told once more when it is heard of: of a dynamic rollout, when its waves have passed. Nobody's absence halts it from then on.
	Again *Again `json:"again,omitempty"`

	// Stones has devices that run what the release is not installed over taken over the releases between: they are told of one after the other, and
	// have to be good with each. Without it they are left out.
	Stones bool `json:"stepping_stones,omitempty"`

	// Bandwidth is how fast its bytes leave this server; nil: as fast as they can.
	Bandwidth *Bandwidth `json:"bandwidth,omitempty"`

	// Window is when devices may take the release, in their own time; nil: always. Who is sent back is not held up by it, nor by a manner.
	Window *window.Hours `json:"window,omitempty"`

	Manner wire.Manner `json:"manner,omitempty" doc:"what has to be before a device takes it: soft, that it is not busy or its grace is over; consent, that somebody beside it agreed; not there: nothing"`
	Grace  Seconds     `json:"grace_s,omitempty" doc:"of soft: how long a device may put it off"`

	// Assurance is the least that a device's word has to be worth; empty: it enforces what it is told. Devices below are left out.
	Assurance device.Assurance `json:"assurance,omitempty"`
}

// Selection says which devices of the product, or of a group of it; exactly one of IDs, All, State and Query is given.
type Selection struct {
	Group string         `json:"group,omitempty"` // only devices that are in it, or in one below, when the rollout starts
	IDs   []string       `json:"ids,omitempty"`   // all must be eligible, or the rollout does not start
	All   bool           `json:"all,omitempty"`   // every active device; those that cannot take the release are left out, with the reason
	State device.State   `json:"state,omitempty"` // as All, of those in this state
	Query *device.Filter `json:"query,omitempty"` // as All, of those that it selects when their wave is taken; it names a state, or means active ones
}

// Text says it as people do.
func (s Selection) Text() string {
	var text string
	switch {
	case len(s.IDs) == 1:
		text = "device " + s.IDs[0]
	case len(s.IDs) > 1:
		text = fmt.Sprintf("%d devices by ID", len(s.IDs))
	case s.Query != nil:
		q := *s.Query
		q.State = string(s.state())
		text = q.Text()
	default:
		text = "devices that are " + string(s.state())
	}
	if s.Group != "" {
		text += ", in group " + s.Group
	}
	return text
}

// among gives the selection, of these devices alone.
func (s Selection) among(ids []string) Selection {
	return Selection{Group: s.Group, IDs: ids, Query: s.Query}
}

// Wave is one step. Size and Percent of the whole selection: one of them, or neither for "the rest".
type Wave struct {
	Size            int     `json:"size,omitempty"`
	Percent         int     `json:"percent,omitempty"`
	Soak            Seconds `json:"soak_s"`                         // how long all of it must stay good
	Deadline        Seconds `json:"deadline_s"`                     // from its start: who is not good by then has failed
	Contact         Seconds `json:"contact_s,omitempty"`            // a device not heard of for longer is not good; default 15 min, or five polls if that is longer
	MaxFailures     int     `json:"max_failures,omitempty"`         // more than this many failures halt
	MaxFailuresRate int     `json:"max_failures_percent,omitempty"` // or more than this part of the wave, rounded down; the smaller counts when both are given
	MaxErrors       int     `json:"max_errors,omitempty"`           // as MaxFailures, of those that said no, fell back, or are bad with it
	MaxErrorsRate   int     `json:"max_errors_percent,omitempty"`
	MaxNoShows      int     `json:"max_no_shows,omitempty"` // as MaxFailures, of those that did not show in time that they are good
	MaxNoShowsRate  int     `json:"max_no_shows_percent,omitempty"`
	Tranche         int     `json:"tranche,omitempty"`  // at most this many devices are under way at once; 0: all of the wave
	PerHour         int     `json:"per_hour,omitempty"` // at most this many devices are told in an hour; 0: no limit
}

// Phase is where a rollout is.
type Phase string

// The phases. Halted goes on until the way back is done; Aborting until the outstanding command is cancelled.
const (
	Created    Phase = "created"
	Running    Phase = "running"
	Paused     Phase = "paused"
	Halted     Phase = "halted"
	Aborting   Phase = "aborting"
	RolledBack Phase = "rolled-back"
	Aborted    Phase = "aborted"
	Completed  Phase = "completed"
)

// Ended reports whether nothing more happens.
func (p Phase) Ended() bool { return p == RolledBack || p == Aborted || p == Completed }

// Rollout is a stored rollout.
type Rollout struct {
	Spec    Spec        `json:"spec"`
	Phase   Phase       `json:"phase"`
	Wave    int         `json:"wave"` // the current one, from 1; 0 before the start
	Waves   []WaveState `json:"waves,omitempty"`
	By      string      `json:"by"`
	Created time.Time   `json:"created"`
	Started time.Time   `json:"started,omitzero"`
	Halted  time.Time   `json:"halted,omitzero"`
	Ended   time.Time   `json:"ended,omitzero"`
	Reason  string      `json:"reason,omitempty"` // of the halt or abort
	Last    Counts      `json:"last"`             // the wave in numbers: as of now where it is asked for, as of the latest decision where it is kept
	Backs   []Tranche   `json:"backs,omitempty"`  // after a halt: who was told to go back
	Shut    time.Time   `json:"shut,omitzero"`    // of a dynamic one: since when nobody joins any more
	Joined  int         `json:"joined,omitempty"` // how many waves of those who joined after the last have passed
	Later   Counts      `json:"later,omitzero"`   // the devices of those, in numbers; with Again without those who did not show
	Missing int         `json:"missing,omitempty" doc:"of one that tells devices again: how many did not show, and are not under way now"`
	Stir    int64       `json:"-"`               // the latest change of a device that was looked at for it; Unfollowed: none is
	Turns   int         `json:"turns,omitempty"` // rises with each change after which all devices are looked at anew
	UID     [16]byte    `json:"-"`               // of the latest fact: the cause of what follows
	Rev     int64       `json:"-"`               // rises with each change
}

// WaveState is what became of one wave. Its rules are those of Spec.Waves[Rule].
type WaveState struct {
	Rule      int       `json:"rule"`
	Devices   int       `json:"devices"`        // as planned until it begins
	Open      bool      `json:"open,omitempty"` // of who joined after the last
	Most      int       `json:"most,omitempty" doc:"so many devices at most, however many come; absent: no bound"`
	Below     int64     `json:"below,omitempty"`    // the ranks below this, and not in the waves before, are its; 0: its devices were taken at the start
	Taken     time.Time `json:"taken,omitzero"`     // when its devices were
	Tranches  []Tranche `json:"tranches,omitempty"` // who was told, in order
	Command   string    `json:"command,omitempty"`  // of the first tranche
	Started   time.Time `json:"started,omitzero"`   // when that was
	SoakFrom  time.Time `json:"soak_from,omitzero"` // since when nobody is waited for
	Soaked    bool      `json:"soaked,omitempty"`   // the soak's time is over
	Asked     time.Time `json:"asked,omitzero"`     // when those without proof since then were told to attest
	Succeeded time.Time `json:"succeeded,omitzero"`
	Cancelled bool      `json:"cancelled,omitempty"` // its commands, after a halt or abort
	Away      Seconds   `json:"away_s,omitempty"`    // how long nobody listened since it began: its deadlines are later by that
}

// taken reports whether the wave's devices are known.
func (w WaveState) taken() bool { return w.Below == 0 || !w.Taken.IsZero() }

// Tranche is one command of a rollout: to a part of a wave, or to who is sent back.
type Tranche struct {
	Command string    `json:"command"`
	Release []byte    `json:"release,omitempty"` // of a way back: where to; of a wave: a stepping stone; empty: the rollout's
	Version string    `json:"version,omitempty"` // of a stepping stone
	Devices int       `json:"devices"`
	At      time.Time `json:"at"`
	Kept    []string  `json:"kept,omitempty" doc:"what of the window and the manner its devices keep to themselves, as they say that they know it: it is in what is signed. The rest is kept here, as far as that can be"`
	Issued  bool      `json:"issued"`         // false: decided, and perhaps issued
	Lost    string    `json:"lost,omitempty"` // why no way leads these devices to the release any more: they are told nothing, and have failed
}

// Brings is the release that devices of a tranche are told to install.
func (r Rollout) Brings(t Tranche) []byte {
	if len(t.Release) > 0 {
		return t.Release
	}
	return r.Spec.Release
}

// tranche is what a device was told by last. Of one that was not told it begins with its wave.
func (r Rollout) tranche(s Status) Tranche {
	w := r.Waves[s.Wave-1]
	if s.Tranche < 1 || s.Tranche > len(w.Tranches) {
		return Tranche{At: w.Started}
	}
	return w.Tranches[s.Tranche-1]
}

// Unfollowed is the Stir of a rollout that nobody joins.
const Unfollowed = -1

// Joins reports whether devices join that come to fit.
func (r Rollout) Joins() bool {
	return r.Spec.Dynamic && r.Shut.IsZero() && (r.Phase == Running || r.Phase == Paused)
}

// MaxTranche bounds the devices of one command, and so what is written at once.
const MaxTranche = 20_000

// Before reports whether it goes before another that wants the same device, and has not told it yet. One that is paused gives way.
func (r Rollout) Before(other Rollout) bool {
	if r.Phase == Running && other.Phase == Paused {
		return true
	}
	if r.Spec.Priority != other.Spec.Priority {
		return r.Spec.Priority > other.Spec.Priority
	}
	return r.Started.Before(other.Started)
}

// Member is a device's place in a rollout.
type Member struct {
	Device   string `json:"device"`
	Wave     int    `json:"wave"`               // from 1
	Previous []byte `json:"previous,omitempty"` // digest of what it ran when its wave began, and then when it was told; empty: unknown
	Rank     int64  `json:"-"`                  // its place among all

	Over []string `json:"over,omitempty"` // of a dry run: the versions that it is taken over first
}

// watched gives the first and last of the waves that decisions look at: the current one; after a halt all that began, for whoever has a bad
// release is sent back, and is to be stopped on the way when that is aborted. The waves before one of who joined later have ended.
func (r Rollout) watched() (from, to int) {
	first := 1
	if r.Wave > 0 && r.Waves[r.Wave-1].Open {
		first = r.Wave
	}
	switch r.Phase {
	case Halted, RolledBack:
		return first, r.Wave
	case Aborting, Aborted:
		if !r.Halted.IsZero() {
			return first, r.Wave
		}
	case Created, Running, Paused, Completed:
	}
	return r.Wave, r.Wave
}

// Candidate is a device as the selection sees it.
type Candidate struct {
	ID       string
	Product  string
	Hardware string
	State    device.State
	Release  []byte // digest of what it says it runs
	Busy     string // the rollout it is in already

	Assurance device.Assurance // what its word is worth

	*Kit // of many the same
}

// Kit is what a device said, as far as it decides what the device can take. Very many devices have the same, and a digest of it is kept with each: another
// field comes with a migration that makes all of these anew.
type Kit struct {
	Version  string // of the release that it says it runs; empty: unknown
	Trial    bool
	Room     *wire.Room         // of its flash; nil: unknown
	Knows    []string           // kinds of message that its agent understands
	Zone     string             // where it says it is; empty: it does not
	Left     [][]byte           // releases that it was sent back from
	Settings []wire.ConfigEntry // what it says it was told, and what it was; without secrets
}

// Health is what a device last said of itself.
type Health string

// Unknown never reads as good.
const (
	HealthUnknown Health = ""
	Healthy       Health = "healthy"
	Unhealthy     Health = "unhealthy"
)

// Status is what is known of one device of a wave.
type Status struct {
	Device    string           `json:"device"`
	Wave      int              `json:"wave"`             // of the device, from 1
	Tranche   int              `json:"tranche"`          // of the wave, from 1; 0: not told yet
	Mark      Mark             `json:"mark"`             // as it was last looked at; while waves go on, a view has it as it is now
	Holder    string           `json:"holder,omitempty"` // of Held: the rollout that has it
	Stirs     int64            `json:"-"`                // rises with each change
	Strayed   bool             `json:"-"`                // it is not of the product or in the group any more
	Closed    bool             `json:"-"`                // it was let go before it was told, and stays so, should it come back
	State     device.State     `json:"state"`
	Previous  []byte           `json:"previous,omitempty"`
	Install   Order            `json:"install,omitzero"`  // its tranche's command
	Back      Order            `json:"back,omitzero"`     // this rollout's rollback command
	Running   []byte           `json:"running,omitempty"` // digest of what it says it runs
	Trial     bool             `json:"trial,omitempty"`   // it has not confirmed that
	Health    Health           `json:"health,omitempty"`  // said at Seen
	Verdict   string           `json:"verdict,omitempty"` // EAR status of the latest appraisal; empty: none
	VerdictAt time.Time        `json:"verdict_at,omitzero"`
	Proven    []byte           `json:"proven,omitempty"` // digest of the release the evidence was found to match; empty: none
	Seen      time.Time        `json:"seen,omitzero"`
	Said      time.Time        `json:"said,omitzero"`       // when a client of another update system last said what it runs
	Waits     *wire.Waits      `json:"waits,omitempty"`     // an install that it has, and that waits
	Assurance device.Assurance `json:"assurance,omitempty"` // what its word is worth
	Zone      string           `json:"zone,omitempty"`      // where it says it is; empty: it does not
	Again     int              `json:"again,omitempty"`     // how often it was taken once more, as it had not shown in time
}

// Order is one device's part in one command.
type Order struct {
	Command  string          `json:"command"` // empty: none
	Issued   time.Time       `json:"issued,omitzero"`
	Expires  time.Time       `json:"expires,omitzero"`
	Standing device.Standing `json:"standing,omitempty"` // as it is stored: whose time is up is still told to be under way
	Code     string          `json:"code,omitempty"`     // of its result
	Attempts int             `json:"attempts,omitempty"`
	At       time.Time       `json:"at,omitzero"`
}

// standing is where the device is with the order at now: who did not answer in its time will not take it any more.
func (o Order) standing(now time.Time) device.Standing {
	if (o.Standing == device.Pending || o.Standing == device.Delivered) && !o.Expires.IsZero() && !now.Before(o.Expires) {
		return device.Expired
	}
	return o.Standing
}

// Counts is a wave in numbers.
type Counts struct {
	Devices  int `json:"devices"`
	Good     int `json:"good"`
	ByWord   int `json:"good_by_own_word,omitempty"` // of those that are good: nothing but their own word says so
	Waiting  int `json:"waiting"`
	Failed   int `json:"failed"`
	NoShows  int `json:"no_shows,omitempty"`    // of the failed: those that did not show in time that they are good
	Untold   int `json:"untold,omitempty"`      // of the waiting: not told yet, or not of what comes behind a stepping stone
	Held     int `json:"held,omitempty"`        // another rollout has them
	Declined int `json:"declined,omitempty"`    // somebody beside them did not agree: neither good nor failed
	Left     int `json:"left,omitempty"`        // retired meanwhile, or gone from the rollout's group before they were told
	Returned int `json:"rolled_back,omitempty"` // after a halt: gone back by command
	Stranded int `json:"stranded,omitempty"`    // after a halt: run the release and have no way back, or did not take it
	Unknown  int `json:"unknown,omitempty"`     // after a halt: nobody knows what they run
}

// Errors of the stores.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrChanged  = errors.New("changed meanwhile")
)

// Store keeps rollouts and the devices in them.
type Store interface {
	Book
	Places
}

// Book keeps rollouts. Writes are durable, with their facts, when they return nil.
type Book interface {
	// SpecOf gives that of the rollout that has a device now; false: none has it.
	SpecOf(ctx context.Context, device string) (spec Spec, in bool, err error)
	// PutRollout returns ErrExists when the ID is taken.
	PutRollout(ctx context.Context, r Rollout, facts ...ledger.Fact) error
	// Rollout returns ErrNotFound.
	Rollout(ctx context.Context, id string) (Rollout, error)
	// Rollouts lists those in a scope, everybody's with none, newest first, from behind the one with the ID after on, at most
	// limit (0: all); with open only those that have not ended.
	Rollouts(ctx context.Context, scope []string, open bool, after string, limit int) ([]Rollout, error)
	// SaveRollout replaces it if its stored Rev is r.Rev, and raises Rev; else ErrChanged. When the phase has ended its devices
	// are free for others, after that: FreeEnded does what a crash between them left.
	SaveRollout(ctx context.Context, r Rollout, facts ...ledger.Fact) error
	// FreeEnded lets go of the devices of rollouts that have ended.
	FreeEnded(ctx context.Context) error
	// Candidates gives devices of the product, or with a group of that, to each, by ID: those of sel.IDs, or without any those in the
	// state. Of those that want does not want nothing is read; nil wants all.
	Candidates(ctx context.Context, product string, sel Selection, state device.State, want func(id string) bool, each func(Candidate) error) error
	// Stirred gives devices that changed behind a place in the order of changes, and the place of the last of them; of at most limit changes.
	Stirred(ctx context.Context, after int64, limit int) (devices []string, upTo int64, err error)
	// LastStir gives the place of the latest change.
	LastStir(ctx context.Context) (int64, error)
	// PutPoint keeps how a rollout stands; it replaces the point of that time.
	PutPoint(ctx context.Context, id string, p Point) error
	// Points gives them by their time.
	Points(ctx context.Context, id string) ([]Point, error)
	// Listened gives when a Tick was last noted; zero: never.
	Listened(ctx context.Context) (time.Time, error)
	// Listens notes a Tick.
	Listens(ctx context.Context, now time.Time) error
}

// Places keeps which devices are where in a rollout. Each has a mark, which stands until the device does something, its time comes or the rollout
// turns; how many have which is counted as they change. A device is in one rollout at a time; in others it is Held.
type Places interface {
	// TakeDevices takes members, not told yet. Who is in already stays as it is; who is in another rollout that has not ended is Held.
	TakeDevices(ctx context.Context, r Rollout, members []Member) error
	// JoinDevices is TakeDevices, and keeps r.Stir if the stored Rev is r.Rev; else ErrChanged. fact makes the fact of those that were not in yet, when
	// there are any.
	JoinDevices(ctx context.Context, r Rollout, members []Member, fact func(joined []string) (ledger.Fact, error)) error
	// Missing gives devices, by ID from behind one on, at most limit, that the rollout has let go of as they did not show in time. With heard those alone that were told at told
	// or before, are heard of since then, and were taken again less often than the rollout does that; and those whose life is over.
	Missing(ctx context.Context, r Rollout, heard *Heard, after string, limit int) ([]Status, error)
	// Place gives a device of a rollout; false: it is not in it.
	Place(ctx context.Context, id, device string) (st Status, in bool, err error)
	// SettleDevices lets go of the devices of a wave, whatever became of them, and counts them to another wave, or the same. Who is held stays.
	SettleDevices(ctx context.Context, id string, wave, into int) error
	// Freed gives at most limit devices that are held, and that no rollout has any more, or one has that is paused and has not told them.
	Freed(ctx context.Context, id string, limit int) ([]string, error)
	// FreeDevices takes members of those into their waves, and the others of them out of the rollout.
	FreeDevices(ctx context.Context, r Rollout, members []Member, freed []string) error
	// TellDevices is SaveRollout, and puts queued devices of a wave into its last tranche, to be looked at when they do something, and when they are
	// due; of wave 0 into the last way back.
	TellDevices(ctx context.Context, r Rollout, wave int, devices []string, due time.Time, facts ...ledger.Fact) error
	// ToldDevices gives those that a command is for and that can be told; back: to go back.
	ToldDevices(ctx context.Context, id, command string, back bool) ([]string, error)
	// Tally counts the devices of each wave by mark.
	Tally(ctx context.Context, id string) (Tally, error)
	// Owed gives at most limit devices of the waves from and to, and those between, that are to be looked at: they did something, their time
	// has come, or the rollout has turned since.
	Owed(ctx context.Context, r Rollout, from, to int, now time.Time, limit int) ([]Status, error)
	// PutMarks keeps what was seen of devices that did nothing meanwhile.
	PutMarks(ctx context.Context, id string, marks []Marking) error
	// Waiting gives at most limit devices of a wave that are not told yet, by rank.
	Waiting(ctx context.Context, id string, wave, limit int) ([]string, error)
	// Marked gives devices of the waves from and to, and those between, with one of the marks (none: any), by ID, from behind one on, at most limit (0: all).
	Marked(ctx context.Context, id string, from, to int, marks []Mark, after string, limit int) ([]Status, error)
}

// Marking is what was seen of a device.
type Marking struct {
	Device   string
	Stirs    int64 // of the device, when it was looked at
	Was, Now Mark
	Turn     int       // of the rollout, when it was looked at
	Due      time.Time // when time alone may change it; zero: never
	Late     string    // the command that it is too late for, and is told no more; empty: none
	Free     bool      // it is not this rollout's any more
	At       time.Time // when it was looked at
}

// Heard narrows who is missing to those that are to be told again.
type Heard struct {
	Told  time.Time // the latest that they were told last
	Since time.Time // they were heard of since
}

// Releases knows releases; *release.Service is one.
type Releases interface {
	Find(ctx context.Context, digest [32]byte) (release.Release, error)
	// OfProduct gives the product's releases that were published, whatever became of them since.
	OfProduct(ctx context.Context, product string) ([]release.Release, error)
	// Forms gives other ways to the components of a release for a device that runs another.
	Forms(ctx context.Context, from, to [32]byte) ([]wire.Form, error)
}

// Commander tells devices; *device.Service is one.
type Commander interface {
	Command(ctx context.Context, caller access.Caller, in device.Instruction) (string, error)
	// CancelCommand returns a fault of kind Conflict for a command that has ended.
	CancelCommand(ctx context.Context, caller access.Caller, id, reason string) error
	// Get gives a device to who may read it; else a fault.
	Get(ctx context.Context, caller access.Caller, id string) (device.Device, error)
	// CurrentBundle gives the product's trust bundle; a fault of kind NotFound where there is none.
	CurrentBundle(ctx context.Context, product string) (device.Bundle, error)
}

// Ledger finds the place of facts; *ledger.Reader is one.
type Ledger interface {
	Locate(ctx context.Context, uid [16]byte) (ledger.Ref, bool, error)
}

// Ways are releases that devices are sent back from, by their digests, with the ways back that are open: Service.waysBack.
type Ways map[string]wire.Release

// target gives where a device goes back to from what it runs.
func (w Ways) target(spec Spec, s Status) ([]byte, bool) {
	return target(spec, w[string(s.Running)], s.Previous)
}

// target gives the release a device goes back to: what it ran, if the approvers of the bad one allowed that; else the
// rollout's own, if it has one. bad's ways back are those that are still open: Service.waysBack.
func target(s Spec, bad wire.Release, previous []byte) ([]byte, bool) {
	if len(previous) == 32 && bad.MayReturnTo([32]byte(previous)) {
		return previous, true
	}
	if len(s.Rollback) == 32 && bad.MayReturnTo([32]byte(s.Rollback)) {
		return s.Rollback, true
	}
	return nil, false
}
