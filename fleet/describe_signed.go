package fleet

import (
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// describeSigned says what an envelope or payload of the control log is about, and how many have signed it.
func describeSigned(kind ledger.Kind, data []byte) (string, error) {
	if kind == ledger.KindReleaseProposed {
		return describeRelease(data)
	}
	typ, describe := wire.TypeRelease, describeRelease
	switch kind { //nolint:exhaustive // Describe gives it these and those of releases
	case ledger.KindBundlePublished:
		typ, describe = wire.TypeBundle, describeBundle
	case ledger.KindWarrantIssued:
		typ, describe = wire.TypeWarrant, describeWarrant
	case ledger.KindOrderCreated:
		return describeOrder(data)
	}
	payload, signers, err := wire.ThresholdPayload(typ, data)
	if err != nil {
		return "", err
	}
	s, err := describe(payload)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; signatures: %d", s, len(signers)), nil
}

func describeRelease(payload []byte) (string, error) {
	r, err := wire.DecodeRelease(payload)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("version %s of %s, security counter %d, digest %x", r.Version, r.Product, r.Counter, wire.ReleaseDigest(payload)), nil
}

func describeBundle(payload []byte) (string, error) {
	b, err := wire.DecodeBundle(payload)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("trust bundle %d of %s: releases %d of %d keys, floor %d", b.Version, b.Product, b.Release.Threshold, len(b.Release.Keys), b.Floor), nil
}

func describeWarrant(payload []byte) (string, error) {
	w, err := wire.DecodeWarrant(payload)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("leave to %s (%s) of %s until %s: %s", w.Act, Count(w.Devices.Count, "device", "devices"), w.Product,
		time.Unix(int64(min(w.Expires, 1<<40)), 0).UTC().Format(time.RFC3339), w.Reason), nil
}

func describeOrder(env []byte) (string, error) {
	o, err := wire.Parse1(wire.TypeOrder, env)
	if err != nil {
		return "", err
	}
	d, err := wire.DecodeOrder(o.Payload)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d of %s, hardware %s, from station %x", d.Header.Quota, d.Header.Product, d.Header.Hardware, d.Header.Station), nil
}
