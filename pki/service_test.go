package pki

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/pki/pkcs10"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// The same request gives the same certificate, whatever became of the answer: the store says which one stands.
func TestTheSameRequestIsAnsweredOnce(t *testing.T) {
	h := newHouse(t)
	d := h.idev()
	req := h.request(pumpID(idevid.LDevID))
	h.shelf.fail = butStored // the answer of the store is lost on the way
	if _, err := h.service.Issue(t.Context(), me, d, req); !errors.Is(err, errDisk) {
		t.Fatalf("%v", err)
	}
	h.shelf.fail = none
	first, err := h.service.Issue(t.Context(), me, d, req)
	must(t, err)
	second, err := h.service.Issue(t.Context(), me, d, req)
	must(t, err)
	if !first.Equal(second) || len(h.shelf.certs) != 1 || len(h.shelf.facts) != 1 {
		t.Fatalf("%d certificates, %d facts for one request", len(h.shelf.certs), len(h.shelf.facts))
	}
	other, err := h.service.Issue(t.Context(), me, d, h.request(pumpID(idevid.LDevID)))
	must(t, err)
	if other.Equal(first) {
		t.Error("another request got the same certificate")
	}
	h.now = first.NotAfter.Add(time.Second)
	must(t, h.service.Refresh(t.Context()))
	renewed, err := h.service.Issue(t.Context(), me, d, req)
	must(t, err)
	if renewed.Equal(first) {
		t.Error("a certificate that has run out is given out again")
	}
}

// A certificate that was not stored is not given out, and a CA that was not stored is not believed.
func TestWhatIsNotStoredDoesNotHold(t *testing.T) {
	h := newHouse(t)
	d := h.idev()
	h.shelf.fail = notStored
	if c, err := h.service.Issue(t.Context(), me, d, h.request(pumpID(idevid.LDevID))); !errors.Is(err, errDisk) || c != nil {
		t.Errorf("%v, %v", c, err)
	}
	k := key(t)
	ca, err := h.product.Sub(profile.Order, Name{OEM: "acme", Product: "pump", Unit: "o-2"}, k.Public(), h.now)
	must(t, err)
	if err := h.service.AddCA(t.Context(), me, ca); !errors.Is(err, errDisk) {
		t.Fatalf("%v", err)
	}
	order, err := NewAuthority(profile.Order, ca, k)
	must(t, err)
	cert, err := order.Device(pumpID(idevid.IDevID), key(t).Public(), h.now, idevid.NoExpiry(), nil)
	must(t, err)
	if _, err := h.service.Trust().VerifyDevice([]*x509.Certificate{cert}, h.now); err == nil {
		t.Error("a CA that is not in the store is believed")
	}
	h.shelf.fail = none
	must(t, h.service.AddCA(t.Context(), me, ca))
	if _, err := h.service.Trust().VerifyDevice([]*x509.Certificate{cert}, h.now); err != nil {
		t.Errorf("stored, and not believed: %v", err)
	}
}

// Who may not gets nothing, and nothing is written; when nobody can say who is revoked, nobody gets anything.
func TestNothingWithoutLeaveOrAFreshList(t *testing.T) {
	h := newHouse(t)
	d, req := h.idev(), h.request(pumpID(idevid.LDevID))
	h.gate.shut = true
	if _, err := h.service.Issue(t.Context(), me, d, req); err == nil {
		t.Error("issued without leave")
	}
	if err := h.service.RevokeDevice(t.Context(), me, d.Identity.DeviceID, "pump", KeyCompromise); err == nil {
		t.Error("revoked without leave")
	}
	h.gate.shut = false
	h.now = h.now.Add(2 * time.Minute)
	h.shelf.readFail = true
	if err := h.service.Refresh(t.Context()); err == nil {
		t.Error("a list that cannot be read is fresh")
	}
	if _, err := h.service.Issue(t.Context(), me, d, req); err == nil {
		t.Error("issued with a stale list")
	}
	if len(h.shelf.certs)+len(h.shelf.facts)+len(h.shelf.revoked) != 0 {
		t.Errorf("written: %d certificates, %d facts", len(h.shelf.certs), len(h.shelf.facts))
	}
}

// Who answers for a group may take a certificate of a device in it.
func TestACertificateIsWhereItsDeviceIs(t *testing.T) {
	h := newHouse(t)
	made, err := h.service.Issue(t.Context(), me, h.idev(), h.request(pumpID(idevid.LDevID)))
	must(t, err)
	key := CertKey(made)
	c := h.shelf.certs[key]
	c.Group = "eu/berlin"
	h.shelf.certs[key] = c
	must(t, h.service.Revoke(t.Context(), me, key, KeyCompromise))
	if want := (access.Resource{Type: "certificate", ID: key, Product: "pump", Group: "eu/berlin"}); h.gate.asked != want {
		t.Errorf("asked for %+v, want %+v", h.gate.asked, want)
	}
}

// A device that asks for ever new certificates gets so many, and then one now and then; its way back by the factory's identity is another's
// count, and the same request costs nothing.
func TestADeviceDoesNotFillTheLedger(t *testing.T) {
	h := newHouse(t)
	d, same := h.idev(), h.request(pumpID(idevid.LDevID))
	ask := func(d Device, req pkcs10.Request) error {
		_, err := h.service.Issue(t.Context(), me, d, req)
		return err
	}
	for range 2 * paceBurst {
		must(t, ask(d, same))
	}
	thief := d // who has the operational key
	thief.Identity.Kind = idevid.LDevID
	for range paceBurst {
		must(t, ask(thief, h.request(pumpID(idevid.LDevID))))
	}
	for range 3 {
		if err := ask(thief, h.request(pumpID(idevid.LDevID))); fault.KindOf(err) != fault.Exhausted {
			t.Fatalf("one more: %v", err)
		}
	}
	if want := paceBurst + 1; len(h.shelf.facts) != want {
		t.Errorf("%d facts, want %d", len(h.shelf.facts), want)
	}
	must(t, ask(d, h.request(pumpID(idevid.LDevID))))
	h.now = h.now.Add(paceEvery)
	must(t, h.service.Refresh(t.Context()))
	must(t, ask(thief, h.request(pumpID(idevid.LDevID))))
	if err := ask(thief, h.request(pumpID(idevid.LDevID))); fault.KindOf(err) != fault.Exhausted {
		t.Errorf("two in that time: %v", err)
	}
}

// A node whose clock is behind lets nobody in whom another has revoked; only a certificate that was replaced has time left.
func TestASlowClockLetsNobodyRevokedIn(t *testing.T) {
	h := newHouse(t)
	d := h.idev()
	list, ahead := NewRevocations(time.Hour), h.now.Add(time.Minute)
	list.add(h.now, true, Revocation{Seq: 1, Scope: ScopeCert, ID: CertKey(d.Cert), Reason: Superseded, At: ahead, Issuer: hex.EncodeToString(d.Cert.AuthorityKeyId), Serial: d.Cert.SerialNumber.Text(16)})
	must(t, list.Check(d.Cert, d.Identity.DeviceID, h.now))
	if err := list.Check(d.Cert, d.Identity.DeviceID, ahead); fault.KindOf(err) != fault.Denied {
		t.Errorf("replaced, after its grace: %v", err)
	}
	for _, v := range []Revocation{
		{Scope: ScopeDevice, ID: d.Identity.DeviceID, Reason: KeyCompromise},
		{Scope: ScopeIssuer, ID: hex.EncodeToString(d.Cert.AuthorityKeyId), Reason: CACompromise},
		{Scope: ScopeCert, ID: CertKey(d.Cert), Reason: KeyCompromise, Issuer: hex.EncodeToString(d.Cert.AuthorityKeyId), Serial: d.Cert.SerialNumber.Text(16)},
	} {
		list := NewRevocations(time.Hour)
		v.Seq, v.At = 1, ahead
		list.add(h.now, true, v)
		if err := list.Check(d.Cert, d.Identity.DeviceID, h.now); fault.KindOf(err) != fault.Denied {
			t.Errorf("revoked (%s) by a node whose clock is ahead: %v", v.Scope, err)
		}
	}
}

// Who has the key of a CA that was taken out of service presents what it has signed since, with its certificate.
func TestACAOutOfServiceVouchesForNoOther(t *testing.T) {
	h := newHouse(t)
	order := h.sub(h.product, profile.Order, Name{OEM: "acme", Product: "pump", Unit: "o-9"})
	cert, err := order.Device(pumpID(idevid.IDevID), key(t).Public(), h.now, idevid.NoExpiry(), nil)
	must(t, err)
	trust := h.service.Trust()
	chain := []*x509.Certificate{cert, order.Cert, h.product.Cert}
	if _, err := trust.VerifyDevice(chain, h.now); err != nil {
		t.Fatal(err)
	}
	trust.Drop(h.product.Cert)
	if _, err := trust.VerifyDevice(chain, h.now); err == nil {
		t.Error("believed")
	}
}
