package server

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
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

	BootManagers []wire.BootManager // by which the product's devices may start; none: by any

	OIDCSecret []byte // the client's secret with Config.OIDC; empty: a public client
}

// Made is what a person must be told after Init.
type Made struct {
	AdminToken string
	SignIn     string   // link that signs the first administrator in, once, within a day
	Root       [32]byte // SHA-256 of the OEM root certificate
	Bundle     [32]byte // SHA-256 of the first trust bundle
}

const keyRoot = "oem-root"

// Init makes an instance in an empty directory: keys, CAs, logs with their first entries, the product and its first trust
// bundle, signed by a threshold of the approvers. config.json is written last, so what was interrupted is not an instance. It is a key
// ceremony of one person: the online half asks, the offline keys answer, and the online half goes on with that; see Prepare and Finish.
func Init(ctx context.Context, l Layout, o InitOptions) (Made, error) {
	if err := o.check(l); err != nil {
		return Made{}, err
	}
	if err := l.saveOIDCSecret(o.OIDCSecret); err != nil {
		return Made{}, err
	}
	m := making{l: l, o: o}
	request, err := m.ask(ctx)
	if err != nil {
		return Made{}, fmt.Errorf("init: %w", err)
	}
	answer, err := o.answer(request)
	if err != nil {
		return Made{}, fmt.Errorf("init: %w", err)
	}
	return m.complete(ctx, request, answer)
}

// answer is what the offline keys give, made for it.
func (o InitOptions) answer(request []byte) (wire.CeremonyAnswer, error) {
	var people []ceremony.Approver
	for _, name := range o.Approvers {
		k, err := o.Offline.GenerateP256(ceremony.ApproverKey(name))
		if err != nil {
			return wire.CeremonyAnswer{}, err
		}
		people = append(people, ceremony.Approver{Label: name, Key: k})
	}
	k, err := o.Offline.GenerateP256(keyRoot)
	if err != nil {
		return wire.CeremonyAnswer{}, err
	}
	root, err := pki.NewRoot(o.Config.OEM, k, o.Now)
	if err != nil {
		return wire.CeremonyAnswer{}, err
	}
	return ceremony.Answer(request, root, people, o.Now)
}

// Make is Init in a directory that is empty or not there yet. Everything is checked before anything is written, and what fails
// leaves the file system as it was. vault makes a directory of keys; Online and Offline of o are set by it.
func Make(ctx context.Context, l Layout, o InitOptions, vault func(dir string) (Vault, error)) (made Made, err error) {
	err = inVacant(l, o, func() (err error) {
		if o.Online, err = vault(l.Keys()); err != nil {
			return err
		}
		if o.Offline, err = vault(l.Offline()); err != nil {
			return err
		}
		made, err = Init(ctx, l, o)
		return err
	})
	return made, err
}

// inVacant does something in a directory that is empty or not there yet. What fails leaves the file system as it was.
func inVacant(l Layout, o InitOptions, do func() error) (err error) {
	if err := o.Check(); err != nil {
		return err
	}
	if err := l.Vacant(); err != nil {
		return err
	}
	top := firstMissing(l.Dir)
	if err := durable.MkdirAll(l.Dir, 0o700); err != nil {
		return err
	}
	unlock, err := l.Lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := l.Vacant(); err != nil { // somebody was faster
		return err
	}
	if err := do(); err != nil {
		return errors.Join(err, l.clear(top))
	}
	return nil
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
		case filepath.Base(l.Pending()):
			return fmt.Errorf("%s waits for its key ceremony: bring the answer with `hallmark init --finish FILE --dir %s`, or choose another directory", l.Dir, l.Dir)
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
	case wire.IsRehearsalOEM(p.OEM):
		return fmt.Errorf("oem %q: names that begin so are of rehearsals: choose another", p.OEM)
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
