// Package hw is what a device's hardware offers to the software on it: flash, one-time fuses, counters, random numbers, memory
// and key stores.
//
// Under all stages, on the device. The package holds the interfaces, the arrangement of the fuses and nothing of any one board;
// virtual and linux hold boards. It promises nothing about secrecy: a board says by Virtual, and a key store by Origin, what
// it is, and evidence carries both. It trusts the parts beneath it only as far as a part can be trusted whose power may fail
// in any operation: each interface says what a cut leaves behind.
package hw

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/hallmark-iot/hallmark/suite"
)

// What parts report, for errors.Is.
var (
	// ErrPowerCut says that the power failed: the operation may have been done, in part or not at all, and nothing works until
	// the next start.
	ErrPowerCut = errors.New("power cut")
	// ErrNotErased says that a page was programmed before and must be erased first.
	ErrNotErased = errors.New("flash page is not erased")
	// ErrRange says that an operation is not aligned, or lies outside the part.
	ErrRange = errors.New("outside the part or not aligned")
	// ErrNoKey says that the key store holds no key of that name.
	ErrNoKey = errors.New("no such key")
	// ErrKeyExists says that a key of that name is there already: destroy it first.
	ErrKeyExists = errors.New("key exists")
	// ErrSuite says that the key store makes no keys of that suite.
	ErrSuite = errors.New("no keys of that suite")
	// ErrLocked says that a sticky lock holds until the next reset.
	ErrLocked = errors.New("locked until reset")
	// ErrOtherState says that what is sealed was sealed in another state of the device.
	ErrOtherState = errors.New("sealed in another boot state")
)

// Geometry is the shape of a flash part, in bytes: Sector is what Erase clears, Page what Program writes.
type Geometry struct {
	Size, Sector, Page int64
}

// Check refuses a shape no part has.
func (g Geometry) Check() error {
	if g.Page <= 0 || g.Sector <= 0 || g.Size <= 0 || g.Sector%g.Page != 0 || g.Size%g.Sector != 0 {
		return fmt.Errorf("flash geometry %+v: size must be whole sectors, a sector whole pages", g)
	}
	return nil
}

// Flash is a NOR flash part. Erase sets every bit of a sector, Program only clears bits. A power cut in Program leaves some
// of the bits of one page cleared, in Erase some of the bits of the sector set. Other pages and sectors are never disturbed.
type Flash interface {
	Geometry() Geometry
	ReadAt(p []byte, off int64) (int, error) // io.ReaderAt
	// Program writes data at off; both are multiples of the page. ErrNotErased if the part can program a page only once.
	Program(off int64, data []byte) error
	// Erase clears one sector by its number.
	Erase(sector int64) error
}

// Counter is a number in hardware that only rises. After a power cut in Raise it is the old or the new value; in a part that counts by one, one between them.
type Counter interface {
	Value() (uint64, error)
	// Raise sets the counter to n; a smaller n than its value is an error, the same is nothing.
	Raise(n uint64) error
}

// Memory is working memory as the self test sees it.
type Memory interface {
	Size() int
	Load(i int) byte
	Store(i int, b byte)
}

// The keys of a device.
const (
	KeyIDevID = "idevid" // initial identity, from the factory
	KeyLDevID = "ldevid" // local identity, renewed in the field
	KeyAttest = "attest" // signs evidence
	KeyCode   = "code"   // agrees on the secrets that open protected programs, and signs nothing
)

// Names gives the names under which the keys of a purpose that are replaced take turns: the old one stays until the new one counts.
func Names(purpose string) []string { return []string{purpose, purpose + "-2"} }

// AllNames gives the names of all keys that a device has, in an order that never changes.
func AllNames() []string { return append(Signing(), KeyCode) }

// Signing gives the names of those that sign.
func Signing() []string { return slices.Concat(Names(KeyIDevID), Names(KeyLDevID), Names(KeyAttest)) }

// Other gives the name beside name of those of a purpose.
func Other(purpose, name string) string {
	if n := Names(purpose); name == n[0] {
		return n[1]
	}
	return purpose
}

// KeyStore keeps private keys; they are made inside and never leave it. Generate and Destroy are durable when they return
// and atomic under a power cut.
type KeyStore interface {
	// Generate makes a signing key of a suite; ErrKeyExists if the name is taken, ErrSuite if the store makes no such keys.
	Generate(name string, id suite.ID) (crypto.PublicKey, error)
	// Signer gives the key's signer, ErrNoKey if there is none.
	Signer(name string) (crypto.Signer, error)
	// Exchanger gives KeyCode, on P-256. It is made when it is asked for first, and no other method knows it but Destroy.
	Exchanger() (ecdh.KeyExchanger, error)
	// Destroy removes a key for good. Destroying a key that is not there is nothing.
	Destroy(name string) error
	// Origin says what guards the keys: soft, isolated, tpm or pkcs11.
	Origin() string
}

// Importer is a key store that takes keys which were made elsewhere: those of a chip that could make none while it was made into a device. Once
// such a key is in it, it leaves it no more than others do.
type Importer interface {
	// Import puts a P-256 key under a name. The same key once more is nothing, another one is ErrKeyExists. It is durable when it returns, and
	// atomic under a power cut.
	Import(name string, key *ecdsa.PrivateKey) error
}

// SelfTester is a key store that can test itself.
type SelfTester interface {
	// SelfTest has it test all that it does, and gives what is wrong.
	SelfTest() error
}

// Sealer keeps one secret that only comes out in the boot state in which it was made.
type Sealer interface {
	// Unseal gives it; ErrNoKey if there is none, ErrOtherState if it is another state now.
	Unseal() ([]byte, error)
	// Renew makes another, sealed to the present state, in the place of what is there. A cut leaves the old one, none, or the new one.
	Renew() error
	// Destroy removes it for good. Destroying what is not there is nothing.
	Destroy() error
}

// Board is one device's hardware.
type Board struct {
	Flash  Flash
	Fuses  *Fuses
	Boots  Counter   // starts of the boot manager
	Trust  Counter   // lowest version of the trust bundle that is still believed
	Log    Counter   // number of the last event of the device's own log; nil: the board has none for it
	Params Counter   // number of the newest record of parameters; nil: the board has none for it
	Sealer Sealer    // seals to the boot state; nil: the board cannot
	Random io.Reader // entropy source, to be health-tested
	Memory Memory
	Keys   KeyStore
	Banks  Banks // of the machine that the device runs on; nil: it has none that an update replaces

	Revision string // hardware revision, as releases name it
	Virtual  bool   // nothing here is hardware; evidence says so
	Parts    string // what guards fuses and counters, where the board knows: tpm, tpm-owner or soft; evidence says so

	// Fault asks whether self test name is to see a disturbed part: the test's input is then spoilt, never its verdict. Nil on
	// boards that cannot be made to fail.
	Fault func(name string) bool
}

// Region is a run of whole sectors of a flash part; offsets in it begin at 0.
type Region struct {
	flash Flash
	off   int64
	size  int64
}

// NewRegion takes sectors [first, first+count) of f.
func NewRegion(f Flash, first, count int64) (Region, error) {
	g := f.Geometry()
	if first < 0 || count <= 0 || (first+count)*g.Sector > g.Size {
		return Region{}, fmt.Errorf("region of sectors %d+%d: %w", first, count, ErrRange)
	}
	return Region{flash: f, off: first * g.Sector, size: count * g.Sector}, nil
}

// Size is the region's length in bytes.
func (r Region) Size() int64 { return r.size }

// Offset is where it begins in the part, in bytes.
func (r Region) Offset() int64 { return r.off }

// Sector is the length of an erasable unit in bytes.
func (r Region) Sector() int64 { return r.flash.Geometry().Sector }

// Page is the length of a programmable unit in bytes.
func (r Region) Page() int64 { return r.flash.Geometry().Page }

// ReadAt reads len(p) bytes at off; less than that is an error.
func (r Region) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > r.size {
		return 0, fmt.Errorf("read at %d of %d: %w", off, r.size, ErrRange)
	}
	if int64(len(p)) > r.size-off {
		n, err := r.flash.ReadAt(p[:r.size-off], r.off+off)
		if err == nil {
			err = io.EOF
		}
		return n, err
	}
	return r.flash.ReadAt(p, r.off+off)
}

// Program writes data at off, both multiples of the page.
func (r Region) Program(off int64, data []byte) error {
	if off < 0 || off+int64(len(data)) > r.size {
		return fmt.Errorf("program %d bytes at %d of %d: %w", len(data), off, r.size, ErrRange)
	}
	return r.flash.Program(r.off+off, data)
}

// Erase clears the region's sector n.
func (r Region) Erase(n int64) error {
	s := r.Sector()
	if n < 0 || (n+1)*s > r.size {
		return fmt.Errorf("erase sector %d of %d: %w", n, r.size/s, ErrRange)
	}
	return r.flash.Erase(r.off/s + n)
}

// EraseAll clears the region, sector by sector from the first, and reads it back.
func (r Region) EraseAll() error {
	for n := range r.size / r.Sector() {
		if err := r.Erase(n); err != nil {
			return err
		}
	}
	return r.Blank(0, r.size)
}

// erased is what is compared at once: byte by byte, looking would take as long as writing.
var erased = bytes.Repeat([]byte{0xff}, 4<<10)

// Blank is nil when size bytes at off read as erased.
func (r Region) Blank(off, size int64) error {
	buf := make([]byte, min(size, max(r.Page(), 64<<10)))
	for end := off + size; off < end; {
		p := buf[:min(int64(len(buf)), end-off)]
		if _, err := r.ReadAt(p, off); err != nil {
			return err
		}
		for part := range slices.Chunk(p, len(erased)) {
			if !bytes.Equal(part, erased[:len(part)]) {
				return fmt.Errorf("byte %d: %w", off+int64(slices.IndexFunc(part, func(b byte) bool { return b != 0xff })), ErrNotErased)
			}
			off += int64(len(part))
		}
	}
	return nil
}
