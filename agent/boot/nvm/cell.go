// Package nvm keeps records in flash that are old or new after a power cut, never a mixture.
//
// Under all stages, on the device. A Cell is two banks of whole sectors. A write erases what it needs of the bank that does not hold the newest
// record, programs the data, and last the page that says how long it is and what its digest is: until that page is whole, the record
// before stands. It trusts the flash only to leave other sectors alone.
package nvm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hallmark-iot/hallmark/agent/hw"
)

// ErrEmpty says that nothing was ever saved, or that it was wiped.
var ErrEmpty = errors.New("nothing is stored")

// headLen is the length of a bank's head: magic, sequence number, length, digest of all that and the data.
const headLen = 4 + 8 + 4 + sha256.Size

var magic = [4]byte{'H', 'M', 'c', '1'}

// Cell holds one record.
type Cell struct {
	r    hw.Region
	bank int64 // bytes
}

// head is what a bank says it holds.
type head struct {
	seq    uint64
	length uint32
	sum    [sha256.Size]byte
}

// New takes a region of an even number of sectors.
func New(r hw.Region) (*Cell, error) {
	if r.Size()%(2*r.Sector()) != 0 || r.Page() < headLen {
		return nil, fmt.Errorf("cell of %d bytes: %w: want two banks of whole sectors and pages of at least %d bytes", r.Size(), hw.ErrRange, headLen)
	}
	return &Cell{r: r, bank: r.Size() / 2}, nil
}

// Max is the longest record in bytes.
func (c *Cell) Max() int { return int(c.bank - c.r.Page()) }

// Region is where it is.
func (c *Cell) Region() hw.Region { return c.r }

// Load gives the newest whole record; ErrEmpty when there is none.
func (c *Cell) Load() ([]byte, error) {
	_, data, err := c.newest()
	return data, err
}

func (c *Cell) newest() (bank int64, data []byte, err error) {
	best, found := head{}, int64(-1)
	for b := range int64(2) {
		h, d, ok, err := c.read(b)
		if err != nil {
			return 0, nil, err
		}
		if ok && (found < 0 || h.seq > best.seq) {
			best, found, data = h, b, d
		}
	}
	if found < 0 {
		return 0, nil, ErrEmpty
	}
	return found, data, nil
}

func (c *Cell) read(bank int64) (h head, data []byte, ok bool, err error) {
	var b [headLen]byte
	off := bank * c.bank
	if _, err := c.r.ReadAt(b[:], off); err != nil {
		return head{}, nil, false, err
	}
	h, ok = parseHead(b[:], c.Max())
	if !ok {
		return head{}, nil, false, nil
	}
	data = make([]byte, h.length)
	if _, err := c.r.ReadAt(data, off+c.r.Page()); err != nil {
		return head{}, nil, false, err
	}
	return h, data, h.sum == digest(h.seq, data), nil
}

// parseHead reads a bank's head; ok says only that it may be one.
func parseHead(b []byte, limit int) (h head, ok bool) {
	if len(b) < headLen || !bytes.Equal(b[:4], magic[:]) {
		return head{}, false
	}
	h.seq, h.length = binary.BigEndian.Uint64(b[4:]), binary.BigEndian.Uint32(b[12:])
	copy(h.sum[:], b[16:])
	return h, int64(h.length) <= int64(limit) && h.seq > 0
}

func digest(seq uint64, data []byte) [sha256.Size]byte {
	h := sha256.New()
	var b [12]byte
	binary.BigEndian.PutUint64(b[:], seq)
	binary.BigEndian.PutUint32(b[8:], uint32(len(data)))
	h.Write(b[:])
	h.Write(data)
	return [sha256.Size]byte(h.Sum(nil))
}

// Save replaces the record. After a power cut Load gives the one before or data.
func (c *Cell) Save(data []byte) error {
	if len(data) > c.Max() {
		return fmt.Errorf("record of %d bytes, at most %d: %w", len(data), c.Max(), hw.ErrRange)
	}
	bank, seq := int64(0), uint64(1)
	switch b, old, err := c.newest(); {
	case errors.Is(err, ErrEmpty):
	case err != nil:
		return err
	case bytes.Equal(old, data):
		return nil // it is there: nothing to wear the flash for
	default:
		h, _, _, err := c.read(b)
		if err != nil {
			return err
		}
		bank, seq = 1-b, h.seq+1
	}
	off, page := bank*c.bank, c.r.Page()
	if err := c.erase(bank, page+int64(len(data))); err != nil {
		return err
	}
	if len(data) > 0 {
		if err := c.r.Program(off+page, pad(data, page)); err != nil {
			return err
		}
	}
	sum := digest(seq, data)
	b := binary.BigEndian.AppendUint64(magic[:len(magic):len(magic)], seq)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return c.r.Program(off, pad(append(b, sum[:]...), page))
}

// erase clears the sectors of a bank's first size bytes: what is behind them means nothing, and is spared.
func (c *Cell) erase(bank, size int64) error {
	sector := c.r.Sector()
	for n := int64(0); n*sector < size; n++ {
		if err := c.r.Erase(bank*c.bank/sector + n); err != nil {
			return err
		}
	}
	return nil
}

// Purge clears what the record replaced, and reads back that it is gone. The record stays.
func (c *Cell) Purge() error {
	bank, _, err := c.newest()
	if err != nil {
		return err
	}
	if err := c.erase(1-bank, c.bank); err != nil {
		return err
	}
	return c.r.Blank((1-bank)*c.bank, c.bank)
}

// Wipe clears the record and reads back that it is gone. What was replaced goes first: a power cut must not bring it back.
func (c *Cell) Wipe() error {
	newest, _, err := c.newest()
	if err != nil && !errors.Is(err, ErrEmpty) {
		return err
	}
	for _, bank := range []int64{1 - newest, newest} {
		if err := c.erase(bank, c.bank); err != nil {
			return err
		}
	}
	return c.r.Blank(0, c.r.Size())
}

// pad fills up to a whole page with erased bytes.
func pad(data []byte, page int64) []byte {
	n := (int64(len(data)) + page - 1) / page * page
	out := bytes.Repeat([]byte{0xff}, int(n))
	copy(out, data)
	return out
}
