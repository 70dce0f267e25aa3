package wire

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// TypeInspection is the `typ` of an inspection.
const TypeInspection Type = "application/hallmark-inspection+cose"

// Inspection is what somebody saw of an order's first article, before more were made: COSE_Sign1 by the station's record key. The station
// does not know whether it is true; it knows who said it, when, and of which piece.
type Inspection struct {
	Order   string `cbor:"1,keyasint" json:"order"`
	Station []byte `cbor:"2,keyasint" json:"station"` // SHA-256 of the record key
	Device  string `cbor:"3,keyasint" json:"device"`
	Record  []byte `cbor:"4,keyasint" json:"record"` // RecordHash of the piece's record
	Passed  bool   `cbor:"5,keyasint" json:"passed"`
	By      string `cbor:"6,keyasint" json:"by"`
	Notes   string `cbor:"7,keyasint,omitempty" json:"notes,omitempty"`
	Time    uint64 `cbor:"8,keyasint" json:"time"`
	Seq     uint32 `cbor:"9,keyasint" json:"seq"` // of the order's inspections, from 1
}

// Bounds of inspections. MaxInspections is how many an order can have.
const (
	MaxInspection  = 4 << 10
	MaxInspections = 64
)

// EncodeInspection writes i.
func EncodeInspection(i Inspection) ([]byte, error) { return encode(i, MaxInspection) }

// DecodeInspection reads an inspection's payload; its signature and its record are for the importer to check.
func DecodeInspection(data []byte) (Inspection, error) {
	return decode[Inspection](data, MaxInspection)
}

func (i Inspection) check() error {
	switch {
	case !validName(i.Order) || len(i.Station) != 32 || len(i.Record) != 32 || !ValidDeviceID(i.Device) || i.Seq == 0 || i.Seq > MaxInspections:
		return errors.New("inspection: no order, station, record, device or place")
	case i.By == "" || len(i.By) > 64 || len(i.Notes) > 1024 || !utf8.ValidString(i.By) || !utf8.ValidString(i.Notes):
		return fmt.Errorf("inspection: say who inspected, in at most 64 bytes, and what was seen in at most 1024")
	case !i.Passed && i.Notes == "":
		return errors.New("inspection: of an article that failed, say what was wrong")
	}
	return nil
}
