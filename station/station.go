package station

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/station/durable"
	"github.com/hallmark-iot/hallmark/station/module"
	"github.com/hallmark-iot/hallmark/wire"
)

// Config is the station's own file, station.json.
type Config struct {
	Name   string `json:"name"`            // of the station, in descriptors
	Module string `json:"module"`          // path of the PKCS#11 library; empty: the soft module
	Token  string `json:"token,omitempty"` // label of the token
}

const configName = "station.json"

// WriteConfig begins a station in dir. It refuses a directory that has one already.
func WriteConfig(dir string, c Config) error {
	if !wire.ValidName(c.Name) {
		return fault.New(fault.Invalid, "station.name", fmt.Sprintf("station name %q", c.Name), "use lower-case letters, digits, '-' and '.', at most 64")
	}
	for _, d := range []string{dir, filepath.Join(dir, "oem"), filepath.Join(dir, "orders")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("station: %w", err)
		}
	}
	path := filepath.Join(dir, configName)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.Conflict, "station.exists", fmt.Sprintf("%s holds a station already", dir), "choose another directory")
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(path, b)
}

// ReadConfig reads the station's file.
func ReadConfig(dir string) (Config, error) {
	var c Config
	b, err := os.ReadFile(filepath.Join(dir, configName))
	if errors.Is(err, os.ErrNotExist) {
		return c, fault.New(fault.NotFound, "station.missing", fmt.Sprintf("%s holds no station", dir), "begin with `hallmark-station init`")
	}
	if err != nil {
		return c, fmt.Errorf("station: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("station: %s: %w", configName, err)
	}
	return c, nil
}

// Station is an open station. One process holds a directory at a time.
type Station struct {
	dir    string
	cfg    Config
	mod    module.Module
	record crypto.Signer
	id     [32]byte // SHA-256 of the record key
	lock   *os.File
}

// Open opens the station in dir with its module. Close it to let another process in; the module stays the caller's.
func Open(dir string, mod module.Module) (*Station, error) {
	cfg, err := ReadConfig(dir)
	if err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("station: %w", err)
	}
	s := &Station{dir: dir, cfg: cfg, mod: mod, lock: lock}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fault.New(fault.Conflict, "station.busy", fmt.Sprintf("another process works in %s", dir), "wait for it to end"), lock.Close())
	}
	if s.record, err = mod.RecordKey(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	spki, err := wire.SPKIOf(s.record.Public())
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.id = sha256.Sum256(spki)
	return s, nil
}

// Close lets go of the directory.
func (s *Station) Close() error { return s.lock.Close() }

// ID names the station: SHA-256 of its record key. The OEM compares it by another way.
func (s *Station) ID() [32]byte { return s.id }

// Info says what the module is.
func (s *Station) Info() module.Info { return s.mod.Info() }

// OEM is whom the station takes orders from: pinned once, by hand, and never changed by an order.
type OEM struct {
	ID       string `json:"id"`
	Root     []byte `json:"root"`      // certificate (DER); order CAs chain to it
	OrderKey []byte `json:"order_key"` // SPKI; signs orders

	OrderKeys [][]byte `json:"order_keys,omitempty"` // SPKI; those that sign orders beside it: the next one, or a desk's
}

// maxOrderKeys bounds the order keys of one OEM.
const maxOrderKeys = 8

// keys are all order keys.
func (o OEM) keys() [][]byte { return append([][]byte{o.OrderKey}, o.OrderKeys...) }

// Fingerprint is what the two sides compare by voice: SHA-256 over the hashes of root and order keys.
func (o OEM) Fingerprint() string {
	all := sha256.New()
	for _, b := range append([][]byte{o.Root}, o.keys()...) {
		sum := sha256.Sum256(b)
		all.Write(sum[:])
	}
	return hex.EncodeToString(all.Sum(nil))
}

func (o OEM) parse() (*x509.Certificate, []crypto.PublicKey, error) {
	if !wire.ValidName(o.ID) {
		return nil, nil, fmt.Errorf("OEM %q: not a name", o.ID)
	}
	root, err := x509.ParseCertificate(o.Root)
	if err != nil {
		return nil, nil, fmt.Errorf("OEM %s: root: %w", o.ID, err)
	}
	if !root.IsCA || root.CheckSignatureFrom(root) != nil {
		return nil, nil, fmt.Errorf("OEM %s: the root is not a self-signed CA", o.ID)
	}
	if len(o.OrderKeys) >= maxOrderKeys {
		return nil, nil, fmt.Errorf("OEM %s: %d order keys, at most %d", o.ID, len(o.OrderKeys)+1, maxOrderKeys)
	}
	var out []crypto.PublicKey
	seen := map[string]bool{}
	for _, k := range o.keys() {
		key, err := wire.ParseKey(k)
		if err != nil {
			return nil, nil, fmt.Errorf("OEM %s: order key: %w", o.ID, err)
		}
		if seen[string(k)] {
			return nil, nil, fmt.Errorf("OEM %s: an order key is there twice", o.ID)
		}
		seen[string(k)], out = true, append(out, key)
	}
	return root, out, nil
}

func (s *Station) oemPath(id string) string { return filepath.Join(s.dir, "oem", id+".json") }

// Trust pins an OEM and makes its wrapping keys. Pinning the same again changes nothing; another root or other order keys are refused.
func (s *Station) Trust(o OEM) error {
	if _, _, err := o.parse(); err != nil {
		return fault.New(fault.Invalid, "oem.invalid", err.Error(), "ask the OEM for its file again")
	}
	if old, err := s.oem(o.ID); err == nil {
		if old.Fingerprint() != o.Fingerprint() {
			return fault.New(fault.Conflict, "oem.changed", fmt.Sprintf("OEM %s is pinned with other keys", o.ID),
				"ask the OEM by telephone whether they changed, and for the fingerprint; other order keys are taken by `hallmark-station trust --change FINGERPRINT`, another root is a new station directory")
		}
	} else if fault.KindOf(err) != fault.NotFound {
		return err
	}
	return s.pin(o)
}

// Change pins other order keys of an OEM that is pinned: the OEM has a new one, or gave one up. fingerprint is what the OEM told by another way than
// the file came. The root stays. An open order that is signed by a key that is not there any more is not gone on with.
func (s *Station) Change(o OEM, fingerprint string) error {
	if _, _, err := o.parse(); err != nil {
		return fault.New(fault.Invalid, "oem.invalid", err.Error(), "ask the OEM for its file again")
	}
	old, err := s.oem(o.ID)
	if err != nil {
		return err
	}
	if !bytes.Equal(old.Root, o.Root) {
		return fault.New(fault.Conflict, "oem.changed", fmt.Sprintf("OEM %s is pinned with another root", o.ID), "compare fingerprints with the OEM; another root is a new station directory")
	}
	if o.Fingerprint() != fingerprint {
		return fault.New(fault.Denied, "oem.fingerprint", fmt.Sprintf("the file of OEM %s has fingerprint %s, not the one that is given", o.ID, o.Fingerprint()),
			"telephone the OEM before anything else: this file may not be its own")
	}
	return s.pin(o)
}

func (s *Station) pin(o OEM) error {
	if _, _, err := s.mod.OEMKeys(o.ID); err != nil {
		return err
	}
	b, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(s.oemPath(o.ID), b)
}

// DecodeOEM reads an OEM's file.
func DecodeOEM(data []byte) (OEM, error) {
	var o OEM
	if len(data) > 64<<10 {
		return o, fault.New(fault.Invalid, "oem.invalid", "OEM file: too long", "take the OEM file as it was given")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		return o, fault.Newf(fault.Invalid, "oem.invalid", "OEM file: %w", err).With("take the OEM file as it was given")
	}
	if d.More() {
		return o, fault.New(fault.Invalid, "oem.invalid", "OEM file: something follows it", "take the OEM file as it was given")
	}
	if _, _, err := o.parse(); err != nil {
		return o, fault.Newf(fault.Invalid, "oem.invalid", "OEM file: %w", err).With("take the OEM file as it was given")
	}
	return o, nil
}

func (s *Station) oem(id string) (OEM, error) {
	if !wire.ValidName(id) {
		return OEM{}, fault.New(fault.Invalid, "oem.invalid", fmt.Sprintf("OEM %q: not a name", id), "name the OEM by lower-case letters, digits and hyphens")
	}
	b, err := os.ReadFile(s.oemPath(id))
	if errors.Is(err, os.ErrNotExist) {
		return OEM{}, fault.New(fault.NotFound, "oem.unknown", fmt.Sprintf("this station does not know OEM %q", id), "pin its keys with `hallmark-station trust`")
	}
	if err != nil {
		return OEM{}, fmt.Errorf("station: %w", err)
	}
	return DecodeOEM(b)
}

// Descriptor says what this station can do for oem, signed by its record key.
func (s *Station) Descriptor(oem string, now time.Time) ([]byte, error) {
	if _, err := s.oem(oem); err != nil {
		return nil, err
	}
	wrap, content, err := s.mod.OEMKeys(oem)
	if err != nil {
		return nil, err
	}
	info := s.mod.Info()
	d := wire.Station{
		Name: s.cfg.Name, OEM: oem, Module: info.Name, Serial: info.Serial, WrapAlg: info.WrapAlg, ContentAlg: info.ContentAlg,
		Templated: info.Templated, Created: uint64(now.Unix()),
	}
	for _, k := range []struct {
		dst *[]byte
		pub crypto.PublicKey
	}{{&d.RecordKey, s.record.Public()}, {&d.WrapKey, wrap}, {&d.ContentKey, content}} {
		if *k.dst, err = wire.SPKIOf(k.pub); err != nil {
			return nil, err
		}
	}
	payload, err := wire.EncodeStation(d)
	if err != nil {
		return nil, err
	}
	return wire.Sign1(wire.TypeStation, payload, s.record)
}
