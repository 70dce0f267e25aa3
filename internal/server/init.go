package server

import (
	"context"
	"crypto"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
)

// Vault is a directory of keys; keys/soft is one.
type Vault interface {
	Signers
	GenerateP256(name string) (crypto.Signer, error)
	GenerateEd25519(name string) (crypto.Signer, error)
	PutSecret(name string, secret []byte) error
	Secret(name string) ([]byte, error)
}

// InitOptions is what a new instance is made with.
type InitOptions struct {
	Config    Config
	Product   product.Product
	Approvers []string // names of the people whose offline keys decide; at least two
	Threshold uint     // how many of them must agree
	Online    Vault    // keys of the running instance
	Offline   Vault    // keys that leave the machine: the OEM root, and a key for each approver
	Now       time.Time
}

// Made is what a person must be told after Init.
type Made struct {
	AdminToken string
	Root       [32]byte // SHA-256 of the OEM root certificate
	Bundle     [32]byte // SHA-256 of the first trust bundle
}

// approverKey names an approver's key in the offline directory.
func approverKey(name string) string { return "approver-" + name }

const keyRoot = "oem-root"

// Init makes an instance in an empty directory: keys, CAs, logs with their first entries, the product and its first trust
// bundle, signed by a threshold of the approvers. config.json is written last, so what was interrupted is not an instance.
func Init(ctx context.Context, l Layout, o InitOptions) (made Made, err error) {
	if err := o.check(l); err != nil {
		return Made{}, err
	}
	db, err := sqlite.Open(ctx, l.Database())
	if err != nil {
		return Made{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	c := ceremony{l: l, o: o, db: db}
	for _, step := range []func(context.Context) error{c.keys, c.authorities, c.logs, c.product, c.bundle, c.admin} {
		if err := step(ctx); err != nil {
			return Made{}, fmt.Errorf("init: %w", err)
		}
	}
	return c.made, o.Config.save(l)
}

func (o InitOptions) check(l Layout) error {
	if err := o.Config.check(); err != nil {
		return err
	}
	if o.Threshold < 2 || int(o.Threshold) > len(o.Approvers) {
		return fmt.Errorf("threshold %d of %d approvers: at least two people must agree", o.Threshold, len(o.Approvers))
	}
	if _, err := os.Stat(l.Config()); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s holds an instance already: choose another directory", l.Dir)
	}
	if _, err := os.Stat(l.Database()); err == nil {
		return fmt.Errorf("%s holds an init that did not end: remove the directory and start again", l.Dir)
	}
	return durable.MkdirAll(l.Dir, 0o700)
}

// ceremony is one Init under way.
type ceremony struct {
	l    Layout
	o    InitOptions
	db   *store.DB
	root *pki.Authority
	cas  []*x509.Certificate
	open *logs
	made Made

	facts []ledger.Fact // of what happened before there was a log to write it to
}

func (c *ceremony) note(kind ledger.Kind, subject string, data []byte) {
	c.facts = append(c.facts, ledger.New(ledger.Control, kind, c.o.Now, "host:init", subject, nil, data))
}

func (c *ceremony) noteKey(name, purpose string, pub crypto.PublicKey) error {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return err
	}
	data, err := json.Marshal(map[string]any{"name": name, "purpose": purpose, "spki": der})
	if err != nil {
		return err
	}
	c.note(ledger.KindKeyCreated, name, data)
	return nil
}

func (c *ceremony) keys(context.Context) error {
	for _, k := range []struct{ name, purpose string }{
		{keyProductCA, "signs order CAs"},
		{keyOperational, "signs devices' operational certificates"},
		{keyInfra, "signs the servers' certificates"},
		{keyDirective, "directive authority"},
		{keyOrder, "signs production orders"},
		{keyServer, "TLS of this server"},
	} {
		s, err := c.o.Online.GenerateP256(k.name)
		if err != nil {
			return err
		}
		if err := c.noteKey(k.name, k.purpose, s.Public()); err != nil {
			return err
		}
	}
	for _, name := range append([]string{keyLogControl, keyLogEvents}, c.o.Config.Witnesses...) {
		s, err := c.o.Online.GenerateEd25519(name)
		if err != nil {
			return err
		}
		if err := c.noteKey(name, "signs checkpoints", s.Public()); err != nil {
			return err
		}
	}
	for _, name := range c.o.Approvers {
		s, err := c.o.Offline.GenerateP256(approverKey(name))
		if err != nil {
			return err
		}
		if err := c.noteKey(approverKey(name), "offline approver", s.Public()); err != nil {
			return err
		}
	}
	bucket, err := hpke.MLKEM768P256().GenerateKey()
	if err != nil {
		return err
	}
	secret, err := bucket.Bytes()
	if err != nil {
		return err
	}
	vault := make([]byte, 32)
	if _, err := rand.Read(vault); err != nil {
		return err
	}
	return errors.Join(c.o.Online.PutSecret(keyBucket, secret), c.o.Online.PutSecret(keyVault, vault))
}

func (c *ceremony) authorities(context.Context) error {
	k, err := c.o.Offline.GenerateP256(keyRoot)
	if err != nil {
		return err
	}
	oem := c.o.Config.OEM
	if c.root, err = pki.NewRoot(oem, k, c.o.Now); err != nil {
		return err
	}
	c.cas = []*x509.Certificate{c.root.Cert}
	for _, ca := range []struct {
		role pki.Role
		key  string
		name pki.Name
	}{
		{pki.Product, keyProductCA, pki.Name{OEM: oem, Product: c.o.Product.ID}},
		{pki.Operational, keyOperational, pki.Name{OEM: oem}},
		{pki.Infra, keyInfra, pki.Name{OEM: oem}},
	} {
		s, err := c.o.Online.Signer(ca.key)
		if err != nil {
			return err
		}
		cert, err := c.root.Sub(ca.role, ca.name, s.Public(), c.o.Now)
		if err != nil {
			return err
		}
		c.cas = append(c.cas, cert)
		if err := durable.WriteFile(c.l.Cert(ca.key), cert.Raw, 0o644); err != nil {
			return err
		}
	}
	for _, cert := range c.cas {
		c.note(ledger.KindCACreated, cert.Subject.CommonName, cert.Raw)
	}
	c.made.Root = sha256.Sum256(c.root.Cert.Raw)
	return durable.WriteFile(c.l.Cert(keyRoot), c.root.Cert.Raw, 0o644)
}

func (c *ceremony) logs(ctx context.Context) error {
	err := c.db.Write(ctx, func(tx *store.Tx) error {
		for _, log := range []ledger.Log{ledger.Control, ledger.Events} {
			data, err := json.Marshal(map[string]string{"origin": c.o.Config.origin(log)})
			if err != nil {
				return err
			}
			if err := tx.Append(ledger.New(log, ledger.KindGenesis, c.o.Now, "host:init", c.o.Config.Instance, nil, data)); err != nil {
				return err
			}
		}
		data, err := json.Marshal(c.o.Config)
		if err != nil {
			return err
		}
		init := ledger.New(ledger.Control, ledger.KindInitialised, c.o.Now, "host:init", c.o.Config.Instance, nil, data)
		return tx.Append(append([]ledger.Fact{init}, c.facts...)...)
	})
	if err != nil {
		return err
	}
	c.open, err = openLogs(ctx, c.l, c.o.Config, c.db, c.o.Online, slog.New(slog.DiscardHandler), nil)
	return err
}

func (c *ceremony) product(ctx context.Context) error {
	guard, err := access.NewGuard(c.db)
	if err != nil {
		return err
	}
	_, err = product.New(guard, c.db, suiteIDs()).Create(ctx, access.Internal("init"), c.o.Product)
	return err
}

// bundle signs and stores the first trust bundle. Nobody is asked for permission: the approvers' signatures are the permission.
func (c *ceremony) bundle(ctx context.Context) error {
	b, err := c.firstBundle()
	if err != nil {
		return err
	}
	payload, err := wire.EncodeBundle(b)
	if err != nil {
		return err
	}
	var envelope []byte
	for i, name := range c.o.Approvers[:c.o.Threshold] {
		k, err := c.o.Offline.Signer(approverKey(name))
		if err != nil {
			return err
		}
		if i == 0 {
			envelope, err = wire.NewThreshold(wire.TypeBundle, payload, k)
		} else {
			envelope, err = wire.AddSignature(wire.TypeBundle, envelope, k)
		}
		if err != nil {
			return err
		}
	}
	c.made.Bundle = sha256.Sum256(payload)
	devices, err := newDeviceService(c.db, c.open.reader, c.o.Config, c.o.Online, nil, nil)
	if err != nil {
		return err
	}
	_, err = devices.PublishBundle(ctx, access.Internal("init"), envelope)
	return err
}

func (c *ceremony) firstBundle() (wire.Bundle, error) {
	people := wire.KeySet{Threshold: c.o.Threshold}
	for _, name := range c.o.Approvers {
		k, err := c.o.Offline.Signer(approverKey(name))
		if err != nil {
			return wire.Bundle{}, err
		}
		if people.Keys, err = appendSPKI(people.Keys, k.Public()); err != nil {
			return wire.Bundle{}, err
		}
	}
	directive, err := c.o.Online.Signer(keyDirective)
	if err != nil {
		return wire.Bundle{}, err
	}
	online := wire.KeySet{Threshold: 1}
	if online.Keys, err = appendSPKI(nil, directive.Public()); err != nil {
		return wire.Bundle{}, err
	}
	secret, err := c.o.Online.Secret(keyBucket)
	if err != nil {
		return wire.Bundle{}, err
	}
	bucket, err := hpke.MLKEM768P256().NewPrivateKey(secret)
	if err != nil {
		return wire.Bundle{}, err
	}
	control, events, witnesses := c.open.trusted()
	return wire.Bundle{
		Version: 1, Product: c.o.Product.ID, Root: people, Release: people, Warrant: people, Directive: online,
		Control: control, Events: events, Witnesses: witnesses, Quorum: uint(c.o.Config.Quorum), MaxAge: uint64(c.o.Config.MaxAge),
		Anchors: [][]byte{c.root.Cert.Raw}, Suites: []string{c.o.Product.Suite}, Issued: uint64(c.o.Now.Unix()),
		Telemetry: []wire.StreamKey{{Bucket: bucketName, KEM: bucket.KEM().ID(), Key: bucket.PublicKey().Bytes()}},
	}, nil
}

func appendSPKI(keys [][]byte, pub crypto.PublicKey) ([][]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	return append(keys, der), err
}

// admin issues the first administrator's token, and brings everything so far under a witnessed checkpoint.
func (c *ceremony) admin(ctx context.Context) error {
	guard, err := access.NewGuard(c.db)
	if err != nil {
		return err
	}
	c.made.AdminToken, err = access.NewCredentials(c.db, guard).Issue(ctx, access.Internal("init"), access.Grant{
		Caller: "person:admin", Kind: access.Person, Roles: []access.Role{access.Admin}, Use: access.UseToken, Life: 365 * 24 * time.Hour,
	})
	if err != nil {
		return err
	}
	if err := durable.WriteFile(c.l.AdminToken(), []byte(c.made.AdminToken+"\n"), 0o600); err != nil {
		return err
	}
	return c.open.settle(ctx)
}

// Fingerprint prints a digest for people to compare: groups of four hex digits.
func Fingerprint(sum [32]byte) string {
	var parts []string
	for p := range slices.Chunk([]byte(hex.EncodeToString(sum[:])), 4) {
		parts = append(parts, string(p))
	}
	return strings.Join(parts, " ")
}
