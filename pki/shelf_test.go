package pki

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/pki/pkcs10"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

var errDisk = errors.New("the disk is full")

// failure says what becomes of the next write.
type failure int

const (
	none      failure = iota
	notStored         // an error, and nothing was written
	butStored         // an error, and yet it was written: the answer was lost
)

// shelf is a Store in memory whose writes can be made to fail in both ways.
type shelf struct {
	fail     failure
	facts    []ledger.Fact
	certs    map[string]Issued
	answers  map[[32]byte]string
	revoked  []Revocation
	cas      []CA
	readFail bool
}

func newShelf() *shelf { return &shelf{certs: map[string]Issued{}, answers: map[[32]byte]string{}} }

func (s *shelf) write(fn func()) error {
	if s.fail != notStored {
		fn()
	}
	if s.fail != none {
		return errDisk
	}
	return nil
}

func (s *shelf) Issue(_ context.Context, c Issued, now, _ time.Time, facts ...ledger.Fact) (Issued, error) {
	if have, ok := s.certs[s.answers[c.Request]]; ok && now.Before(have.NotAfter) {
		return have, nil
	}
	return c, s.write(func() {
		s.certs[c.Key], s.answers[c.Request] = c, c.Key
		s.facts = append(s.facts, facts...)
	})
}

func (s *shelf) Revoke(_ context.Context, rs []Revocation, facts ...ledger.Fact) ([]Revocation, error) {
	for i := range rs {
		rs[i].Seq = int64(len(s.revoked) + 1 + i)
	}
	return rs, s.write(func() {
		s.revoked = append(s.revoked, rs...)
		s.facts = append(s.facts, facts...)
	})
}

func (s *shelf) RevokedSince(_ context.Context, after int64, limit int) ([]Revocation, error) {
	if s.readFail {
		return nil, errDisk
	}
	after = min(after, int64(len(s.revoked)))
	return s.revoked[after:min(int64(len(s.revoked)), after+int64(limit))], nil
}

func (s *shelf) Certificate(_ context.Context, key string) (Issued, error) {
	c, ok := s.certs[key]
	if !ok {
		return c, ErrNotFound
	}
	return c, nil
}

func (s *shelf) Certificates(_ context.Context, device, after string, limit int) (out []Issued, _ error) {
	for _, key := range slices.Sorted(maps.Keys(s.certs)) {
		if s.certs[key].Device == device && key > after && len(out) < limit {
			out = append(out, s.certs[key])
		}
	}
	return out, nil
}

func (s *shelf) AddCA(_ context.Context, ca CA, facts ...ledger.Fact) error {
	return s.write(func() {
		s.cas = append(s.cas, ca)
		s.facts = append(s.facts, facts...)
	})
}

func (s *shelf) CAs(context.Context) ([]CA, error) { return s.cas, nil }

// gate lets everybody in, or nobody, and keeps what they asked for.
type gate struct {
	shut  bool
	asked access.Resource // the last
}

func (g *gate) Many(access.Caller, []string) bool { return false }

func (g *gate) Check(_ context.Context, _ access.Caller, _ access.Action, res access.Resource) error {
	g.asked = res
	if g.shut {
		return fault.New(fault.Denied, "access.denied", "no", "")
	}
	return nil
}

// house is a hierarchy with a service over a shelf, at a time of its own.
type house struct {
	t                                     testing.TB
	now                                   time.Time
	root, product, order, op, infra       *Authority
	shelf                                 *shelf
	gate                                  *gate
	service                               *Service
	otherRoot, otherProd, otherOrd, other *Authority // another OEM's, of the same names
}

func key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return k
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *house) sub(above *Authority, role profile.Role, name Name) *Authority {
	h.t.Helper()
	k := key(h.t)
	cert, err := above.Sub(role, name, k.Public(), h.now)
	must(h.t, err)
	a, err := NewAuthority(role, cert, k)
	must(h.t, err)
	return a
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, now: time.Now().UTC().Truncate(time.Second), shelf: newShelf(), gate: &gate{}}
	pump := Name{OEM: "acme", Product: "pump"}
	for _, side := range []struct{ root, product, order, op **Authority }{
		{&h.root, &h.product, &h.order, &h.op}, {&h.otherRoot, &h.otherProd, &h.otherOrd, &h.other},
	} {
		var err error
		*side.root, err = NewRoot("acme", key(t), h.now)
		must(t, err)
		*side.product = h.sub(*side.root, profile.Product, pump)
		*side.order = h.sub(*side.product, profile.Order, Name{OEM: "acme", Product: "pump", Unit: "o-1"})
		*side.op = h.sub(*side.root, profile.Operational, Name{OEM: "acme"})
	}
	h.infra = h.sub(h.root, profile.Infra, Name{OEM: "acme"})
	trust, err := NewTrust([]*x509.Certificate{h.root.Cert}, h.order.Cert, h.op.Cert, h.product.Cert, h.infra.Cert)
	must(t, err)
	h.service, err = New(Config{
		Guard: h.gate, Store: h.shelf, Trust: trust, Revocations: NewRevocations(time.Minute), Operational: h.op, Root: h.root.Cert,
		Product: func(string) (*Authority, error) { return h.product, nil }, CRLBase: "http://crl.test", Shards: 4,
		Now: func() time.Time { return h.now },
	})
	must(t, err)
	must(t, h.service.Refresh(t.Context()))
	return h
}

func pumpID(kind idevid.Kind) idevid.Identity {
	return idevid.Identity{Kind: kind, DeviceID: strings.Repeat("ab", 16), OEM: "acme", Product: "pump", HWRev: "A"}
}

// idev is a device fresh from the factory, as verified.
func (h *house) idev() Device {
	h.t.Helper()
	cert, err := h.order.Device(pumpID(idevid.IDevID), key(h.t).Public(), h.now, idevid.NoExpiry(), nil)
	must(h.t, err)
	d, err := h.service.Trust().VerifyDevice([]*x509.Certificate{cert}, h.now)
	must(h.t, err)
	return d
}

func (h *house) request(id idevid.Identity) pkcs10.Request {
	h.t.Helper()
	tmpl, err := idevid.RequestTemplate(id)
	must(h.t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key(h.t))
	must(h.t, err)
	r, err := pkcs10.Parse(der, id, true)
	must(h.t, err)
	return r
}

var me = access.Internal("test")
