package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// A device whose order a desk has wrapped enrols like every other; a desk's CA is believed for what the root has signed, and not any more when it is revoked,
// with those of its orders.
func TestADeviceOfADeskEnrols(t *testing.T) {
	var root *pki.Authority
	x := newTheftAfter(t, func(l Layout, _ *soft.Store) {
		offline, err := soft.Open(l.Offline(), "pass")
		if err != nil {
			t.Fatal(err)
		}
		cert, err := loadCert(l, keyRoot)
		if err != nil {
			t.Fatal(err)
		}
		key, err := offline.Signer(keyRoot)
		if err == nil {
			root, err = pki.NewAuthority(profile.Root, cert, key)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	now, ours := time.Now(), pki.Name{OEM: x.inst.cfg.OEM, Product: "pump", Unit: "desk-1"}
	sub := func(a *pki.Authority, role profile.Role, n pki.Name) *pki.Authority {
		t.Helper()
		key := newKey(t)
		cert, err := a.Sub(role, n, key.Public(), now)
		if err != nil {
			t.Fatal(err)
		}
		out, err := pki.NewAuthority(role, cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	desk := sub(root, profile.Product, ours)
	order := sub(desk, profile.Order, pki.Name{OEM: ours.OEM, Product: "pump", Unit: "ord-D"})
	leaf, err := order.Device(idevid.Identity{Kind: idevid.IDevID, DeviceID: x.device, OEM: ours.OEM, Product: "pump", HWRev: "A"}, x.key.Public(), now, idevid.NoExpiry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	device := tls.Certificate{Certificate: [][]byte{leaf.Raw, order.Cert.Raw, desk.Cert.Raw, root.Cert.Raw}, PrivateKey: x.key}
	cas := deskCAs{x.inst.pki}
	if _, err := cas.OrderCA(t.Context(), order.Cert.Raw); err == nil {
		t.Error("an order's CA was believed under a CA that nobody knows")
	}
	issuing, err := x.inst.auth.held.Issuing(profile.Product, "pump", now)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := pki.NewRoot(ours.OEM, newKey(t), now)
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{
		"a CA of another root": sub(stranger, profile.Product, ours).Cert.Raw, "an operational CA": sub(root, profile.Operational, pki.Name{OEM: ours.OEM}).Cert.Raw,
		"the instance's own": issuing.Cert.Raw, "an order's CA": order.Cert.Raw, "a root": root.Cert.Raw, "a device": leaf.Raw, "nothing": nil,
	} {
		if _, err := cas.ProductCA(t.Context(), der); err == nil {
			t.Errorf("%s was taken for a desk's CA", name)
		}
	}
	two := access.Caller{ID: "person:sam", Kind: access.Person, Roles: []access.Role{access.Security}, Via: "token"}.
		With(access.Caller{ID: "person:ada", Kind: access.Person, Roles: []access.Role{access.Security}, Via: "proposal", Seconded: "person:sam"})
	add := func(name string, cas ...*pki.Authority) error {
		t.Helper()
		d := wire.Desk{Name: name, OEM: ours.OEM, Issued: 1}
		for _, ca := range cas {
			d.CAs = append(d.CAs, ca.Cert.Raw)
		}
		file, err := wire.SignDesk(d, newKey(t))
		if err != nil {
			t.Fatal(err)
		}
		_, err = x.inst.factory.AddDesk(t.Context(), two, file, 5)
		return err
	}
	if err := add("desk-1", desk); err != nil {
		t.Fatal(err)
	}
	refused := sub(root, profile.Product, pki.Name{OEM: ours.OEM, Product: "pump", Unit: "desk-2"})
	for code, err := range map[string]error{"desk.taken": add("desk-1", refused), "desk.ca": add("desk-2", desk, refused)} {
		if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != code {
			t.Errorf("%v, want %s", err, code)
		}
	}
	if _, believed := x.inst.auth.trust.CA(refused.Cert.SubjectKeyId); believed {
		t.Error("a CA is believed of a desk that was not taken in")
	}
	a, err := cas.OrderCA(t.Context(), order.Cert.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.inst.pki.AddCA(t.Context(), access.Internal("factory"), order.Cert); err != nil {
		t.Fatal(err)
	}
	a.Believe()
	if _, err := x.enrol(t, device); err != nil {
		t.Fatalf("a device of a desk's order: %v", err)
	}
	if still, err := x.inst.auth.held.Issuing(profile.Product, "pump", now); err != nil || !still.Cert.Equal(issuing.Cert) {
		t.Errorf("the desk's CA took over from the instance's: %v", err)
	}

	security := access.Caller{ID: "person:sam", Kind: access.Person, Roles: []access.Role{access.Security}, Via: "token"}
	second := access.Caller{ID: "person:ada", Kind: access.Person, Roles: []access.Role{access.Security}, Via: "proposal", Seconded: "person:sam"}
	if err := x.inst.pki.RevokeOrderCA(t.Context(), security.With(second), pki.SKIOf(issuing.Cert), pki.CACompromise); err == nil || !strings.Contains(err.Error(), "ceremony") {
		t.Errorf("the instance's product CA was revoked by a call: %v", err)
	}
	if err := x.inst.pki.RevokeOrderCA(t.Context(), security.With(second), pki.SKIOf(desk.Cert), pki.CACompromise); err != nil {
		t.Fatal(err)
	}
	if _, err := x.enrol(t, device); err == nil {
		t.Error("a device was let in whose desk's CA is revoked")
	}
	if _, err := cas.OrderCA(t.Context(), sub(desk, profile.Order, pki.Name{OEM: ours.OEM, Product: "pump", Unit: "ord-E"}).Cert.Raw); err == nil {
		t.Error("an order's CA was believed under a desk's that is revoked")
	}
	if _, err := x509.ParseCertificate(x.chain[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := x.enrol(t, x.idevid(t, x.key)); err != nil {
		t.Errorf("a device of the instance's own order: %v", err)
	}
}
