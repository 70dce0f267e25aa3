package pki

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// maxPresented bounds the certificates a stranger may have us look at.
const maxPresented = 6

// Device is a verified device certificate: who, by which certificate, under which CA.
type Device struct {
	Identity idevid.Identity
	Cert     *x509.Certificate
	Issuer   *x509.Certificate
}

// Trust knows the OEM roots and the CAs below them, and verifies certificates against both. A CA is checked up to a root when
// it is added, and its time again at each use, so that verifying a device costs one signature, and verifying it again none.
type Trust struct {
	mu    sync.RWMutex
	roots *x509.CertPool                 // replaced, never changed; guarded by mu
	cas   map[string][]*x509.Certificate // by subject key ID: the path from that CA to its root; guarded by mu
	good  map[[32]byte]struct{}          // see goodKey; guarded by mu
	read  map[[32]byte]idevid.Identity   // what was read from certificates, by digest; guarded by mu

	version atomic.Uint64              // see Version
	foreign atomic.Pointer[Foreigners] // who knows the devices of other makers; nil: nobody

	dropped map[string]bool // by subject key ID: CAs that are not believed again, whoever presents them; guarded by mu
}

// maxGood bounds what is remembered: some MB.
const maxGood = 1 << 16

// goodKey names a certificate that was found good under its CA for role. As far as that is a matter of their bytes it stays so,
// and is remembered: a device is looked at when it connects and again at each of its calls. Time, path and revocation pass, and
// are looked at each time.
func goodKey(role profile.Role, leaf, ca *x509.Certificate) [32]byte {
	return sha256.Sum256(slices.Concat([]byte(role), []byte{0}, ca.Raw, leaf.Raw))
}

// Version is another after each change of whom Trust believes, but for devices of other makers.
func (t *Trust) Version() uint64 { return t.version.Load() }

func (t *Trust) isGood(key [32]byte) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	_, ok := t.good[key]
	return ok
}

func (t *Trust) foundGood(key [32]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.good) >= maxGood {
		clear(t.good)
	}
	t.good[key] = struct{}{}
}

// Identity is idevid.Parse, which remembers what it read: it reads a claim, and verifies nothing.
func (t *Trust) Identity(leaf *x509.Certificate) (idevid.Identity, error) {
	key := sha256.Sum256(leaf.Raw)
	t.mu.RLock()
	id, ok := t.read[key]
	t.mu.RUnlock()
	if ok {
		return id, nil
	}
	id, err := idevid.Parse(leaf)
	if err != nil {
		return idevid.Identity{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.read) >= maxGood {
		clear(t.read)
	}
	t.read[key] = id
	return id, nil
}

// NewTrust believes roots, and cas as far as they chain to them; the order of cas does not matter.
func NewTrust(roots []*x509.Certificate, cas ...*x509.Certificate) (*Trust, error) {
	if len(roots) == 0 {
		return nil, errors.New("trust without a root")
	}
	t := &Trust{roots: x509.NewCertPool(), cas: map[string][]*x509.Certificate{}, good: map[[32]byte]struct{}{}, read: map[[32]byte]idevid.Identity{}, dropped: map[string]bool{}}
	for _, r := range roots {
		if role, err := RoleOf(r); err != nil || role != profile.Root {
			return nil, fmt.Errorf("%q is no root CA", r.Subject)
		}
		t.roots.AddCert(r)
		t.cas[string(r.SubjectKeyId)] = []*x509.Certificate{r}
	}
	pool := x509.NewCertPool()
	for _, c := range cas {
		pool.AddCert(c)
	}
	for _, c := range cas {
		path, err := t.path(c, pool, c.NotBefore)
		if err != nil {
			return nil, err
		}
		t.cas[string(c.SubjectKeyId)] = path
	}
	return t, nil
}

// AddCA adds a CA whose issuer is known already.
func (t *Trust) AddCA(ca *x509.Certificate) error {
	if t.has(ca) {
		return nil
	}
	path, err := t.check(ca)
	if err != nil {
		return err
	}
	t.add(path)
	return nil
}

// AddRoot believes one root more: that of a ceremony that replaces the first.
func (t *Trust) AddRoot(root *x509.Certificate) error {
	if role, err := RoleOf(root); err != nil || role != profile.Root {
		return fmt.Errorf("%q is no root CA", root.Subject)
	}
	if err := root.CheckSignatureFrom(root); err != nil {
		return fmt.Errorf("root %q: %w", root.Subject, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	pool := t.roots.Clone()
	pool.AddCert(root)
	t.roots, t.cas[string(root.SubjectKeyId)] = pool, []*x509.Certificate{root}
	t.version.Add(1)
	return nil
}

// Roots gives the roots.
func (t *Trust) Roots() (out []*x509.Certificate) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, path := range t.cas {
		if len(path) == 1 {
			out = append(out, path[0])
		}
	}
	slices.SortFunc(out, func(a, b *x509.Certificate) int { return bytes.Compare(a.Raw, b.Raw) })
	return out
}

// CA gives a CA that is believed, by its subject key ID.
func (t *Trust) CA(ski []byte) (*x509.Certificate, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if path := t.cas[string(ski)]; path != nil {
		return path[0], true
	}
	return nil, false
}

// Drop believes a CA no more, nor what it has signed; what stands below it is believed as long as it is known.
func (t *Trust) Drop(ca *x509.Certificate) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.cas, string(ca.SubjectKeyId))
	t.dropped[string(ca.SubjectKeyId)] = true
	clear(t.good)
	t.version.Add(1)
}

// has reports whether just this certificate is believed already.
func (t *Trust) has(ca *x509.Certificate) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	known := t.cas[string(ca.SubjectKeyId)]
	return known != nil && bytes.Equal(known[0].Raw, ca.Raw)
}

// check verifies a CA whose issuer is known already and gives its path to the root; it believes nothing yet. A key that is known
// under another name is refused: device certificates find their CA by its key, and the two would be mixed up.
func (t *Trust) check(ca *x509.Certificate) ([]*x509.Certificate, error) {
	pool := x509.NewCertPool()
	t.mu.RLock()
	known := t.cas[string(ca.SubjectKeyId)]
	for _, p := range t.cas {
		pool.AddCert(p[0])
	}
	t.mu.RUnlock()
	if known != nil && (!bytes.Equal(known[0].RawSubject, ca.RawSubject) || !bytes.Equal(known[0].RawIssuer, ca.RawIssuer)) {
		return nil, fault.New(fault.Conflict, "ca.key-taken", fmt.Sprintf("the key of CA %q is that of CA %q already", ca.Subject, known[0].Subject),
			"make a key of its own for each CA")
	}
	return t.path(ca, pool, ca.NotBefore)
}

// add believes a CA by the path that check gave.
func (t *Trust) add(path []*x509.Certificate) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cas[string(path[0].SubjectKeyId)] = path
	t.version.Add(1)
}

// path checks that ca is a CA of this hierarchy, each under the right kind, at the moment at.
func (t *Trust) path(ca *x509.Certificate, pool *x509.CertPool, at time.Time) ([]*x509.Certificate, error) {
	t.mu.RLock()
	roots := t.roots
	t.mu.RUnlock()
	chains, err := ca.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: pool, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("CA %q: %w", ca.Subject, err)
	}
	i := slices.IndexFunc(chains, t.inService)
	if i < 0 {
		return nil, fmt.Errorf("CA %q: a CA above it was taken out of service", ca.Subject)
	}
	path := chains[i]
	for i, c := range path[:len(path)-1] {
		role, err := RoleOf(c)
		if err != nil {
			return nil, err
		}
		above, err := RoleOf(path[i+1])
		if err != nil {
			return nil, err
		}
		if p, _ := profile.Of(role); p.Issuer != above {
			return nil, fmt.Errorf("CA %q: a %s CA under a %s CA", ca.Subject, role, above)
		}
		oem, product := idevid.SubjectOEM(c)
		if o, p := idevid.SubjectOEM(path[i+1]); o != oem || (p != "" && p != product) {
			return nil, fmt.Errorf("CA %q: %s/%s under %s/%s", ca.Subject, oem, product, o, p)
		}
	}
	return path, nil
}

// inService reports whether no CA above the first was taken out of service: who has the key of one presents what it has signed, with its
// certificate.
func (t *Trust) inService(path []*x509.Certificate) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return !slices.ContainsFunc(path[1:], func(c *x509.Certificate) bool { return t.dropped[string(c.SubjectKeyId)] })
}

// issuer finds the CA that leaf names, known or among the presented ones.
func (t *Trust) issuer(leaf *x509.Certificate, presented []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	t.mu.RLock()
	path := t.cas[string(leaf.AuthorityKeyId)]
	out := t.dropped[string(leaf.AuthorityKeyId)]
	t.mu.RUnlock()
	if out {
		return nil, errors.New("issuer was taken out of service")
	}
	if len(leaf.AuthorityKeyId) == 0 {
		return nil, errors.New("no authority key ID")
	}
	if path != nil {
		return path, nil
	}
	pool := x509.NewCertPool()
	for _, c := range presented {
		pool.AddCert(c)
	}
	t.mu.RLock()
	for _, p := range t.cas {
		pool.AddCert(p[0])
	}
	t.mu.RUnlock()
	i := slices.IndexFunc(presented, func(c *x509.Certificate) bool { return bytes.Equal(c.SubjectKeyId, leaf.AuthorityKeyId) })
	if i < 0 {
		return nil, errors.New("issuer is not known and was not presented")
	}
	return t.path(presented[i], pool, now)
}

// verify checks leaf as a certificate of role, with the given policy.
func (t *Trust) verify(chain []*x509.Certificate, role profile.Role, now time.Time) (*x509.Certificate, error) {
	if len(chain) == 0 {
		return nil, errors.New("no certificate presented")
	}
	if len(chain) > maxPresented {
		return nil, fmt.Errorf("%d certificates presented, at most %d", len(chain), maxPresented)
	}
	leaf := chain[0]
	path, err := t.issuer(leaf, chain[1:], now)
	if err != nil {
		return nil, err
	}
	for _, c := range path {
		if now.Before(c.NotBefore) || now.After(c.NotAfter) {
			return nil, fmt.Errorf("CA %q is not valid now", c.Subject)
		}
	}
	p, _ := profile.Of(role)
	if is, err := RoleOf(path[0]); err != nil || is != p.Issuer {
		return nil, fmt.Errorf("issued by a %q CA, want %q", is, p.Issuer)
	}
	key := goodKey(role, leaf, path[0])
	if t.isGood(key) {
		if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
			return nil, x509.CertificateInvalidError{Cert: leaf, Reason: x509.Expired, Detail: "at " + now.UTC().Format(time.RFC3339)}
		}
		return path[0], nil
	}
	anchor := x509.NewCertPool()
	anchor.AddCert(path[0]) // its own path was checked above
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: anchor, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return nil, err
	}
	if leaf.KeyUsage != p.KeyUsage || !p.Names(leaf) || !slices.Equal(leaf.ExtKeyUsage, p.EKU) {
		return nil, fmt.Errorf("not of the profile %q", role)
	}
	t.foundGood(key)
	return path[0], nil
}

// VerifyDevice says which device chain (leaf first, as presented in TLS) belongs to. It checks signatures, times, kind of CA, and
// that the CA may speak for that OEM and product. Whether it is revoked is Revocations' to say.
func (t *Trust) VerifyDevice(chain []*x509.Certificate, now time.Time) (Device, error) {
	d, err := t.verifyDevice(chain, now)
	if err != nil {
		return Device{}, fault.Newf(fault.Denied, "cert.untrusted", "device certificate not accepted: %w", err).With("see that it is a certificate of this instance, of its time, and not revoked")
	}
	return d, nil
}

func (t *Trust) verifyDevice(chain []*x509.Certificate, now time.Time) (Device, error) {
	if len(chain) == 0 {
		return Device{}, errors.New("none presented")
	}
	id, err := t.Identity(chain[0])
	if err != nil {
		if f := t.foreign.Load(); f != nil { // none of ours: perhaps of another maker whose devices are let in
			return (*f).Find(chain, now)
		}
		return Device{}, err
	}
	checked := slices.Clone(chain)
	checked[0] = idevid.HandledSAN(chain[0]) // Parse has understood it
	ca, err := t.verify(checked, profile.Role(id.Kind), now)
	if err != nil {
		if f := t.foreign.Load(); f != nil && id.Kind == idevid.IDevID {
			if d, arrived := (*f).Arrived(chain[0], id, now); arrived == nil {
				return d, nil
			}
		}
		return Device{}, err
	}
	oem, product := idevid.SubjectOEM(ca)
	if id.OEM == "" && id.Product == "" {
		id.OEM, id.Product = oem, product // an empty subject: the CA says it
	}
	if id.OEM != oem || (product != "" && id.Product != product) {
		return Device{}, fmt.Errorf("%s/%s under the CA of %s/%s", id.OEM, id.Product, oem, product)
	}
	return Device{Identity: id, Cert: chain[0], Issuer: ca}, nil
}

// VerifyConnection builds the check for a device listener's tls.Config.VerifyConnection, which runs on resumed sessions too
// (VerifyPeerCertificate does not). A client without a certificate passes here and is for ClientAuth or the handler to
// refuse; one with a bad or revoked certificate does not pass, but see CheckConnection. That nobody can tell whether it is revoked ends no
// handshake, for a device takes that as a word about its certificate: who serves the connection Checks at each call, and says so (503).
func VerifyConnection(t *Trust, revoked *Revocations, now func() time.Time) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			return nil
		}
		d, err := t.VerifyDevice(cs.PeerCertificates, now())
		if err != nil {
			return err
		}
		if err := revoked.CheckConnection(d.Cert, d.Identity.DeviceID, now()); fault.KindOf(err) != fault.Unavailable {
			return err
		}
		return nil
	}
}
