// Package protect keeps the content keys of protected components, and gives them to devices that have just proven themselves.
//
// Stages 1 and 3. A program is sealed once, as it is uploaded, under a key of its own; what is stored, sent, cached and written into flash is the sealed
// bytes, the same for all devices. The key is kept under the instance's vault key. What it guarantees: a device gets a key in the answer to evidence that
// was good and of this moment, wrapped to the key that the evidence named: that of a program when the evidence is of the very release that has it, that of an image, which is
// opened before it runs, when the device is told to install its release. Nobody else gets one, there is no key of
// a class, and that it was given is a fact before it is. It trusts the verifier that it is asked by, and the vault.
package protect

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/wire"
)

// Key is a content key as it is kept.
type Key struct {
	ID      []byte // wire.ContentKeyID
	Product string
	Sealed  []byte // under the vault key
	By      string
	At      time.Time
}

// ErrNotFound is the store's word for nothing there.
var ErrNotFound = errors.New("not found")

// Store keeps content keys. Writes are durable when they return nil.
type Store interface {
	PutKey(ctx context.Context, k Key) error
	// Key returns ErrNotFound for an ID it does not hold.
	Key(ctx context.Context, id []byte) (Key, error)
	// Given stores the fact that keys are given.
	Given(ctx context.Context, f ledger.Fact) error
}

// Vault seals under a key that is not in the store.
type Vault interface {
	Seal(label string, plain []byte) ([]byte, error)
	Open(label string, sealed []byte) ([]byte, error)
}

// Config is what a Service needs; every field but Now must be set.
type Config struct {
	Store    Store
	Vault    Vault
	Manifest func(ctx context.Context, digest [32]byte) (wire.Release, error) // of a release that was published
	Device   func(ctx context.Context, id string) (device.Device, error)
	Told     func(ctx context.Context, id string, now time.Time) ([]Told, error) // what a device is told to install now, and may have
	Now      func() time.Time                                                    // nil: time.Now
}

// Told is a release that a device is to install.
type Told struct {
	Digest   [32]byte
	Manifest wire.Release
}

// Service is the stage.
type Service struct{ cfg Config }

// NewService checks cfg and makes the stage.
func NewService(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Vault == nil || cfg.Manifest == nil || cfg.Device == nil || cfg.Told == nil {
		return nil, errors.New("protect: the store, the vault, the releases or the devices are missing")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg}, nil
}

// label binds a kept key to what it is for.
func label(product string, id []byte) string {
	return "content-key/" + product + "/" + hex.EncodeToString(id)
}

// Seal seals a program under a fresh key, which is kept before a byte comes out.
func (s *Service) Seal(ctx context.Context, caller access.Caller, product string, plain io.Reader) (*wire.ComponentSealer, error) {
	key, id := wire.NewContentKey(), wire.NewContentKeyID()
	defer clear(key)
	sealed, err := s.cfg.Vault.Seal(label(product, id), key)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Store.PutKey(ctx, Key{ID: id, Product: product, Sealed: sealed, By: caller.ID, At: s.cfg.Now().UTC()}); err != nil {
		return nil, err
	}
	return wire.NewComponentSealer(plain, key, id)
}

// Asked is evidence that was found good, as far as keys depend on it.
type Asked struct {
	Device  string
	Status  string // of the verdict
	Release []byte // that was measured, whole
	Nonce   []byte
	CodeKey []byte // to which keys are to be wrapped
}

// Given is the Data of code.keys.given.
type Given struct {
	Release string   `json:"release"`          // digest, hex
	Keys    []string `json:"keys"`             // IDs, hex
	Images  []string `json:"images,omitempty"` // digests of the releases that it is told to install, of whose images some of the keys are
	CodeKey []byte   `json:"code_key_sha256"`
}

func denied(code, text, remedy string) error { return fault.New(fault.Denied, code, text, remedy) }

// Give gives the keys of the protected programs of the release that was measured, and of the images that the device is told to install, each wrapped to the device.
// That it does is a fact first. The caller is the device, and the verdict is of its own evidence.
func (s *Service) Give(ctx context.Context, caller access.Caller, a Asked) ([]wire.Wrap, error) {
	if !wire.Acceptable(a.Status) || len(a.Release) != sha256.Size {
		return nil, denied("code.evidence", "the evidence of device "+a.Device+" is "+a.Status+": a key is given for good evidence only", "see why it is not good: hallmark device show")
	}
	d, err := s.cfg.Device(ctx, a.Device)
	if err != nil {
		return nil, err
	}
	if d.State != device.Onboarded && d.State != device.Active {
		return nil, denied("code.state", fmt.Sprintf("device %s is %s: a key is given to devices at work only", d.ID, d.State), "release it from that first, if it is to work")
	}
	if d.Legitimacy == device.Stolen {
		return nil, denied("code.stolen", "device "+d.ID+" is marked as stolen", "mark it as found, if it is")
	}
	m, err := s.cfg.Manifest(ctx, [32]byte(a.Release))
	if err != nil {
		return nil, err
	}
	if m.Product != d.Product {
		return nil, denied("code.product", fmt.Sprintf("device %s is of product %s, and measured a release of %s", d.ID, d.Product, m.Product), "bring the device a release of its product")
	}
	var out []wire.Wrap
	sum := sha256.Sum256(a.CodeKey)
	g := Given{Release: hex.EncodeToString(a.Release), CodeKey: sum[:]}
	for _, c := range m.Components {
		if c.Protected == nil || c.Kind == wire.KindImage {
			continue
		}
		w, err := s.wrap(ctx, d, a, c)
		if err != nil {
			return nil, err
		}
		out, g.Keys = append(out, w), append(g.Keys, hex.EncodeToString(w.Key))
	}
	told, err := s.cfg.Told(ctx, d.ID, s.cfg.Now())
	if err != nil {
		return nil, err
	}
	for _, t := range told {
		c, ok := t.Manifest.Image()
		if !ok || c.Protected == nil {
			continue
		}
		w, err := s.wrap(ctx, d, a, c)
		if err != nil {
			return nil, err
		}
		out, g.Keys, g.Images = append(out, w), append(g.Keys, hex.EncodeToString(w.Key)), append(g.Images, hex.EncodeToString(t.Digest[:]))
	}
	if len(out) == 0 {
		return nil, denied("code.none", fmt.Sprintf("release %s has no protected program, and the device is told to install no protected image", m.Version), "ask for keys only where the manifest names them")
	}
	data, err := json.Marshal(g)
	if err != nil {
		return nil, err
	}
	return out, s.cfg.Store.Given(ctx, ledger.New(ledger.KindCodeKeysGiven, s.cfg.Now().UTC(), caller.ID, d.ID, nil, data))
}

func (s *Service) wrap(ctx context.Context, d device.Device, a Asked, c wire.Component) (wire.Wrap, error) {
	k, err := s.cfg.Store.Key(ctx, c.Protected.Key)
	if errors.Is(err, ErrNotFound) || err == nil && k.Product != d.Product {
		return wire.Wrap{}, fault.New(fault.Conflict, "code.key-lost", fmt.Sprintf("the content key %x of component %s is not here", c.Protected.Key, c.Name),
			"bring the database back from a backup that has it, or publish the program anew")
	}
	if err != nil {
		return wire.Wrap{}, err
	}
	key, err := s.cfg.Vault.Open(label(k.Product, k.ID), k.Sealed)
	if err != nil {
		return wire.Wrap{}, fmt.Errorf("content key %x: it was kept under another vault key: %w", k.ID, err)
	}
	defer clear(key)
	w, err := wire.WrapKey(a.CodeKey, d.ID, a.Nonce, k.ID, key)
	if err != nil {
		return wire.Wrap{}, fault.Newf(fault.Invalid, "code.key", "%w", err).With("see which version of the agent the device runs")
	}
	return w, nil
}
