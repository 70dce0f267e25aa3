package foreign

import (
	"context"
	"crypto"
	"crypto/sha1" // thumbprints of lists that have no others; see thumbprints
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// known is what the listener asks at each handshake.
type known struct {
	mu   sync.RWMutex
	cas  []believed                   // guarded by mu
	read map[[32]byte]idevid.Identity // of certificates that were found good, by digest; guarded by mu
}

type believed struct {
	pki.Foreign
	hardware string
}

// maxRead bounds what is remembered of certificates.
const maxRead = 1 << 14

// Load reads which foreign CAs are believed. Call it at start and every few seconds: another node may have been told. It is no verb.
func (s *Service) Load(ctx context.Context) error {
	all, err := s.c.Store.CAs(ctx)
	if err != nil {
		return err
	}
	var cas []believed
	for _, c := range all {
		if !c.Ended.IsZero() {
			continue
		}
		f := pki.Foreign{ID: c.ID, Product: c.Product, Map: pki.Mapping(c.Map), Any: c.Any}
		for _, der := range c.Certificates {
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				return fmt.Errorf("stored foreign CA %s: %w", c.ID, err)
			}
			f.Chain = append(f.Chain, cert)
		}
		cas = append(cas, believed{f, c.Hardware})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cas, s.read = cas, map[[32]byte]idevid.Identity{}
	return nil
}

// lookup bounds one question to the store in a handshake.
const lookup = 5 * time.Second

// Find implements pki.Foreigners.
func (s *Service) Find(presented []*x509.Certificate, now time.Time) (pki.Device, error) {
	if len(presented) == 0 {
		return pki.Device{}, errors.New("none presented")
	}
	leaf := presented[0]
	if err := pki.ForeignLeaf(leaf, now); err != nil {
		return pki.Device{}, fmt.Errorf("%w: %w", pki.ErrNotForeign, err)
	}
	refs := pins(leaf)
	by := map[[2]string]believed{}
	s.mu.RLock()
	cas := s.cas
	s.mu.RUnlock()
	for _, ca := range cas {
		name, err := ca.Verify(presented, now)
		if err != nil {
			continue
		}
		ref := [2]string{pki.ForeignName, ca.ID + "/" + name}
		refs, by[ref] = append(refs, ref), ca
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookup)
	defer cancel()
	e, err := s.c.Store.Find(ctx, refs)
	switch {
	case errors.Is(err, ErrNotFound):
		if e, err = unlisted(by); err != nil {
			return pki.Device{}, err
		}
	case err != nil:
		return pki.Device{}, fmt.Errorf("list of other makers' devices: %w", err)
	}
	issuer := leaf
	if ca, ok := by[[2]string{e.Kind, e.Of}]; ok {
		issuer = ca.Chain[0]
	}
	d := pki.Device{Cert: leaf, Issuer: issuer, Identity: idevid.Identity{Kind: idevid.IDevID, DeviceID: e.Device, OEM: s.c.OEM, Product: e.Product, HWRev: e.Hardware}}
	s.remember(leaf, d.Identity)
	return d, nil
}

// unlisted is a device that is on no list, under a CA that vouches for all it signs.
func unlisted(by map[[2]string]believed) (Entry, error) {
	var found []Entry
	for ref, ca := range by {
		if ca.Any {
			found = append(found, Entry{Device: pki.ForeignID(ca.Product, ref[0], ref[1]), Product: ca.Product, Hardware: ca.hardware, Kind: ref[0], Of: ref[1], CA: ca.ID, Name: ref[1][len(ca.ID)+1:], Format: "any"})
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return Entry{}, fmt.Errorf("%w: %d CAs that are believed vouch for it", pki.ErrNotForeign, len(found))
	case len(by) > 0:
		return Entry{}, fmt.Errorf("%w: its maker's CA is believed, and the device is on no list", pki.ErrNotForeign)
	}
	return Entry{}, pki.ErrNotForeign
}

// pins are the references by which a list may name a certificate. Lists of Azure's have thumbprints by SHA-1 only: to present another certificate of that
// thumbprint one would have to have made both, and the device is held to the key that it comes with first.
func pins(leaf *x509.Certificate) [][2]string {
	key, cert, old := sha256.Sum256(leaf.RawSubjectPublicKeyInfo), sha256.Sum256(leaf.Raw), sha1.Sum(leaf.Raw) //nolint:gosec // see above
	return [][2]string{
		{pki.ForeignKey, hex.EncodeToString(key[:])}, {pki.ForeignCert, hex.EncodeToString(cert[:])}, {pki.ForeignCert, hex.EncodeToString(old[:])},
	}
}

func (s *Service) remember(leaf *x509.Certificate, id idevid.Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.read == nil || len(s.read) >= maxRead {
		s.read = map[[32]byte]idevid.Identity{}
	}
	s.read[sha256.Sum256(leaf.Raw)] = id
}

// Identity gives who a certificate is of, that was found good when its connection began: it reads a claim, and verifies nothing.
func (s *Service) Identity(leaf *x509.Certificate) (idevid.Identity, error) {
	id, err := s.c.Trust.Identity(leaf)
	if err == nil {
		return id, nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if id, ok := s.read[sha256.Sum256(leaf.Raw)]; ok {
		return id, nil
	}
	return idevid.Identity{}, err
}

// Enroller is onboard.Service.
type Enroller struct {
	*onboard.Service
	s *Service
}

// Before gives o with a look at other makers' devices before it: they are held to their first key, and under a CA that vouches for all it signs they are
// registered.
func (s *Service) Before(o *onboard.Service) Enroller { return Enroller{o, s} }

// Enrol is onboard.Service's.
func (e Enroller) Enrol(ctx context.Context, caller access.Caller, a onboard.Ask) (*x509.Certificate, error) {
	if err := e.s.meet(ctx, caller, a.Presented); err != nil {
		return nil, err
	}
	return e.Service.Enrol(ctx, caller, a)
}

// Generate is onboard.Service's.
func (e Enroller) Generate(ctx context.Context, caller access.Caller, a onboard.Ask) (*x509.Certificate, crypto.PrivateKey, error) {
	if err := e.s.meet(ctx, caller, a.Presented); err != nil {
		return nil, nil, err
	}
	return e.Service.Generate(ctx, caller, a)
}

// meet registers and binds. Devices of ours pass.
func (s *Service) meet(ctx context.Context, caller access.Caller, presented []*x509.Certificate) error {
	if len(presented) == 0 {
		return nil
	}
	if _, err := s.c.Trust.Identity(presented[0]); err == nil {
		return nil
	}
	now := s.c.Now()
	d, err := s.Find(presented, now) //nolint:contextcheck // the list of CAs is in memory
	if errors.Is(err, pki.ErrNotForeign) {
		return nil // it is refused behind
	}
	if err != nil {
		return err
	}
	id := d.Identity.DeviceID
	if caller.ID != access.DeviceCaller(id).ID {
		return fault.New(fault.Denied, "enrol.caller", caller.ID+" asks with the certificate of device "+id, "a device asks for itself only")
	}
	if err := s.c.Guard.Check(ctx, caller, access.DeviceEnrol, access.Resource{Type: "device", ID: id, Product: d.Identity.Product}); err != nil {
		return err
	}
	key := digest(presented[0].RawSubjectPublicKeyInfo)
	if err := s.register(ctx, caller, presented, now); err != nil {
		return err
	}
	if _, err := s.c.Store.Bind(ctx, id, key); err != nil && !errors.Is(err, ErrNotFound) { // one that has another key is refused behind, on record
		return err
	}
	return nil
}

// register puts a device that is on no list on one, when its CA vouches for all it signs.
func (s *Service) register(ctx context.Context, caller access.Caller, presented []*x509.Certificate, now time.Time) error {
	s.mu.RLock()
	cas := s.cas
	s.mu.RUnlock()
	refs, by := pins(presented[0]), map[[2]string]believed{}
	for _, ca := range cas {
		if name, err := ca.Verify(presented, now); err == nil {
			ref := [2]string{pki.ForeignName, ca.ID + "/" + name}
			refs, by[ref] = append(refs, ref), ca
		}
	}
	_, err := s.c.Store.Find(ctx, refs)
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	e, err := unlisted(by)
	if err != nil {
		return nil //nolint:nilerr // it is refused behind
	}
	f, err := imported(e, caller.ID, now.UTC())
	if err != nil {
		return err
	}
	_, err = s.c.Store.Take(ctx, []Entry{e}, []ledger.Fact{f}, false)
	return err
}
