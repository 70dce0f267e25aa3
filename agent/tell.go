package agent

import (
	"context"
	"crypto"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/agent/devlog"
	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
)

// heartbeatMost is the longest a device keeps silent about its log, as long as it checks in: what is cut off its end is missed by then.
const heartbeatMost = time.Hour

// quiet reports whether there is nothing to tell of the log now. While events wait only for their anchor, heartbeats become rarer.
func (a *Agent) quiet() bool {
	l := a.c.Log
	if seq, _ := l.Head(); seq == l.Acked() {
		if seq == l.AnchoredTo() && a.heartbeatGo < 64 {
			a.heartbeatGo = 64
		}
		if a.heartbeatIn > 0 && time.Since(a.logSent) < heartbeatMost {
			a.heartbeatIn--
			return true
		}
		a.heartbeatGo = min(a.heartbeatGo*2, 64)
	} else {
		a.heartbeatGo = 1
	}
	a.heartbeatIn = a.heartbeatGo
	return false
}

// sendLog hands in what the server does not have, or a heartbeat, and frees what the ledger answers for. told is the server's time.
func (a *Agent) sendLog(ctx context.Context, told uint64) error {
	if a.quiet() {
		return nil
	}
	l := a.c.Log
	key, err := a.attestKey()
	if err != nil {
		return local(err)
	}
	batch, _, err := l.Batch(key, devlog.Says{Boots: a.c.Machine.Facts().BootCount, Trees: a.m.Trees, Now: a.now()})
	if err != nil {
		return local(err)
	}
	reply, err := a.server.Log(ctx, batch)
	if err != nil {
		return err
	}
	a.logSent = time.Now()
	if reply.Fork {
		a.log.Error("the server says that this device's log contradicts what it has: another device may hold this identity, or its flash was set back")
	} else if err := a.taken(l.Ack(reply.Acked, reply.Need)); err != nil {
		return err
	}
	if reply.Anchor == nil {
		return nil
	}
	return a.anchored(key.Public(), reply, told)
}

// anchored believes an anchor by itself alone, and acts on it: what it answers for may be overwritten; where it contradicts this log, the
// log was set back, and goes on from there. What it proves is kept before anything else.
func (a *Agent) anchored(key crypto.PublicKey, reply wire.LogReply, told uint64) error {
	f, l := a.c.Machine.Facts(), a.c.Log
	anchor, err := gate.Anchored(f.Bundle, a.m.Trees, f.Device, key, *reply.Anchor)
	if err != nil {
		a.log.Warn("log anchor not believed", "error", err)
		return nil
	}
	back, err := l.Contradicts(anchor.Batch)
	if err != nil {
		return local(err)
	}
	back = back && anchor.Batch.Last == reply.Acked
	next := a.m
	next.Trees = gate.Grown(next.Trees, anchor.Tree)
	if f.Bundle.Quorum > 0 { // the witnesses and the server agree that it is later
		next.Floor = max(next.Floor, min(uint64(max(anchor.Cosigned.Unix(), 0)), told))
	}
	if back {
		for _, t := range anchor.Batch.Trees {
			next.Trees = gate.Grown(next.Trees, t)
		}
	}
	if back || anchor.Batch.Last > l.AnchoredTo() || next.Floor >= a.m.Floor+uint64(keepFloor/time.Second) {
		if err := a.save(next); err != nil {
			return local(err)
		}
	}
	if back {
		a.log.Error("this device's log was set back; it goes on from what the ledger holds of it", "to", anchor.Batch.Last)
		return local(l.Rejoin(anchor.Batch, f.BootCount, a.now()))
	}
	return a.taken(l.Anchored(anchor.Batch))
}

// taken tells an answer that the log does not take from a log that does not work.
func (a *Agent) taken(err error) error {
	if errors.Is(err, devlog.ErrContradicted) {
		a.log.Warn("the server's answer to the log is not taken", "error", err)
		return nil
	}
	return local(err)
}
