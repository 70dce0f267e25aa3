package foreign_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/onboard/foreign"
	"github.com/hallmark-iot/hallmark/pki"
)

func FuzzRead(f *testing.F) {
	f.Add("csv", []byte("name,sha256\na,"+strings.Repeat("ab", 32)+"\n"))
	f.Add("aws", []byte(`{"thingName":"a","certificateId":"`+strings.Repeat("ab", 32)+`","status":"ACTIVE"}`))
	f.Add("azure", []byte(`{"id":"a","status":"enabled","authentication":{"type":"certificateAuthority"}}`))
	f.Add("azure", []byte(`{"registrationId":"a","provisioningStatus":"enabled","attestation":{"type":"tpm"}}`))
	f.Fuzz(func(t *testing.T, format string, b []byte) {
		_ = foreign.Read(foreign.Format(format), bytes.NewReader(b), func(l foreign.Line) error {
			if l.Err == nil && (l.Device.Of == "" || l.Device.Kind == "") {
				t.Fatalf("line %d: %+v", l.N, l.Device)
			}
			return nil
		})
		if m, err := pki.ParseMapping(string(b)); err == nil && !strings.Contains(string(m), "{") {
			t.Fatalf("mapping %q reads nothing", m)
		}
	})
}

// Azure tells of devices in two ways: those of a hub, and those that a provisioning service is to let in.
func TestWhatAzureTellsOfADevice(t *testing.T) {
	sum := strings.Repeat("AB", 32)
	for line, want := range map[string]foreign.Device{
		`{"id":"a","status":"enabled","authentication":{"type":"selfSigned","x509Thumbprint":{"primaryThumbprint":"` + strings.Repeat("CD", 20) + `"}}}`: {
			Name: "a", Kind: pki.ForeignCert, Of: strings.Repeat("cd", 20),
		},
		`{"registrationId":"r","deviceId":"d","provisioningStatus":"enabled","attestation":{"type":"x509","x509":{"clientCertificates":{"primary":{"certificate":null,"info":{"sha1Thumbprint":"` +
			strings.Repeat("CD", 20) + `","sha256Thumbprint":"` + sum + `"}},"secondary":null},"caReferences":null}}}`: {Name: "d", Kind: pki.ForeignCert, Of: strings.ToLower(sum)},
		`{"registrationId":"r","deviceId":"d","provisioningStatus":"enabled","attestation":{"type":"x509","x509":{"caReferences":{"primary":"maker-ca"}}}}`: {
			Name: "r", Kind: pki.ForeignName, Of: "r",
		},
		`{"registrationId":"r","provisioningStatus":"disabled","attestation":{"type":"x509","x509":{"clientCertificates":{"primary":{"info":{"sha256Thumbprint":"` + sum + `"}}}}}}`: {},
		`{"registrationId":"r","provisioningStatus":"enabled","attestation":{"type":"tpm","tpm":{"endorsementKey":"AA=="}}}`:                                                         {},
		`{"registrationId":"r","provisioningStatus":"enabled","attestation":{"type":"symmetricKey"}}`:                                                                                {},
		`{"id":"a","status":"enabled","authentication":{"type":"sas"}}`:                                                                                                              {},
	} {
		err := foreign.Read(foreign.Azure, strings.NewReader(line), func(l foreign.Line) error {
			if got := l.Device; got.Name != want.Name || got.Kind != want.Kind || got.Of != want.Of || (l.Err == nil) != (want.Kind != "") {
				t.Errorf("%s\ngave %+v, %v", line, got, l.Err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
