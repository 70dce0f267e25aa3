package main

import (
	"strings"
	"testing"
)

func TestHowAKeyStoreIsWritten(t *testing.T) {
	for keys, good := range map[string]bool{
		"": true, "tpm:/dev/tpmrm0": true, "isolated:/run/keys.sock": true, "pkcs11:token=my%20card?module-path=/m.so&pin-source=file:/run/pin": true,
		"tpm": false, "tpm:": false, "file:/x": false, "pkcs11:": false, "pkcs11:token=a": false, "pkcs11:token=a?module-path=/m.so": false,
		"pkcs11:token=a;object=b?module-path=/m.so&pin-source=/p": false, "pkcs11:token=a;token=b?module-path=/m.so&pin-source=/p": false, "pkcs11:token=%zz?module-path=/m&pin-source=/p": false,
	} {
		if err := checkKeys(keys); (err == nil) != good || err != nil && !strings.Contains(err.Error(), "want") {
			t.Errorf("%q: %v", keys, err)
		}
	}
	c, pin, err := parseToken("token=my%20card?module-path=/m.so&pin-source=file:/run/pin")
	if err != nil || c.Label != "my card" || c.Path != "/m.so" || pin != "/run/pin" {
		t.Errorf("%+v %q %v", c, pin, err)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("token=a?module-path=/m.so&pin-source=/p")
	f.Fuzz(func(t *testing.T, s string) {
		if c, pin, err := parseToken(s); err == nil && (c.Label == "" || c.Path == "" || pin == "") {
			t.Fatalf("%q: %+v %q", s, c, pin)
		}
	})
}
