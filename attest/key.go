package attest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// What the store says of a change of keys, for errors.Is.
var (
	ErrChanged  = errors.New("the device has another key by now, or has sent no log yet")
	ErrKeyKnown = errors.New("the key is known already")
)

// KeyChange is a device's new attestation key.
type KeyChange struct {
	Device   string
	From     []byte // SPKI of the key that goes
	To       []byte // SPKI
	Identity []byte // SHA-256 of the SPKI of the factory identity that vouches for it
	At       time.Time
}

// ReplaceKey takes a device's new attestation key, as wire.NewAttestKey has it: from then on evidence, log and receipts are by that key alone. It is
// of a suite that the product's trust bundle accepts. Asked again, after an answer that was lost, it says yes again.
func (s *Service) ReplaceKey(ctx context.Context, caller access.Caller, id string, envelope []byte) error {
	d, err := s.open(ctx, caller, access.DeviceAttest, id)
	if err != nil {
		return err
	}
	n, err := wire.OpenNewAttestKey(envelope, d.AttestKey)
	if err == nil && n.Device != id {
		err = fmt.Errorf("it is of device %s", n.Device)
	}
	if err != nil {
		return fault.Newf(fault.Invalid, "attest.key", "new attestation key of device %s: %w", id, err).With("the device asks again with a key that its present one signed")
	}
	if bytes.Equal(n.New, d.AttestKey) {
		return nil
	}
	if n.Origin != d.KeyOrigin { // nobody but the device says so, and evidence is held against it from then on
		return fault.New(fault.Denied, "attest.key-origin", fmt.Sprintf("device %s says that its new key is %q, and its keys are recorded as %q", id, n.Origin, d.KeyOrigin),
			"a device's own word makes no key better kept: what got other keys in the field comes back by a voucher, and its verdict says so")
	}
	if err := s.accepts(ctx, d.Product, n.New); err != nil {
		return err
	}
	identity, now := sha256.Sum256(n.Identity), s.cfg.Now().UTC()
	err = s.cfg.Store.ReplaceKey(ctx, KeyChange{Device: id, From: d.AttestKey, To: n.New, Identity: identity[:], At: now},
		ledger.New(ledger.KindDeviceAttestKey, now, caller.ID, id, nil, envelope))
	switch {
	case errors.Is(err, ErrKeyKnown):
		return fault.New(fault.Denied, "attest.key-known", "the new attestation key of device "+id+" is, or was, a device's already", "have it make another")
	case errors.Is(err, ErrChanged):
		return fault.Newf(fault.Conflict, "attest.key-changed", "device %s: %w", id, err).With("the device asks again; when it happens anew, look at whether it is one device")
	}
	return err
}

// accepts refuses a key of a suite that the product's trust bundle does not have.
func (s *Service) accepts(ctx context.Context, product string, spki []byte) error {
	pub, err := wire.ParseKey(spki)
	if err != nil {
		return err
	}
	set, err := suite.Of(pub)
	if err != nil {
		return err
	}
	p, err := s.cfg.Policy(ctx, product)
	if err != nil {
		return err
	}
	if !slices.Contains(p.Suites, string(set.ID)) {
		return fault.New(fault.Invalid, "attest.key-suite", fmt.Sprintf("the new attestation key is of suite %s; the trust bundle of product %s accepts %v", set.ID, product, p.Suites),
			"have the device fetch its trust bundle")
	}
	return nil
}
