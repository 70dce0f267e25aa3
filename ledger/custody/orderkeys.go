package custody

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// OrderKeyName is the subject of the key.created fact of the key that signs production orders, and what those that came after it are made for.
const OrderKeyName = "order"

// OrderKey is a key that signs, or signed, production orders.
type OrderKey struct {
	SPKI  []byte `json:"spki"`
	Desk  string `json:"desk,omitempty"`  // that has it; empty: the instance
	Ended int64  `json:"ended,omitempty"` // Unix time since when it signs none; 0: it does
}

// OrderKeys are the keys that the control log names for production orders: the instance's, one after another, and those of desks. It is the one list of
// them for whoever checks an order by the log.
type OrderKeys []OrderKey

// maxOrderKeys bounds them: there are a handful at a time.
const maxOrderKeys = 4096

// Learn takes from an entry of the control log what it says of keys for orders. Entries of another kind, and about other keys, change nothing.
func (k OrderKeys) Learn(f wire.Fact) OrderKeys {
	var d struct {
		Name     string `json:"name"`
		Purpose  string `json:"purpose"`
		SPKI     []byte `json:"spki"`
		Desk     string `json:"desk"`
		OrderKey []byte `json:"order_key"`
	}
	switch ledger.Kind(f.Kind) {
	case ledger.KindKeyCreated, ledger.KindKeyRetired, ledger.KindDeskAdded, ledger.KindDeskRemoved:
	default:
		return k
	}
	if json.Unmarshal(f.Data, &d) != nil {
		return k
	}
	switch ledger.Kind(f.Kind) { //nolint:exhaustive // as above
	case ledger.KindKeyCreated:
		if d.Name == f.Subject && (d.Name == OrderKeyName || d.Purpose == OrderKeyName) {
			return k.with(OrderKey{SPKI: d.SPKI})
		}
	case ledger.KindDeskAdded:
		if d.Desk == f.Subject {
			return k.with(OrderKey{SPKI: d.OrderKey, Desk: d.Desk})
		}
	case ledger.KindKeyRetired:
		k.end(d.SPKI, "", f.At)
	case ledger.KindDeskRemoved:
		k.end(d.OrderKey, d.Desk, f.At)
	}
	return k
}

func (k OrderKeys) find(spki []byte) int {
	return slices.IndexFunc(k, func(o OrderKey) bool { return bytes.Equal(o.SPKI, spki) })
}

func (k OrderKeys) with(o OrderKey) OrderKeys {
	if len(o.SPKI) == 0 || len(k) >= maxOrderKeys || k.find(o.SPKI) >= 0 {
		return k
	}
	return append(k, o)
}

func (k OrderKeys) end(spki []byte, desk string, at int64) {
	if i := k.find(spki); i >= 0 && k[i].Desk == desk && k[i].Ended == 0 {
		k[i].Ended = at / 1000
	}
}

// Order verifies the order of an order.created fact: one of the keys signed it, before its end by the order's own time, and it is of the product.
func (k OrderKeys) Order(created wire.Fact, product string) (wire.Order, OrderKey, error) {
	if len(k) == 0 {
		return wire.Order{}, OrderKey{}, fmt.Errorf("the log names no key for orders: %w", errBirth)
	}
	last := errors.New("it is not signed")
	for _, key := range k {
		pub, err := wire.ParseKey(key.SPKI)
		if err != nil {
			last = err
			continue
		}
		o, err := wire.VerifyOrder(created.Data, pub)
		if err != nil {
			last = err
			continue
		}
		if created.Subject != o.Header.ID || o.Header.Product != product {
			return wire.Order{}, key, fmt.Errorf("order %s is for product %s", o.Header.ID, o.Header.Product)
		}
		if key.Ended != 0 && o.Header.Created > uint64(max(0, key.Ended)) {
			return wire.Order{}, key, fmt.Errorf("order %s was made at %s, when its key was not used any more", o.Header.ID, time.Unix(int64(min(o.Header.Created, 1<<40)), 0).UTC().Format(time.RFC3339))
		}
		return o, key, nil
	}
	return wire.Order{}, OrderKey{}, fmt.Errorf("order, by the log's order keys: %w", last)
}

// Signer says who signed an order, in words.
func (k OrderKey) Signer() string {
	if k.Desk != "" {
		return "the order key of desk " + k.Desk
	}
	return "the order key"
}
