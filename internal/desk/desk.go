// Package desk is a PC without a network at which an OEM's orders are wrapped.
//
// Stage 2, birth: a directory that holds, under a passphrase or in a token, an order key and a CA for each product that is ordered at it. The CAs are granted
// by a key ceremony, and the instance takes the desk in; what the desk orders is registered there afterwards. Guaranteed: an order's registration is durable
// before its file is there, so that no station has an order whose records nobody could open; an ID is used once; what is put on devices is signed by a trust
// bundle that was pinned by hand, or by one that follows it by its own rules. It trusts who holds the passphrase, the machine that it runs on, and the fingerprints
// that people compared; of quotas it knows nothing, which the instance holds it to.
package desk

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/failpoint"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// Keys are where the desk's are: files under a passphrase, or a token.
type Keys interface {
	Signer(name string) (crypto.Signer, error)
	GenerateP256(name string) (crypto.Signer, error)
}

// Config is what a desk is.
type Config struct {
	Name  string           `json:"name"`
	Token string           `json:"token,omitempty"` // PKCS#11 URI of the token that has its keys; empty: files
	Of    factory.DeskFile `json:"of"`              // the instance, whose fingerprint people compared
}

// Desk is an open directory.
type Desk struct {
	Config
	dir  string
	root *x509.Certificate
}

// The files of a desk.
const (
	configFile = "desk.json"
	requests   = "requests" // PRODUCT.request: for the ceremony
	grants     = "grants"   // PRODUCT.grant: its answer
	renewals   = "renewals" // PRODUCT.request: for a CA in the place of the one that was granted
	bundles    = "bundles"  // PRODUCT.bundle: the trust bundle that is believed
	orders     = "orders"   // ORDER/registration: for the instance
	maxFile    = 1 << 20
	maxName    = 40 // it stands in the names of CAs
)

// KeyDir is where keys are that are in files.
func KeyDir(dir string) string { return filepath.Join(dir, "keys") }

func denied(code, text, remedy string) error { return fault.New(fault.Denied, code, text, remedy) }

func conflict(code, text, remedy string) error { return fault.New(fault.Conflict, code, text, remedy) }

// SameFingerprint compares one that somebody typed with one that was computed: blanks and case do not matter.
func SameFingerprint(typed, is string) bool {
	plain := func(s string) string {
		return strings.ToLower(strings.Map(func(r rune) rune {
			if r == ' ' || r == ':' {
				return -1
			}
			return r
		}, s))
	}
	return is != "" && plain(typed) == plain(is)
}

// Pinned reads an instance's file, which must have the fingerprint that its people told.
func Pinned(file []byte, fingerprint string) (factory.DeskFile, error) {
	f, err := factory.DecodeDeskFile(file)
	if err != nil {
		return f, fault.Newf(fault.Invalid, "desk.instance", "no file of an instance for its desks: %w", err).With("write it again: `hallmark desk instance`")
	}
	if !SameFingerprint(fingerprint, f.Fingerprint()) {
		return f, denied("desk.fingerprint", fmt.Sprintf("the instance's file has fingerprint %s, not the one that is given", f.Fingerprint()), "telephone who runs the instance: this file may not be theirs")
	}
	return f, nil
}

func (d *Desk) path(parts ...string) string {
	return filepath.Join(append([]string{d.dir}, parts...)...)
}

// write makes a file durable, and then lets a test cut the power.
func (d *Desk) write(point string, data []byte, perm os.FileMode, parts ...string) error {
	path := d.path(parts...)
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := durable.WriteFile(path, data, perm); err != nil {
		return err
	}
	failpoint.Hit(point)
	return nil
}

func (d *Desk) read(parts ...string) ([]byte, error) {
	f, err := os.Open(d.path(parts...))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes: it is none of a desk's files", f.Name(), info.Size())
	}
	return os.ReadFile(f.Name())
}

func newDesk(dir string, c Config) (*Desk, error) {
	d := &Desk{Config: c, dir: dir}
	if !wire.ValidName(c.Name) || len(c.Name) > maxName {
		return nil, fault.New(fault.Invalid, "desk.name", fmt.Sprintf("desk %.80q", c.Name), fmt.Sprintf("name it with lower-case letters, digits, '-' and '.', at most %d", maxName))
	}
	var err error
	if d.root, err = x509.ParseCertificate(c.Of.Root); err != nil {
		return nil, fmt.Errorf("the OEM's root: %w", err)
	}
	if role, err := pki.RoleOf(d.root); err != nil || role != profile.Root || d.root.CheckSignatureFrom(d.root) != nil {
		return nil, fault.New(fault.Invalid, "desk.root", fmt.Sprintf("%q is no root of an OEM", d.root.Subject), "ask the instance for its file again: `hallmark desk instance`")
	}
	return d, nil
}

// Begin makes a desk in dir, with its keys and a request for a CA of each product. What was cut off goes on with the same call; a desk that is there is
// left as it is.
func Begin(dir string, c Config, keys Keys, products []string, now time.Time) (*Desk, error) {
	if _, err := os.Stat(filepath.Join(dir, configFile)); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, conflict("desk.there", dir+" is a desk already", "ask for another product's CA with `hallmark desk request`, or choose another directory"))
	}
	d, err := newDesk(dir, c)
	if err != nil {
		return nil, err
	}
	if len(products) == 0 {
		return nil, fault.New(fault.Invalid, "desk.product", "a desk without a product", "name at least one")
	}
	if _, err := d.key(keys, d.orderKey(), true); err != nil {
		return nil, err
	}
	failpoint.Hit("desk.order-key")
	for _, p := range products {
		if _, err := d.Request(keys, p, now); err != nil {
			return nil, err
		}
	}
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, err
	}
	return d, d.write("desk.config", append(data, '\n'), 0o600, configFile)
}

// Open opens a desk.
func Open(dir string) (*Desk, error) {
	d := &Desk{dir: dir}
	data, err := d.read(configFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "desk.missing", fmt.Sprintf("%s is no desk: %s is missing", dir, configFile), "make one with `hallmark desk init`; one that was cut off goes on with the same command")
	}
	if err != nil {
		return nil, err
	}
	c, err := DecodeConfig(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.path(configFile), err)
	}
	return newDesk(dir, c)
}

// DecodeConfig reads what a desk is.
func DecodeConfig(data []byte) (Config, error) {
	var c Config
	j := json.NewDecoder(bytes.NewReader(data))
	j.DisallowUnknownFields()
	if err := j.Decode(&c); err != nil {
		return Config{}, err
	}
	return c, wire.CheckSealKey(c.Of.SealKey)
}

func (d *Desk) orderKey() string { return d.Name + "-order" }

// maxCAKeys is how many CAs a product has at a desk, one after another.
const maxCAKeys = 100

// caKey is the name of the key of a product's nth CA.
func (d *Desk) caKey(product string, n int) string {
	if n == 1 {
		return d.Name + "-ca-" + product
	}
	return fmt.Sprintf("%s-ca-%s_%d", d.Name, product, n) // no product has such a name
}

// gone is how many of a product's CA keys in a row may be missing before there are no more: those of CAs that were replaced may have been destroyed.
const gone = 10

// caSigner finds the key of a public key among those of a product's CAs, and which it is.
func (d *Desk) caSigner(keys Keys, product string, spki []byte) (crypto.Signer, int, error) {
	var missing error
	for n, last := 1, 0; n <= maxCAKeys && n-last <= gone; n++ {
		k, err := keys.Signer(d.caKey(product, n))
		if err != nil {
			missing = err
			continue
		}
		last = n
		if have, err := wire.SPKIOf(k.Public()); err != nil || bytes.Equal(have, spki) {
			return k, n, err
		}
	}
	return nil, 0, fmt.Errorf("the CA's key of product %s is not here: have its CA replaced (hallmark desk request --anew): %w", product, missing)
}

// newKey is the number of a product's next CA key: behind all that are here.
func (d *Desk) newKey(keys Keys, product string) int {
	next := 1
	for n := 1; n <= maxCAKeys && n-next < gone; n++ {
		if _, err := keys.Signer(d.caKey(product, n)); err == nil {
			next = n + 1
		}
	}
	return next
}

// key finds a key; with fresh it makes it when it is not there.
func (d *Desk) key(keys Keys, name string, fresh bool) (crypto.Signer, error) {
	k, err := keys.Signer(name)
	if err != nil && fresh {
		return keys.GenerateP256(name)
	}
	return k, err
}

// unit tells a desk's CA apart from the instance's, in its name.
func (d *Desk) unit() string { return "desk-" + d.Name }

// Request gives the request for the CA of a product, which it makes with the CA's key when there is none yet.
func (d *Desk) Request(keys Keys, product string, now time.Time) (ceremony.Asked, error) {
	if !wire.ValidName(product) {
		return ceremony.Asked{}, fault.New(fault.Invalid, "desk.product", fmt.Sprintf("product %.80q", product), "give its ID, as `hallmark product list` shows it")
	}
	if asked, err := d.asked(requests, product); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return asked, err
	}
	return d.ask(keys, product, 1, requests, now)
}

// Renew gives the request for another CA of a product in the place of the one that it has, with a key of its own. The desk goes on ordering under
// the old one until the answer is there.
func (d *Desk) Renew(keys Keys, product string, now time.Time) (ceremony.Asked, error) {
	p, err := d.product(product)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && p.CA == nil:
		return ceremony.Asked{}, conflict("desk.ungranted", fmt.Sprintf("product %.80q has no CA here that could be replaced", product), "ask for its first: `hallmark desk request`")
	case err != nil:
		return ceremony.Asked{}, err
	case p.Next != nil:
		return *p.Next, nil
	}
	_, n, lost := d.caSigner(keys, product, p.CA.RawSubjectPublicKeyInfo)
	if lost != nil { // that is when another is needed most
		return d.ask(keys, product, d.newKey(keys, product), renewals, now)
	}
	if p.settle {
		if err := d.promote(product); err != nil {
			return ceremony.Asked{}, err
		}
	}
	return d.ask(keys, product, n+1, renewals, now)
}

// ask writes the request for a product's nth CA.
func (d *Desk) ask(keys Keys, product string, n int, dir string, now time.Time) (ceremony.Asked, error) {
	key, err := d.key(keys, d.caKey(product, n), true)
	if err != nil {
		return ceremony.Asked{}, err
	}
	failpoint.Hit("desk.ca-key")
	env, err := wire.SignCARequest(wire.CARequest{
		Role: wire.CAProduct, OEM: d.Of.OEM, Product: product, Unit: d.unit(), Instance: d.Of.Instance,
		Purpose: fmt.Sprintf("desk %s is to wrap orders of %s without the instance", d.Name, product), Issued: uint64(max(0, now.Unix())),
	}, key)
	if err != nil {
		return ceremony.Asked{}, fault.Newf(fault.Invalid, "desk.request", "%w", err).With("give what the request needs, and ask again")
	}
	if err := d.write("desk.request", env, 0o644, dir, product+".request"); err != nil {
		return ceremony.Asked{}, err
	}
	return d.asked(dir, product)
}

// RequestFile is where the request of a product is, and RenewalFile the one for another CA.
func (d *Desk) RequestFile(product string) string { return d.path(requests, product+".request") }

// RenewalFile is where the request for another CA of a product is.
func (d *Desk) RenewalFile(product string) string { return d.path(renewals, product+".request") }

func (d *Desk) asked(dir, product string) (ceremony.Asked, error) {
	env, err := d.read(dir, product+".request")
	if err != nil {
		return ceremony.Asked{}, err
	}
	list, err := ceremony.OpenRequests(env)
	if err == nil && len(list) != 1 {
		err = errors.New("it is not one request")
	}
	if err != nil {
		return ceremony.Asked{}, fmt.Errorf("%s: %w", d.path(dir, product+".request"), err)
	}
	return list[0], nil
}

// Product is one that a desk is for.
type Product struct {
	ID       string
	Asked    ceremony.Asked
	Next     *ceremony.Asked   // for another CA; nil: none is asked for
	CA       *x509.Certificate // nil: not granted yet
	Bundle   *wire.Bundle      // nil: not pinned yet
	envelope []byte
	settle   bool // its grant answers the request that still lies among the renewals: a cut came between
}

// Products gives them, by their IDs.
func (d *Desk) Products() (out []Product, err error) {
	files, err := os.ReadDir(d.path(requests))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		id, ok := strings.CutSuffix(f.Name(), ".request")
		if !ok {
			continue
		}
		p, err := d.product(id)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// answers says whether a grant names that request; what it grants is held against it elsewhere.
func answers(grant []byte, asked ceremony.Asked) bool {
	g, err := wire.DecodeCAGrant(grant)
	return err == nil && bytes.Equal(asked.Digest[:], g.Request)
}

func (d *Desk) product(id string) (p Product, err error) {
	p.ID = id
	if !wire.ValidName(id) {
		return p, fs.ErrNotExist
	}
	if p.Asked, err = d.asked(requests, id); err != nil {
		return p, err
	}
	next, err := d.asked(renewals, id)
	if err == nil {
		p.Next = &next
	} else if !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	grant, err := d.read(grants, id+".grant")
	if err == nil {
		if p.Next != nil && answers(grant, next) { // the grant decides which request is in force
			p.Asked, p.Next, p.settle = next, nil, true
		}
		p.CA, err = ceremony.CheckGrant(grant, p.Asked, d.root, d.Of.OEM)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p, fmt.Errorf("grant for product %s: %w", id, err)
	}
	p.envelope, err = d.read(bundles, id+".bundle")
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	b, err := wire.VerifyBundle(nil, p.envelope)
	if err != nil {
		return p, fmt.Errorf("pinned trust bundle of %s: %w", id, err)
	}
	p.Bundle = &b
	return p, nil
}

// Install takes in the ceremony's answer to one of the desk's requests, and writes anew what the desk tells of itself: the file that the instance takes it in
// by. The same again changes nothing.
func (d *Desk) Install(keys Keys, grant []byte, now time.Time) (product, file string, err error) {
	g, err := wire.DecodeCAGrant(grant)
	if err != nil {
		return "", "", fault.Newf(fault.Invalid, "desk.grant", "no answer of a ceremony to a desk's request: %w", err).With("take the file as the ceremony wrote it")
	}
	list, err := d.Products()
	if err != nil {
		return "", "", err
	}
	i := slices.IndexFunc(list, func(p Product) bool {
		return bytes.Equal(p.Asked.Digest[:], g.Request) || p.Next != nil && bytes.Equal(p.Next.Digest[:], g.Request)
	})
	if i < 0 {
		return "", "", denied("desk.grant", "the grant answers no request of this desk", "see what it has asked for: `hallmark desk show`")
	}
	p, renewal := list[i], list[i].settle
	if p.Next != nil && bytes.Equal(p.Next.Digest[:], g.Request) {
		p.Asked, p.CA, renewal = *p.Next, nil, true
	}
	ca, err := ceremony.CheckGrant(grant, p.Asked, d.root, d.Of.OEM)
	if err != nil {
		return "", "", fault.Newf(fault.Denied, "desk.grant", "grant for product %s: %w", p.ID, err).With("take the answer to this desk's own request")
	}
	if p.CA != nil && !p.CA.Equal(ca) {
		return "", "", conflict("desk.granted", "product "+p.ID+" has a CA here already", "ask for another one in its place: `hallmark desk request --anew`")
	}
	key, _, err := d.caSigner(keys, p.ID, ca.RawSubjectPublicKeyInfo)
	if err != nil {
		return "", "", err
	}
	if _, err := pki.NewAuthority(profile.Product, ca, key); err != nil {
		return "", "", err
	}
	if err := d.write("desk.grant", grant, 0o644, grants, p.ID+".grant"); err != nil {
		return "", "", err
	}
	if renewal {
		err = d.promote(p.ID)
	}
	if err != nil {
		return "", "", err
	}
	file, err = d.describe(keys, now)
	return p.ID, file, err
}

// promote puts the request that was answered in the place of the one before. A cut before it leaves both, and the grant says which counts.
func (d *Desk) promote(product string) error {
	if err := os.Rename(d.RenewalFile(product), d.RequestFile(product)); err != nil {
		return err
	}
	failpoint.Hit("desk.promoted")
	return errors.Join(durable.SyncDir(d.path(requests)), durable.SyncDir(d.path(renewals)))
}

// describe writes what the desk tells of itself.
func (d *Desk) describe(keys Keys, now time.Time) (string, error) {
	list, err := d.Products()
	if err != nil {
		return "", err
	}
	self := wire.Desk{Name: d.Name, OEM: d.Of.OEM, Issued: uint64(max(1, now.Unix()))}
	for _, p := range list {
		if p.CA != nil {
			self.CAs = append(self.CAs, p.CA.Raw)
		}
	}
	key, err := d.key(keys, d.orderKey(), false)
	if err != nil {
		return "", err
	}
	env, err := wire.SignDesk(self, key)
	if err != nil {
		return "", err
	}
	return d.File(), d.write("desk.described", env, 0o644, d.Name+".desk")
}

// File is what the desk tells of itself, for `hallmark desk add`.
func (d *Desk) File() string { return d.path(d.Name + ".desk") }

// Fingerprint is what the people at the desk and at the instance compare before the instance takes it in: SHA-256 over the hashes of its order key and CAs.
func Fingerprint(self wire.Desk) string {
	all := sha256.New()
	for _, b := range append([][]byte{[]byte(self.Name), self.OrderKey}, self.CAs...) {
		sum := sha256.Sum256(b)
		all.Write(sum[:])
	}
	return hex.EncodeToString(all.Sum(nil))
}

// Self reads what the desk tells of itself.
func (d *Desk) Self() (wire.Desk, error) {
	env, err := d.read(d.Name + ".desk")
	if err != nil {
		return wire.Desk{}, err
	}
	return wire.OpenDesk(env)
}

// Repin takes another file of the same instance: it has a new key for registrations.
func (d *Desk) Repin(f factory.DeskFile) error {
	if f.OEM != d.Of.OEM || !bytes.Equal(f.Root, d.Of.Root) {
		return conflict("desk.instance", "the file is of another OEM or root", "another root is another desk")
	}
	c := d.Config
	c.Of = f
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	d.Config = c
	return d.write("desk.config", append(data, '\n'), 0o600, configFile)
}

// Pin believes a product's trust bundle. The first one is believed for its fingerprint, which its people told; the next is believed when it follows the one
// that is pinned by that one's own rules, and any other for its fingerprint again.
func (d *Desk) Pin(envelope []byte, fingerprint string) (wire.Bundle, error) {
	b, err := wire.VerifyBundle(nil, envelope)
	if err != nil {
		return b, fault.Newf(fault.Invalid, "desk.bundle", "no trust bundle: %w", err).With("take it from the instance: `hallmark bundle show --out`")
	}
	p, err := d.product(b.Product)
	if errors.Is(err, fs.ErrNotExist) {
		return b, denied("desk.product", fmt.Sprintf("the trust bundle is for product %s, which is not ordered at this desk", b.Product), "ask for a CA for it: `hallmark desk request`")
	}
	if err != nil {
		return b, err
	}
	is := ceremony.Fingerprint(sha256.Sum256(envelope))
	follows := false
	if p.Bundle != nil {
		if bytes.Equal(p.envelope, envelope) {
			return b, nil
		}
		if b.Version <= p.Bundle.Version {
			return b, conflict("desk.bundle", fmt.Sprintf("trust bundle %d of %s is pinned, this is %d", p.Bundle.Version, b.Product, b.Version), "take the current one: `hallmark bundle show`")
		}
		_, err := wire.VerifyBundle(p.Bundle, envelope)
		follows = err == nil
	}
	if !follows && !SameFingerprint(fingerprint, is) {
		return b, denied("desk.fingerprint", fmt.Sprintf("trust bundle %d of %s has fingerprint %s, and does not follow one that is pinned", b.Version, b.Product, is),
			"compare it with what `hallmark bundle show` says at the instance, by another way than the file came, and give it with --fingerprint")
	}
	return b, d.write("desk.bundle", envelope, 0o644, bundles, b.Product+".bundle")
}

// issuer issues order CAs under the desk's product CA.
type issuer struct {
	a    *pki.Authority
	root []byte
	now  time.Time
}

// IssueOrderCA implements factory.CA.
func (i issuer) IssueOrderCA(_ context.Context, r factory.OrderCARequest) ([][]byte, error) {
	c, err := i.a.Sub(profile.Order, pki.Name{OEM: r.OEM, Product: r.Product, Unit: idevid.OrderUnit(r.Order, r.Station)}, r.Key, i.now)
	if err != nil {
		return nil, err
	}
	return [][]byte{c.Raw, i.a.Cert.Raw, i.root}, nil
}
