package pki

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
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
	ca, err := h.product.Sub(Order, Name{OEM: "acme", Product: "pump", Unit: "o-2"}, k.Public(), h.now)
	must(t, err)
	if err := h.service.AddCA(t.Context(), me, ca); !errors.Is(err, errDisk) {
		t.Fatalf("%v", err)
	}
	order, err := NewAuthority(Order, ca, k)
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
