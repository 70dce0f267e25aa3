// Package ledger keeps every decision and every life-cycle event as a fact in one of two witnessed logs.
//
// Under all stages. A fact commits in the same transaction as the change it tells of; a sequencer gives it its place, a
// publisher signs checkpoints, witnesses cosign them. What it guarantees: nothing acknowledged is lost, nothing placed is ever
// changed or moved, and a log that would contradict what was once witnessed is not signed. It trusts the database to keep what
// it committed, and checks that against the exported tiles at every start.
package ledger

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// Log names one of the two logs.
type Log string

// Control holds what devices verify: releases, commands, warrants, bundles. Events holds everything else.
const (
	Control Log = "control"
	Events  Log = "events"
)

// Kind says what a fact tells of; kinds.go lists them all.
type Kind string

// Ref is a fact's place.
type Ref struct {
	Log   Log    `json:"log"`
	Index uint64 `json:"index"`
}

// Fact is one decision or event.
type Fact struct {
	Log     Log
	UID     [16]byte
	Kind    Kind
	At      time.Time
	Actor   string // who did it: a caller's ID
	Subject string // what it is about: a device, release, rollout, order …
	Cause   *Ref   // the fact that led here
	Data    []byte // see kinds.go; public for ever
	Private []byte // JSON object: what only those who may read the subject see, until it is forgotten; see private.go
}

// New makes a fact for the log of its kind, with a fresh UID, by which its place can be asked for later. What is private of data (private.go) goes into its
// private part.
func New(kind Kind, at time.Time, actor, subject string, cause *Ref, data []byte) Fact {
	logs := kind.Logs()
	if len(logs) != 1 {
		panic("ledger: no one log has facts of kind " + string(kind)) // homes.go has all that this program makes, but the first
	}
	return in(logs[0], kind, at, actor, subject, cause, data)
}

// Genesis makes the first fact of a log.
func Genesis(log Log, at time.Time, actor, subject string, data []byte) Fact {
	return in(log, KindGenesis, at, actor, subject, nil, data)
}

func in(log Log, kind Kind, at time.Time, actor, subject string, cause *Ref, data []byte) Fact {
	f := Fact{Log: log, Kind: kind, At: at.UTC(), Actor: actor, Subject: subject, Cause: cause}
	f.Data, f.Private = split(kind, data)
	_, _ = rand.Read(f.UID[:]) // never fails: crypto/rand ends the process instead
	// 48 bits of time first, as in a UUID version 7: neighbours in time are neighbours in the index, which halves a commit's writes.
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(f.At.UnixMilli()))
	copy(f.UID[:6], ms[2:])
	return f
}

// Veil puts another name in the place of who it was, who is in the private part then.
func (f Fact) Veil(as string) Fact {
	said := map[string]json.RawMessage{}
	if len(f.Private) > 0 && json.Unmarshal(f.Private, &said) != nil {
		panic("ledger: the private part of " + string(f.Kind) + " is no JSON object") // it was made here
	}
	who, err := json.Marshal(f.Actor)
	if err != nil { // a string
		panic("ledger: " + err.Error())
	}
	said[memberActor] = who
	f.Actor, f.Private = as, join(said)
	return f
}

// Unveil gives who a fact was by, for who may read its private part.
func Unveil(actor string, private []byte) string {
	var said struct {
		Actor string `json:"veiled_actor"`
	}
	if len(private) == 0 || json.Unmarshal(private, &said) != nil || said.Actor == "" {
		return actor
	}
	return said.Actor
}

// memberActor is the member of a private part that Veil adds.
const memberActor = "veiled_actor"

// Encode gives the bytes whose hash is the leaf. commitment is to the private part: that of what Seal gave, nil when there is none.
func (f Fact) Encode(commitment []byte) ([]byte, error) {
	if (len(f.Private) > 0) != (len(commitment) > 0) {
		return nil, fmt.Errorf("fact %s about %s: its private part is not sealed", f.Kind, f.Subject)
	}
	w := wire.Fact{
		V: 1, UID: f.UID[:], Kind: string(f.Kind), At: f.At.UnixMilli(), Actor: f.Actor, Subject: f.Subject, Data: f.Data, Private: commitment,
	}
	if f.Cause != nil {
		w.Cause = &wire.FactCause{Log: string(f.Cause.Log), Index: f.Cause.Index}
	}
	return wire.EncodeFact(w)
}

// Decode reads an entry of a log: what Encode wrote.
func Decode(log Log, entry []byte) (Fact, error) {
	w, err := wire.DecodeFact(entry)
	if err != nil {
		return Fact{}, err
	}
	f := Fact{
		Log: log, UID: [16]byte(w.UID), Kind: Kind(w.Kind), At: time.UnixMilli(w.At).UTC(), Actor: w.Actor, Subject: w.Subject, Data: w.Data,
	}
	if w.Cause != nil {
		f.Cause = &Ref{Log: Log(w.Cause.Log), Index: w.Cause.Index}
	}
	return f, nil
}
