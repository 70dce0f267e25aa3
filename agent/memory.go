package agent

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
)

// memory is all the agent keeps over a restart: one record, saved whole, so that what belongs together changes together.
type memory struct {
	Counter uint64          `cbor:"1,keyasint"`           // highest directive counter accepted
	Trees   []wire.TreeHead `cbor:"2,keyasint,omitempty"` // the largest accepted of each log
	Seq     uint64          `cbor:"3,keyasint"`           // of the last result
	Results []wire.Result   `cbor:"4,keyasint,omitempty"`
	Guard   *guard          `cbor:"5,keyasint,omitempty"`
	Task    *task           `cbor:"6,keyasint,omitempty"`
	LDevID  [][]byte        `cbor:"8,keyasint,omitempty"` // chain, leaf first
	Key     string          `cbor:"9,keyasint,omitempty"` // key store name of its key
	Booted  uint64          `cbor:"10,keyasint"`          // boot count last written to the log
	Receipt []byte          `cbor:"11,keyasint,omitempty"`
	Attest  bool            `cbor:"12,keyasint,omitempty"` // a directive asked for evidence: wish to be challenged
	Floor   uint64          `cbor:"13,keyasint,omitempty"` // the latest time signed to it: it can only be later
	Restart *wire.LogRef    `cbor:"14,keyasint,omitempty"` // the command that the next start follows from
	Owner   *wire.Ownership `cbor:"23,keyasint,omitempty"` // whom it belongs to; nil: nobody
	Token   *wire.Token     `cbor:"26,keyasint,omitempty"` // the rolling check-in token, as it is sent
	Doubts  uint            `cbor:"27,keyasint,omitempty"` // refusals in a row since it last enrolled, or last tried to
	Signs   string          `cbor:"31,keyasint,omitempty"` // key store name of the attestation key; empty: the factory's
	Next    string          `cbor:"32,keyasint,omitempty"` // of the one that it is to be changed for; the server may have it
	Ways    gate.Ways       `cbor:"33,keyasint,omitempty"` // by which it came to what it runs, and what it left behind
	Agreed  []byte          `cbor:"36,keyasint,omitempty"` // the command (digest) that somebody beside it agreed to
	Carried []byte          `cbor:"37,keyasint,omitempty"` // the last offline directive that it accepted: what it tells by hand answers that
	Home    string          `cbor:"35,keyasint,omitempty"` // the server of the home that it was handed to: where to ask, should the trust record be lost
}

// guard is a state the device ends by itself.
type guard struct {
	State string      `cbor:"1,keyasint"` // quarantined or dormant
	Until uint64      `cbor:"2,keyasint"`
	Cause wire.LogRef `cbor:"3,keyasint"` // of the command
}

// The phases of a task. An install is accepted, staged, and then on trial until it is confirmed or gone.
const (
	phaseStage  = "stage"
	phaseTrial  = "trial"
	phaseBundle = "bundle"
	phaseErase  = "erase"
	phaseSend   = "send"  // wiped; the receipt is on its way
	phaseEnd    = "end"   // the server has the receipt; what is left is destroyed
	phaseLeave  = "leave" // to another home; the server here is told first
)

// task is an act that takes more than one step.
type task struct {
	Phase    string         `cbor:"1,keyasint"`
	Act      wire.Act       `cbor:"2,keyasint"`
	Command  []byte         `cbor:"3,keyasint"` // digest
	Cause    wire.LogRef    `cbor:"4,keyasint"`
	Release  []byte         `cbor:"5,keyasint,omitempty"` // envelope of release or bundle
	Digest   []byte         `cbor:"6,keyasint,omitempty"`
	Expires  uint64         `cbor:"7,keyasint"` // of the command: after this no more attempts
	Warrant  string         `cbor:"8,keyasint,omitempty"`
	Before   []byte         `cbor:"9,keyasint,omitempty"`  // digest of what ran
	Deadline uint64         `cbor:"10,keyasint,omitempty"` // of the trial
	Version  uint64         `cbor:"11,keyasint,omitempty"` // of a bundle
	Tried    uint64         `cbor:"12,keyasint,omitempty"` // boot count when the trial was asked for
	Counter  uint32         `cbor:"17,keyasint,omitempty"` // security counter of what ran
	LogSeq   uint64         `cbor:"13,keyasint,omitempty"` // wipe: the log's last event, and the head after it
	LogHead  []byte         `cbor:"14,keyasint,omitempty"`
	Handover *wire.Handover `cbor:"15,keyasint,omitempty"` // rehome
	Said     uint64         `cbor:"16,keyasint,omitempty"` // rehome: the result that says it to the server here
	Forms    []wire.Form    `cbor:"18,keyasint,omitempty"` // of what is fetched
	Window   *wire.Window   `cbor:"19,keyasint,omitempty"` // as the command says
	Manner   wire.Manner    `cbor:"20,keyasint,omitempty"`
	Grace    uint64         `cbor:"21,keyasint,omitempty"`
	Since    uint64         `cbor:"22,keyasint,omitempty"` // when the install was accepted
	Carton   string         `cbor:"23,keyasint,omitempty"` // file that it came in and is fetched from; empty: over a line
}

const (
	maxMemory  = 128 << 10
	maxResults = wire.MaxResults
)

func decodeMemory(raw []byte) (memory, error) {
	var m memory
	if raw == nil {
		return m, nil
	}
	if err := wire.Unmarshal(raw, &m, maxMemory); err != nil {
		return memory{}, fmt.Errorf("the agent's record: %w", err)
	}
	return m, nil
}

// save makes next the record. Nothing in the agent changes when that fails.
func (a *Agent) save(next memory) error {
	raw, err := wire.Marshal(next)
	if err != nil {
		return err
	}
	if err := a.c.Store.Save(raw); err != nil {
		return fmt.Errorf("the agent's record: %w", err)
	}
	a.m = next
	a.clock.learn(next.Floor)
	return nil
}

// treeSize is the largest size accepted of a log; 0: none yet.
func (m memory) treeSize(origin string) uint64 {
	for _, t := range m.Trees {
		if t.Origin == origin {
			return t.Size
		}
	}
	return 0
}

// withResult adds a result to a copy of m. A refusal takes the place of the same one before. When too many wait, because the server never came for them, the oldest refusal goes, and
// only where there is none the oldest of all: what was done is told once, and what was refused would be refused again.
func withResult(m memory, command []byte, act wire.Act, o wire.Outcome, code, text string, now time.Time) memory {
	m.Seq++
	r := wire.Result{
		Command: command, Act: act, Outcome: o, Code: code, Text: text, At: uint64(now.Unix()), Seq: m.Seq,
	}
	m.Results = append(slices.Clone(m.Results), r)
	refused := func(o wire.Result) bool { return o.Outcome == wire.OutcomeRefused && o.Seq != r.Seq }
	if o == wire.OutcomeRefused {
		m.Results = slices.DeleteFunc(m.Results, func(o wire.Result) bool {
			return refused(o) && o.Code == code && bytes.Equal(o.Command, command)
		})
	}
	for len(m.Results) > maxResults {
		i := max(0, slices.IndexFunc(m.Results, refused))
		m.Results = slices.Delete(m.Results, i, i+1)
	}
	return m
}

// acked forgets the results the server has.
func (a *Agent) acked(seq uint64) error {
	if seq > a.m.Seq || len(a.m.Results) == 0 || a.m.Results[0].Seq > seq {
		return nil
	}
	next := a.m
	next.Results = nil
	for _, r := range a.m.Results {
		if r.Seq > seq {
			next.Results = append(next.Results, r)
		}
	}
	return a.save(next)
}

// state is the agent's own state, as check-ins say it.
func (a *Agent) state() string {
	switch {
	case a.m.Task != nil && a.m.Task.Act == wire.ActWipe:
		return "wiping"
	case a.m.Guard != nil:
		return a.m.Guard.State
	case a.c.Machine.Facts().Current == nil:
		return "recovery"
	}
	return "active"
}
