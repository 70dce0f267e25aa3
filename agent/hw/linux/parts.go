package linux

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/hallmark-iot/hallmark/agent/hw"
)

// A file of parts: the fuses, then for each counter two banks that are written in turn, each in a block of its own.
const (
	softBlock = 4096
	softSize  = softBlock * (1 + 2*softCount)
	softCount = 4 // boots, trust, log, params
	softRoot  = 0 // of the block of fuses: magic, then the words
)

var softMagic = [8]byte{'H', 'M', 'p', 'a', 'r', 't', 's', '1'}

// soft is fuses and counters in a file. They hold as long as nobody writes the file.
type soft struct{ f *os.File }

// createSoft makes a blank file of parts; it is one when the magic is written.
func createSoft(path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: fuses and counters are there already: a board is made once", path)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteAt(make([]byte, softSize), 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if _, err := f.WriteAt(softMagic[:], softRoot); err != nil {
		return err
	}
	return f.Sync()
}

func openSoft(path string) (*soft, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("fuses and counters: %w", err)
	}
	var magic [8]byte
	info, err := f.Stat()
	if err == nil {
		_, err = f.ReadAt(magic[:], softRoot)
	}
	if err != nil || info.Size() != softSize || magic != softMagic {
		return nil, errors.Join(fmt.Errorf("%s is no file of fuses and counters, or was not made whole", path), err, f.Close())
	}
	return &soft{f}, nil
}

func (s *soft) write(b []byte, off int64) error {
	if _, err := s.f.WriteAt(b, off); err != nil {
		return err
	}
	return unix.Fdatasync(int(s.f.Fd()))
}

// softFuses is a bank of fuses in it. Who has the file has the secret: LockFixed only keeps it from this process.
type softFuses struct {
	s      *soft
	hidden bool
}

func (b *softFuses) at(word int) int64 { return int64(len(softMagic) + 4*word) }

// Read implements hw.FuseBank.
func (b *softFuses) Read(word int) (uint32, error) {
	if word < 0 || word >= hw.FuseWords {
		return 0, fmt.Errorf("fuse word %d: %w", word, hw.ErrRange)
	}
	if word >= hw.FirstSecret && b.hidden {
		return 0, fmt.Errorf("fuse word %d: %w", word, hw.ErrLocked)
	}
	var w [4]byte
	_, err := b.s.f.ReadAt(w[:], b.at(word))
	return binary.BigEndian.Uint32(w[:]), err
}

// Blow implements hw.FuseBank.
func (b *softFuses) Blow(word int, mask uint32) error {
	if b.hidden && hw.Fixed(word) {
		return fmt.Errorf("fuse word %d: %w", word, hw.ErrLocked)
	}
	have, err := b.Read(word)
	if err != nil {
		return err
	}
	return b.s.write(binary.BigEndian.AppendUint32(nil, have|mask), b.at(word))
}

// LockFixed implements hw.FuseBank.
func (b *softFuses) LockFixed() { b.hidden = true }

// softCounter is the nth counter in it: of two banks the larger one that is whole.
type softCounter struct {
	s   *soft
	nth int64
}

const bankLen = 8 + sha256.Size

func (c *softCounter) bank(i int64) int64 { return softBlock * (1 + 2*c.nth + i) }

// read gives the value and the bank to write next.
func (c *softCounter) read() (v uint64, next int64, err error) {
	blank := 0
	whole := 0
	for i := range int64(2) {
		var b [bankLen]byte
		if _, err := c.s.f.ReadAt(b[:], c.bank(i)); err != nil {
			return 0, 0, err
		}
		switch n := binary.BigEndian.Uint64(b[:]); {
		case b == [bankLen]byte{}:
			blank++
		case sha256.Sum256(b[:8]) == [sha256.Size]byte(b[8:]):
			if whole++; n > v {
				v, next = n, 1-i
			}
		}
	}
	if whole == 0 && blank == 0 {
		return 0, 0, errors.New("counter: neither of its two banks is whole")
	}
	return v, next, nil
}

// Value implements hw.Counter.
func (c *softCounter) Value() (uint64, error) {
	v, _, err := c.read()
	return v, err
}

// Raise implements hw.Counter.
func (c *softCounter) Raise(n uint64) error {
	have, next, err := c.read()
	if err != nil || n == have {
		return err
	}
	if n < have {
		return fmt.Errorf("counter is at %d and cannot go back to %d", have, n)
	}
	b := binary.BigEndian.AppendUint64(nil, n)
	sum := sha256.Sum256(b)
	return c.s.write(append(b, sum[:]...), c.bank(next))
}
