package agent

import (
	"context"
	"errors"
	"net/http"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/link"
	"github.com/hallmark-iot/hallmark/wire"
)

// wipe ends the device's life, in steps that can each be repeated:
//
//  1. the intent and the log's last head are recorded
//  2. everything but the agent's record and the identity is erased and read back
//  3. the receipt is signed and recorded; then the attestation key is destroyed
//  4. the receipt is sent until the server has it, and that it has is recorded (finishWipe)
//  5. the remaining keys and the record are destroyed, the life cycle is burned, and the bank that the machine runs from is cleared (end)
func (a *Agent) wipe(t *task) error {
	if len(t.LogHead) == 0 {
		if err := a.record(eventWipe, &t.Cause, "by warrant "+t.Warrant); err != nil {
			return err
		}
		nt := *t
		seq, head := a.c.Log.Head()
		nt.LogSeq, nt.LogHead = seq, head[:]
		next := a.m
		next.Task, next.Guard = &nt, nil
		if err := a.save(next); err != nil {
			return local(err)
		}
		t = a.m.Task
	}
	if a.c.Program != nil {
		if err := a.c.Program.Isolate(true); err != nil {
			a.log.Warn("the program could not be isolated before the wipe", "error", err)
		}
	}
	erased, remains, err := a.c.Eraser.Erase()
	if err != nil {
		return local(err)
	}
	f := a.c.Machine.Facts()
	payload, err := wire.EncodeReceipt(wire.Receipt{
		Device: f.Device, Command: t.Command, Warrant: t.Warrant, Erased: erased,
		Keys: []string{hw.KeyAttest, hw.KeyLDevID, hw.KeyIDevID, hw.KeyCode}, BootCount: f.BootCount,
		LogSeq: t.LogSeq, LogHead: t.LogHead, At: uint64(a.now().Unix()), Remains: remains,
	})
	if err != nil {
		return local(err)
	}
	key, err := a.attestKey()
	if err != nil {
		return local(err)
	}
	envelope, err := wire.Sign1(wire.TypeReceipt, payload, key)
	if err != nil {
		return local(err)
	}
	nt := *t
	nt.Phase = phaseSend
	next := a.m
	next.Task, next.Receipt, next.Results = &nt, envelope, nil
	if err := a.save(next); err != nil {
		return local(err)
	}
	return a.destroyAttest()
}

// finishWipe sends the receipt and, when the server has it, ends the device.
func (a *Agent) finishWipe(ctx context.Context) error {
	if err := a.destroyAttest(); err != nil {
		return err
	}
	if err := a.server.Receipt(ctx, a.m.Receipt); err != nil {
		var s *link.Status
		if !errors.As(err, &s) || s.Code != http.StatusGone { // gone: it has the receipt and knows this device no more
			return err
		}
	}
	a.log.Info("the receipt is delivered; destroying the remaining keys")
	nt := *a.m.Task
	nt.Phase = phaseEnd
	next := a.m
	next.Task = &nt
	if err := a.save(next); err != nil {
		return local(err)
	}
	return a.end()
}

// end needs neither server nor keys: a cut in it leaves a device that goes on with it at the next start.
func (a *Agent) end() error {
	for _, name := range append(hw.Names(hw.KeyLDevID), hw.KeyIDevID, hw.KeyCode) {
		if err := a.c.Keys.Destroy(name); err != nil {
			return local(err)
		}
	}
	if err := a.c.Eraser.End(); err != nil {
		return local(err)
	}
	return ErrOver
}

// silent reports whether the log is closed: its last head is in the wipe's task, and nothing may follow.
func (a *Agent) silent() bool {
	t := a.m.Task
	return t != nil && (t.Phase == phaseSend || t.Phase == phaseEnd || t.Phase == phaseErase && len(t.LogHead) > 0)
}
