package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// ChipArea is what a station lays down in the flash of a chip that runs nothing of ours while it is made, and whose keys the station made:
// what a device is given over the programming protocol, and its two private keys. In the flash its length stands before it (four bytes,
// big-endian), and what is behind it is erased.
type ChipArea struct {
	Install  Install `cbor:"1,keyasint"`
	Identity []byte  `cbor:"2,keyasint"` // P-256 private key, 32 bytes (SEC 1, 2.3.7)
	Attest   []byte  `cbor:"3,keyasint"` // likewise

	Places []ChipPlace `cbor:"4,keyasint"` // of the release's components
}

// ChipPlace is where a component lies in the flash: At bytes behind the area's first byte, or before it.
type ChipPlace struct {
	Component string `cbor:"1,keyasint"`
	At        int64  `cbor:"2,keyasint"`
}

// MaxChipArea bounds it, with its length.
const MaxChipArea = MaxOrderContent

// EncodeChipArea writes a with its length. It has private keys: clear it after use.
func EncodeChipArea(a ChipArea) ([]byte, error) {
	body, err := encode(a, MaxChipArea-4)
	if err != nil {
		return nil, err
	}
	defer clear(body)
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body))), body...), nil
}

// DecodeChipArea reads what is in the flash from the area's first byte on; what is behind it is not looked at.
func DecodeChipArea(data []byte) (ChipArea, error) {
	if len(data) < 4 {
		return ChipArea{}, errors.New("chip area: no length")
	}
	n := binary.BigEndian.Uint32(data)
	if n > MaxChipArea-4 || uint64(n) > uint64(len(data)-4) {
		return ChipArea{}, fmt.Errorf("chip area: %w: %d bytes of %d", ErrTooLarge, n, len(data)-4)
	}
	return decode[ChipArea](data[4:4+n], MaxChipArea-4)
}

func (a ChipArea) check() error {
	if len(a.Identity) != 32 || len(a.Attest) != 32 || string(a.Identity) == string(a.Attest) {
		return errors.New("chip area: two private keys of 32 bytes wanted")
	}
	if len(a.Places) == 0 || len(a.Places) > MaxComponents {
		return fmt.Errorf("chip area: places of %d components", len(a.Places))
	}
	for i, p := range a.Places {
		if p.Component == "" || len(p.Component) > 64 || slices.ContainsFunc(a.Places[:i], func(o ChipPlace) bool { return o.Component == p.Component }) {
			return errors.New("chip area: a component without a name, or in two places")
		}
	}
	return a.Install.check()
}
