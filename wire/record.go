package wire

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"fmt"
)

// PieceOutcome is how the making of one piece ended.
type PieceOutcome string

// The outcomes. A ticket is used up by each of them.
const (
	Made        PieceOutcome = "made"        // all steps passed, fuses read back
	Scrapped    PieceOutcome = "scrapped"    // a step failed; the piece must be destroyed, it may hold a key
	Interrupted PieceOutcome = "interrupted" // the station stopped in between: what became of the piece is unknown, and not good
)

// Record is what the station says of one ticket: COSE_Sign1 by its record key, chained to the one before.
type Record struct {
	Order       string       `cbor:"1,keyasint" json:"order"`
	Station     []byte       `cbor:"2,keyasint" json:"station"` // SHA-256 of the record key
	Seq         uint32       `cbor:"3,keyasint" json:"seq"`     // from 1, without gaps
	Prev        []byte       `cbor:"4,keyasint" json:"prev"`    // SHA-256 of the envelope before; for 1, of the order's envelope
	Ticket      uint32       `cbor:"5,keyasint" json:"ticket"`
	Device      string       `cbor:"6,keyasint" json:"device"`
	Outcome     PieceOutcome `cbor:"7,keyasint" json:"outcome"`
	Reason      string       `cbor:"8,keyasint,omitempty" json:"reason,omitempty"` // unless made
	Chip        *ChipHello   `cbor:"9,keyasint,omitempty" json:"chip,omitempty"`
	Keys        *KeyReply    `cbor:"10,keyasint,omitempty" json:"-"`
	Nonce       []byte       `cbor:"11,keyasint,omitempty" json:"nonce,omitempty"`
	Certificate []byte       `cbor:"12,keyasint,omitempty" json:"certificate,omitempty"` // DER
	ReadBack    *ReadBack    `cbor:"13,keyasint,omitempty" json:"read_back,omitempty"`
	Fuses       *FuseState   `cbor:"14,keyasint,omitempty" json:"fuses,omitempty"`
	Time        uint64       `cbor:"15,keyasint" json:"time"`
	Operator    string       `cbor:"16,keyasint,omitempty" json:"operator,omitempty"`
	Line        string       `cbor:"17,keyasint,omitempty" json:"line,omitempty"`
	Left        uint32       `cbor:"18,keyasint" json:"left"`                              // tickets left after this one
	Rework      uint32       `cbor:"19,keyasint,omitempty" json:"rework,omitempty"`        // the record of the same piece that was not made
	First       bool         `cbor:"20,keyasint,omitempty" json:"first_article,omitempty"` // made to be inspected before others are
}

// JobEnd closes an order at the station: COSE_Sign1 by its record key.
type JobEnd struct {
	Order        string `cbor:"1,keyasint" json:"order"`
	Station      []byte `cbor:"2,keyasint" json:"station"`
	Records      uint32 `cbor:"3,keyasint" json:"records"`
	Made         uint32 `cbor:"4,keyasint" json:"made"`
	Scrapped     uint32 `cbor:"5,keyasint" json:"scrapped"` // and interrupted
	Last         []byte `cbor:"6,keyasint" json:"last"`     // SHA-256 of the last envelope, or of the order's when there is none
	Root         []byte `cbor:"7,keyasint" json:"root"`     // RFC 6962 tree over the envelopes; zeros when there is none
	KeyDestroyed bool   `cbor:"8,keyasint" json:"key_destroyed"`
	Statement    string `cbor:"9,keyasint" json:"statement"` // what exactly was destroyed
	Time         uint64 `cbor:"10,keyasint" json:"time"`
}

// RecordBatch is a run of records as it is sealed to the OEM.
type RecordBatch struct {
	Order   string   `cbor:"1,keyasint"`
	Records [][]byte `cbor:"2,keyasint"`           // envelopes, ascending
	JobEnd  []byte   `cbor:"3,keyasint,omitempty"` // envelope, in the last batch of a closed order
	// Inspections are envelopes, all there are, in the last batch of a file.
	Inspections [][]byte `cbor:"4,keyasint,omitempty"`
}

// RecordFile is what goes back to the OEM: batches sealed with HPKE to the order's return key.
type RecordFile struct {
	Order   string   `cbor:"1,keyasint"`
	Batches [][]byte `cbor:"2,keyasint"`
}

// Bounds of records.
const (
	MaxRecord      = 16 << 10
	MaxJobEnd      = 2 << 10
	MaxRecordBatch = 4 << 20
	MaxRecordFile  = 512 << 20
	BatchRecords   = 200 // records in a batch
	MaxFileBatches = 4096
)

// EncodeRecord writes r.
func EncodeRecord(r Record) ([]byte, error) { return encode(r, MaxRecord) }

// DecodeRecord reads a record's payload; its signature, chain and serial are for the importer to check.
func DecodeRecord(data []byte) (Record, error) { return decode[Record](data, MaxRecord) }

func (r Record) check() error {
	switch {
	case !validName(r.Order) || len(r.Station) != 32 || len(r.Prev) != 32 || r.Seq == 0 || !ValidDeviceID(r.Device):
		return errors.New("record: no order, station, sequence, previous digest or device")
	case r.Outcome != Made && r.Outcome != Scrapped && r.Outcome != Interrupted:
		return fmt.Errorf("record: outcome %q", r.Outcome)
	case len(r.Reason) > 512 || len(r.Operator) > 64 || len(r.Line) > 64:
		return errors.New("record: text too long")
	case r.Outcome == Made && r.Reason != "", r.Outcome != Made && r.Reason == "":
		return errors.New("record: a reason is for pieces that were not made")
	case r.Rework != 0 && (r.Rework >= r.Seq || r.Chip == nil):
		return fmt.Errorf("record %d: rework of record %d, with a chip: %v", r.Seq, r.Rework, r.Chip != nil)
	case len(r.Certificate) > 4<<10 || (len(r.Nonce) != 0 && len(r.Nonce) != 32):
		return errors.New("record: certificate or nonce")
	}
	if r.Outcome == Made && (r.Chip == nil || r.Keys == nil || len(r.Nonce) == 0 || len(r.Certificate) == 0 || r.ReadBack == nil || r.Fuses == nil) {
		return errors.New("record: of a made piece with parts missing")
	}
	return r.checkParts()
}

func (r Record) checkParts() error {
	var err error
	if r.Chip != nil {
		err = errors.Join(err, r.Chip.check())
	}
	if r.Keys != nil {
		err = errors.Join(err, r.Keys.check())
	}
	if r.ReadBack != nil {
		err = errors.Join(err, r.ReadBack.check())
	}
	if r.Fuses != nil {
		err = errors.Join(err, r.Fuses.check())
	}
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// EncodeJobEnd writes j.
func EncodeJobEnd(j JobEnd) ([]byte, error) { return encode(j, MaxJobEnd) }

// DecodeJobEnd reads a job-end certificate's payload.
func DecodeJobEnd(data []byte) (JobEnd, error) { return decode[JobEnd](data, MaxJobEnd) }

func (j JobEnd) check() error {
	if !validName(j.Order) || len(j.Station) != 32 || len(j.Last) != 32 || len(j.Root) != 32 || len(j.Statement) > 512 {
		return errors.New("job end: no order, station or digests")
	}
	if uint64(j.Made)+uint64(j.Scrapped) != uint64(j.Records) {
		return fmt.Errorf("job end: %d made and %d scrapped are not %d records", j.Made, j.Scrapped, j.Records)
	}
	if !j.KeyDestroyed {
		return errors.New("job end: it does not say that the order's key was destroyed")
	}
	return nil
}

// Verify checks what the record itself can show: that the device proved possession of both keys for this very ticket.
func (r Record) Verify() error {
	if r.Outcome != Made {
		return nil
	}
	q := KeyRequest{Order: r.Order, Seq: r.Ticket, Nonce: r.Nonce, Device: r.Device}
	return VerifyPossession(q, r.Chip.ChipUID, *r.Keys)
}

// RecordHash names an envelope in the chain.
func RecordHash(envelope []byte) [32]byte { return sha256.Sum256(envelope) }

func recordInfo(order string) []byte { return []byte("hallmark-records-1/" + order) }

// SealBatch seals b to the order's return key (HPKE, DHKEM P-256, HKDF-SHA256, AES-256-GCM).
func SealBatch(b RecordBatch, returnKey []byte) ([]byte, error) {
	plain, err := encode(b, MaxRecordBatch)
	if err != nil {
		return nil, err
	}
	point, err := ecdh.P256().NewPublicKey(returnKey)
	if err != nil {
		return nil, fmt.Errorf("return key: %w", err)
	}
	pub, err := hpke.NewDHKEMPublicKey(point)
	if err != nil {
		return nil, fmt.Errorf("return key: %w", err)
	}
	return hpke.Seal(pub, hpke.HKDFSHA256(), hpke.AES256GCM(), recordInfo(b.Order), plain)
}

// OpenBatch opens a batch of order with the return key's private half.
func OpenBatch(order string, sealed []byte, key *ecdh.PrivateKey) (RecordBatch, error) {
	if len(sealed) > MaxRecordBatch+1024 {
		return RecordBatch{}, fmt.Errorf("record batch: %w: %d bytes", ErrTooLarge, len(sealed))
	}
	priv, err := hpke.NewDHKEMPrivateKey(key)
	if err != nil {
		return RecordBatch{}, fmt.Errorf("return key: %w", err)
	}
	plain, err := hpke.Open(priv, hpke.HKDFSHA256(), hpke.AES256GCM(), recordInfo(order), sealed)
	if err != nil {
		return RecordBatch{}, errors.New("record batch: it was not sealed for this order's return key, or was changed")
	}
	b, err := DecodeRecordBatch(plain)
	if err == nil && b.Order != order {
		err = fmt.Errorf("record batch: is of order %q", b.Order)
	}
	return b, err
}

// DecodeRecordBatch reads an opened batch.
func DecodeRecordBatch(data []byte) (RecordBatch, error) {
	return decode[RecordBatch](data, MaxRecordBatch)
}

func (b RecordBatch) check() error {
	if !validName(b.Order) || len(b.Records) > BatchRecords || len(b.Inspections) > MaxInspections ||
		len(b.Records) == 0 && len(b.JobEnd) == 0 && len(b.Inspections) == 0 {
		return fmt.Errorf("record batch: of order %q with %d records", b.Order, len(b.Records))
	}
	return nil
}

// DecodeRecordFile reads a file from a station.
func DecodeRecordFile(data []byte) (RecordFile, error) {
	return decode[RecordFile](data, MaxRecordFile)
}

func (f RecordFile) check() error {
	if !validName(f.Order) || len(f.Batches) == 0 || len(f.Batches) > MaxFileBatches {
		return fmt.Errorf("record file: of order %q with %d batches", f.Order, len(f.Batches))
	}
	return nil
}
