package wire

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// ErrTooLarge is returned before any parsing when a message exceeds the bound of its type.
var ErrTooLarge = errors.New("message too large")

// ErrNotDeterministic is returned when bytes decode, but are not the one encoding of what they say.
var ErrNotDeterministic = errors.New("not in deterministic encoding")

var encMode, decMode = modes()

func modes() (cbor.EncMode, cbor.DecMode) {
	encOpts := cbor.CoreDetEncOptions()
	enc, err := encOpts.EncMode()
	if err != nil {
		panic(err) // constant options: can only fail when the library changes under us
	}
	dec, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxNestedLevels:   8,
		MaxArrayElements:  4096,
		MaxMapPairs:       256,
		UTF8:              cbor.UTF8RejectInvalid,
		IntDec:            cbor.IntDecConvertNone,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return enc, dec
}

// Marshal writes v in the core deterministic encoding.
func Marshal(v any) ([]byte, error) {
	b, err := encMode.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return b, nil
}

// checked is a message that says whether what is in it can be.
type checked interface{ check() error }

// encode writes v when it is well made and within the bound of its type: what a decoder refuses is never written, so that nothing becomes
// durable that cannot be read again.
func encode[T checked](v T, limit int) ([]byte, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	return bounded(v, limit)
}

// bounded is encode for what has nothing to check but its size, and the length of its lists.
func bounded(v any, limit int) ([]byte, error) {
	b, err := Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(b) > limit {
		return nil, fmt.Errorf("encode %T: %w: %d bytes, at most %d", v, ErrTooLarge, len(b), limit)
	}
	if err := decMode.Wellformed(b); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return b, nil
}

// decode reads what encode wrote. Of what is refused it gives nothing.
func decode[T checked](data []byte, limit int) (T, error) {
	var v, none T
	if err := Unmarshal(data, &v, limit); err != nil {
		return none, err
	}
	if err := v.check(); err != nil {
		return none, err
	}
	return v, nil
}

// Unmarshal reads data into v, a pointer. It refuses more than limit bytes, unknown or repeated keys, indefinite lengths,
// tags, trailing bytes, and any encoding but the deterministic one.
func Unmarshal(data []byte, v any, limit int) error {
	if len(data) > limit {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), limit)
	}
	if err := decMode.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	again, err := encMode.Marshal(v)
	if err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	if !bytes.Equal(again, data) {
		return fmt.Errorf("decode %T: %w", v, ErrNotDeterministic)
	}
	return nil
}
