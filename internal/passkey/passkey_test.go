package passkey_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/passkey"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
)

// desk is a server with its members, and what a browser and an authenticator would be.
type desk struct {
	t     *testing.T
	c     *signin.Service
	url   string
	rp    virtualwebauthn.RelyingParty
	admin access.Caller
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	db := storetest.Open(t)
	guard, err := access.NewGuard(db)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{t: t, c: signin.New(db, guard), admin: access.Internal("test")}
	server := httptest.NewUnstartedServer(nil)
	d.url = "http://" + strings.Replace(server.Listener.Addr().String(), "127.0.0.1", "localhost", 1)
	d.rp = virtualwebauthn.RelyingParty{Name: "Hallmark", ID: "localhost", Origin: d.url}
	if server.Config.Handler, err = passkey.New(passkey.Config{
		Credentials: d.c, Domain: "localhost", Origins: []string{d.url}, Log: slog.New(slog.DiscardHandler),
	}); err != nil {
		t.Fatal(err)
	}
	server.Start()
	t.Cleanup(server.Close)
	return d
}

// browser is a person's, signed in by a link that works once unless it is a stranger's.
type browser struct {
	d    *desk
	http *http.Client
	auth virtualwebauthn.Authenticator
	cred virtualwebauthn.Credential
}

// credential has a key whose coordinates are 32 bytes: the authenticator of the library writes shorter ones short, which RFC 9053 §7.1.1
// forbids, and we refuse.
func credential(t *testing.T) virtualwebauthn.Credential {
	t.Helper()
	for {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if point[1] == 0 || point[33] == 0 {
			continue
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return virtualwebauthn.NewCredentialWithImportedKey(virtualwebauthn.KeyTypeEC2, der)
	}
}

func (d *desk) browser(person string) *browser {
	d.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		d.t.Fatal(err)
	}
	b := &browser{d: d, http: &http.Client{Jar: jar}, auth: virtualwebauthn.NewAuthenticator(), cred: credential(d.t)}
	if person != "" {
		b.signIn(person)
	}
	return b
}

func (b *browser) signIn(person string) {
	b.d.t.Helper()
	once, err := b.d.c.Issue(b.d.t.Context(), b.d.admin, signin.Grant{
		Caller: person, Kind: access.Person, Roles: []access.Role{access.Viewer}, Use: signin.UseOnce, Life: time.Hour,
	})
	if err != nil {
		b.d.t.Fatal(err)
	}
	secret, _, err := b.d.c.Begin(b.d.t.Context(), once)
	if err != nil {
		b.d.t.Fatal(err)
	}
	b.set(secret)
}

func (b *browser) set(secret string) {
	req, err := http.NewRequestWithContext(b.d.t.Context(), http.MethodGet, b.d.url, nil)
	if err != nil {
		b.d.t.Fatal(err)
	}
	b.http.Jar.SetCookies(req.URL, []*http.Cookie{{Name: passkey.SessionCookie, Value: secret, Path: "/"}})
}

func (b *browser) session() string {
	req, err := http.NewRequestWithContext(b.d.t.Context(), http.MethodGet, b.d.url, nil)
	if err != nil {
		b.d.t.Fatal(err)
	}
	for _, c := range b.http.Jar.Cookies(req.URL) {
		if c.Name == passkey.SessionCookie {
			return c.Value
		}
	}
	return ""
}

// post gives the status, and the answer or the problem's code.
func (b *browser) post(path, body string) (int, string) {
	b.d.t.Helper()
	req, err := http.NewRequestWithContext(b.d.t.Context(), http.MethodPost, b.d.url+"/auth/"+path, bytes.NewReader([]byte(body)))
	if err != nil {
		b.d.t.Fatal(err)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		b.d.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		b.d.t.Fatal(err)
	}
	var p struct {
		Type string `json:"type"`
	}
	if resp.StatusCode >= 300 && json.Unmarshal(data, &p) == nil {
		return resp.StatusCode, strings.TrimPrefix(p.Type, "urn:hallmark:fault:")
	}
	return resp.StatusCode, string(data)
}

func (b *browser) register(label string) (int, string) {
	b.d.t.Helper()
	code, options := b.post("passkey/register/begin", "")
	if code != http.StatusOK {
		return code, options
	}
	o, err := virtualwebauthn.ParseAttestationOptions(options)
	if err != nil {
		b.d.t.Fatal(err)
	}
	b.auth.Options.UserHandle = []byte(o.UserID)
	code, said := b.post("passkey/register/finish?label="+label, virtualwebauthn.CreateAttestationResponse(b.d.rp, b.auth, b.cred, *o))
	if code == http.StatusOK {
		b.auth.AddCredential(b.cred)
	}
	return code, said
}

// assert does a ceremony that ends with an assertion, as rp would be told by a browser.
func (b *browser) assert(what string, rp virtualwebauthn.RelyingParty) (int, string) {
	b.d.t.Helper()
	code, options := b.post("passkey/"+what+"/begin", "")
	if code != http.StatusOK {
		return code, options
	}
	o, err := virtualwebauthn.ParseAssertionOptions(options)
	if err != nil {
		b.d.t.Fatal(err)
	}
	b.cred.Counter++
	return b.post("passkey/"+what+"/finish", virtualwebauthn.CreateAssertionResponse(rp, b.auth, b.cred, *o))
}

func TestAPersonAddsAPasskeyAndSignsInWithIt(t *testing.T) {
	d := newDesk(t)
	ann := d.browser("person:ann")
	if code, said := ann.register("my+laptop"); code != http.StatusOK {
		t.Fatalf("%d %s", code, said)
	}
	if code, _ := ann.post("logout", ""); code != http.StatusNoContent {
		t.Fatalf("logout: %d", code)
	}
	if s := ann.session(); s != "" {
		t.Fatalf("signed out, and holds %q", s)
	}
	if code, said := ann.assert("login", d.rp); code != http.StatusOK || !strings.Contains(said, "person:ann") {
		t.Fatalf("%d %s", code, said)
	}
	who, err := d.c.Caller(t.Context(), ann.session())
	if err != nil || who.ID != "person:ann" || !who.Fresh || !who.Has(access.Viewer) {
		t.Fatalf("%+v, %v", who, err)
	}
	if code, said := ann.assert("verify", d.rp); code != http.StatusOK {
		t.Errorf("confirm: %d %s", code, said)
	}
}

// Each way to get in without the key, or with an answer of another time, place or person.
func TestWhatIsNoProofIsRefused(t *testing.T) {
	d := newDesk(t)
	ann, bob := d.browser("person:ann"), d.browser("person:bob")
	for _, b := range []*browser{ann, bob} {
		if code, said := b.register("key"); code != http.StatusOK {
			t.Fatalf("%d %s", code, said)
		}
	}
	stranger := d.browser("")
	for name, try := range map[string]struct {
		do   func() (int, string)
		code int
		said string
	}{
		"a key nobody added": {func() (int, string) { return stranger.assert("login", d.rp) }, http.StatusForbidden, "passkey.unknown"},
		"another site's answer": {func() (int, string) {
			return ann.assert("login", virtualwebauthn.RelyingParty{ID: "localhost", Origin: "https://evil.example"})
		}, http.StatusForbidden, "passkey.refused"},
		"another domain's answer": {func() (int, string) {
			return ann.assert("login", virtualwebauthn.RelyingParty{ID: "evil.example", Origin: d.url})
		}, http.StatusForbidden, "passkey.refused"},
		"a counter that went back": {func() (int, string) {
			if code, said := ann.assert("login", d.rp); code != http.StatusOK {
				return code, said
			}
			ann.cred.Counter = 0
			code, said := ann.assert("login", d.rp)
			ann.cred.Counter = 1000
			return code, said
		}, http.StatusForbidden, "passkey.cloned"},
		"somebody else's key as a confirmation": {func() (int, string) {
			code, options := ann.post("passkey/verify/begin", "")
			if code != http.StatusOK {
				return code, options
			}
			o, err := virtualwebauthn.ParseAssertionOptions(options)
			if err != nil {
				t.Fatal(err)
			}
			bob.cred.Counter++
			return ann.post("passkey/verify/finish", virtualwebauthn.CreateAssertionResponse(d.rp, bob.auth, bob.cred, *o))
		}, http.StatusForbidden, "passkey.other"},
		"the same answer twice": {func() (int, string) {
			_, options := ann.post("passkey/login/begin", "")
			o, err := virtualwebauthn.ParseAssertionOptions(options)
			if err != nil {
				t.Fatal(err)
			}
			ann.cred.Counter++
			answer := virtualwebauthn.CreateAssertionResponse(d.rp, ann.auth, ann.cred, *o)
			if code, said := ann.post("passkey/login/finish", answer); code != http.StatusOK {
				return code, said
			}
			return ann.post("passkey/login/finish", answer)
		}, http.StatusUnprocessableEntity, "passkey.ceremony"},
		"an answer to no question": {func() (int, string) { return d.browser("").post("passkey/login/finish", "{}") }, http.StatusUnprocessableEntity, "passkey.ceremony"},
		"a login's answer to confirm": {func() (int, string) {
			ann.post("passkey/login/begin", "")
			return ann.post("passkey/verify/finish", "{}")
		}, http.StatusUnprocessableEntity, "passkey.ceremony"},
		"garbage": {func() (int, string) {
			ann.post("passkey/login/begin", "")
			return ann.post("passkey/login/finish", strings.Repeat("x", 100_000))
		}, http.StatusUnprocessableEntity, "passkey.malformed"},
		"adding a key without being signed in": {func() (int, string) { return d.browser("").register("x") }, http.StatusForbidden, "access.no-session"},
		"adding a key without a name":          {func() (int, string) { return bob.register("") }, http.StatusUnprocessableEntity, "passkey.label"},
		"user not verified": {func() (int, string) {
			ann.auth.Options.UserNotVerified = true
			defer func() { ann.auth.Options.UserNotVerified = false }()
			return ann.assert("login", d.rp)
		}, http.StatusForbidden, "passkey.refused"},
	} {
		if code, said := try.do(); code != try.code || said != try.said {
			t.Errorf("%s: %d %.200s, want %d %s", name, code, said, try.code, try.said)
		}
	}
}

// A passkey is added and removed by who has just proven to be its person, and ends with its member.
func TestPasskeysAreTheirPersons(t *testing.T) {
	d := newDesk(t)
	ann := d.browser("person:ann")
	if code, said := ann.register("key"); code != http.StatusOK {
		t.Fatalf("%d %s", code, said)
	}
	bob := access.Caller{ID: "person:bob", Kind: access.Person, Via: "session", Fresh: true}
	if err := d.c.DropPasskey(t.Context(), bob, ann.cred.ID); err == nil {
		t.Error("another person's key was removed")
	}
	stale := access.Caller{ID: "person:ann", Kind: access.Person, Via: "session"}
	if err := d.c.AddPasskey(t.Context(), stale, []byte("x"), []byte("{}"), "a thief's"); err == nil {
		t.Error("a key was added from a browser that was left open")
	}
	if err := d.c.DropPasskey(t.Context(), stale, ann.cred.ID); err == nil {
		t.Error("a key was removed from a browser that was left open")
	}
	if _, err := d.c.EndMember(t.Context(), d.admin, "person:ann"); err != nil {
		t.Fatal(err)
	}
	if code, said := ann.assert("login", d.rp); code != http.StatusForbidden {
		t.Errorf("who has ended signs in: %d %s", code, said)
	}
}
