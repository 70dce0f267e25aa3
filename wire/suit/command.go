package suit

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/hallmark-iot/hallmark/wire"
)

// Code is a command's number.
type Code int

// The commands of the draft.
const (
	ConditionVendor     Code = 1
	ConditionClass      Code = 2
	ConditionImageMatch Code = 3
	ConditionSlot       Code = 5
	ConditionContent    Code = 6
	DirectiveIndex      Code = 12
	ConditionAbort      Code = 14
	DirectiveTryEach    Code = 15
	DirectiveWrite      Code = 18
	DirectiveOverride   Code = 20
	DirectiveFetch      Code = 21
	DirectiveCopy       Code = 22
	DirectiveInvoke     Code = 23
	ConditionDevice     Code = 24
	DirectiveSwap       Code = 31
	DirectiveRun        Code = 32
)

// Command is a condition or a directive with its argument: which of the fields that is follows from the code.
type Command struct {
	Code       Code
	Policy     uint64      // of what is reported; of most commands
	Index      uint64      // DirectiveIndex
	Parameters *Parameters // DirectiveOverride
	Try        [][]Command // DirectiveTryEach
	Run        []Command   // DirectiveRun
}

// Parameters are what a directive sets.
type Parameters struct {
	Vendor     []byte  `cbor:"1,keyasint,omitempty"` // UUID
	Class      []byte  `cbor:"2,keyasint,omitempty"` // UUID
	Digest     []byte  `cbor:"3,keyasint,omitempty"` // SUIT_Digest
	Slot       *uint64 `cbor:"5,keyasint,omitempty"`
	Strict     *bool   `cbor:"12,keyasint,omitempty"`
	Soft       *bool   `cbor:"13,keyasint,omitempty"`
	Size       *uint64 `cbor:"14,keyasint,omitempty"` // bytes
	Content    []byte  `cbor:"18,keyasint,omitempty"`
	URI        string  `cbor:"21,keyasint,omitempty"`
	Source     *uint64 `cbor:"22,keyasint,omitempty"` // number of a component
	InvokeArgs []byte  `cbor:"23,keyasint,omitempty"`
	Device     []byte  `cbor:"24,keyasint,omitempty"` // UUID
	FetchArgs  []byte  `cbor:"25,keyasint,omitempty"`
}

func (p Parameters) check() error {
	for what, id := range map[string][]byte{"vendor": p.Vendor, "class": p.Class, "device": p.Device} {
		if id != nil && len(id) != 16 {
			return fmt.Errorf("a %s identifier of %d bytes", what, len(id))
		}
	}
	if p.Digest != nil {
		if _, err := decodeDigest(p.Digest); err != nil {
			return err
		}
	}
	return nil
}

// policed says whether a command's argument is a reporting policy.
func (c Code) policed() bool {
	switch c {
	case ConditionVendor, ConditionClass, ConditionImageMatch, ConditionSlot, ConditionContent, ConditionAbort, ConditionDevice,
		DirectiveWrite, DirectiveFetch, DirectiveCopy, DirectiveSwap, DirectiveInvoke:
		return true
	case DirectiveIndex, DirectiveTryEach, DirectiveOverride, DirectiveRun:
	}
	return false
}

func encodeSequence(list []Command) ([]byte, error) {
	out := make([]any, 0, 2*len(list))
	for _, c := range list {
		arg, err := c.argument()
		if err != nil {
			return nil, err
		}
		out = append(out, int(c.Code), arg)
	}
	return wire.Marshal(out)
}

func (c Command) argument() (any, error) {
	switch {
	case c.Code.policed():
		return c.Policy, nil
	case c.Code == DirectiveIndex:
		return c.Index, nil
	case c.Code == DirectiveOverride && c.Parameters != nil:
		return *c.Parameters, nil
	case c.Code == DirectiveRun:
		return encodeSequence(c.Run)
	case c.Code == DirectiveTryEach:
		out := make([][]byte, len(c.Try))
		for i, list := range c.Try {
			var err error
			if out[i], err = encodeSequence(list); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return nil, fmt.Errorf("suit: command %d is not known here", c.Code)
}

// decodeSequence reads commands and their arguments, one after the other.
func decodeSequence(data []byte, depth int) ([]Command, error) {
	if depth == 0 {
		return nil, fmt.Errorf("sequences in sequences, more than %d deep", maxDepth)
	}
	var list []cbor.RawMessage
	if err := wire.Unmarshal(data, &list, MaxEnvelope); err != nil {
		return nil, err
	}
	if len(list) == 0 || len(list)%2 != 0 || len(list) > 2*maxCommands {
		return nil, fmt.Errorf("%d commands with their arguments, want pairs, at most %d", len(list), maxCommands)
	}
	var out []Command
	for i := 0; i < len(list); i += 2 {
		c, err := decodeCommand(list[i], list[i+1], depth)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

func decodeCommand(code, arg []byte, depth int) (c Command, err error) {
	if err := wire.Unmarshal(code, &c.Code, MaxEnvelope); err != nil {
		return c, err
	}
	switch {
	case c.Code.policed():
		if err = wire.Unmarshal(arg, &c.Policy, MaxEnvelope); err == nil && c.Policy > 15 {
			err = errors.New("a reporting policy of more than four bits")
		}
	case c.Code == DirectiveIndex:
		err = wire.Unmarshal(arg, &c.Index, MaxEnvelope)
	case c.Code == DirectiveOverride:
		c.Parameters = new(Parameters)
		if err = wire.Unmarshal(arg, c.Parameters, MaxEnvelope); err == nil {
			err = c.Parameters.check()
		}
	case c.Code == DirectiveRun:
		var b []byte
		if err = wire.Unmarshal(arg, &b, MaxEnvelope); err == nil {
			c.Run, err = decodeSequence(b, depth-1)
		}
	case c.Code == DirectiveTryEach:
		var ways [][]byte
		if err = wire.Unmarshal(arg, &ways, MaxEnvelope); err == nil && len(ways) < 2 {
			err = errors.New("less than two ways to try")
		}
		for _, b := range ways {
			if err != nil {
				break
			}
			var way []Command
			way, err = decodeSequence(b, depth-1)
			c.Try = append(c.Try, way)
		}
	default:
		err = errors.New("it is not known here")
	}
	if err != nil {
		err = fmt.Errorf("command %d: %w", c.Code, err)
	}
	return c, err
}
