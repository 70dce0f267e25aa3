package factory

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Inspections keeps what stations said of first articles. Writes are durable, with their facts, when they return nil.
type Inspections interface {
	// PutInspection changes nothing when the envelope is here already.
	PutInspection(ctx context.Context, order string, seq uint32, envelope []byte, fact ledger.Fact) error
	// Inspections gives those of an order as they were said, oldest first.
	Inspections(ctx context.Context, order string) ([][]byte, error)
	// MadeAs gives the device that was accepted by the record with this hash; empty when none was.
	MadeAs(ctx context.Context, order string, record []byte) (device string, err error)
}

// Inspected is one inspection, as it is shown and as the data of its order.inspected fact.
type Inspected struct {
	Order  string    `json:"order"`
	Device string    `json:"device"`
	Record string    `json:"record"` // hash of the piece's record
	Passed bool      `json:"passed"`
	By     string    `json:"by"`
	Notes  string    `json:"notes,omitempty"`
	At     time.Time `json:"at"`
	Said   string    `json:"said"` // hash of what the station signed
}

func (v verifier) inspection(envelope []byte) (wire.Inspection, Inspected, error) {
	payload, err := v.said(wire.TypeInspection, envelope)
	if err != nil {
		return wire.Inspection{}, Inspected{}, err
	}
	i, err := wire.DecodeInspection(payload)
	if err == nil && (i.Order != v.row.ID || !bytes.Equal(i.Station, v.order.Header.Station)) {
		err = errors.New("it is of another order or station")
	}
	said := wire.RecordHash(envelope)
	return i, Inspected{
		Order: i.Order, Device: i.Device, Record: hex.EncodeToString(i.Record), Passed: i.Passed, By: i.By, Notes: i.Notes,
		At: time.Unix(int64(i.Time), 0).UTC(), Said: hex.EncodeToString(said[:]),
	}, err
}

// inspections takes in what the station said of first articles. It is its word; whether it names a piece that was made shows when the
// order is reconciled.
func (im *importer) inspections(ctx context.Context, list [][]byte) error {
	for _, e := range list {
		i, shown, err := im.inspection(e)
		if err != nil {
			return fault.Newf(fault.Denied, "records.forged", "inspection of order %s: %w", im.row.ID, err).With("take the file as the station wrote it; when it was, look into the station")
		}
		data, err := json.Marshal(shown)
		if err != nil {
			return err
		}
		fact := ledger.New(ledger.KindOrderInspected, im.s.c.Now(), im.caller.ID, im.row.ID, nil, data)
		if err := im.s.c.Inspections.PutInspection(ctx, im.row.ID, i.Seq, e, fact); err != nil {
			return fmt.Errorf("order %s: inspection: %w", im.row.ID, err)
		}
	}
	return nil
}

// early gives the first record of a device that was made before a first article had passed its inspection, itself not being one; 0: none. In the chain of
// records, whose times do not fall, it is enough to look at the first device that is no first article. Who was there when is the station's word.
func (s *Service) early(ctx context.Context, order string, said []Inspected) (uint32, error) {
	first := map[string]bool{} // hashes of the records of first articles
	for after := uint32(0); ; {
		list, err := s.c.Books.RecordsOf(ctx, order, Made, after, 50)
		if err != nil || len(list) == 0 {
			return 0, err
		}
		for _, k := range list {
			after = k.Seq
			rec, err := recordIn(k.Envelope)
			if err != nil {
				return 0, fmt.Errorf("order %s: stored record %d: %w", order, k.Seq, err)
			}
			if rec.First {
				first[hex.EncodeToString(k.Hash)] = true
				continue
			}
			for _, i := range said {
				if i.Passed && first[i.Record] && i.At.Unix() <= int64(rec.Time) {
					return 0, nil
				}
			}
			return k.Seq, nil
		}
	}
}

// inspected reads the inspections of an order, and says whether one passed of a first article that was made and accepted.
func (s *Service) inspected(ctx context.Context, o Order) (list []Inspected, passed bool, err error) {
	list = []Inspected{}
	envelopes, err := s.c.Inspections.Inspections(ctx, o.ID)
	if err != nil || len(envelopes) == 0 {
		return list, false, err
	}
	v, err := s.verifier(ctx, o)
	if err != nil {
		return list, false, err
	}
	for _, e := range envelopes {
		i, shown, err := v.inspection(e)
		if err != nil {
			return list, false, fmt.Errorf("order %s: stored inspection: %w", o.ID, err)
		}
		list = append(list, shown)
		made, err := s.c.Inspections.MadeAs(ctx, o.ID, i.Record)
		if err != nil {
			return list, false, err
		}
		passed = passed || i.Passed && made != "" && made == i.Device
	}
	return list, passed, nil
}
