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
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/store"
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

	OIDCSecret []byte // the client's secret with Config.OIDC; empty: a public client
}

// Made is what a person must be told after Init.
type Made struct {
	AdminToken string
	SignIn     string   // link that signs the first administrator in, once, within a day
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
	db, err := openDatabase(ctx, l, o.Config)
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
	if err := l.saveOIDCSecret(o.OIDCSecret); err != nil {
		return Made{}, err
	}
	return c.made, o.Config.save(l)
}

// Make is Init in a directory that is empty or not there yet. Everything is checked before anything is written, and what fails
// leaves the file system as it was. vault makes a directory of keys; Online and Offline of o are set by it.
func Make(ctx context.Context, l Layout, o InitOptions, vault func(dir string) (Vault, error)) (made Made, err error) {
	if err := o.Check(); err != nil {
		return Made{}, err
	}
	if err := l.Vacant(); err != nil {
		return Made{}, err
	}
	top := firstMissing(l.Dir)
	if err := durable.MkdirAll(l.Dir, 0o700); err != nil {
		return Made{}, err
	}
	unlock, err := l.Lock()
	if err != nil {
		return Made{}, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := l.Vacant(); err != nil { // somebody was faster
		return Made{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.clear(top))
		}
	}()
	if o.Online, err = vault(l.Keys()); err != nil {
		return Made{}, err
	}
	if o.Offline, err = vault(l.Offline()); err != nil {
		return Made{}, err
	}
	return Init(ctx, l, o)
}

// Vacant checks that nothing is in the data directory.
func (l Layout) Vacant() error {
	names, err := os.ReadDir(l.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && len(names) == 0:
		return nil
	case err != nil:
		return fmt.Errorf("data directory: %w; choose another", err)
	}
	for _, n := range names {
		switch n.Name() {
		case filepath.Base(l.Config()):
			return fmt.Errorf("%s holds an instance already: start it with `hallmark serve --dir %s`, or choose another directory", l.Dir, l.Dir)
		case filepath.Base(l.Database()):
			return fmt.Errorf("%s holds an init that did not end: remove the directory and start again", l.Dir)
		}
	}
	return fmt.Errorf("%s is not empty: choose a new directory, or an empty one", l.Dir)
}

// firstMissing gives the topmost directory of a path that is not there; empty when all are.
func firstMissing(dir string) (top string) {
	for dir = filepath.Clean(dir); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return top
		}
		top = dir
	}
}

// clear takes away what an init that failed has written: from top on, or what is in a directory that was there before.
func (l Layout) clear(top string) error {
	if top != "" {
		return os.RemoveAll(top)
	}
	names, err := os.ReadDir(l.Dir)
	for _, n := range names {
		err = errors.Join(err, os.RemoveAll(filepath.Join(l.Dir, n.Name())))
	}
	return err
}

func (o InitOptions) check(l Layout) error {
	if err := o.Check(); err != nil {
		return err
	}
	if _, err := os.Stat(l.Config()); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s holds an instance already: choose another directory", l.Dir)
	}
	if _, err := os.Stat(l.Database()); err == nil {
		return fmt.Errorf("%s holds an init that did not end: remove the directory and start again", l.Dir)
	}
	return durable.MkdirAll(l.Dir, 0o700)
}

// maxApprovers is how many keys a role of a trust bundle may have.
const maxApprovers = 16

// Check says what is wrong with the options, without looking at any file.
func (o InitOptions) Check() error {
	if err := o.Config.check(); err != nil {
		return err
	}
	return errors.Join(o.Config.CheckAddresses(), o.checkProduct(), o.checkApprovers())
}

// CheckAddresses says what is wrong with the instance's addresses and names.
func (c Config) CheckAddresses() error {
	if err := errors.Join(checkAddress("api", c.API), checkAddress("devices", c.Devices)); err != nil {
		return err
	}
	if c.API == c.Devices && !strings.HasSuffix(c.API, ":0") {
		return fmt.Errorf("api and devices are both %s: give each a port of its own", c.API)
	}
	for i, n := range c.Names {
		if n == "" || strings.ContainsAny(n, " /:@") && net.ParseIP(n) == nil || slices.Contains(c.Names[:i], n) {
			return fmt.Errorf("names: %q: want DNS names and IP addresses without ports, each once", n)
		}
	}
	if !instanceName.MatchString(c.Instance) {
		return fmt.Errorf("instance %q: want a name like a DNS name's, such as hallmark.example.com", c.Instance)
	}
	return nil
}

var instanceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,126}[a-z0-9])?$`)

// ExplainListen says what to do about a listener that cannot be opened; other errors it gives back.
func ExplainListen(err error) error {
	var op *net.OpError
	var dns *net.DNSError
	if !errors.As(err, &op) || op.Op != "listen" {
		return err
	}
	say := func(why string) error { return fmt.Errorf("listen on %s: %s", op.Addr, why) }
	switch {
	case errors.As(err, &dns):
		return fmt.Errorf("listen on host %q: no such host: correct \"api\" or \"devices\" in config.json", dns.Name)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return say("this machine has no such address: correct \"api\" or \"devices\" in config.json; 0.0.0.0 means all it has")
	case errors.Is(err, syscall.EACCES):
		return say("ports below 1024 need a privilege: choose another in config.json, or give CAP_NET_BIND_SERVICE")
	case errors.Is(err, syscall.EADDRINUSE):
		return say("another program holds the port: stop it, or choose another in config.json")
	}
	return err
}

// checkAddress takes host:port, with a port in digits; 0 means any that is free.
func checkAddress(setting, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err == nil && host != "" {
		if _, err := strconv.ParseUint(port, 10, 16); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s %q: want host:port with a port of 0 to 65535, such as 127.0.0.1:8480 or 0.0.0.0:8480", setting, address)
}

// checkProduct says of the first product what the product stage would say, with the choices there are.
func (o InitOptions) checkProduct() error {
	p := o.Product
	for _, n := range []struct{ what, name string }{{"oem", o.Config.OEM}, {"product", p.ID}} {
		if !wire.ValidName(n.name) {
			return fmt.Errorf("%s %q: want at most 64 lower-case letters, digits, '-' and '.'", n.what, n.name)
		}
	}
	switch {
	case p.OEM != o.Config.OEM:
		return fmt.Errorf("product %q is of OEM %q, the instance of %q", p.ID, p.OEM, o.Config.OEM)
	case p.Name == "" || len(p.Name) > 128:
		return fmt.Errorf("product name %q: want 1 to 128 bytes", p.Name)
	case !slices.Contains(models[:], p.Model):
		return fmt.Errorf("update model %q: want one of %s, %s and %s", p.Model, models[0], models[1], models[2])
	case !slices.Contains(suiteIDs(), p.Suite):
		return fmt.Errorf("suite %q: want one of %s", p.Suite, strings.Join(suiteIDs(), ", "))
	case len(p.Hardware) == 0 || len(p.Hardware) > 64:
		return fmt.Errorf("%d hardware revisions: want 1 to 64", len(p.Hardware))
	case !p.EndOfSupport.After(o.Now):
		return fmt.Errorf("end of support %s: it must lie ahead", p.EndOfSupport.Format(time.DateOnly))
	}
	for i, h := range p.Hardware {
		if h == "" || len(h) > 64 || slices.Contains(p.Hardware[:i], h) {
			return fmt.Errorf("hardware revision %q: want names of 1 to 64 bytes, each once", h)
		}
	}
	return nil
}

var models = [...]wire.UpdateModel{wire.ModelOTP, wire.ModelBlob, wire.ModelAsset}

var personName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,47}$`)

func (o InitOptions) checkApprovers() error {
	for i, name := range o.Approvers {
		if !personName.MatchString(name) {
			return fmt.Errorf("approver %q: want 1 to 48 letters, digits and ._@-", name)
		}
		if slices.ContainsFunc(o.Approvers[:i], func(n string) bool { return strings.EqualFold(n, name) }) {
			return fmt.Errorf("approver %q is named twice: one person counts once", name)
		}
	}
	if len(o.Approvers) > maxApprovers {
		return fmt.Errorf("%d approvers: at most %d", len(o.Approvers), maxApprovers)
	}
	if o.Threshold < 2 || int(o.Threshold) > len(o.Approvers) {
		return fmt.Errorf("threshold %d of %d approvers: want 2 to %d, because no single person decides", o.Threshold, len(o.Approvers), len(o.Approvers))
	}
	return nil
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
	for _, name := range append([]string{keyLogControl, keyLogEvents}, c.o.Config.localWitnesses()...) {
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
	err := c.db.Write(ctx, func(tx *store.Tx) error { //nolint:contextcheck // the transaction has a context of its own
		if err := vacant(tx); err != nil {
			return err
		}
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
	once, err := access.NewCredentials(c.db, guard).Issue(ctx, access.Internal("init"), access.Grant{
		Caller: "person:admin", Kind: access.Person, Roles: []access.Role{access.Admin}, Use: access.UseOnce, Life: 24 * time.Hour,
	})
	if err != nil {
		return err
	}
	c.made.SignIn = c.o.Config.signInLink(once)
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
