package wire

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// Bounds of a device's configuration.
const (
	MaxConfig        = 12 << 10
	MaxConfigEntries = 64
	MaxConfigName    = 64
	MaxConfigValue   = 1 << 10
)

type config struct {
	Entries []ConfigEntry `cbor:"1,keyasint"`
}

// EncodeConfig writes the configuration a command of act configure carries: names in rising order, each once.
func EncodeConfig(entries []ConfigEntry) ([]byte, error) {
	return encode(config{Entries: entries}, MaxConfig)
}

// DecodeConfig reads it.
func DecodeConfig(data []byte) ([]ConfigEntry, error) {
	c, err := decode[config](data, MaxConfig)
	return c.Entries, err
}

// ConfigSalt is the size of the salt before a configuration: the log, which is public, holds the hash of both, from which nobody can
// guess what was set.
const ConfigSalt = 32

// SaltConfig puts a fresh salt before a configuration, and gives the digest that the command has of both.
func SaltConfig(config []byte) (salted, digest []byte) {
	salted = make([]byte, ConfigSalt, ConfigSalt+len(config))
	_, _ = rand.Read(salted) // never fails: crypto/rand ends the process instead
	salted = append(salted, config...)
	return salted, ConfigDigest(salted)
}

// ConfigDigest is SHA-256 of a salted configuration.
func ConfigDigest(salted []byte) []byte {
	h := sha256.Sum256(salted)
	return h[:]
}

// OpenConfig reads a salted configuration, if it is the one that the command has the digest of.
func OpenConfig(salted, digest []byte) ([]ConfigEntry, error) {
	if len(salted) < ConfigSalt || len(salted) > ConfigSalt+MaxConfig {
		return nil, fmt.Errorf("salted configuration of %d bytes", len(salted))
	}
	if !bytes.Equal(ConfigDigest(salted), digest) {
		return nil, errors.New("the configuration is not the one that was commanded")
	}
	return DecodeConfig(salted[ConfigSalt:])
}

func (c config) check() error {
	if len(c.Entries) == 0 || len(c.Entries) > MaxConfigEntries {
		return fmt.Errorf("configuration of %d entries, must be 1 to %d", len(c.Entries), MaxConfigEntries)
	}
	for i, e := range c.Entries {
		if !configName(e.Name) || len(e.Value) > MaxConfigValue {
			return fmt.Errorf("configuration entry %q: name or value out of bounds", e.Name)
		}
		if i > 0 && c.Entries[i-1].Name >= e.Name {
			return fmt.Errorf("configuration entry %q: not in rising order", e.Name)
		}
	}
	return nil
}

// configName: dotted lower-case words.
func configName(s string) bool {
	if s == "" || len(s) > MaxConfigName {
		return false
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-' {
			return false
		}
	}
	return true
}
