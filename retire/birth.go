package retire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/custody"
	"github.com/hallmark-iot/hallmark/wire"
)

// OrderKeyName is the subject of the key.created fact of the key that signs production orders.
const OrderKeyName = custody.OrderKeyName

// birth is what a proof shows of a device's making.
type birth struct {
	order, station string
	attest         []byte // SubjectPublicKeyInfo
	identity       []byte // the same, of the factory identity
}

// grown follows the changes of the attestation key that the proof has, in their order.
func (b birth) grown(device string, changes []wire.Fact) (birth, error) {
	for _, f := range changes {
		n, err := wire.OpenNewAttestKey(f.Data, b.attest)
		if err != nil {
			return b, err
		}
		if n.Device != device || f.Subject != device || !bytes.Equal(n.Identity, b.identity) {
			return b, fmt.Errorf("a new attestation key of device %s, or vouched for by another identity", n.Device)
		}
		b.attest = n.New
	}
	return b, nil
}

// checkBirth finds the one production record of the device and verifies everything that vouches for the attestation key in it: the order
// is signed by the key that the control log names as the one for orders, and is for the product; the rest is custody.Made's. See
// VerifyProof for what is trusted.
func checkBirth(b wire.Bundle, p Proof, one func(ledger.Kind) (wire.Fact, error)) (birth, error) {
	made, err := one(ledger.KindDeviceProvisioned)
	if err != nil {
		return birth{}, err
	}
	created, err := one(ledger.KindOrderCreated)
	if err != nil {
		return birth{}, err
	}
	orderKey, err := one(ledger.KindKeyCreated)
	if err != nil {
		return birth{}, err
	}
	if err := namedForOrders(b, orderKey); err != nil {
		return birth{}, err
	}
	order, err := custody.Ordered(created, orderKey, p.Product)
	if err != nil {
		return birth{}, err
	}
	r, err := custody.Made(b.Anchors, order.Header, p.Station, made)
	if err != nil {
		return birth{}, err
	}
	if r.Device != p.Device {
		return birth{}, fmt.Errorf("the production record is of device %s", r.Device)
	}
	return birth{order: order.Header.ID, station: hex.EncodeToString(order.Header.Station), attest: r.Keys.Attest, identity: r.Keys.IDevID}, nil
}

// namedForOrders checks that the trust bundle names the key for orders. Bundles of before name none: then the control log's word is all there
// is.
func namedForOrders(b wire.Bundle, created wire.Fact) error {
	if b.Orders == nil {
		return nil
	}
	var k struct {
		SPKI []byte `json:"spki"`
	}
	if err := json.Unmarshal(created.Data, &k); err != nil {
		return fmt.Errorf("order key: %w", err)
	}
	if !slices.ContainsFunc(b.Orders.Keys, func(der []byte) bool { return bytes.Equal(der, k.SPKI) }) {
		return errors.New("the order is signed by a key that the trust bundle does not name for orders")
	}
	return nil
}
