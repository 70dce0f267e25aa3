package linux

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/tpm"
)

// Kind is how board.json says that a board is one of these.
const Kind = "linux"

// Config is a board's board.json. What it does not know is an error.
type Config struct {
	Kind     string `json:"kind"`     // "linux"
	Revision string `json:"revision"` // hardware revision, as releases name it
	// ChipUID is the piece's own number: 8 to 32 bytes in hex, or file:PATH of something that is this piece's alone (such as
	// /proc/device-tree/serial-number or /sys/class/dmi/id/product_uuid), of which a digest is taken.
	ChipUID string      `json:"chip_uid"`
	Flash   FlashConfig `json:"flash"`
	// Parts is where fuses and counters are: tpm:PATH, or file:PATH.
	Parts string `json:"parts"`
	// Keys is the key store: tpm:PATH, isolated:SOCKET, or a token by its PKCS #11 URI. There is none in files.
	Keys     string         `json:"keys"`
	Watchdog WatchdogConfig `json:"watchdog,omitzero"`
	// SealPCRs are the registers of the TPM in parts that the device's operational parameters are sealed to; none: only to what the fuses say.
	SealPCRs []uint `json:"seal_pcrs,omitempty"`
	// Banks are where the machine itself is started from; without them no release has an image.
	Banks BanksConfig `json:"banks,omitzero"`
	// Virtual is for a machine that is simulated, with all that it has: its evidence says so.
	Virtual bool `json:"virtual,omitempty"`
}

// FlashConfig names the flash.
type FlashConfig struct {
	Path  string `json:"path"`            // a block device, an MTD, or a file
	Erase int64  `json:"erase,omitempty"` // bytes of a sector; 0: 64 KiB, or what an MTD erases
	Size  int64  `json:"size,omitempty"`  // bytes of a file that is to be made; a device has its own
}

// WatchdogConfig names the watchdog.
type WatchdogConfig struct {
	Path    string `json:"path,omitempty"` // such as /dev/watchdog; empty: none
	Seconds int    `json:"seconds,omitempty"`
}

const (
	maxConfig    = 16 << 10
	leastSeconds = 30 // the agent answers to itself within this, also while it reads a whole slot
)

// ParseConfig reads a board.json.
func ParseConfig(data []byte) (c Config, err error) {
	if len(data) > maxConfig {
		return c, fmt.Errorf("more than %d bytes", maxConfig)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Config{}, err
	}
	if d.More() {
		return Config{}, errors.New("something is behind it")
	}
	return c, c.check()
}

func (c Config) check() error {
	word, at, _ := strings.Cut(c.Parts, ":")
	switch {
	case c.Kind != Kind:
		return fmt.Errorf("kind %q: want %q", c.Kind, Kind)
	case c.Revision == "":
		return errors.New("revision: want the hardware revision, as releases name it")
	case c.Flash.Path == "":
		return errors.New("flash.path: want a block device, an MTD, or a file")
	case c.Flash.Erase < 0 || c.Flash.Size < 0:
		return errors.New("flash: sizes are not negative")
	case at == "" || word != "tpm" && word != "file":
		return fmt.Errorf("parts %q: want tpm:PATH, or file:PATH", c.Parts)
	case len(c.SealPCRs) > 0 && word != "tpm":
		return errors.New("seal_pcrs: want parts in a TPM")
	case c.Keys == "":
		return errors.New("keys: want tpm:PATH, isolated:SOCKET, or pkcs11:…: a board has no keys in files of the agent's")
	case c.Watchdog.Path != "" && c.Watchdog.Seconds < leastSeconds:
		return fmt.Errorf("watchdog.seconds %d: want at least %d", c.Watchdog.Seconds, leastSeconds)
	}
	return c.Banks.check()
}

// UID is the piece's number.
func (c Config) UID() ([]byte, error) {
	path, ok := strings.CutPrefix(c.ChipUID, "file:")
	if !ok {
		uid, err := hex.DecodeString(c.ChipUID)
		if err != nil || len(uid) < 8 || len(uid) > 32 {
			return nil, errors.Join(errors.New("chip_uid: want 8 to 32 bytes in hex, or file:PATH"), err)
		}
		return uid, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("chip_uid: %w", err)
	}
	if data = bytes.TrimRight(data, "\x00\r\n "); len(data) < 4 {
		return nil, fmt.Errorf("chip_uid: %s says nothing of this piece", path)
	}
	sum := sha256.Sum256(data)
	return sum[:16], nil
}

// Board is an opened board.
type Board struct {
	hw.Board
	// Chip is the TPM that has the fuses, when one has: for keys that are in it too, since a TPM has one line.
	Chip *tpm.Keys
	// ChipPath is where it was opened.
	ChipPath string

	close []func() error
}

// Create makes what a board needs that is no device: its file of parts and its file of flash. What is there already is left as it is; made is whether
// anything was made.
func Create(c Config) (made bool, err error) {
	if path, ok := strings.CutPrefix(c.Parts, "file:"); ok {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return false, err
			}
			if err := createSoft(path); err != nil {
				return false, err
			}
			made = true
		}
	}
	if _, err := os.Stat(c.Flash.Path); c.Flash.Size > 0 && errors.Is(err, os.ErrNotExist) {
		return true, createFlash(c.Flash)
	}
	return made, nil
}

// createFlash makes a file that reads as erased.
func createFlash(c FlashConfig) (err error) {
	if err := os.MkdirAll(filepath.Dir(c.Path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(c.Path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	d := &disk{f}
	if err := errors.Join(d.Erase(0, c.Size), f.Close()); err != nil {
		return err
	}
	return os.Rename(c.Path+".new", c.Path)
}

// Open opens a board's parts. Its key store is the caller's to open: it may be one of several kinds.
func Open(c Config) (b *Board, err error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	b = &Board{}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	flash, err := OpenFlash(c.Flash.Path, c.Flash.Erase)
	if err != nil {
		return b, err
	}
	b.close = append(b.close, flash.Close)
	b.Board = hw.Board{Flash: flash, Random: rand.Reader, Memory: make(memory, memorySize), Revision: c.Revision, Virtual: c.Virtual}
	if c.Banks.A != "" {
		if b.Banks, err = openBanks(c.Banks); err != nil {
			return b, err
		}
	}
	if path, ok := strings.CutPrefix(c.Parts, "tpm:"); ok {
		return b, b.chip(path, c.SealPCRs)
	}
	s, err := openSoft(strings.TrimPrefix(c.Parts, "file:"))
	if err != nil {
		return b, err
	}
	b.close = append(b.close, s.f.Close)
	b.Fuses, b.Parts = hw.NewFuses(&softFuses{s: s}), PartsSoft
	b.Boots, b.Trust, b.Log, b.Params = &softCounter{s, 0}, &softCounter{s, 1}, &softCounter{s, 2}, &softCounter{s, 3}
	return b, nil
}

// PartsSoft says in evidence that fuses and counters are in a file: who writes it rolls the device back.
const PartsSoft = "soft"

// chip takes fuses and counters from a TPM. The device's log has no counter there: each event would be an increment, of which a TPM has some hundred
// thousand.
func (b *Board) chip(path string, pcrs []uint) error {
	k, err := tpm.Open(path)
	if err != nil {
		return err
	}
	b.close = append(b.close, k.Close)
	b.Chip, b.ChipPath = k, path
	p := k.Parts()
	b.Fuses, b.Boots, b.Trust, b.Params = hw.NewFuses(p.Fuses()), p.Boots(), p.Trust(), p.Params()
	if len(pcrs) > 0 {
		if b.Sealer, err = k.Sealed(pcrs); err != nil {
			return err
		}
	}
	b.Parts, err = p.Origin()
	return err
}

// Lock closes what only the first stage of a start may use, of a board that could not be opened: its description need not be whole, and no other part of it
// there. Only a TPM keeps a lock.
func Lock(description []byte) error {
	var c struct {
		Parts string `json:"parts"`
	}
	if err := json.Unmarshal(description, &c); err != nil {
		return nil //nolint:nilerr // what is no description names no part, and is reported as what it is
	}
	path, ok := strings.CutPrefix(c.Parts, "tpm:")
	if !ok {
		return nil
	}
	k, err := tpm.Open(path)
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	k.Parts().Fuses().LockFixed()
	return k.Close()
}

// Prepare makes room in the TPM for what a device will burn and count, in the factory.
func (b *Board) Prepare() (err error) {
	if b.Chip == nil {
		return nil
	}
	if err := b.Chip.Parts().Define(); err != nil {
		return err
	}
	b.Parts, err = b.Chip.Parts().Origin()
	return err
}

// Close gives the parts back.
func (b *Board) Close() error {
	var errs []error
	for _, c := range b.close {
		errs = append(errs, c())
	}
	b.close = nil
	return errors.Join(errs...)
}

// Arm arms the board's watchdog; nil when it has none.
func (c Config) Arm() (*Watchdog, error) {
	if c.Watchdog.Path == "" {
		return nil, nil
	}
	return OpenWatchdog(c.Watchdog.Path, time.Duration(c.Watchdog.Seconds)*time.Second)
}

const memorySize = 64 << 10

// memory is this process's: what the self test can see of a machine that a kernel has divided.
type memory []byte

func (m memory) Size() int           { return len(m) }
func (m memory) Load(i int) byte     { return m[i] }
func (m memory) Store(i int, b byte) { m[i] = b }
