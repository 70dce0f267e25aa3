package virtual

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/suite"
)

// medium is where a part's bits are.
type medium interface {
	io.ReaderAt
	io.WriterAt
}

// ram is a medium in memory.
type ram []byte

func (r ram) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, r[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (r ram) WriteAt(p []byte, off int64) (int, error) { return copy(r[off:], p), nil }

// Flash is a NOR part whose pages take one program between erases.
type Flash struct {
	power *Power
	geo   hw.Geometry
	m     medium
	wear  []Wear // of each sector
	blank []byte // a page of it
	buf   []byte // of one page; guarded, as wear is, by power
}

// Wear is what a sector went through since the board was powered on.
type Wear struct{ Erases, Programs uint32 }

// Wear gives it for each sector.
func (f *Flash) Wear() []Wear {
	f.power.mu.Lock()
	defer f.power.mu.Unlock()
	return slices.Clone(f.wear)
}

func newFlash(p *Power, g hw.Geometry, m medium) *Flash {
	return &Flash{power: p, geo: g, m: m, wear: make([]Wear, g.Size/g.Sector), buf: make([]byte, g.Page), blank: bytes.Repeat([]byte{0xff}, int(g.Page))}
}

// Geometry implements hw.Flash.
func (f *Flash) Geometry() hw.Geometry { return f.geo }

// ReadAt implements hw.Flash.
func (f *Flash) ReadAt(p []byte, off int64) (int, error) {
	if err := f.power.reading(); err != nil {
		return 0, err
	}
	if off < 0 || off+int64(len(p)) > f.geo.Size {
		return 0, fmt.Errorf("read %d bytes at %d: %w", len(p), off, hw.ErrRange)
	}
	return f.m.ReadAt(p, off)
}

// Program implements hw.Flash. Each page is an operation of its own.
func (f *Flash) Program(off int64, data []byte) error {
	if off < 0 || off%f.geo.Page != 0 || int64(len(data))%f.geo.Page != 0 || off+int64(len(data)) > f.geo.Size {
		return fmt.Errorf("program %d bytes at %d: %w", len(data), off, hw.ErrRange)
	}
	page := int(f.geo.Page)
	for ; len(data) > 0; data, off = data[page:], off+int64(page) {
		if err := f.power.do(page*8, func(which func(int) bool) error { return f.program(off, data[:page], which) }); err != nil {
			return err
		}
	}
	return nil
}

func (f *Flash) program(off int64, data []byte, which func(int) bool) error {
	f.wear[off/f.geo.Sector].Programs++
	have := f.buf
	if _, err := f.m.ReadAt(have, off); err != nil {
		return err
	}
	for _, b := range have {
		if b != 0xff {
			return fmt.Errorf("page at %d: %w", off, hw.ErrNotErased)
		}
	}
	if which == nil {
		_, err := f.m.WriteAt(data, off)
		return err
	}
	for i := range data {
		for bit := range 8 {
			if data[i]&(0x80>>bit) == 0 && which(i*8+bit) {
				have[i] &^= 0x80 >> bit
			}
		}
	}
	_, err := f.m.WriteAt(have, off)
	return err
}

// Erase implements hw.Flash.
func (f *Flash) Erase(sector int64) error {
	if sector < 0 || (sector+1)*f.geo.Sector > f.geo.Size {
		return fmt.Errorf("erase sector %d: %w", sector, hw.ErrRange)
	}
	off, size := sector*f.geo.Sector, int(f.geo.Sector)
	return f.power.do(size*8, func(which func(int) bool) error {
		f.wear[sector].Erases++
		if which == nil {
			for i := range size / len(f.blank) {
				if _, err := f.m.WriteAt(f.blank, off+int64(i*len(f.blank))); err != nil {
					return err
				}
			}
			return nil
		}
		have := make([]byte, size)
		if _, err := f.m.ReadAt(have, off); err != nil {
			return err
		}
		for i := range have {
			for bit := range 8 {
				if have[i]&(0x80>>bit) == 0 && which(i*8+bit) {
					have[i] |= 0x80 >> bit
				}
			}
		}
		_, err := f.m.WriteAt(have, off)
		return err
	})
}

// fuses is a bank of one-time fuses.
type fuses struct {
	power  *Power
	m      medium
	hidden bool
}

func (b *fuses) Read(word int) (uint32, error) {
	if err := b.power.reading(); err != nil {
		return 0, err
	}
	if word < 0 || word >= hw.FuseWords {
		return 0, fmt.Errorf("fuse word %d: %w", word, hw.ErrRange)
	}
	if word >= hw.FirstSecret && b.hidden {
		return 0, fmt.Errorf("fuse word %d: %w", word, hw.ErrLocked)
	}
	var w [4]byte
	_, err := b.m.ReadAt(w[:], int64(word)*4)
	return binary.BigEndian.Uint32(w[:]), err
}

func (b *fuses) Blow(word int, mask uint32) error {
	if b.hidden && hw.Fixed(word) {
		return fmt.Errorf("fuse word %d: %w", word, hw.ErrLocked)
	}
	have, err := b.Read(word)
	if err != nil {
		return err
	}
	return b.power.do(32, func(which func(int) bool) error {
		for bit := range 32 {
			if m := uint32(1) << bit; mask&m != 0 && (which == nil || which(bit)) {
				have |= m
			}
		}
		_, err := b.m.WriteAt(binary.BigEndian.AppendUint32(nil, have), int64(word)*4)
		return err
	})
}

func (b *fuses) LockFixed() { b.hidden = true }

// counter is a number that only rises, at off in a medium.
type counter struct {
	power *Power
	m     medium
	off   int64
}

func (c *counter) Value() (uint64, error) {
	if err := c.power.reading(); err != nil {
		return 0, err
	}
	var b [8]byte
	_, err := c.m.ReadAt(b[:], c.off)
	return binary.BigEndian.Uint64(b[:]), err
}

func (c *counter) Raise(n uint64) error {
	have, err := c.Value()
	if err != nil || n == have {
		return err
	}
	if n < have {
		return fmt.Errorf("counter is at %d and cannot go back to %d", have, n)
	}
	return c.power.do(1, func(which func(int) bool) error {
		if which != nil && !which(0) {
			return nil
		}
		_, err := c.m.WriteAt(binary.BigEndian.AppendUint64(nil, n), c.off)
		return err
	})
}

type memory []byte

func (m memory) Size() int           { return len(m) }
func (m memory) Load(i int) byte     { return m[i] }
func (m memory) Store(i int, b byte) { m[i] = b }

// keys is a key store in files, or in memory when dir is empty. It is soft, and its evidence says so.
type keys struct {
	power *Power
	dir   string
	held  map[string][]byte // PKCS#8, when in memory
}

func (k *keys) Origin() string { return "soft" }

func (k *keys) path(name string) (string, error) {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return "", fmt.Errorf("key name %q: lower-case letters, digits and '-' only", name)
	}
	return filepath.Join(k.dir, name+".key"), nil
}

func (k *keys) load(name string) ([]byte, error) {
	if err := k.power.reading(); err != nil {
		return nil, err
	}
	path, err := k.path(name)
	if err != nil {
		return nil, err
	}
	if k.dir == "" {
		der, ok := k.held[name]
		if !ok {
			return nil, fmt.Errorf("%q: %w", name, hw.ErrNoKey)
		}
		return der, nil
	}
	der, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%q: %w", name, hw.ErrNoKey)
	}
	return der, err
}

func (k *keys) Generate(name string, id suite.ID) (crypto.PublicKey, error) {
	if name == hw.KeyCode {
		return nil, fmt.Errorf("%q signs nothing", name)
	}
	return k.generate(name, id)
}

// Exchanger implements hw.KeyStore.
func (k *keys) Exchanger() (ecdh.KeyExchanger, error) {
	der, err := k.load(hw.KeyCode)
	if errors.Is(err, hw.ErrNoKey) {
		if _, err := k.generate(hw.KeyCode, suite.P256); err != nil {
			return nil, err
		}
		der, err = k.load(hw.KeyCode)
	}
	if err != nil {
		return nil, err
	}
	key, err := suite.ParsePrivate(der)
	if err != nil {
		return nil, fmt.Errorf("key %q is damaged: %w", hw.KeyCode, err)
	}
	e, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key %q is on no curve", hw.KeyCode)
	}
	return e.ECDH()
}

func (k *keys) generate(name string, id suite.ID) (crypto.PublicKey, error) {
	set, err := suite.Get(id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", hw.ErrSuite, err)
	}
	if _, err := k.load(name); !errors.Is(err, hw.ErrNoKey) {
		return nil, errors.Join(fmt.Errorf("%q: %w", name, hw.ErrKeyExists), err)
	}
	key, err := set.Generate()
	if err != nil {
		return nil, err
	}
	return key.Public(), k.keep(name, key)
}

// keep is one operation: the key is there, or not.
func (k *keys) keep(name string, key crypto.Signer) error {
	der, err := suite.MarshalPrivate(key)
	if err != nil {
		return err
	}
	return k.power.do(1, func(which func(int) bool) error {
		if which != nil && !which(0) {
			return nil
		}
		return k.store(name, der)
	})
}

// Import implements hw.Importer.
func (k *keys) Import(name string, key *ecdsa.PrivateKey) error {
	if name == hw.KeyCode {
		return fmt.Errorf("%q signs nothing", name)
	}
	have, err := k.Signer(name)
	if errors.Is(err, hw.ErrNoKey) {
		return k.keep(name, key)
	}
	if err != nil {
		return err
	}
	if !key.PublicKey.Equal(have.Public()) {
		return fmt.Errorf("%q: another: %w", name, hw.ErrKeyExists)
	}
	return nil
}

func (k *keys) store(name string, der []byte) error {
	path, err := k.path(name)
	if err != nil {
		return err
	}
	if k.dir == "" {
		k.held[name] = der
		return nil
	}
	if err := os.WriteFile(path+".new", der, 0o600); err != nil { //nolint:forbidigo // made whole by the rename; a virtual board outlives its process, not its disk
		return err
	}
	return os.Rename(path+".new", path)
}

func (k *keys) Signer(name string) (crypto.Signer, error) {
	if name == hw.KeyCode {
		return nil, fmt.Errorf("%q signs nothing: %w", name, hw.ErrNoKey)
	}
	der, err := k.load(name)
	if err != nil {
		return nil, err
	}
	key, err := suite.ParsePrivate(der)
	if err != nil {
		return nil, fmt.Errorf("key %q is damaged: %w", name, err)
	}
	return key, nil
}

func (k *keys) Destroy(name string) error {
	if _, err := k.load(name); errors.Is(err, hw.ErrNoKey) {
		return nil
	}
	return k.power.do(1, func(which func(int) bool) error {
		if which != nil && !which(0) {
			return nil
		}
		if k.dir == "" {
			delete(k.held, name)
			return nil
		}
		path, err := k.path(name)
		if err != nil {
			return err
		}
		return os.Remove(path)
	})
}
