package server

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/internal/cad"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/keys/pkcs11"
	"github.com/hallmark-iot/hallmark/pki"
)

// caKeys is where the CAs' keys are: with the others, or behind the wall of a process of their own.
func (i *Instance) caKeys() pki.KeyMaker {
	if i.cad != nil {
		return i.cad
	}
	return i.keys
}

// IsCAKey says whether a key of that name is a CA's.
func IsCAKey(name string) bool {
	_, requested := pki.RequestedRole(name)
	return requested || strings.HasPrefix(name, "rekey-ca-") || slices.Contains([]string{keyProductCA, keyOperational, keyInfra}, name)
}

// CAVault is a directory of keys that a CA's can be taken out of, or put into; keys/soft is one.
type CAVault interface {
	Signers
	Names() ([]string, error)
	Import(name string, key crypto.Signer) error
	Destroy(ctx context.Context, name string) error
}

// CASettings are the limits of a CA's process: ca.json in its directory.
type CASettings struct {
	Hosts     []string `json:"hosts"`          // names that servers' certificates may have
	Orders    bool     `json:"orders"`         // sign CAs of orders: without it no order can be made
	OCSP      bool     `json:"ocsp,omitempty"` // sign answers about single certificates; needed where a product asks for OCSP
	LifeH     int      `json:"life_h"`         // of a device's operational certificate, hours, at most
	PerMinute int      `json:"per_minute"`     // certificates of each key
	PerHour   int      `json:"per_hour"`       // CAs of orders of each key

	PKCS11 *CAToken `json:"pkcs11,omitempty"` // where new keys are made; left out: in files
}

// CAToken is a PKCS#11 token for the keys of CAs.
type CAToken struct {
	Module  string `json:"module"`   // path of the library
	Token   string `json:"token"`    // its label
	PINFile string `json:"pin_file"` // file that holds the PIN; empty: HALLMARK_PIN
}

// CASettingsFile is where they are.
const CASettingsFile = "ca.json"

// Separate moves the keys of the CAs from an instance's own to a directory of their own, for `hallmark ca serve`, and has the instance ask there.
// It copies, then changes the configuration, and destroys what is left behind last: after a cut it is run again.
func Separate(ctx context.Context, l Layout, from, to CAVault, dir, socket string) (moved []string, err error) {
	cfg, err := LoadConfig(l)
	if err != nil {
		return nil, err
	}
	names, err := from.Names()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if IsCAKey(name) {
			moved = append(moved, name)
		}
	}
	if len(moved) == 0 && cfg.CAToken == "" {
		return nil, errors.New("the keys of the CAs are not in this instance's key directory: they were moved before")
	}
	for _, name := range moved {
		if err := copyKey(name, from, to); err != nil {
			return nil, err
		}
	}
	root, err := loadCert(l, keyRoot)
	if err != nil {
		return nil, err
	}
	made := CASettings{Hosts: cfg.Names, Orders: true, OCSP: true, LifeH: cfg.LDevID, PerMinute: 6000, PerHour: 60}
	if cfg.CAToken != "" { // the keys stay where they are: another process opens the token
		u, err := pkcs11.ParseURI(cfg.CAToken)
		if err != nil {
			return nil, err
		}
		made.PKCS11 = &CAToken{Module: u.Module, Token: u.Token, PINFile: u.PIN}
	}
	settings, err := json.MarshalIndent(made, "", "  ")
	if err != nil {
		return nil, err
	}
	cfg.CA, cfg.CAToken = "unix:"+socket, ""
	if err := errors.Join(cfg.check(), durable.WriteFile(filepath.Join(dir, cad.RootFile), root.Raw, 0o600),
		durable.WriteFile(filepath.Join(dir, CASettingsFile), append(settings, '\n'), 0o600)); err != nil {
		return nil, err
	}
	if err := cfg.save(l); err != nil {
		return nil, err
	}
	for _, name := range moved {
		if err := from.Destroy(ctx, name); err != nil {
			return nil, fmt.Errorf("key %q is in both places: %w; run the command again", name, err)
		}
	}
	return moved, nil
}

// copyKey copies a key that is not there yet.
func copyKey(name string, from, to CAVault) error {
	key, err := from.Signer(name)
	if err != nil {
		return err
	}
	have, err := to.Signer(name)
	if err != nil {
		return to.Import(name, key)
	}
	if pub, ok := have.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(key.Public()) {
		return fmt.Errorf("the other directory has another key %q: choose an empty one", name)
	}
	return nil
}

// LoadCASettings reads ca.json.
func LoadCASettings(dir string) (CASettings, error) {
	var s CASettings
	f, err := os.Open(filepath.Join(dir, CASettingsFile))
	if err != nil {
		return s, fmt.Errorf("%s is not the directory of a CA: %w; `hallmark ca separate` makes one", dir, err)
	}
	defer f.Close()
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if s.LifeH < 1 || s.PerMinute < 1 || s.PerHour < 1 || len(s.Hosts) == 0 {
		return s, fmt.Errorf("%s: hosts must be named, and life_h, per_minute and per_hour be at least 1", f.Name())
	}
	return s, nil
}
