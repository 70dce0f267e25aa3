package oidc_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/oidc"
	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
)

const secret = "the client's secret, of some length"

// provider is a certified provider's code over a store of the test's, and what stands between it and us.
type provider struct {
	*storage.Storage
	url string
	key *ecdsa.PrivateKey

	mu     sync.Mutex
	users  map[string]storage.User            // by name; guarded by mu, as is what follows
	forge  func(claims map[string]any) string // makes the ID token that is given out instead
	twist  func(path string, answer []byte) []byte
	silent bool
}

type key struct{ p *provider }

func (k key) ID() string                                  { return "k" }
func (k key) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k key) Algorithm() jose.SignatureAlgorithm          { return jose.ES256 }
func (k key) Use() string                                 { return "sig" }

type private struct{ key }

func (k private) Key() any { return k.p.key }

type public struct{ key }

func (k public) Key() any { return &k.p.key.PublicKey }

func (p *provider) SigningKey(context.Context) (op.SigningKey, error) { return private{key{p}}, nil }

func (p *provider) KeySet(context.Context) ([]op.Key, error) { return []op.Key{public{key{p}}}, nil }

func (p *provider) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.ES256}, nil
}

// client has the provider tell the email in the ID token.
type client struct{ op.Client }

func (client) IDTokenUserinfoClaimsAssertion() bool { return true }

func (p *provider) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := p.Storage.GetClientByClientID(ctx, id)
	return client{c}, err
}

func (p *provider) GetUserByID(id string) *storage.User {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.users {
		if u.ID == id {
			return &u
		}
	}
	return nil
}

func (p *provider) GetUserByUsername(name string) *storage.User {
	p.mu.Lock()
	defer p.mu.Unlock()
	u, ok := p.users[name]
	if !ok {
		return nil
	}
	return &u
}

func (p *provider) ExampleClientID() string { return "hallmark" }

// sign makes an ID token of claims with the provider's own key.
func (p *provider) sign(t *testing.T, claims map[string]any) string {
	return signed(t, jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: p.key, KeyID: "k"}}, claims)
}

func signed(t *testing.T, k jose.SigningKey, claims map[string]any) string {
	t.Helper()
	s, err := jose.NewSigner(k, nil)
	if err != nil {
		t.Fatal(err)
	}
	return jws(t, s, claims)
}

func jws(t *testing.T, s jose.Signer, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := o.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// between is who sits between provider and us, or the provider gone bad.
func (p *provider) between(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		forge, twist, silent := p.forge, p.twist, p.silent
		p.mu.Unlock()
		if silent {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		if twist != nil {
			body = twist(r.URL.Path, body)
		}
		if r.URL.Path == "/oauth/token" && forge != nil && rec.Code == http.StatusOK {
			var answer map[string]any
			if json.Unmarshal(body, &answer) == nil {
				if raw, ok := answer["id_token"].(string); ok {
					if tok, err := jose.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256}); err == nil {
						var claims map[string]any
						_ = json.Unmarshal(tok.UnsafePayloadWithoutVerification(), &claims)
						answer["id_token"] = forge(claims)
						body, _ = json.Marshal(answer)
					}
				}
			}
		}
		maps.Copy(w.Header(), rec.Header())
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(rec.Code)
		_, _ = w.Write(body)
	})
}

// house is an instance with a provider beside it.
type house struct {
	t     *testing.T
	p     *provider
	c     *signin.Service
	app   *httptest.Server
	admin access.Caller
}

func newHouse(t *testing.T) *house {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	db.KeepPrivate(storetest.Vault{})
	t.Cleanup(func() { _ = db.Close() })
	guard, err := access.NewGuard(db)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, c: signin.New(db, guard), admin: access.Internal("test"), p: &provider{users: map[string]storage.User{}}}
	if h.p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	var provides, serves http.Handler
	at := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { provides.ServeHTTP(w, r) }))
	h.app = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serves.ServeHTTP(w, r) }))
	t.Cleanup(at.Close)
	t.Cleanup(h.app.Close)
	redirect := h.app.URL + "/auth/oidc/callback"
	h.p.url = at.URL
	h.p.Storage = storage.NewStorageWithClients(h.p, map[string]*storage.Client{"hallmark": storage.WebClient("hallmark", secret, redirect)})
	quiet := slog.New(slog.DiscardHandler)
	provides = h.p.between(exampleop.SetupServer(at.URL, h.p, quiet, false))
	serves = oidc.New(oidc.Config{Credentials: h.c, Issuer: at.URL, Client: "hallmark", Secret: secret, Redirect: redirect, Log: quiet})
	for _, who := range []string{"person:alice", "person:bob", "person:carol"} {
		if _, err := h.c.Issue(t.Context(), h.admin, signin.Grant{Caller: who, Kind: access.Person, Roles: []access.Role{access.Viewer}, Use: signin.UseToken, Life: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	h.user("alice", "sub-1", "alice@example.com", true)
	h.user("bob", "sub-2", "bob@example.com", true)
	return h
}

func (h *house) user(name, sub, mail string, verified bool) {
	h.p.mu.Lock()
	defer h.p.mu.Unlock()
	h.p.users[name] = storage.User{ID: sub, Username: name, Password: "pw", Email: mail, EmailVerified: verified}
}

func (h *house) bind(member, subject, mail string) {
	h.t.Helper()
	if _, err := h.c.BindIdentity(h.t.Context(), h.admin, member, h.p.url, subject, mail); err != nil {
		h.t.Fatal(err)
	}
}

// browser goes where it is sent, by redirects, and says where it was.
type browser struct {
	h    *house
	http *http.Client
	last string // the callback's address, when it was there
}

func (h *house) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		h.t.Fatal(err)
	}
	b := &browser{h: h}
	b.http = &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.Contains(r.URL.Path, "/auth/oidc/callback") {
			b.last = r.URL.String()
		}
		return nil
	}}
	return b
}

func (b *browser) do(method, to string, form url.Values) (*http.Response, string) {
	b.h.t.Helper()
	req, err := http.NewRequestWithContext(b.h.t.Context(), method, to, strings.NewReader(form.Encode()))
	if err != nil {
		b.h.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := b.http.Do(req)
	if err != nil {
		b.h.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.h.t.Fatal(err)
	}
	return resp, string(body)
}

// begin asks to sign in, or to confirm, and gives the provider's address that it leads to.
func (b *browser) begin(what string) (string, *http.Response) {
	resp, _ := b.do(http.MethodPost, b.h.app.URL+"/auth/oidc/"+what, nil)
	_, to, _ := strings.Cut(resp.Header.Get("Refresh"), "url=")
	return to, resp
}

// at signs in at the provider, and gives what we say to its answer.
func (b *browser) at(to, user string) *http.Response {
	b.h.t.Helper()
	resp, _ := b.do(http.MethodGet, to, nil)
	id := resp.Request.URL.Query().Get("authRequestID")
	if id == "" {
		b.h.t.Fatalf("the provider shows no page: %s", resp.Request.URL)
	}
	resp, body := b.do(http.MethodPost, b.h.p.url+"/login/username", url.Values{"id": {id}, "username": {user}, "password": {"pw"}})
	if b.last == "" {
		b.h.t.Fatalf("the provider did not let %s in: %s", user, body)
	}
	return resp
}

func (b *browser) signIn(user string) *http.Response {
	b.h.t.Helper()
	to, _ := b.begin("begin")
	return b.at(to, user)
}

// session gives the session's secret that the browser has.
func (b *browser) session() string {
	u, err := url.Parse(b.h.app.URL)
	if err != nil {
		b.h.t.Fatal(err)
	}
	for _, c := range b.http.Jar.Cookies(u) {
		if c.Name == "hallmark-session" {
			return c.Value
		}
	}
	return ""
}

func (b *browser) is() access.Caller {
	c, err := b.h.c.Caller(b.h.t.Context(), b.session())
	if err != nil {
		return access.Caller{}
	}
	return c
}

func TestAPersonSignsInWithTheOrganisation(t *testing.T) {
	h := newHouse(t)
	h.bind("person:alice", "", "Alice@Example.com")
	h.bind("person:bob", "sub-2", "")
	for user, want := range map[string]string{"alice": "person:alice", "bob": "person:bob"} {
		b := h.browser()
		if resp := b.signIn(user); resp.StatusCode != http.StatusOK || b.is().ID != want || b.is().Via != "session" {
			t.Errorf("%s: %d, signed in as %+v", user, resp.StatusCode, b.is())
		}
		if !b.is().Fresh {
			t.Errorf("%s has just given a password, and is not fresh", user)
		}
	}
	got, err := h.c.Identities(t.Context(), h.admin, "person:alice")
	if err != nil || len(got) != 1 || got[0].Subject != "sub-1" || got[0].Used.IsZero() {
		t.Errorf("after the first sign-in the identity is %+v, %v", got, err)
	}
	// From then on the subject is who it is, whatever their email is called.
	h.user("alice", "sub-1", "married@example.com", false)
	if b := h.browser(); b.signIn("alice").StatusCode != http.StatusOK || b.is().ID != "person:alice" {
		t.Error("a changed email shuts out whose subject is known")
	}
}

func TestWhoTheOrganisationDoesNotGetIn(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set := func(t *testing.T, h *house, name string, v any) {
		h.p.forge = func(c map[string]any) string { c[name] = v; return h.p.sign(t, c) }
	}
	for name, c := range map[string]struct {
		prepare func(t *testing.T, h *house)
		address func(string) string // changes where the browser goes
		want    int
	}{
		"nobody changed anything":     {nil, nil, 200},
		"signed anew, unchanged":      {func(t *testing.T, h *house) { set(t, h, "extra", 1) }, nil, 200},
		"a member nobody bound":       {func(_ *testing.T, h *house) { h.user("alice", "sub-9", "zoe@example.com", true) }, nil, 403},
		"an email not verified":       {func(_ *testing.T, h *house) { h.user("alice", "sub-1", "alice@example.com", false) }, nil, 403},
		"an email verified in a text": {func(t *testing.T, h *house) { set(t, h, "email_verified", "true") }, nil, 403},
		"an email that looks alike":   {func(_ *testing.T, h *house) { h.user("alice", "sub-1", "аlice@example.com", true) }, nil, 403},
		"another subject with the email of one who was there before": {func(t *testing.T, h *house) {
			if b := h.browser(); b.signIn("alice").StatusCode != http.StatusOK {
				t.Fatal("the first did not get in")
			}
			h.user("alice", "sub-7", "alice@example.com", true)
		}, nil, 403},
		"a member who has ended": {func(t *testing.T, h *house) {
			if _, err := h.c.EndMember(t.Context(), h.admin, "person:alice"); err != nil {
				t.Fatal(err)
			}
		}, nil, 403},
		"a member who was unbound": {func(t *testing.T, h *house) {
			if err := h.c.UnbindIdentity(t.Context(), h.admin, "person:alice", h.p.url); err != nil {
				t.Fatal(err)
			}
		}, nil, 403},
		"a wrong nonce":            {nil, func(s string) string { return swap(s, "nonce", "other") }, 403},
		"a wrong state":            {nil, func(s string) string { return swap(s, "state", "other") }, 403},
		"another's PKCE challenge": {nil, func(s string) string { return swap(s, "code_challenge", strings.Repeat("A", 43)) }, 403},
		"no nonce":                 {func(t *testing.T, h *house) { set(t, h, "nonce", nil) }, nil, 403},
		"another issuer":           {func(t *testing.T, h *house) { set(t, h, "iss", "https://other.example.com") }, nil, 403},
		"another client":           {func(t *testing.T, h *house) { set(t, h, "aud", "other") }, nil, 403},
		"two clients, and not for us": {func(t *testing.T, h *house) {
			h.p.forge = func(c map[string]any) string {
				c["aud"] = []string{"hallmark", "other"}
				delete(c, "azp")
				return h.p.sign(t, c)
			}
		}, nil, 403},
		"another party":              {func(t *testing.T, h *house) { set(t, h, "azp", "other") }, nil, 403},
		"expired":                    {func(t *testing.T, h *house) { set(t, h, "exp", time.Now().Add(-time.Minute).Unix()) }, nil, 403},
		"issued before the question": {func(t *testing.T, h *house) { set(t, h, "iat", time.Now().Add(-time.Hour).Unix()) }, nil, 403},
		"no subject":                 {func(t *testing.T, h *house) { set(t, h, "sub", "") }, nil, 403},
		"a subject that never ends":  {func(t *testing.T, h *house) { set(t, h, "sub", strings.Repeat("s", 300)) }, nil, 403},
		"a token that never ends":    {func(t *testing.T, h *house) { set(t, h, "pad", strings.Repeat("p", 64<<10)) }, nil, 403},
		"another key under the same name": {func(t *testing.T, h *house) {
			h.p.forge = func(c map[string]any) string {
				return signed(t, jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: ec, KeyID: "k"}}, c)
			}
		}, nil, 403},
		"algorithm none": {func(t *testing.T, h *house) {
			h.p.forge = func(c map[string]any) string {
				_, rest, _ := strings.Cut(h.p.sign(t, c), ".")
				payload, _, _ := strings.Cut(rest, ".")
				return "eyJhbGciOiJub25lIn0." + payload + "."
			}
		}, nil, 403},
		"a MAC under our own secret": {func(t *testing.T, h *house) {
			h.p.forge = func(c map[string]any) string {
				return signed(t, jose.SigningKey{Algorithm: jose.HS256, Key: []byte(secret)}, c)
			}
		}, nil, 403},
		"no ID token": {func(_ *testing.T, h *house) {
			h.p.twist = func(path string, b []byte) []byte {
				return bytes.ReplaceAll(b, []byte(`"id_token"`), []byte(`"other"`))
			}
		}, nil, 403},
		"an answer that never ends": {func(_ *testing.T, h *house) {
			h.p.twist = func(path string, b []byte) []byte {
				if path == "/oauth/token" {
					return append([]byte(strings.Repeat(" ", 2<<20)), b...)
				}
				return b
			}
		}, nil, 403},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.bind("person:alice", "", "alice@example.com")
			if c.prepare != nil {
				c.prepare(t, h)
			}
			b := h.browser()
			to, _ := b.begin("begin")
			if c.address != nil {
				to = c.address(to)
			}
			resp := b.at(to, "alice")
			if in := b.is().ID != ""; resp.StatusCode != c.want || in != (c.want == http.StatusOK) {
				t.Errorf("%d, signed in as %q; want %d", resp.StatusCode, b.is().ID, c.want)
			}
			if at := resp.Header.Get("Refresh"); c.want != http.StatusOK && !strings.HasPrefix(at, "0; url=/login?problem=") {
				t.Errorf("goes on to %q", at)
			}
		})
	}
}

// swap changes one parameter of an address.
func swap(address, name, value string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String()
}

func TestAnAnswerIsGoodOnceAndInOneBrowser(t *testing.T) {
	h := newHouse(t)
	h.bind("person:alice", "sub-1", "")
	b := h.browser()
	b.signIn("alice")
	other := h.browser()
	for who, x := range map[string]*browser{"the same browser": b, "another browser": other} {
		if resp, _ := x.do(http.MethodGet, b.last, nil); resp.StatusCode != http.StatusForbidden {
			t.Errorf("the answer again, in %s: %d", who, resp.StatusCode)
		}
	}
	// An attacker's answer in somebody's browser, who has a question of their own under way.
	if _, resp := other.begin("begin"); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	if resp, _ := other.do(http.MethodGet, b.last, nil); resp.StatusCode != http.StatusForbidden || other.session() != "" {
		t.Errorf("another's answer: %d", resp.StatusCode)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.app.URL+"/auth/oidc/begin", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.Body.Close() != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("begun from another site's page: %v, %v", resp, err)
	}
}

func TestANewProofByTheOrganisation(t *testing.T) {
	h := newHouse(t)
	h.bind("person:alice", "sub-1", "")
	h.bind("person:bob", "sub-2", "")
	b := h.browser()
	// Signed in there hours ago, and let through without a word: in, and not fresh.
	old := func(c map[string]any) string {
		c["auth_time"] = time.Now().Add(-time.Hour).Unix()
		return h.p.sign(t, c)
	}
	h.p.forge = old
	if b.signIn("alice"); b.is().ID != "person:alice" || b.is().Fresh {
		t.Fatalf("signed in as %+v", b.is())
	}
	for name, c := range map[string]struct {
		user  string
		forge func(map[string]any) string
		fresh bool
	}{
		"a proof of an hour ago": {"alice", old, false},
		"no word of when":        {"alice", func(c map[string]any) string { delete(c, "auth_time"); return h.p.sign(t, c) }, false},
		"a proof of tomorrow": {"alice", func(c map[string]any) string {
			c["auth_time"] = time.Now().Add(24 * time.Hour).Unix()
			return h.p.sign(t, c)
		}, false},
		"somebody else": {"bob", nil, false},
	} {
		h.p.forge = c.forge
		to, _ := b.begin("verify/begin")
		u, err := url.Parse(to)
		if err != nil || u.Query().Get("prompt") != "login" || u.Query().Get("max_age") != "0" {
			t.Fatalf("%s: asks %s, %v", name, to, err)
		}
		if resp := b.at(to, c.user); resp.StatusCode != http.StatusForbidden || b.is().Fresh || b.is().ID != "person:alice" {
			t.Errorf("%s: %d, %+v", name, resp.StatusCode, b.is())
		}
	}
	h.p.forge = nil
	to, _ := b.begin("verify/begin")
	if resp := b.at(to, "alice"); resp.StatusCode != http.StatusOK || !b.is().Fresh {
		t.Errorf("a new proof: %d, %+v", resp.StatusCode, b.is())
	}
	if _, resp := h.browser().begin("verify/begin"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("confirm, signed out: %d", resp.StatusCode)
	}
}

func TestAProviderThatIsNotWhoItShouldBe(t *testing.T) {
	for name, twist := range map[string]func(h *house) func(string, []byte) []byte{
		"another issuer's description": func(h *house) func(string, []byte) []byte {
			return func(_ string, b []byte) []byte {
				return bytes.ReplaceAll(b, []byte(`"issuer":"`+h.p.url), []byte(`"issuer":"https://other`))
			}
		},
		"garbage": func(*house) func(string, []byte) []byte { return func(string, []byte) []byte { return []byte("{") } },
	} {
		h := newHouse(t)
		h.p.twist = twist(h)
		if to, resp := h.browser().begin("begin"); resp.StatusCode != http.StatusServiceUnavailable || !strings.HasPrefix(to, "/login?problem=unavailable") {
			t.Errorf("%s: %d, on to %s", name, resp.StatusCode, to)
		}
	}
	h := newHouse(t)
	h.p.silent = true
	if _, resp := h.browser().begin("begin"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a silent provider: %d", resp.StatusCode)
	}
}

func TestWhatCanBeBound(t *testing.T) {
	h := newHouse(t)
	h.bind("person:alice", "sub-1", "")
	if _, err := h.c.Issue(t.Context(), h.admin, signin.Grant{Caller: "machine:ci", Kind: access.Machine, Roles: []access.Role{access.Viewer}, Use: signin.UseToken, Life: time.Hour}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ member, issuer, subject, mail, code string }{
		"nobody":                {"person:nobody", h.p.url, "s", "", "access.no-member"},
		"a machine":             {"machine:ci", h.p.url, "s", "", "identity.person"},
		"both":                  {"person:bob", h.p.url, "s", "b@example.com", "identity.which"},
		"neither":               {"person:bob", h.p.url, "", "", "identity.which"},
		"somebody else's":       {"person:bob", h.p.url, "sub-1", "", "identity.taken"},
		"no email":              {"person:bob", h.p.url, "", "bob", "identity.email"},
		"an email with letters": {"person:bob", h.p.url, "", "bób@example.com", "identity.email"},
		"a subject of spaces":   {"person:bob", h.p.url, "a b", "", "identity.subject"},
		"no provider":           {"person:bob", "", "s", "", "identity.no-issuer"},
	} {
		_, err := h.c.BindIdentity(t.Context(), h.admin, c.member, c.issuer, c.subject, c.mail)
		if f, ok := errors.AsType[*fault.Fault](err); !ok || f.Code != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}
