package watch

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// line is an entry, taken apart. Nothing it says is verified but that it is in its log.
type line struct {
	ledger.Ref
	fact wire.Fact
	kind ledger.Kind
	at   time.Time
	seen time.Time // by the witnesses
	err  error     // it cannot be read

	// By its kind, one of these.
	release *wire.Release
	bundle  *wire.Bundle
	command *wire.Command
	warrant *wire.Warrant
	order   *wire.OrderHeader
	record  *wire.Record
	cert    *x509.Certificate
	key     *createdKey
	grant   *grant
	said    said

	digest  [32]byte     // of a release, as others refer to it
	signers []wire.KeyID // that an envelope claims
}

// createdKey is the data of a key.created fact.
type createdKey struct {
	Name string `json:"name"`
	SPKI []byte `json:"spki"`
	id   string
}

// grant is what access.changed facts have in common: who has which roles.
type grant struct {
	ID     string   `json:"id"`     // of a member
	Caller string   `json:"caller"` // of a new secret
	Roles  []string `json:"roles"`
}

func (g grant) who() string {
	if g.Caller != "" {
		return g.Caller
	}
	return g.ID
}

// said is what is read of the other kinds; what they do not have stays empty.
type said struct {
	Release []byte `json:"release"` // of a rollout
	To      string `json:"to"`      // state of a device
}

// keyID names a key as the policy does.
func keyID(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:16])
}

func read(ref ledger.Ref, entry []byte, seen time.Time) *line {
	l := &line{Ref: ref, seen: seen}
	if l.fact, l.err = wire.DecodeFact(entry); l.err != nil {
		return l
	}
	l.kind, l.at = ledger.Kind(l.fact.Kind), time.UnixMilli(l.fact.At).UTC()
	l.err = l.parse()
	return l
}

func (l *line) parse() (err error) {
	data := l.fact.Data
	switch l.kind { //nolint:exhaustive // of the others nothing is read but that they are there
	case ledger.KindReleaseProposed:
		return l.readRelease(data)
	case ledger.KindReleaseApproved, ledger.KindReleasePublished:
		var payload []byte
		if payload, l.signers, err = wire.ThresholdPayload(wire.TypeRelease, data); err != nil {
			return err
		}
		return l.readRelease(payload)
	case ledger.KindReleaseWithdrawn, ledger.KindReleaseClosed:
		var w struct {
			Release string `json:"release"`
		}
		if err := json.Unmarshal(data, &w); err != nil {
			return err
		}
		raw, err := hex.DecodeString(w.Release)
		if err != nil || len(raw) != sha256.Size {
			return errors.New("the release withdrawn is no digest")
		}
		l.digest = [32]byte(raw)
	case ledger.KindBundlePublished:
		return threshold(wire.TypeBundle, data, &l.signers, &l.bundle, wire.DecodeBundle)
	case ledger.KindWarrantIssued:
		return threshold(wire.TypeWarrant, data, &l.signers, &l.warrant, wire.DecodeWarrant)
	case ledger.KindCommandIssued:
		return signed(wire.TypeCommand, data, &l.signers, &l.command, wire.DecodeCommand)
	case ledger.KindDeviceProvisioned:
		return signed(wire.TypeRecord, data, &l.signers, &l.record, wire.DecodeRecord)
	case ledger.KindOrderCreated:
		var o *wire.Order
		if err := signed(wire.TypeOrder, data, &l.signers, &o, wire.DecodeOrder); err != nil {
			return err
		}
		l.order = &o.Header
	case ledger.KindCACreated, ledger.KindCertIssued:
		l.cert, err = x509.ParseCertificate(data)
	case ledger.KindKeyCreated:
		if err := decode(data, &l.key); err != nil {
			return err
		}
		l.key.id = keyID(l.key.SPKI)
	case ledger.KindDeskAdded:
		var d struct {
			OrderKey []byte `json:"order_key"`
		}
		if err := json.Unmarshal(data, &d); err != nil {
			return err
		}
		l.key = &createdKey{Name: l.fact.Subject, SPKI: d.OrderKey, id: keyID(d.OrderKey)}
	case ledger.KindAccessChanged:
		return decode(data, &l.grant)
	case ledger.KindRolloutCreated, ledger.KindDeviceState, ledger.KindDeviceOnboarded, ledger.KindDeviceQuarantined, ledger.KindDeviceReleased:
		return json.Unmarshal(data, &l.said)
	}
	return err
}

func (l *line) readRelease(payload []byte) error {
	r, err := wire.DecodeRelease(payload)
	l.release, l.digest = &r, wire.ReleaseDigest(payload)
	return err
}

// decode reads a JSON object.
func decode[T any](data []byte, to **T) error {
	var v *T
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	if v == nil {
		return errors.New("null")
	}
	*to = v
	return nil
}

// threshold reads a COSE_Sign, and signed a COSE_Sign1, whose signatures the rules verify.
func threshold[T any](typ wire.Type, data []byte, signers *[]wire.KeyID, to **T, read func([]byte) (T, error)) error {
	payload, by, err := wire.ThresholdPayload(typ, data)
	if err != nil {
		return err
	}
	v, err := read(payload)
	*signers, *to = by, &v
	return err
}

func signed[T any](typ wire.Type, data []byte, signers *[]wire.KeyID, to **T, read func([]byte) (T, error)) error {
	o, err := wire.Parse1(typ, data)
	if err != nil {
		return err
	}
	v, err := read(o.Payload)
	*signers, *to = []wire.KeyID{o.KeyID}, &v
	return err
}
