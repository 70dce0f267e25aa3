// Package agent is the program on a device: it enrols, asks, judges, acts, proves and reports.
//
// Stage 3, field, on the device. One goroutine owns all state; downloads run beside it. What it guarantees:
//   - Nothing is acted on but a gate.Plan, and the plan's counters are durable before the act begins.
//   - Every act is a task in one durable record, with a phase; killed at any instruction, the next start finishes it or says
//     that it failed. A result is reported, with a rising number, until the server has it.
//   - Guarded states end by themselves. A release on trial is confirmed only when its program is healthy *and* the verifier
//     affirmed it; anything else, or nothing in time, goes back to the release before.
//   - What it claims as evidence was measured when it was asked, not remembered.
//
// It trusts the boot manager beneath it (Machine), the key store and, through the gate, the trust bundle. It trusts the server
// for pacing only.
package agent

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hallmark-iot/hallmark/agent/boot/params"
	"github.com/hallmark-iot/hallmark/agent/devlog"
	"github.com/hallmark-iot/hallmark/agent/forms"
	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/window"
)

// What ends Run, for errors.Is.
var (
	// ErrReset says that the device must start again from its ROM: a new release is to be tried, an old one restored, or a
	// reset was commanded.
	ErrReset = errors.New("the device restarts")
	// ErrNotStaged says that a release is not here whole, or was tried already and failed.
	ErrNotStaged = errors.New("not staged")
	// ErrOver says that the device was wiped and its life cycle has ended.
	ErrOver = errors.New("the device is decommissioned")
)

// Facts is what this start of the device found.
type Facts struct {
	Device, Product, Hardware string
	Model                     wire.UpdateModel
	Lifecycle                 uint // PSA
	DebugLocked, Virtual      bool
	KeyOrigin                 string // of the keys that its factory left, where the key store did not make them; empty: it did
	BootCount                 uint64
	Fuses                     uint32 // security counter
	POST                      []wire.TestResult
	Root                      [32]byte        // digest of the root role in the fuses
	Bundle                    wire.Bundle     // version 0: it was lost
	Home                      *wire.Home      // where it was handed to; nil: it is where the factory sent it
	Homes                     int             // how often it was handed to another home
	Current                   *gate.Installed // what runs; nil: recovery
	Trial                     bool            // it runs on trial
	Slot                      string
	Notes                     []string // what the boot manager saw and did: fall-backs, repairs
	Implementation            [32]byte // PSA implementation ID
	BootSeed                  []byte   // 32 bytes, fresh at each start
	Parts                     string   // what guards fuses and counters
	Room                      wire.Room
}

// Fetch opens a component's bytes from offset on.
type Fetch func(ctx context.Context, c wire.Component, offset int64) (io.ReadCloser, error)

// Machine is the boot manager as the agent uses it. A method that returns nil is durable; a power cut in one leaves what was
// before or after. Errors that are hw.ErrPowerCut end everything.
type Machine interface {
	// Facts is the same for the whole run, but for Bundle after SetBundle, Trial after Confirm, and what runs after Switch.
	Facts() Facts
	// Measure reads what is in the active slot now and hashes it.
	Measure() ([]wire.Measured, error)
	// Stage brings a release into the idle slot and verifies it there. What is already there is not fetched again.
	Stage(ctx context.Context, release []byte, fetch Fetch, progress func(done, of uint64)) error
	// Activate makes the staged release the one to try at the next start; ErrNotStaged.
	Activate(digest [32]byte) error
	// Confirm ends the trial for good and raises the security counter.
	Confirm() error
	// Revert makes the release before the one to start.
	Revert() error
	// MaySet says whether SetBundle would take them.
	MaySet(envelopes ...[]byte) error
	// SetBundle replaces the trust bundle by the last of the given ones; each follows the one before it. All of them are taken, or none.
	SetBundle(envelopes ...[]byte) error
	// Move makes another instance the device's home; nobody of before counts from then on. Done already, it is nothing.
	Move(h wire.Handover) error
	// MayMove says whether Move would succeed.
	MayMove(h wire.Handover) error
	Homing
	// Forget erases the device's own log. It begins anew at the next start, behind a gap that its hardware counter explains.
	Forget() error
}

// Homing is a board that finds home again after it lost its trust record, though its fuses name another home.
type Homing interface {
	// Record gives the trust record of a device that was handed to another home, for its servers to keep; nil where the fuses lead back.
	Record() ([]byte, error)
	// Recall gives the trust bundle of a record that this board once had, in the home that it is in; an error for any other.
	Recall(record []byte) (wire.Bundle, error)
	// Restore takes such a record back, with the bundles that followed since: all of it or nothing.
	Restore(record []byte, envelopes ...[]byte) error
}

// Switcher is a Machine that can change what runs without a start.
type Switcher interface {
	// Switch makes what a start would run now what runs: programs that are the same in both go on. It gives false where it takes a start. Facts
	// are others afterwards.
	Switch() (bool, error)
}

// Readable is a Machine that gives the bytes of what runs, to make others of.
type Readable interface {
	// Running opens the bytes of a component that runs, as they were delivered, by their digest; false: there is none. They may be damaged since the start.
	Running(digest []byte) (io.ReaderAt, bool)
}

// Keyed is a Machine some of whose programs are protected, or images on their way to it: they wait for keys that the server gives for good evidence.
type Keyed interface {
	// Locked says whether anything waits for its key.
	Locked() bool
	// CodeKey is the device's public key, to which keys are wrapped.
	CodeKey() ([]byte, error)
	// Unlock takes the keys that came for evidence over nonce, and starts what waited for them. What does not open is in the error.
	Unlock(wraps []wire.Wrap, nonce []byte) error
}

// Eraser clears what was kept: of an owner's time, or of the device's whole life. Each method is safe to repeat.
type Eraser interface {
	// Clear stops the programs for the rest of this start, and removes what they have kept.
	Clear() error
	// Erase clears code, data and parameters, but for what the agent's Store holds, and reads back; it names the areas, and those that remain until End.
	Erase() (erased, remains []string, err error)
	// End clears the Store and what remained, and burns the life cycle. Nothing works afterwards.
	End() error
}

// Store keeps the agent's one record. Save is atomic and durable; Load gives nil before the first Save.
type Store interface {
	Load() ([]byte, error)
	Save(record []byte) error
}

// Params keeps what the device is told to use: its operational parameters. Each method but Set is free of writing.
type Params interface {
	// List gives all of the device's, with those of its factory, and the values of those that are secret: see params.Hide.
	List() []params.Parameter
	// Operational gives them, by name.
	Operational() []wire.ConfigEntry
	// May says whether Set would take them.
	May(entries []wire.ConfigEntry) error
	// Set makes entries all of them. It is atomic and durable, and what was replaced does not come back.
	Set(entries []wire.ConfigEntry) error
	// Fault says what was not believed at this start; nil: everything was.
	Fault() error
}

// Health is what a program says of itself, or what its process shows.
type Health int

// The healths. Unknown is not good: a trial is not confirmed on it.
const (
	HealthUnknown Health = iota
	HealthGood
	HealthSick
)

// Program is the application on the device.
type Program interface {
	Health() (Health, string)
	// Isolate cuts the program off from everything outside, or gives it back.
	Isolate(on bool) error
}

// Configurable is a Program that takes parameters.
type Configurable interface {
	// Configure gives it all of the device's. It uses those that its release names for it.
	Configure(all []wire.ConfigEntry) error
	// Told is what the programs said of them, as far as they have answered.
	Told() []wire.ProgramTold
}

// Telemetry takes readings, and gives them sealed, signed by key. What is sealed in one period of ownership is in no epoch of another.
type Telemetry interface {
	// Sample takes a reading and keeps it, sealed, until the server has it. How many it could not keep is told with the next.
	Sample(ctx context.Context, now time.Time, key crypto.Signer, period uint64) error
	// Next gives what is to be uploaded; nil: nothing. answered is called with true when the server has it, and with false when it will never have it as it is.
	Next(now time.Time, key crypto.Signer) (upload []byte, answered func(taken bool), err error)
	// End says that nothing more is taken in this run: what Next gives from then on tells the server that it is all.
	End()
}

// Server is the line to the server; link.Client is one.
type Server interface {
	Checkin(ctx context.Context, in wire.Checkin) (wire.CheckinReply, error)
	Attest(ctx context.Context, evidence []byte) (wire.AttestReply, error)
	AttestKey(ctx context.Context, change []byte) error
	Trust(ctx context.Context, record []byte) error
	Log(ctx context.Context, batch []byte) (wire.LogReply, error)
	Artifact(ctx context.Context, digest []byte, offset int64) (io.ReadCloser, error)
	Telemetry(ctx context.Context, upload []byte) error
	Receipt(ctx context.Context, receipt []byte) error
	Close()
}

// Enrolment is a request for an LDevID.
type Enrolment struct {
	Device string
	As     tls.Certificate // IDevID, or the present LDevID when it is renewed
	Key    crypto.Signer   // to be certified
	Renew  bool
	Now    func() time.Time // the device's time
}

// Config is all the agent needs.
type Config struct {
	Machine   Machine
	Eraser    Eraser
	Store     Store
	Params    Params
	Keys      hw.KeyStore
	Log       *devlog.Log
	Program   Program   // nil in recovery
	Telemetry Telemetry // nil: none
	Random    io.Reader
	IDevID    [][]byte // certificate chain, leaf first (DER)
	// Enrol asks the enrolment server for a certificate chain, leaf first (DER).
	Enrol func(ctx context.Context, e Enrolment) ([][]byte, error)
	// Dial makes the line; certificate and the device's time are asked at each handshake.
	Dial func(certificate func() (*tls.Certificate, error), anchors [][]byte, now func() time.Time) (Server, error)

	// Processes are those that the device consists of, for whoever stands beside it; nil: it says nothing of them.
	Processes func() []Process

	// History opens the signed history of trust bundles at a server (https://host[:port]); empty: at the device's. nil: there is no way back.
	History func(server string) (History, error)

	Zone      string        // where the clock on its wall is, as Europe/Berlin or +02:00; empty: it does not say
	Busy      func() bool   // whether the device is at something that an update should not break off; nil: never
	PollMin   time.Duration // never ask more often; 0: 1 s
	TrialTime time.Duration // a trial not confirmed by then is over; 0: 10 min
	Sampling  time.Duration // how often a reading is taken; 0: 5 s
	SickLimit int           // health checks in a row that a release on trial may fail before it is given up; 0: 3
	Once      bool          // return after one check-in and what follows from it
	Logger    *slog.Logger
}

// Agent is a running device.
type Agent struct {
	c       Config
	log     *slog.Logger
	m       memory // as durable as the last save
	clock   clock
	zone    *time.Location // of its wall
	server  Server
	nonce   []byte // outstanding, of the last check-in
	local   []byte // outstanding, handed out on the local socket
	ops     chan op
	line    atomic.Pointer[Server]          // server, for downloads beside the loop
	cert    atomic.Pointer[tls.Certificate] // for handshakes
	renewAt time.Time                       // of the present certificate; zero: not computed yet
	asked   string                          // the key for which a certificate was asked for, and not had yet

	period   *uint64   // of ownership, as the server told in this run: see wire.CheckinReply; nil: not yet
	sampleAt time.Time // before then no reading is taken

	leaving int  // check-ins by which the server here could have learned that the device leaves
	copied  bool // the server has a copy of the trust record, as far as it wants one

	disowned bool      // the server seems not to know the present certificate
	doubtAt  time.Time // before then that is not thought again

	astray    bool      // the trust bundle seems too old
	historyAt time.Time // before then its history is not looked at again
	renewals  int       // that failed in a row
	attestAt  time.Time // before then the attestation key is not changed
	sealedAt  time.Time // before then the server wants no sealed data
	againAt   time.Time // before then no certificate is asked for while the present one is good

	staging    chan error // result of the running download; nil: none
	stopWork   context.CancelFunc
	stageFails int                // since the last that went well
	source     *forms.Source      // of the release that is fetched; nil: none yet
	progress   chan wire.Progress // newest only
	lastProg   *wire.Progress

	rolled      time.Time // when the token rolled in this run; zero: not yet
	proved      time.Time // when somebody beside the device last had it prove itself
	verdict     string    // of the last evidence of what runs, in this run
	noKeys      string    // why the server gave none for what is protected, when it was asked last
	sick        int       // health checks in a row, of a release on trial, that failed
	heartbeatIn int       // check-ins until the next log heartbeat
	heartbeatGo int
	logSent     time.Time // last batch, in this run
}

// New reads the durable record and finishes nothing yet.
func New(c Config) (*Agent, error) {
	if c.PollMin <= 0 {
		c.PollMin = time.Second
	}
	if c.TrialTime <= 0 {
		c.TrialTime = 10 * time.Minute
	}
	if c.Sampling <= 0 {
		c.Sampling = 5 * time.Second
	}
	if c.SickLimit <= 0 {
		c.SickLimit = 3
	}
	zone, err := window.Zone(c.Zone)
	if err != nil { // it says where it is only if it can keep to that
		c.Logger.Warn("it goes by no clock on the wall", "error", err)
		c.Zone, zone = "", time.UTC
	}
	a := &Agent{
		c: c, zone: zone, log: c.Logger.With("device", c.Machine.Facts().Device),
		ops: make(chan op), progress: make(chan wire.Progress, 1), heartbeatGo: 1,
	}
	raw, err := c.Store.Load()
	if err != nil {
		return nil, err
	}
	if a.m, err = decodeMemory(raw); err != nil {
		return nil, err
	}
	a.clock.learn(max(a.m.Floor, c.Machine.Facts().Bundle.Issued))
	a.disowned = a.m.Doubts >= disownedAfter
	return a, a.loadCertificate()
}
