package est

import "testing"

func FuzzDecodeCerts(f *testing.F) {
	f.Add([]byte("MAsGCSqGSIb3DQEHAg=="))
	f.Add([]byte("MIIB\r\n not base64"))
	f.Fuzz(func(t *testing.T, b []byte) {
		certs, err := DecodeCerts(b)
		if err == nil && len(certs) == 0 {
			t.Fatal("no error, and no certificate")
		}
		if certs, err := ParseCertsOnly(b); err == nil && len(certs) == 0 {
			t.Fatal("no error, and no certificate")
		}
	})
}
