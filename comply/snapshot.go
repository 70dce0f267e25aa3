package comply

import (
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/product"
)

// How fresh evidence has to be. What is older says nothing of today.
const (
	FreshContact = 24 * time.Hour       // a device's last check-in
	FreshProof   = 24 * time.Hour       // its last verdict
	FreshData    = 7 * 24 * time.Hour   // sealed data of the product
	FreshDrill   = 365 * 24 * time.Hour // what is seldom: a refusal, a quarantine, a wipe
	Handling     = 90 * 24 * time.Hour  // how far back findings are looked at
)

// Snapshot is what was counted of one product at one moment. Evaluators see nothing else.
type Snapshot struct {
	At      time.Time
	Product product.Product

	Devices  []Devices             // those that are in the field, in groups
	Shared   int                   // identity keys that this product's devices share with another device
	Bundle   Bundle                // the current trust bundle
	Releases []Release             // published and not withdrawn, newest first, the newest of them
	Commands map[string]Told       // by act, of the newest commands
	Findings []Findings            // raised within Handling, and every open one
	Cases    Cases                 // of devices in trouble, within FreshDrill
	Facts    map[ledger.Kind]Marks // about its devices, among the newest of their kind
	Refusals map[string]int        // by code, of the device.refused among Facts
	Epochs   Epochs                // of sealed data, the newest
	Retired  map[string]Retired    // by phase; disposed of without a receipt is written-off
	Orders   []Order               // the newest
	Denials  Marks                 // refused calls, among the newest
	Behind   int                   // events that no rule has looked at yet
}

// Devices counts devices that have all of the first five in common.
type Devices struct {
	State, Hardware string
	Release         string // digest, hex, of what runs; empty: never heard of
	Virtual         bool
	Origin          string // of the attestation key: soft, isolated, tpm, pkcs11, station

	N                    int
	Heard                int // within FreshContact
	HeardFrom, HeardTo   time.Time
	Good, Warned, Bad    int // verdicts within FreshProof
	Stale                int // verdicts before that
	ProvenFrom, ProvenTo time.Time
	Certified            int // hold a valid operational certificate
	Current              int // hold the current trust bundle
	Logged               int // have sent their own log
	Identified           int // have a recorded identity key
}

// Marks counts what happened, with the newest one's place in the ledger.
type Marks struct {
	N      int
	Newest time.Time
	Ref    *ledger.Ref
}

// Bundle is the product's trust bundle.
type Bundle struct {
	Version   uint64 // 0: there is none
	Threshold uint   // of release signers
	Signers   int    // keys that may sign releases
	Suites    []string
	Ref       *ledger.Ref
}

// Release is a published one.
type Release struct {
	Digest, Version string
	Hardware        []string
	Published       time.Time
	Verified        bool   // its signatures hold under the current bundle; looked at for the snapshot
	Suite           string // of the keys that may sign it; empty: they are of several
	Approvers       int    // who signed, its author left out
	SBOM            bool
	Provenance      bool
	Found           *Found // what the supply gate found when it was published; nil: its product had no gate, and nobody has read its documents
	Ref             *ledger.Ref
}

// Found is what the supply gate found of a release: the decision that its approvers signed, and what is said of it to others.
type Found struct {
	Passed                       bool // the decision, and the signed summary
	Components, Unknown, Excused int
}

// Told counts what became of commands of an act, by device. Of a large command only some devices are looked at.
type Told struct {
	Commands                    int
	Devices                     int
	Done, Refused, Failed, Open int
	Hardware                    map[string]int // done, by revision
	Newest                      time.Time      // done
	Ref                         *ledger.Ref    // of the newest command
}

// Findings counts those of a kind and severity.
type Findings struct {
	Kind, Severity string
	N, Open        int
	OldestOpen     time.Time
	Newest         time.Time
}

// Cases counts cases of devices in trouble.
type Cases struct {
	N, Open, Held int
	Devices       int // that they are of
	Newest        time.Time
	Ref           *ledger.Ref
}

// Epochs are keys of sealed data.
type Epochs struct {
	N, Approved int // sealed by a suite this build knows
	Streams     []string
	Newest      time.Time
	Ref         *ledger.Ref
}

// Retired counts ended devices of one phase.
type Retired struct{ N, Unfinished int } // unfinished: keys or certificates are still to be ended

// Order is a production order.
type Order struct {
	ID      string
	Quota   int
	Devices int // registered by it
	Alarms  int // records that cannot be true
	Ref     *ledger.Ref
}

// working are the states in which a device is expected to answer.
func (d Devices) working() bool {
	return d.State == "onboarded" || d.State == "active" || d.State == "quarantined"
}

// sum adds the groups that are working.
func (s Snapshot) sum() Devices {
	return s.sumOf(Devices.working)
}

func (s Snapshot) sumOf(which func(Devices) bool) (t Devices) {
	for _, d := range s.Devices {
		if !which(d) {
			continue
		}
		t.N += d.N
		t.Heard += d.Heard
		t.Good += d.Good
		t.Warned += d.Warned
		t.Bad += d.Bad
		t.Stale += d.Stale
		t.Certified += d.Certified
		t.Current += d.Current
		t.Logged += d.Logged
		t.Identified += d.Identified
		t.HeardFrom, t.HeardTo = earlier(t.HeardFrom, d.HeardFrom), later(t.HeardTo, d.HeardTo)
		t.ProvenFrom, t.ProvenTo = earlier(t.ProvenFrom, d.ProvenFrom), later(t.ProvenTo, d.ProvenTo)
	}
	return t
}

// simulated counts working devices that say they are virtual.
func (s Snapshot) simulated() int {
	return s.sumOf(func(d Devices) bool { return d.working() && d.Virtual }).N
}

// earlier gives the earlier of two times; a zero one is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
