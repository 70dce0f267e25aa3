package pkcs11

import (
	"net/url"
	"strings"
	"testing"
)

func TestURIsThatNameAToken(t *testing.T) {
	for text, want := range map[string]URI{
		"pkcs11:token=ca?module-path=/usr/lib/softhsm/libsofthsm2.so": {Token: "ca", Module: "/usr/lib/softhsm/libsofthsm2.so"},
		"pkcs11:object=approver-alice;token=My%20card?pin-source=file:/run/pin&module-path=/m.so": {
			Token: "My card", Object: "approver-alice", Module: "/m.so", PIN: "/run/pin",
		},
	} {
		if got, err := ParseURI(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

func TestURIsThatAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"another scheme":           "https:token=ca?module-path=/m.so",
		"no token":                 "pkcs11:object=k?module-path=/m.so",
		"no module":                "pkcs11:token=ca",
		"a module somewhere":       "pkcs11:token=ca?module-path=m.so",
		"a PIN in the open":        "pkcs11:token=ca?module-path=/m.so&pin-value=1234",
		"a PIN's command":          "pkcs11:token=ca?module-path=/m.so&pin-source=|cat",
		"an attribute that counts": "pkcs11:token=ca;serial=12?module-path=/m.so",
		"twice":                    "pkcs11:token=ca;token=cb?module-path=/m.so",
		"an empty value":           "pkcs11:token=?module-path=/m.so",
		"a NUL":                    "pkcs11:token=c%00a?module-path=/m.so",
		"half an escape":           "pkcs11:token=c%4?module-path=/m.so",
		"too long":                 "pkcs11:token=" + strings.Repeat("a", maxURI) + "?module-path=/m.so",
	} {
		if u, err := ParseURI(text); err == nil {
			t.Errorf("%s: read as %+v", name, u)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	f.Add("pkcs11:token=ca;object=k?module-path=/m.so&pin-source=/p")
	f.Add("pkcs11:token=a%3Bb%26%25?module-path=/with%20space/m.so")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseURI(text)
		if err != nil {
			return
		}
		if again, err := ParseURI(u.String()); len(u.String()) <= maxURI && (err != nil || again != u) {
			t.Errorf("%q is %+v, and written %q is %+v, %v", text, u, u, again, err)
		}
	})
}

// String writes it.
func (u URI) String() string {
	out := Scheme + "token=" + escaped(u.Token)
	if u.Object != "" {
		out += ";object=" + escaped(u.Object)
	}
	out += "?module-path=" + escaped(u.Module)
	if u.PIN != "" {
		out += "&pin-source=" + escaped(u.PIN)
	}
	return out
}

// escaped leaves the slashes of a path, which RFC 7512 allows in both parts of a query; in the token's part they are harmless to our reader.
func escaped(s string) string {
	return strings.NewReplacer("%2F", "/", "&", "%26", ";", "%3B", "+", "%2B", "=", "%3D").Replace(url.PathEscape(s))
}
