package idevid

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"os/exec"
	"strings"
	"testing"
	"time"
)

var sample = Identity{Kind: IDevID, DeviceID: "00112233445566778899aabbccddeeff", OEM: "acme", Product: "thermo-1", HWRev: "B"}

func key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func selfSigned(t testing.TB, tmpl *x509.Certificate) *x509.Certificate {
	t.Helper()
	k := key(t)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func template(t testing.TB, id Identity) *x509.Certificate {
	t.Helper()
	serial, err := RandomSerial()
	if err != nil {
		t.Fatal(err)
	}
	end := NoExpiry()
	now := time.Now()
	if id.Kind == LDevID {
		end = now.Add(time.Hour)
	}
	tmpl, err := Template(id, serial, now, end)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for _, kind := range []Kind{IDevID, LDevID} {
		id := sample
		id.Kind = kind
		got, err := Parse(selfSigned(t, template(t, id)))
		if err != nil || got != id {
			t.Errorf("%s: read %+v, %v", kind, got, err)
		}
	}
	c := selfSigned(t, template(t, sample))
	if !c.NotAfter.Equal(NoExpiry()) {
		t.Errorf("notAfter %s", c.NotAfter)
	}
	if n := len(c.SerialNumber.Bytes()); n != 16 {
		t.Errorf("serial number of %d bytes", n)
	}
}

// OpenSSL reads the otherName as RFC 4108 says it is.
func TestOpenSSLReadsTheSAN(t *testing.T) {
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	san, err := sample.SAN()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, "asn1parse", "-inform", "DER")
	cmd.Stdin = strings.NewReader(string(san.Value))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"1.3.6.1.5.5.7.8.4", "00112233445566778899AABBCCDDEEFF"} {
		if !strings.Contains(string(out), want) && (want[0] != '1' || !strings.Contains(string(out), "Hardware Module Name")) {
			t.Errorf("openssl does not see %s in\n%s", want, out)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	other := sample
	other.DeviceID = "ffeeddccbbaa99887766554433221100"
	for name, change := range map[string]func(c *x509.Certificate){
		"two policies":     func(c *x509.Certificate) { c.Policies = append(c.Policies, PolicyLDevID()) },
		"no policy":        func(c *x509.Certificate) { c.Policies = nil },
		"CA":               func(c *x509.Certificate) { c.IsCA = true },
		"no SAN":           func(c *x509.Certificate) { c.ExtraExtensions = nil },
		"other's SAN":      func(c *x509.Certificate) { c.ExtraExtensions[0], _ = other.SAN() },
		"DNS name":         func(c *x509.Certificate) { c.ExtraExtensions, c.DNSNames = nil, []string{"x"} },
		"foreign subject":  func(c *x509.Certificate) { c.RawSubject, c.Subject = nil, pkix.Name{CommonName: "x"} },
		"other's subject":  func(c *x509.Certificate) { c.RawSubject, _ = other.Subject() },
		"empty, not crit.": func(c *x509.Certificate) { c.RawSubject, c.Subject = nil, pkix.Name{} },
	} {
		t.Run(name, func(t *testing.T) {
			tmpl := template(t, sample)
			change(tmpl)
			if id, err := Parse(selfSigned(t, tmpl)); err == nil {
				t.Errorf("accepted as %+v", id)
			}
		})
	}
}

func TestEmptySubjectWithCriticalSAN(t *testing.T) {
	tmpl := template(t, sample)
	tmpl.RawSubject, tmpl.Subject = nil, pkix.Name{}
	tmpl.ExtraExtensions[0].Critical = true
	c := selfSigned(t, tmpl)
	if len(c.UnhandledCriticalExtensions) != 1 {
		t.Fatalf("crypto/x509 lists %v as unhandled; this test is about the SAN there", c.UnhandledCriticalExtensions)
	}
	id, err := Parse(c)
	if err != nil || id.DeviceID != sample.DeviceID || id.OEM != "" {
		t.Fatalf("%+v, %v", id, err)
	}
	if h := HandledSAN(c); len(h.UnhandledCriticalExtensions) != 0 || len(c.UnhandledCriticalExtensions) != 1 {
		t.Error("HandledSAN has to change a copy only")
	}
}

func TestNamesAndTimesAreChecked(t *testing.T) {
	for _, id := range []Identity{
		{Kind: IDevID, DeviceID: "00112233445566778899AABBCCDDEEFF", OEM: "a", Product: "b", HWRev: "c"},
		{Kind: IDevID, DeviceID: sample.DeviceID, OEM: "", Product: "b", HWRev: "c"},
		{Kind: IDevID, DeviceID: sample.DeviceID, OEM: "a", Product: "b/c", HWRev: "c"},
		{Kind: IDevID, DeviceID: sample.DeviceID, OEM: "a", Product: strings.Repeat("b", 65), HWRev: "c"},
		{Kind: "", DeviceID: sample.DeviceID, OEM: "a", Product: "b", HWRev: "c"},
	} {
		if _, err := Template(id, big.NewInt(1), time.Now(), NoExpiry()); err == nil {
			t.Errorf("%+v made a template", id)
		}
	}
	ldev := sample
	ldev.Kind = LDevID
	if _, err := Template(ldev, big.NewInt(1), time.Now(), NoExpiry()); err == nil {
		t.Error("an LDevID without end")
	}
	if _, err := Template(sample, big.NewInt(1), time.Now(), time.Now().Add(time.Hour)); err == nil {
		t.Error("an IDevID with an end")
	}
}

func FuzzParseSAN(f *testing.F) {
	san, err := sample.SAN()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(san.Value)
	f.Add([]byte{0x30, 0x00})
	f.Add(san.Value[:len(san.Value)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		hw, serial, err := ParseSAN(b)
		if err != nil {
			return
		}
		raw, err := hw.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := encodeSAN(raw, serial); err != nil || string(again) != string(b) {
			t.Fatalf("accepted %x, which encodes to %x, %v", b, again, err)
		}
	})
}

// Names are written as encoding/asn1 writes them, which chooses string types and lengths by itself.
func TestNamesAreTheDEROfTheirTypes(t *testing.T) {
	long := strings.Repeat("x", 64)
	for _, id := range []Identity{
		sample, {DeviceID: sample.DeviceID, OEM: "A & B", Product: "p_1", HWRev: "a.b-c+d'(e)"}, {DeviceID: sample.DeviceID, OEM: long, Product: long, HWRev: long},
	} {
		got, err := id.Subject()
		if err != nil {
			t.Fatal(err)
		}
		want, err := asn1.Marshal(pkix.RDNSequence{
			{{Type: oidOrganization, Value: id.OEM}}, {{Type: oidOrgUnit, Value: id.Product}}, {{Type: oidDNQualifier, Value: id.HWRev}}, {{Type: oidSerialNumber, Value: id.DeviceID}},
		})
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%+v: subject %x, want %x (%v)", id, got, want, err)
		}
	}
	for _, u := range [][]byte{
		make([]byte, 16), bytes.Repeat([]byte{0xff}, 16), {15: 1}, {0: 0x80}, {14: 1}, {15: 0x80}, {0: 1, 1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 0x87, 7: 8, 8: 0x89, 15: 0x7f},
	} {
		oid, err := x509.ParseOID("2.25." + new(big.Int).SetBytes(u).String())
		if err != nil {
			t.Fatal(err)
		}
		want, err := oid.MarshalBinary()
		if got := underUUID(u); err != nil || !bytes.Equal(got, want) {
			t.Errorf("2.25.%x: %x, want %x (%v)", u, got, want, err)
		}
	}
}
