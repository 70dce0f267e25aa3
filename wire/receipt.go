package wire

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
)

// Receipt is a device's last word: what it erased by whose leave. It is signed by the attestation key just before that key
// is destroyed, so nothing can follow it.
type Receipt struct {
	Device    string   `cbor:"1,keyasint" json:"device"`
	Command   []byte   `cbor:"2,keyasint" json:"command"` // SHA-256 of the command's payload
	Warrant   string   `cbor:"3,keyasint" json:"warrant"` // ID of the warrant
	Erased    []string `cbor:"4,keyasint" json:"erased"`  // areas erased and read back empty
	Keys      []string `cbor:"5,keyasint" json:"keys"`    // keys destroyed right after signing this
	BootCount uint64   `cbor:"6,keyasint" json:"boot_count"`
	LogSeq    uint64   `cbor:"7,keyasint" json:"log_seq"`
	LogHead   []byte   `cbor:"8,keyasint" json:"log_head"`
	At        uint64   `cbor:"9,keyasint" json:"at"`
	Remains   []string `cbor:"10,keyasint,omitempty" json:"remains,omitempty"` // what it erases only after signing this, last of all: what it runs from; or could not erase
}

// MaxReceipt bounds an encoded Receipt.
const MaxReceipt = 4 << 10

// EncodeReceipt writes r.
func EncodeReceipt(r Receipt) ([]byte, error) { return encode(r, MaxReceipt) }

// DecodeReceipt reads a receipt's payload.
func DecodeReceipt(data []byte) (Receipt, error) { return decode[Receipt](data, MaxReceipt) }

func (r Receipt) check() error {
	switch {
	case r.Device == "" || len(r.Device) > 64 || r.Warrant == "" || len(r.Warrant) > 64:
		return errors.New("wipe receipt: no device or warrant")
	case len(r.Command) != sha256.Size || len(r.LogHead) != sha256.Size:
		return errors.New("wipe receipt: command digest or log head is not 32 bytes")
	case len(r.Erased) == 0 || len(r.Erased) > 32 || len(r.Keys) > 32 || len(r.Remains) > 32:
		return fmt.Errorf("wipe receipt: %d areas, %d keys", len(r.Erased), len(r.Keys))
	}
	for _, name := range slices.Concat(r.Erased, r.Keys, r.Remains) {
		if name == "" || len(name) > 64 {
			return errors.New("wipe receipt: area or key without a name")
		}
	}
	return nil
}
