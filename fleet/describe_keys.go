package fleet

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// describeKeys says what became of a device's keys, and of whom else's devices we believe.
func describeKeys(kind ledger.Kind, data []byte) (string, error) {
	var d struct {
		Voucher string    `json:"voucher"`
		By      string    `json:"by"`
		Second  string    `json:"second"`
		Expires time.Time `json:"expires"`
		Why     string    `json:"why"`
		Reason  string    `json:"reason"`
		Old     string    `json:"old"`
		New     string    `json:"new"`
		Product string    `json:"product"`
		Format  string    `json:"format"`
		Name    string    `json:"name"`
		ID      string    `json:"id"`
		Any     bool      `json:"any"`
		Vendor  string    `json:"vendor"`
		Device  string    `json:"device"`
		Chips   int       `json:"chips"`
		Gateway string    `json:"gateway"`
		Change  string    `json:"change"`

		Assurance string `json:"assurance"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return "", err
	}
	var s string
	switch kind { //nolint:exhaustive // those that Describe sends here
	case ledger.KindVoucherIssued:
		s = fmt.Sprintf("voucher %s for new keys until %s, asked for by %s, agreed to by %s", d.Voucher, d.Expires.UTC().Format("2006-01-02 15:04"), d.By, d.Second)
	case ledger.KindVoucherRevoked:
		s = map[string]string{"replaced": "is replaced by another", "guessed": "is locked after too many wrong tries", "locked": "is locked: it was shown with another chip"}[d.Why]
		if s == "" {
			s = "is revoked"
		}
		s = "voucher " + d.Voucher + " " + s
	case ledger.KindVoucherGuessed:
		s = "voucher " + d.Voucher + " is guessed at, by somebody without its secret; it stays good"
	case ledger.KindDeviceRekeyed:
		s = fmt.Sprintf("has new keys, by voucher %s: identity key %s instead of %s, which counts for nothing any more", d.Voucher, short(d.New), short(d.Old))
	case ledger.KindDeviceImported:
		s = "on the list of devices of other makers, from " + d.Format
		if d.Format == "custody" {
			s = "was handed over by another instance, with its chain of custody"
		}
		if d.Assurance != "" {
			s = "was let in with the client of another update system (" + d.Format + "), which only says what it runs"
		}
		if d.Name != "" {
			s += ", where it is called " + d.Name
		}
	case ledger.KindLegacyChanged:
		s = "client of another update system " + d.Change
		if d.Device == "" {
			s = strings.TrimSuffix("gateway of clients of other update systems "+d.Gateway, " ") + " " + d.Change + " for product " + d.Product
		}
	case ledger.KindForeignTrusted:
		s = fmt.Sprintf("CA %s of another maker is believed for product %s, for devices on the list", short(d.ID), d.Product)
		if d.Any {
			s = fmt.Sprintf("CA %s of another maker is believed for product %s, for every device it signed", short(d.ID), d.Product)
		}
	case ledger.KindForeignEnded:
		s = fmt.Sprintf("CA %s of another maker is believed no more for product %s", short(d.ID), d.Product)
	case ledger.KindChipVendorTrusted:
		s = fmt.Sprintf("manifests of chips by vendor %s are believed", d.Vendor)
	case ledger.KindChipVendorEnded:
		s = fmt.Sprintf("manifests of chips by vendor %s are believed no more", d.Vendor)
	case ledger.KindChipsImported:
		s = fmt.Sprintf("%d chips with keys of vendor %s are known", d.Chips, d.Vendor)
	}
	if d.Reason != "" {
		s += ": " + d.Reason
	}
	return s, nil
}

// describeDesk says where else orders are wrapped.
func describeDesk(kind ledger.Kind, data []byte) (string, error) {
	var d struct {
		Desk     string   `json:"desk"`
		Products []string `json:"products"`
		Quota    uint32   `json:"quota"`
		OrderKey []byte   `json:"order_key"`
		Reason   string   `json:"reason"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return "", err
	}
	key := short(hex.EncodeToString(wire.SealKeyID(d.OrderKey)))
	if kind == ledger.KindDeskAdded {
		return fmt.Sprintf("desk %s, with order key %s, may order %d devices of %s", d.Desk, key, d.Quota, strings.Join(d.Products, ", ")), nil
	}
	s := fmt.Sprintf("no order that desk %s, with order key %s, makes from now on is taken in", d.Desk, key)
	if d.Reason != "" {
		s += ": " + d.Reason
	}
	return s, nil
}

func describeMaster(data []byte) (string, error) {
	var m struct {
		Product  string `json:"product"`
		Hardware string `json:"hardware"`
		Revision uint32 `json:"revision"`
		Digest   string `json:"digest"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return "", err
	}
	return fmt.Sprintf("made of master %d for %s %s, %s; older ones are refused from now on", m.Revision, m.Product, m.Hardware, short(m.Digest)), nil
}

// short is the beginning of a digest.
func short(s string) string { return s[:min(len(s), 8)] }

// describeAttestKey reads a device's change of its attestation key; that it holds was checked when it was taken.
func describeAttestKey(data []byte) (string, error) {
	payload, _, err := wire.ThresholdPayload(wire.TypeAttestKey, data)
	if err != nil {
		return "", err
	}
	n, err := wire.DecodeNewAttestKey(payload)
	if err != nil {
		return "", err
	}
	pub, err := wire.ParseKey(n.New)
	if err != nil {
		return "", err
	}
	set, err := suite.Of(pub)
	return fmt.Sprintf("signs evidence and log by a new key of suite %s from now on, as trust bundle %d wants", set.ID, n.Bundle), err
}
