package wire

import (
	"bytes"
	"strings"
	"testing"
)

func sampleCARequest(spki []byte) CARequest {
	return CARequest{
		Role: CAProduct, OEM: "acme", Product: "pump", Unit: "2027", SPKI: spki, Instance: "hallmark.acme.example",
		Purpose: "the pump's first CA", Days: 3650, CRL: "http://crl.acme.example/crl/ab/0.crl", Issued: 1, Replaces: d32(4),
	}
}

func sampleCRLRequest() CRLRequest {
	return CRLRequest{
		Issuer: []byte{0x30, 0}, Number: 7, From: 1, Until: 2, Instance: "hallmark.acme.example", Purpose: "the operational CA was stolen",
		Revoked: []CARevoked{{Serial: []byte{1, 2}, At: 1, Reason: 2, Name: "CN=operational,O=acme"}},
	}
}

func TestCARequestIsProvenByItsKey(t *testing.T) {
	k, spki := newKey(t)
	other, otherSPKI := newKey(t)
	env, err := SignCARequest(sampleCARequest(nil), k)
	if err != nil {
		t.Fatal(err)
	}
	r, payload, err := OpenCARequest(env)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := EncodeCARequest(r); err != nil || !bytes.Equal(again, payload) || !bytes.Equal(r.SPKI, spki) {
		t.Fatalf("%+v, %v", r, err)
	}
	// Somebody asks for a certificate over a key he does not hold.
	foreign, err := EncodeCARequest(sampleCARequest(otherSPKI))
	if err != nil {
		t.Fatal(err)
	}
	env, err = Sign1(TypeCARequest, foreign, k)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenCARequest(env); err == nil {
		t.Error("a request over a key that did not sign it was believed")
	}
	env, err = Sign1(TypeDirective, foreign, other)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenCARequest(env); err == nil {
		t.Error("another type of message was taken for a request")
	}
}

func TestCARequestsThatAreNotMade(t *testing.T) {
	_, spki := newKey(t)
	for name, change := range map[string]func(*CARequest){
		"another role":                func(r *CARequest) { r.Role = "root" },
		"an order CA":                 func(r *CARequest) { r.Role = "order" },
		"a product CA of no product":  func(r *CARequest) { r.Product = "" },
		"an operational CA with one":  func(r *CARequest) { r.Role = CAOperational },
		"no purpose":                  func(r *CARequest) { r.Purpose = "" },
		"a purpose that hides itself": func(r *CARequest) { r.Purpose = "fine\u202e\u001b[2K" },
		"a purpose of two lines":      func(r *CARequest) { r.Purpose = "a\nb" },
		"a purpose without end":       func(r *CARequest) { r.Purpose = strings.Repeat("x", maxPurpose+1) },
		"a name that breaks a DN":     func(r *CARequest) { r.Unit = "2027,O=evil" },
		"a list over https":           func(r *CARequest) { r.CRL = "https://x/0.crl" },
		"no key":                      func(r *CARequest) { r.SPKI = nil },
		"a life of centuries":         func(r *CARequest) { r.Days = 1 << 20 },
		"no time":                     func(r *CARequest) { r.Issued = 0 },
	} {
		r := sampleCARequest(spki)
		change(&r)
		if _, err := EncodeCARequest(r); err == nil {
			t.Errorf("%s: it was made", name)
		}
	}
}

func FuzzDecodeCARequest(f *testing.F) {
	_, spki := newKey(f)
	again(f, DecodeCARequest, EncodeCARequest, sampleCARequest(spki), CARequest{
		Role: CAInfra, OEM: "acme", SPKI: spki, Instance: "i", Purpose: "p", Issued: 1,
	})
}

func FuzzDecodeCAGrant(f *testing.F) {
	again(f, DecodeCAGrant, EncodeCAGrant, CAGrant{Request: d32(1), Chain: [][]byte{{1}, {2}}})
}

func FuzzDecodeCRLRequest(f *testing.F) {
	again(f, DecodeCRLRequest, EncodeCRLRequest, sampleCRLRequest())
}
