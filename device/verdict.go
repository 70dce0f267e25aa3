package device

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// SignVerdict signs what the verifier found of a device's evidence, which was opened, by a key of the directive authority that the device believes by the
// bundle it has. The device confirms a release on trial by nothing less.
func (s *Service) SignVerdict(ctx context.Context, caller access.Caller, id string, evidence []byte, status string) ([]byte, error) {
	d, err := s.open(ctx, caller, access.DeviceAttest, id)
	if err != nil {
		return nil, err
	}
	o, err := wire.Parse1(wire.TypeEvidence, evidence)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "attest.evidence", "evidence of %s: %w", id, err).With("see which version of the agent the device runs")
	}
	e, err := wire.DecodeEvidence(o.Payload)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "attest.evidence", "evidence of %s: %w", id, err).With("see which version of the agent the device runs")
	}
	held, err := s.cfg.Trust.Bundle(ctx, d.Product, e.Bundle)
	if e.Bundle == 0 || err != nil {
		return nil, fmt.Errorf("device %s says that it has trust bundle %d: %w", id, e.Bundle, err)
	}
	key, ok := s.authority(held.Wire)
	if !ok {
		return nil, errBlind
	}
	digest := sha256.Sum256(evidence)
	payload, err := wire.EncodeVerdict(wire.Verdict{Device: id, Evidence: digest[:], Status: status})
	if err != nil {
		return nil, err
	}
	return wire.Sign1(wire.TypeVerdict, payload, key)
}
