package agent

import (
	"context"
	"fmt"
	"strings"

	"github.com/hallmark-iot/hallmark/agent/gate"
	"github.com/hallmark-iot/hallmark/wire"
)

// attest answers a challenge: everything in the token is read now.
func (a *Agent) attest(ctx context.Context, nonce []byte) error {
	codeKey := a.codeKey()
	envelope, err := a.evidence(nonce, codeKey)
	if err != nil {
		return local(err)
	}
	reply, err := a.server.Attest(ctx, envelope)
	if err != nil {
		return err
	}
	f := a.c.Machine.Facts()
	if a.verdict, err = gate.Verdict(f.Bundle, f.Device, envelope, reply.Signed); err != nil {
		a.log.Warn("the verdict counts for nothing", "says", reply.Status, "error", err)
	}
	a.log.Info("verdict", "status", a.verdict, "reasons", strings.Join(reply.Reasons, "; "))
	if len(codeKey) > 0 {
		a.unlock(reply, nonce)
	}
	if a.m.Attest {
		next := a.m
		next.Attest = false
		return local(a.save(next))
	}
	return nil
}

// codeKey is what keys are to be wrapped to, if a program waits for one.
func (a *Agent) codeKey() []byte {
	if !a.locked() {
		return nil
	}
	key, err := a.c.Machine.(Keyed).CodeKey()
	if err != nil {
		a.log.Error("protected programs stay closed", "error", err)
		return nil
	}
	return key
}

func (a *Agent) locked() bool {
	k, ok := a.c.Machine.(Keyed)
	return ok && k.Locked()
}

// unlock has the programs started whose keys came. Without them the device works on as far as it can, and asks again.
func (a *Agent) unlock(reply wire.AttestReply, nonce []byte) {
	if a.noKeys = reply.NoKeys; len(reply.Keys) == 0 {
		a.log.Warn("no keys for protected programs", "reason", reply.NoKeys)
		return
	}
	if err := a.c.Machine.(Keyed).Unlock(reply.Keys, nonce); err != nil {
		a.log.Error("keys of protected programs", "error", err)
	}
}

// isolation is what holds the programs now; nil: nobody here knows.
func (a *Agent) isolation() *wire.Isolation {
	if a.c.Program == nil {
		return &wire.Isolation{} // none runs
	}
	c, ok := a.c.Program.(Confined)
	if !ok {
		return nil
	}
	held, _ := c.Isolation()
	return &held
}

func (a *Agent) evidence(nonce, codeKey []byte) ([]byte, error) {
	f := a.c.Machine.Facts()
	key, err := a.attestKey()
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	instance, err := wire.InstanceID(key.Public())
	if err != nil {
		return nil, err
	}
	components, err := a.c.Machine.Measure()
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	seq, head := a.c.Log.Head()
	payload, err := wire.EncodeEvidence(wire.Evidence{
		Nonce: nonce, InstanceID: instance, Profile: wire.PSAProfile, BootSeed: f.BootSeed, ClientID: 1,
		Lifecycle: f.Lifecycle, Implementation: f.Implementation[:], Components: components,
		Device: f.Device, Virtual: f.Virtual, Hardware: f.Hardware, DebugLocked: f.DebugLocked,
		BootCount: f.BootCount, Counter: f.Fuses, POST: f.POST, LogHead: head[:], LogSeq: seq,
		Bundle: f.Bundle.Version, KeyOrigin: a.keyOrigin(), Parts: f.Parts, Isolation: a.isolation(), CodeKey: codeKey,
	})
	if err != nil {
		return nil, err
	}
	return wire.Sign1(wire.TypeEvidence, payload, key)
}
