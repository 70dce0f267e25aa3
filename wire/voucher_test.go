package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"
)

const (
	voucherDevice = "00112233445566778899aabbccddeeff"
	otherDevice   = "ff112233445566778899aabbccddeeff"
)

func TestAVoucherIsReadAsPeopleTypeIt(t *testing.T) {
	v := NewVoucher(voucherDevice)
	want, err := ParseVoucher(voucherDevice, v)
	if err != nil || len(want)*8 < 128 {
		t.Fatalf("%s: %d bits, %v", v, len(want)*8, err)
	}
	for _, text := range []string{strings.ToLower(v), strings.ReplaceAll(v, "-", ""), strings.ReplaceAll(v, "-", " "), " " + v + " "} {
		if got, err := ParseVoucher(voucherDevice, text); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: %x, %v", text, got, err)
		}
	}
	if NewVoucher(voucherDevice) == v {
		t.Error("the same voucher twice")
	}
	if VoucherHash(voucherDevice, want) == VoucherHash(otherDevice, want) {
		t.Error("a hash says nothing of the device")
	}
}

func TestASlipOfTheFingerIsFound(t *testing.T) {
	v := NewVoucher(voucherDevice)
	for i := range len(v) {
		if v[i] == '-' {
			continue
		}
		c := byte('A')
		if v[i] == c {
			c = 'B'
		}
		if _, err := ParseVoucher(voucherDevice, v[:i]+string(c)+v[i+1:]); err == nil {
			t.Errorf("character %d changed, and taken", i)
		}
	}
	for _, text := range []string{"", v[1:], v + "A", "0" + v[1:], strings.Repeat("A", 32), strings.Repeat("A-", 1000)} {
		if _, err := ParseVoucher(voucherDevice, text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	if _, err := ParseVoucher(otherDevice, v); err == nil {
		t.Error("the voucher of another device was taken")
	}
}

func testClaim(t testing.TB) (c RekeyClaim, idevid []byte) {
	t.Helper()
	at, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	idevid = testSPKI(t)
	if c, err = NewRekeyClaim(voucherDevice, bytes.Repeat([]byte{5}, 16), idevid, at, "soft"); err != nil {
		t.Fatal(err)
	}
	return c, idevid
}

func TestAClaimStandsOnlyForWhatWasSigned(t *testing.T) {
	c, id := testClaim(t)
	enc, err := EncodeRekeyClaim(c)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = DecodeRekeyClaim(enc); err != nil || c.Verify(id) != nil {
		t.Fatalf("%v, %v", err, c.Verify(id))
	}
	for name, change := range map[string]func(c *RekeyClaim, id *[]byte){
		"another chip":            func(c *RekeyClaim, _ *[]byte) { c.ChipUID = bytes.Repeat([]byte{6}, 16) },
		"another device":          func(c *RekeyClaim, _ *[]byte) { c.Device = otherDevice },
		"another identity key":    func(_ *RekeyClaim, id *[]byte) { *id = testSPKI(t) },
		"another attestation key": func(c *RekeyClaim, _ *[]byte) { c.Attest = testSPKI(t) },
		"another key store":       func(c *RekeyClaim, _ *[]byte) { c.Origin = "tpm" },
		"one key for both":        func(c *RekeyClaim, id *[]byte) { *id = c.Attest },
	} {
		d, did := c, id
		change(&d, &did)
		if d.Verify(did) == nil {
			t.Errorf("%s: it stands", name)
		}
	}
	for name, change := range map[string]func(c *RekeyClaim){
		"no chip":      func(c *RekeyClaim) { c.ChipUID = nil },
		"version 2":    func(c *RekeyClaim) { c.Version = 2 },
		"origin field": func(c *RekeyClaim) { c.Origin = "field" },
		"no proof":     func(c *RekeyClaim) { c.Proof = nil },
		"no key":       func(c *RekeyClaim) { c.Attest = []byte{1} },
	} {
		d := c
		change(&d)
		if b, err := Marshal(d); err != nil {
			t.Error(err)
		} else if _, err := DecodeRekeyClaim(b); err == nil {
			t.Errorf("%s: decoded", name)
		}
	}
}

func testKit() RecoveryKit {
	return RecoveryKit{
		Device: voucherDevice, Product: "pump", Hardware: "A", OEM: "acme", Model: ModelBlob, Issuers: [][]byte{{1}},
	}
}

func FuzzDecodeRekey(f *testing.F) {
	c, _ := testClaim(f)
	b, err := EncodeRekeyClaim(c)
	if err != nil {
		f.Fatal(err)
	}
	k, err := EncodeRecoveryKit(testKit())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, NewVoucher(voucherDevice))
	f.Add(k, "AAAA")
	f.Fuzz(func(t *testing.T, b []byte, text string) {
		if c, err := DecodeRekeyClaim(b); err == nil {
			again, err := EncodeRekeyClaim(c)
			if err != nil || !bytes.Equal(again, b) {
				t.Fatalf("%x is not written as it was read: %v", b, err)
			}
		}
		if k, err := DecodeRecoveryKit(b); err == nil {
			again, err := EncodeRecoveryKit(k)
			if err != nil || !bytes.Equal(again, b) {
				t.Fatalf("%x is not written as it was read: %v", b, err)
			}
		}
		if s, err := ParseVoucher(voucherDevice, text); err == nil && len(s) != 17 {
			t.Fatalf("%q: a secret of %d bytes", text, len(s))
		}
	})
}
