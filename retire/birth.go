package retire

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/custody"
	"github.com/hallmark-iot/hallmark/wire"
)

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
// is signed by a key that the control log names for orders, the instance's or a desk's, and is for the product; the rest is custody.Made's. See
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
	named, err := one(ledger.KindKeyCreated)
	if err != nil {
		if named, err = one(ledger.KindDeskAdded); err != nil {
			return birth{}, fmt.Errorf("the key that signed the order, the instance's or a desk's: %w", err)
		}
	}
	order, key, err := custody.OrderKeys{}.Learn(named).Order(created, p.Product)
	if err != nil {
		return birth{}, err
	}
	if err := namedForOrders(b, key); err != nil {
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
func namedForOrders(b wire.Bundle, k custody.OrderKey) error {
	if b.Orders == nil {
		return nil
	}
	if !slices.ContainsFunc(b.Orders.Keys, func(der []byte) bool { return bytes.Equal(der, k.SPKI) }) {
		return fmt.Errorf("the order is signed by %s, which the trust bundle does not name for orders", k.Signer())
	}
	return nil
}
