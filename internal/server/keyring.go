package server

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/hpke"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/keyring"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// firstKeys are the keys that init makes.
func firstKeys() map[keyring.Role]string {
	return map[keyring.Role]string{
		keyring.Directive: keyDirective, keyring.LogControl: keyLogControl, keyring.LogEvents: keyLogEvents, keyring.Order: keyOrder,
		keyring.Server: keyServer, keyring.Bucket: keyBucket,
	}
}

// openKeyring reads which keys are used. What devices need of them is asked later, when there is a registry.
func (i *Instance) openKeyring(ctx context.Context) error {
	i.ring = keyring.New(keyring.Config{
		Guard: i.guard, Store: i.db.Keyring(), Vault: ringVault{i.keys}, Field: field{i}, First: firstKeys(), Loaded: i.loadDirectives,
	})
	if err := i.ring.Load(ctx); err != nil {
		return err
	}
	i.loadDirectives()
	if len(i.directives.all()) == 0 {
		return errors.New("no directive key of this instance is here: restore the key directory from a backup")
	}
	return nil
}

// newestKey gives the key of a role that things are signed with from this start on.
func (i *Instance) newestKey(role keyring.Role) (crypto.Signer, error) {
	names := i.ring.Names(role)
	if len(names) == 0 {
		return nil, fmt.Errorf("no key of role %s is used", role)
	}
	return i.keys.Signer(names[0])
}

// orderSigner signs orders with the key that was the newest at this start, so that stations can have pinned the next one before it signs. When that key is
// retired meanwhile it signs no more, and the newest does.
type orderSigner struct {
	i     *Instance
	name  string
	first crypto.Signer
}

func (i *Instance) newOrderSigner() (orderSigner, error) {
	k, err := i.newestKey(keyring.Order)
	if err != nil {
		return orderSigner{}, err
	}
	return orderSigner{i, i.ring.Names(keyring.Order)[0], k}, nil
}

func (s orderSigner) current() crypto.Signer {
	names := s.i.ring.Names(keyring.Order)
	if slices.Contains(names, s.name) {
		return s.first
	}
	for _, name := range names {
		if k, err := s.i.keys.Signer(name); err == nil {
			return k
		}
	}
	s.i.log.Error("no order key that is in use is here: nobody will take the orders that are signed", "key", s.name)
	return s.first
}

// Public implements crypto.Signer.
func (s orderSigner) Public() crypto.PublicKey { return s.current().Public() }

// Sign implements crypto.Signer.
func (s orderSigner) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.current().Sign(r, digest, opts)
}

// formerOrders gives the keys of orders, those that are not used any more too: what they signed is still there.
func (i *Instance) formerOrders() (out []crypto.PublicKey) {
	for _, k := range i.ring.All(keyring.Order) {
		if pub, err := wire.ParseKey(k.SPKI); err == nil {
			out = append(out, pub)
		}
	}
	return out
}

// besideOrders gives the order keys that are in use beside the one that signs: stations pin those too, the next one before it signs at the next
// start, and the last one until it is retired.
func (i *Instance) besideOrders(signing crypto.Signer) (out [][]byte) {
	for _, name := range i.ring.Names(keyring.Order) {
		k, err := i.keys.Signer(name)
		if err != nil { // made by another node, and not brought here
			i.log.Error("an order key is not here", "key", name, "error", err)
			continue
		}
		pub, ok := k.Public().(interface{ Equal(x crypto.PublicKey) bool })
		if ok && pub.Equal(signing.Public()) {
			continue
		}
		if spki, err := wire.SPKIOf(k.Public()); err == nil {
			out = append(out, spki)
		}
	}
	return out
}

// directives are the keys of the directive authority, newest first. They change while the server runs.
type directives struct {
	mu   sync.Mutex // guards keys
	keys []crypto.Signer
}

func (d *directives) all() []crypto.Signer {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keys
}

func (i *Instance) loadDirectives() {
	var keys []crypto.Signer
	for _, name := range i.ring.Names(keyring.Directive) {
		k, err := i.keys.Signer(name)
		if err == nil {
			k, err = wire.Identified(k)
		}
		if err != nil { // made by another node, and not brought here
			i.log.Error("a directive key is not here", "key", name, "error", err)
			continue
		}
		keys = append(keys, k)
	}
	i.directives.mu.Lock()
	defer i.directives.mu.Unlock()
	i.directives.keys = keys
}

// refreshKeys follows what other nodes changed.
func (i *Instance) refreshKeys(ctx context.Context) error {
	if err := i.ring.Load(ctx); err != nil {
		return err
	}
	i.loadDirectives()
	return nil
}

// logSigners are the keys of one log.
type logSigners struct {
	newest edSigner
	others []ledger.Signer     // sign too
	former []ed25519.PublicKey // retired
}

// logKeys finds the keys of a log.
type logKeys func(keys Signers, log ledger.Log) (logSigners, error)

// firstLogKeys are those that init makes.
func firstLogKeys(keys Signers, log ledger.Log) (s logSigners, err error) {
	s.newest, err = newEdSigner(keys, "log-"+string(log))
	return s, err
}

func (i *Instance) logKeys(keys Signers, log ledger.Log) (s logSigners, err error) {
	role := keyring.Role("log-" + string(log))
	for n, name := range i.ring.Names(role) {
		k, err := newEdSigner(keys, name)
		if err != nil {
			return s, err
		}
		if n == 0 {
			s.newest = k
		} else {
			s.others = append(s.others, k)
		}
	}
	for _, k := range i.ring.Retired(role) {
		s.former = append(s.former, k)
	}
	return s, nil
}

// verifierKeys are all keys of the log: a witness recognises what was signed by those of before.
func (s logSigners) verifierKeys(origin string) (out []ledger.VerifierKey) {
	pubs := []ed25519.PublicKey{s.newest.pub}
	for _, o := range s.others {
		pubs = append(pubs, o.Public())
	}
	for _, k := range append(pubs, s.former...) {
		out = append(out, ledger.VerifierKey{Name: origin, Type: ledger.TypeEd25519, Key: k})
	}
	return out
}

// ringVault makes keys in the key directory.
type ringVault struct{ keys Vault }

// Make implements keyring.Vault.
func (v ringVault) Make(role keyring.Role, id, name string) ([]byte, error) {
	var k crypto.Signer
	var err error
	switch role {
	case keyring.Bucket, keyring.Desk:
		b, err := hpke.MLKEM768P256().GenerateKey()
		if err != nil {
			return nil, err
		}
		secret, err := b.Bytes()
		if err != nil {
			return nil, err
		}
		return b.PublicKey().Bytes(), v.keys.PutSecret(name, secret)
	case keyring.LogControl, keyring.LogEvents:
		k, err = v.keys.GenerateEd25519(name)
	case keyring.Directive, keyring.Order:
		k, err = v.generate(id, name)
	case keyring.Server, keyring.Supply: // what others have to check has keys that others know
		set, unknown := suite.Get(suite.ID(cmp.Or(id, string(suite.P256))))
		if unknown != nil || set.Quantum {
			return nil, fault.New(fault.Invalid, "key.suite", fmt.Sprintf("there are no %s keys of suite %s", role, id), "leave the suite out, or use HM-P384-1")
		}
		k, err = v.generate(id, name)
	default:
		return nil, fmt.Errorf("no keys are made for role %s", role)
	}
	if err != nil {
		return nil, err
	}
	return publicPart(role, k.Public())
}

func (v ringVault) generate(id, name string) (crypto.Signer, error) {
	if id == "" || id == string(suite.P256) {
		return v.keys.GenerateP256(name)
	}
	if _, err := suite.Get(suite.ID(id)); err != nil {
		return nil, fault.New(fault.Invalid, "key.suite", err.Error(), "name a suite of docs/guide/suites.md")
	}
	g, ok := v.keys.(interface {
		Generate(name string, id suite.ID) (crypto.Signer, error)
	})
	if !ok {
		return nil, fault.New(fault.Invalid, "key.suite", "the key directory makes no keys of suite "+id, "name one that it makes keys of, or keep the keys in a token")
	}
	return g.Generate(name, suite.ID(id))
}

// Public implements keyring.Vault.
func (v ringVault) Public(role keyring.Role, name string) ([]byte, error) {
	if role == keyring.Bucket || role == keyring.Desk {
		secret, err := v.keys.Secret(name)
		if err != nil {
			return nil, err
		}
		b, err := hpke.MLKEM768P256().NewPrivateKey(secret)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", name, err)
		}
		return b.PublicKey().Bytes(), nil
	}
	k, err := v.keys.Signer(name)
	if err != nil {
		return nil, err
	}
	return publicPart(role, k.Public())
}

// publicPart is a key as trust bundles have it: a log's raw, the others as SubjectPublicKeyInfo.
func publicPart(role keyring.Role, pub crypto.PublicKey) ([]byte, error) {
	if role == keyring.LogControl || role == keyring.LogEvents {
		if k, ok := pub.(ed25519.PublicKey); ok {
			return k, nil
		}
		return nil, fmt.Errorf("key of role %s is %T, want Ed25519", role, pub)
	}
	return wire.SPKIOf(pub)
}

// field asks the registry what devices need.
type field struct{ i *Instance }

// NeedKey implements keyring.Field.
func (f field) NeedKey(ctx context.Context, role keyring.Role, key []byte, others [][]byte) (int, bool, error) {
	names := namedIn(role)
	if names == nil {
		return 0, false, nil
	}
	if f.i.device == nil { // at the start, nobody asks
		return 0, true, nil
	}
	caller := access.Internal("keys")
	products, err := f.i.product.List(ctx, caller)
	if err != nil {
		return 0, true, err
	}
	need := 0
	for _, p := range products {
		s, err := f.i.device.BundleStatus(ctx, caller, p.ID)
		if notFound(err) {
			continue // a product without a bundle has no devices
		}
		if err != nil {
			return 0, true, err
		}
		for _, c := range s.Counts {
			b, err := f.i.device.BundleOf(ctx, caller, p.ID, c.Version)
			if notFound(err) {
				continue // one that was never published: nothing can be told to such a device
			}
			if err != nil {
				return 0, true, err
			}
			if names(b, key) && !slices.ContainsFunc(others, func(o []byte) bool { return names(b, o) }) {
				need += c.Devices
			}
		}
	}
	return need, true, nil
}

func notFound(err error) bool {
	f, ok := errors.AsType[*fault.Fault](err)
	return ok && f.Kind == fault.NotFound
}

// namedIn says how a bundle names a key of the role; nil: it does not.
func namedIn(role keyring.Role) func(b device.Bundle, key []byte) bool {
	inRole := func(s wire.KeySet, key []byte) bool {
		return slices.ContainsFunc(s.Keys, func(k []byte) bool { return bytes.Equal(k, key) })
	}
	switch role {
	case keyring.Directive:
		return func(b device.Bundle, key []byte) bool { return inRole(b.Wire.Directive, key) }
	case keyring.LogControl:
		return func(b device.Bundle, key []byte) bool { return bytes.Equal(b.Wire.Control.Key, key) }
	case keyring.LogEvents:
		return func(b device.Bundle, key []byte) bool { return bytes.Equal(b.Wire.Events.Key, key) }
	case keyring.Bucket:
		return func(b device.Bundle, key []byte) bool {
			for _, t := range b.Wire.Telemetry {
				if bytes.Equal(t.Key, key) {
					return true
				}
			}
			return false
		}
	case keyring.Order, keyring.Server, keyring.Desk, keyring.Supply:
	}
	return nil
}
