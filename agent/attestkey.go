package agent

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/link"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// The attestation key follows the trust bundle's suites, as the certified key does. The factory identity stays what it is: it is in fuses or a
// secure element, and its certificate has no end.

const eventAttestKey = "attest-key.replaced"

// attestPause is how long a device waits that could not change its attestation key.
const attestPause = time.Hour

// attestKey is the key that signs evidence, the log and receipts.
func (a *Agent) attestKey() (crypto.Signer, error) {
	if a.m.Signs != "" {
		return a.c.Keys.Signer(a.m.Signs)
	}
	k, err := a.c.Keys.Signer(hw.KeyAttest)
	if errors.Is(err, hw.ErrNoKey) { // the record was lost that says which name it has
		if other, err := a.c.Keys.Signer(hw.Other(hw.KeyAttest, hw.KeyAttest)); err == nil {
			return other, nil
		}
	}
	return k, err
}

// destroyAttest destroys the attestation key, whatever its name.
func (a *Agent) destroyAttest() error {
	for _, name := range hw.Names(hw.KeyAttest) {
		if err := a.c.Keys.Destroy(name); err != nil {
			return local(err)
		}
	}
	return nil
}

// attestDue reports whether the attestation key is to be changed: at once when the trust bundle accepts its suite no more, else when the certified key has
// moved, which spreads a fleet over the life of its certificates. Before the device has sent anything of its log nobody could follow.
func (a *Agent) attestDue(now time.Time) (bool, error) {
	if a.m.Next != "" {
		return !now.Before(a.attestAt), nil
	}
	f := a.c.Machine.Facts()
	if a.silent() || f.Lifecycle != wire.LifecycleSecured || len(f.Bundle.Suites) == 0 || a.c.Log.Acked() == 0 || now.Before(a.attestAt) {
		return false, nil
	}
	key, err := a.attestKey()
	if err != nil {
		return false, local(err)
	}
	has, err := suite.Of(key.Public())
	if err != nil {
		return false, local(err)
	}
	wanted, ok := suite.Newest(f.Bundle.Suites)
	if !ok || wanted.ID == has.ID {
		return false, nil
	}
	if !f.Bundle.Accepts(string(has.ID)) {
		return true, nil
	}
	leaf, err := x509.ParseCertificate(a.m.LDevID[0])
	if err != nil {
		return false, local(err)
	}
	return uint64(max(leaf.NotBefore.Unix(), 0)) >= f.Bundle.Issued && wanted.Certifies(leaf.PublicKey), nil
}

// moveAttestation changes the attestation key, when that is due. The new key is made and its name kept before the server hears of it, and the old one
// stays until the new one is recorded: a cut anywhere leaves the key that the server has, and a way on.
func (a *Agent) moveAttestation(ctx context.Context) error {
	now := a.now()
	due, err := a.attestDue(now)
	if err != nil || !due {
		return err
	}
	from, err := a.attestKey()
	if err != nil {
		return local(err)
	}
	to, err := a.nextAttest()
	if errors.Is(err, hw.ErrSuite) {
		a.attestAt = now.Add(attestPause)
		return nil
	}
	if err != nil {
		return local(err)
	}
	identity, err := a.c.Keys.Signer(hw.KeyIDevID)
	if err != nil {
		return local(err)
	}
	f := a.c.Machine.Facts()
	change, err := wire.SignNewAttestKey(wire.NewAttestKey{Device: f.Device, Origin: a.keyOrigin(), Bundle: f.Bundle.Version}, from, identity, to)
	if err != nil {
		return local(err)
	}
	err = a.server.AttestKey(ctx, change)
	if s, ok := errors.AsType[*link.Status](err); ok && s.Code < 500 { // a server that does not take it must not keep the device from being commanded
		a.attestAt = now.Add(attestPause)
		a.log.Warn("the attestation key stays as it is", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	return a.attestMoved(to)
}

// nextAttest is the key to change for: the one that was made before, which the server may have already, or a new one.
func (a *Agent) nextAttest() (crypto.Signer, error) {
	if a.m.Next != "" {
		if k, err := a.c.Keys.Signer(a.m.Next); !errors.Is(err, hw.ErrNoKey) {
			return k, err
		}
	}
	now := a.m.Signs
	if now == "" {
		now = hw.KeyAttest
	}
	next := a.m
	next.Next = hw.Other(hw.KeyAttest, now)
	if err := a.c.Keys.Destroy(next.Next); err != nil {
		return nil, err
	}
	if err := a.make(next.Next, func(s suite.Suite) suite.ID { return s.ID }); err != nil {
		return nil, err
	}
	if err := a.save(next); err != nil {
		return nil, err
	}
	return a.c.Keys.Signer(next.Next)
}

func (a *Agent) attestMoved(to crypto.Signer) error {
	set, err := suite.Of(to.Public())
	if err != nil {
		return local(err)
	}
	if err := a.record(eventAttestKey, nil, fmt.Sprintf("suite %s", set.ID)); err != nil {
		return err
	}
	old, next := a.m.Signs, a.m
	if old == "" {
		old = hw.KeyAttest
	}
	next.Signs, next.Next = next.Next, ""
	if err := a.save(next); err != nil {
		return local(err)
	}
	return local(a.c.Keys.Destroy(old))
}

// keyOrigin says what guards the device's keys. Those that its station made were known to others, whatever guards them now.
func (a *Agent) keyOrigin() string { return cmp.Or(a.c.Machine.Facts().KeyOrigin, a.c.Keys.Origin()) }
