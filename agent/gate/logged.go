package gate

import (
	"bytes"
	"crypto"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/wire"
)

// The kinds of control-log entries a device acts on.
const (
	kindCommand = "command.issued"
	kindRelease = "release.published"
	kindWarrant = "warrant.issued"
	kindBundle  = "bundle.published"
)

type logged struct {
	data     []byte // the signed envelope
	ref      wire.LogRef
	tree     wire.TreeHead
	cosigned time.Time // zero: the bundle asks for no witnesses
}

// openLogged believes an entry of the control log when enough witnesses have seen the log that holds it, and the log is not smaller
// and no other than before. How long ago they saw it is clock.fresh's to judge.
func openLogged(s State, what, kind string, l wire.Logged) (logged, *Refusal) {
	cp, r := checkLogged(s.Bundle, s.Bundle.Control, s.Trees, what, l)
	if r != nil {
		return logged{}, r
	}
	fact, err := wire.DecodeFact(l.Entry)
	if err != nil {
		return logged{}, refuse(Malformed, "%s: %v", what, err)
	}
	if fact.Kind != kind {
		return logged{}, refuse(NotLogged, "%s: entry %d is of kind %s, want %s", what, l.Proof.Index, fact.Kind, kind)
	}
	out := logged{data: fact.Data, ref: wire.LogRef{Origin: cp.Origin, Index: l.Proof.Index}, tree: l.Proof.Head(cp)}
	if s.Bundle.Quorum > 0 {
		out.cosigned = cp.Cosigned
	}
	return out, nil
}

// openPart opens what comes with a command: the same log, as fresh.
func openPart(s State, what, kind string, l wire.Logged, p *Plan) (logged, *Refusal) {
	entry, r := openLogged(s, what, kind, l)
	if r != nil {
		return logged{}, r
	}
	if entry.tree.Size == p.Tree.Size && !bytes.Equal(entry.tree.Root, p.Tree.Root) {
		return logged{}, forked(what, entry.tree)
	}
	if r := p.clock.fresh(what, entry.cosigned); r != nil {
		return logged{}, r
	}
	if entry.tree.Size > p.Tree.Size {
		p.Tree = entry.tree
	}
	return entry, nil
}

func checkLogged(b wire.Bundle, log wire.LogTrust, held []wire.TreeHead, what string, l wire.Logged) (wire.Checkpoint, *Refusal) {
	cp, err := l.Proof.Verify(b.Policy(log), l.Entry)
	switch {
	case errors.Is(err, wire.ErrNotWitnessed):
		return cp, refuse(NotWitnessed, "%s: %v", what, err)
	case err != nil:
		return cp, refuse(NotLogged, "%s: %v", what, err)
	}
	return cp, noOther(held, what, cp, l.Proof)
}

// noOther checks that a log is not smaller than before, and no other.
func noOther(held []wire.TreeHead, what string, cp wire.Checkpoint, p wire.Proof) *Refusal {
	for _, h := range held {
		switch {
		case h.Origin != cp.Origin:
		case cp.Size < h.Size:
			return refuse(ShrunkLog, "%s: log %s has %d entries, it had %d", what, cp.Origin, cp.Size, h.Size)
		case cp.Size == h.Size && !bytes.Equal(cp.Root[:], h.Root):
			return forked(what, p.Head(cp))
		}
	}
	return nil
}

// Newest judges the end of a signed history: b, whose envelope is given, must be published in the log that it names itself, witnessed as it
// asks, whatever its age, in a log that is not smaller and no other than before (held). It gives the tree to hold from then on.
func Newest(b wire.Bundle, envelope []byte, held []wire.TreeHead, n wire.NewestBundle) (wire.TreeHead, error) {
	cp, err := wire.VerifyNewest(b, envelope, n)
	if err != nil {
		return wire.TreeHead{}, err
	}
	if r := noOther(held, "newest bundle", cp, n.Logged.Proof); r != nil {
		return wire.TreeHead{}, r
	}
	return n.Logged.Proof.Head(cp), nil
}

func forked(what string, t wire.TreeHead) *Refusal {
	return refuse(ForkedLog, "%s: log %s has another root at size %d than it had: %x", what, t.Origin, t.Size, t.Root)
}

// Grown gives held with t in the place of a smaller tree of its log. The newest log is last; of more than wire.MaxLogTrees, the one that
// has not grown for longest is forgotten.
func Grown(held []wire.TreeHead, t wire.TreeHead) []wire.TreeHead {
	out := make([]wire.TreeHead, 0, len(held)+1)
	for _, h := range held {
		switch {
		case h.Origin != t.Origin:
			out = append(out, h)
		case h.Size > t.Size:
			t = h
		}
	}
	out = append(out, t)
	return out[max(0, len(out)-wire.MaxLogTrees):]
}

// Anchor is a stretch of the device's own log that the ledger answers for.
type Anchor struct {
	Batch    wire.LogBatch
	Tree     wire.TreeHead // of the events log: persist before room is freed
	Cosigned time.Time
}

// Anchored opens the anchor of a stretch of the device's own log: an entry of the events log, witnessed, whatever its age, in a log that
// is not smaller and no other than before (held).
func Anchored(b wire.Bundle, held []wire.TreeHead, device string, key crypto.PublicKey, l wire.Logged) (Anchor, error) {
	cp, r := checkLogged(b, b.Events, held, "anchor", l)
	if r != nil {
		return Anchor{}, r
	}
	fact, err := wire.DecodeFact(l.Entry)
	if err != nil || fact.Kind != "device.log.anchored" {
		return Anchor{}, refuse(Malformed, "anchor: entry %d is no anchor", l.Proof.Index)
	}
	payload, err := wire.Verify1(wire.TypeDeviceLog, fact.Data, key)
	if err != nil {
		return Anchor{}, refuse(Signature, "anchor: %v", err)
	}
	batch, err := wire.DecodeLogBatch(payload)
	if err != nil {
		return Anchor{}, refuse(Malformed, "anchor: %v", err)
	}
	if batch.Device != device {
		return Anchor{}, refuse(NotForMe, "anchor of %s, this is %s", batch.Device, device)
	}
	return Anchor{Batch: batch, Tree: l.Proof.Head(cp), Cosigned: cp.Cosigned}, nil
}
