package wire

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
)

// Custody is a device's chain of custody in one file: the entries of the logs that tell of it and of what those rest on, each log's
// under one checkpoint. It holds no keys to believe: who verifies brings them.
//
// Every byte is under a checkpoint or is checked against what is, but for Left and Pending, which are the server's word.
type Custody struct {
	V       uint            `cbor:"1,keyasint" json:"v"` // 1
	Device  string          `cbor:"2,keyasint" json:"device"`
	Station []byte          `cbor:"3,keyasint,omitempty" json:"station,omitempty"` // record key (SPKI) of the station that made it: its order has the digest
	Logs    []CustodyLog    `cbor:"4,keyasint" json:"logs"`
	Members []CustodyMember `cbor:"5,keyasint,omitempty" json:"members,omitempty"`
	Left    uint64          `cbor:"6,keyasint,omitempty" json:"left,omitempty"`    // older routine facts about the device that are left out
	Pending uint64          `cbor:"7,keyasint,omitempty" json:"pending,omitempty"` // facts about the device that are too new for the checkpoints
}

// CustodyLog is what a custody holds of one log. The root follows from Entries and Hashes: see Root.
type CustodyLog struct {
	Name       string         `cbor:"1,keyasint" json:"name"`
	Size       uint64         `cbor:"2,keyasint" json:"size"`
	Checkpoint string         `cbor:"3,keyasint" json:"checkpoint"` // signed note, with cosignatures
	Entries    []CustodyEntry `cbor:"4,keyasint" json:"entries"`    // by index, each once
	Hashes     []byte         `cbor:"5,keyasint" json:"hashes"`     // of the subtrees without an entry, 32 bytes each, from left to right
}

// CustodyEntry is one entry of a log.
type CustodyEntry struct {
	Index uint64 `cbor:"1,keyasint" json:"index"`
	Entry []byte `cbor:"2,keyasint" json:"entry"`
}

// CustodyMember shows that the device is one of those that a command or warrant of the control log is for.
type CustodyMember struct {
	Index  uint64     `cbor:"1,keyasint" json:"index"` // of the command or warrant
	Member Membership `cbor:"2,keyasint" json:"member"`
}

// Bounds of a Custody.
const (
	MaxCustody        = 64 << 20
	MaxCustodyEntries = 4000 // of one log
)

// EncodeCustody writes c.
func EncodeCustody(c Custody) ([]byte, error) { return encode(c, MaxCustody) }

// DecodeCustody reads a custody. That it holds together is for its verifier to say.
func DecodeCustody(data []byte) (Custody, error) { return decode[Custody](data, MaxCustody) }

func (c Custody) check() error {
	if c.V != 1 || c.Device == "" || len(c.Device) > 64 || len(c.Station) > maxSPKI || len(c.Logs) == 0 || len(c.Logs) > 8 {
		return errors.New("custody: version, device, station or logs out of bounds")
	}
	for i, l := range c.Logs {
		if l.Name == "" || len(l.Name) > 64 || len(l.Checkpoint) > 64<<10 || i > 0 && l.Name <= c.Logs[i-1].Name {
			return fmt.Errorf("custody: log %.64q: name or checkpoint out of bounds, or not in order", l.Name)
		}
		if err := l.check(); err != nil {
			return fmt.Errorf("custody: log %s: %w", l.Name, err)
		}
	}
	for i, m := range c.Members {
		if i > 0 && m.Index <= c.Members[i-1].Index || m.Member.Path == nil || len(m.Member.Path) > 64 {
			return fmt.Errorf("custody: membership in control entry %d: not in order, or its path is missing or too long", m.Index)
		}
	}
	return nil
}

func (l CustodyLog) check() error {
	if len(l.Entries) == 0 || len(l.Entries) > MaxCustodyEntries || len(l.Hashes)%sha256.Size != 0 || l.Size > 1<<62 {
		return errors.New("entries, hashes or size out of bounds")
	}
	for i, e := range l.Entries {
		if e.Index >= l.Size || i > 0 && e.Index <= l.Entries[i-1].Index || len(e.Entry) > MaxFact {
			return fmt.Errorf("entry %d: not in order, not below size %d, or too large", e.Index, l.Size)
		}
	}
	return nil
}

// Root computes the root of the log's tree (RFC 6962 §2.1). It goes down from the root: where a subtree holds none of the entries, its
// hash is the next of Hashes; where it is one entry, its hash is the leaf's. Hashes must be used up.
func (l CustodyLog) Root() ([32]byte, error) {
	if err := l.check(); err != nil {
		return [32]byte{}, err
	}
	p := pruned{entries: l.Entries, hashes: l.Hashes}
	root, err := p.root(0, l.Size)
	if err == nil && (len(p.hashes) != 0 || len(p.entries) != 0) {
		err = errors.New("more hashes than the tree has places for")
	}
	return root, err
}

// pruned is what is left of a log's entries and hashes on the way through its tree.
type pruned struct {
	entries []CustodyEntry
	hashes  []byte
}

func (p *pruned) root(from, size uint64) ([32]byte, error) {
	if len(p.entries) == 0 || p.entries[0].Index-from >= size {
		if len(p.hashes) < sha256.Size {
			return [32]byte{}, errors.New("fewer hashes than the tree has places for")
		}
		h := [32]byte(p.hashes)
		p.hashes = p.hashes[sha256.Size:]
		return h, nil
	}
	if size == 1 {
		e := p.entries[0]
		p.entries = p.entries[1:]
		return leafHash(e.Entry), nil
	}
	k := uint64(1) << (bits.Len64(size-1) - 1)
	left, err := p.root(from, k)
	if err != nil {
		return left, err
	}
	right, err := p.root(from+k, size-k)
	return nodeHash(left, right), err
}
