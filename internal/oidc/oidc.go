// Package oidc lets people sign in, and prove again that it is them, with their organisation's sign-in (OpenID Connect Core 1.0).
//
// Over all stages, an adapter. It runs the authorization code flow with PKCE, under /auth/oidc/; which member an identity is, if any,
// is for package access, and it makes none. It guarantees that an answer is taken once, in the browser that asked, for the question
// that was asked, and that what the provider signed was signed with an algorithm on a list of ours. It trusts the configured issuer to
// say who somebody is and nothing else: every byte from it is bounded and judged, it is not asked before somebody wants it, and when it
// does not answer only this way in is closed. Questions are kept in memory: a restart asks a person to begin again, nothing more.
package oidc

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/fault"
)

// Config is what the flow needs; Secret may be empty, for a public client.
type Config struct {
	Credentials *signin.Service
	Issuer      string // exactly as the provider calls itself
	Client      string // the client ID it gave us
	Secret      string
	Redirect    string // the exact address of the callback, as it is registered there
	Secure      bool   // the listener is TLS: cookies say so
	Log         *slog.Logger
}

const (
	sessionCookie = "hallmark-session" // the console's
	flowCookie    = "hallmark-oidc"

	// life is how long a person may take with the provider.
	life = 10 * time.Minute
	// maxFlows bounds those who take it at one time.
	maxFlows = 10_000
	// patience is how long the provider may take to answer, retry how long it is left alone when it did not.
	patience = 5 * time.Second
	retry    = 5 * time.Second
	// skew is how far the provider's clock may be from ours.
	skew = time.Minute
)

// algorithms are those a provider may sign with: asymmetric ones. Neither none nor a MAC under our own client secret is among them.
var algorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
}

type handler struct {
	c    Config
	http *http.Client
	flows

	mu     sync.Mutex     // one asks the provider at a time
	found  *oidc.Provider // guarded by mu
	failed time.Time      // guarded by mu: when it last did not answer
}

// New makes the handler of /auth/oidc/. It does not ask the provider anything yet.
func New(c Config) http.Handler {
	h := &handler{c: c, http: outward(), flows: flows{by: map[string]flow{}}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /auth/oidc/begin", h.begin)
	mux.HandleFunc("POST /auth/oidc/verify/begin", h.verify)
	mux.HandleFunc("GET /auth/oidc/callback", h.callback)
	return http.NewCrossOriginProtection().Handler(mux)
}

// flow is a question to the provider.
type flow struct {
	state, nonce, verifier string
	session                string // of who confirms; empty when somebody signs in
	begun                  time.Time
}

// flows are those under way, by the secret that the browser's cookie holds.
type flows struct {
	flowsMu sync.Mutex
	by      map[string]flow // guarded by flowsMu
}

func (s *flows) begin(f flow) (secret string, ok bool) {
	s.flowsMu.Lock()
	defer s.flowsMu.Unlock()
	if len(s.by) >= maxFlows {
		for k, other := range s.by {
			if f.begun.Sub(other.begun) > life {
				delete(s.by, k)
			}
		}
	}
	if len(s.by) >= maxFlows {
		return "", false
	}
	secret = rand.Text()
	s.by[secret] = f
	return secret, true
}

// take ends a flow: its question is good for one answer.
func (s *flows) take(secret string) (flow, bool) {
	s.flowsMu.Lock()
	defer s.flowsMu.Unlock()
	f, ok := s.by[secret]
	delete(s.by, secret)
	return f, ok && time.Since(f.begun) <= life
}

var errAway = errors.New("the provider did not answer of late")

// provider asks the issuer who it is, once; what it says of its address must be the issuer's own.
func (h *handler) provider(ctx context.Context) (*oidc.Provider, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.found != nil {
		return h.found, nil
	}
	if time.Since(h.failed) < retry {
		return nil, errAway
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, h.http), patience)
	defer cancel()
	p, err := oidc.NewProvider(ctx, h.c.Issuer)
	if err != nil {
		h.failed = time.Now()
		return nil, err
	}
	h.found = p
	return p, nil
}

func (h *handler) client(p *oidc.Provider) *oauth2.Config {
	return &oauth2.Config{
		ClientID: h.c.Client, ClientSecret: h.c.Secret, Endpoint: p.Endpoint(), RedirectURL: h.c.Redirect, Scopes: []string{oidc.ScopeOpenID, "email"},
	}
}

// begin sends somebody who wants to sign in to the provider.
func (h *handler) begin(w http.ResponseWriter, r *http.Request) { h.ask(w, r, "") }

// verify sends who is signed in to the provider, for a new proof.
func (h *handler) verify(w http.ResponseWriter, r *http.Request) {
	c, err := r.Cookie(sessionCookie)
	if err == nil {
		_, err = h.c.Credentials.Caller(r.Context(), c.Value)
	}
	if err != nil {
		h.fail(w, r, fault.New(fault.Denied, "access.no-session", "nobody is signed in", "sign in"))
		return
	}
	h.ask(w, r, c.Value)
}

func (h *handler) ask(w http.ResponseWriter, r *http.Request, session string) {
	if u, err := url.Parse(h.c.Redirect); err == nil && u.Host != r.Host {
		// Cookies belong to a name: begun under another one, the answer would come to a browser that asked nothing.
		onward(w, http.StatusOK, "The console has another address", u.Scheme+"://"+u.Host+"/login")
		return
	}
	p, err := h.provider(r.Context())
	if err != nil {
		h.fail(w, r, fault.Newf(fault.Unavailable, "identity.provider", "the organisation's sign-in does not answer: %w", err).With("try again; whoever runs this server looks at whether it reaches the provider"))
		return
	}
	f := flow{state: rand.Text(), nonce: rand.Text(), verifier: oauth2.GenerateVerifier(), session: session, begun: time.Now()}
	options := []oauth2.AuthCodeOption{oidc.Nonce(f.nonce), oauth2.S256ChallengeOption(f.verifier)}
	if session != "" {
		options = append(options, oauth2.SetAuthURLParam("prompt", "login"), oauth2.SetAuthURLParam("max_age", "0"))
	}
	secret, ok := h.flows.begin(f)
	if !ok {
		h.fail(w, r, fault.New(fault.Unavailable, "identity.busy", "too many people are signing in just now", "try again in a minute"))
		return
	}
	// The answer comes by way of the provider's page, so the cookie has to be lax. It opens nothing by itself.
	http.SetCookie(w, h.cookie(flowCookie, secret, "/auth/oidc/", f.begun.Add(life), http.SameSiteLaxMode))
	// A page, not a redirect: that would be a form's, and forms here go nowhere else (form-action).
	onward(w, http.StatusOK, "On to your organisation", h.client(p).AuthCodeURL(f.state, options...))
}

func (h *handler) cookie(name, value, path string, until time.Time, same http.SameSite) *http.Cookie {
	//nolint:gosec // Secure follows the listener: on loopback the console is plain HTTP
	return &http.Cookie{Name: name, Value: value, Path: path, Expires: until, HttpOnly: true, Secure: h.c.Secure, SameSite: same}
}

// callback takes the provider's answer, which a browser brings.
func (h *handler) callback(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, h.cookie(flowCookie, "", "/auth/oidc/", time.Unix(1, 0), http.SameSiteLaxMode))
	c, err := r.Cookie(flowCookie)
	var f flow
	ok := false
	if err == nil {
		f, ok = h.take(c.Value)
	}
	if !ok {
		h.fail(w, r, fault.New(fault.Denied, "identity.flow", "this was begun in another browser, or too long ago, or is ended", "begin again"))
		return
	}
	a, err := h.judge(r.Context(), f, r.URL.Query())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	if f.session != "" {
		if err := h.c.Credentials.ConfirmByIdentity(r.Context(), f.session, a, f.begun.Add(-skew)); err != nil {
			h.fail(w, r, err)
			return
		}
		onward(w, http.StatusOK, "Confirmed: you may close this page, and go on where you were", "")
		return
	}
	secret, until, err := h.c.Credentials.BeginByIdentity(r.Context(), a)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	http.SetCookie(w, h.cookie(sessionCookie, secret, "/", until, http.SameSiteStrictMode))
	// A redirect would be the provider's, and keep the strict cookie back: hence a page.
	onward(w, http.StatusOK, "Signed in", "/")
}

func refused(format string, args ...any) error {
	return fault.Newf(fault.Denied, "identity.refused", format, args...).With("sign in again; when it is refused anew, ask an administrator")
}

// claims are what we take of an ID token besides what the library judges.
type claims struct {
	Email    string `json:"email"`
	Verified any    `json:"email_verified"` // some write it as a text, which is not taken for true
	AuthTime int64  `json:"auth_time"`
	Party    string `json:"azp"`
}

// judge makes of an answer to f what the provider has said of a person.
func (h *handler) judge(ctx context.Context, f flow, answer url.Values) (signin.Assertion, error) {
	one := func(name string) string {
		if v := answer[name]; len(v) == 1 && len(v[0]) <= 4096 {
			return v[0]
		}
		return ""
	}
	if subtle.ConstantTimeCompare([]byte(one("state")), []byte(f.state)) != 1 {
		return signin.Assertion{}, refused("the answer is to another question")
	}
	if iss, said := answer["iss"]; said && !slices.Equal(iss, []string{h.c.Issuer}) { // RFC 9207
		return signin.Assertion{}, refused("the answer is another issuer's")
	}
	if one("code") == "" {
		return signin.Assertion{}, refused("the provider said no: %.100q", one("error"))
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, h.http), 2*patience)
	defer cancel()
	p, err := h.provider(ctx)
	if err != nil {
		return signin.Assertion{}, fault.Newf(fault.Unavailable, "identity.provider", "the organisation's sign-in does not answer: %w", err).With("try again; whoever runs this server looks at whether it reaches the provider")
	}
	token, err := h.client(p).Exchange(ctx, one("code"), oauth2.VerifierOption(f.verifier))
	if _, said := errors.AsType[*oauth2.RetrieveError](err); err != nil && !said {
		return signin.Assertion{}, fault.Newf(fault.Unavailable, "identity.provider", "the organisation's sign-in does not answer: %w", err).With("try again; whoever runs this server looks at whether it reaches the provider")
	}
	if err != nil {
		return signin.Assertion{}, refused("the code was not taken: %w", err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok || len(raw) > maxToken {
		return signin.Assertion{}, refused("there is no ID token of a bearable size")
	}
	id, err := p.Verifier(&oidc.Config{ClientID: h.c.Client, SupportedSigningAlgs: algorithms}).Verify(ctx, raw)
	if err != nil {
		return signin.Assertion{}, refused("the ID token: %w", err)
	}
	return assertion(id, f, h.c.Client)
}

// maxToken bounds an ID token.
const maxToken = 32 << 10

func assertion(id *oidc.IDToken, f flow, client string) (signin.Assertion, error) {
	var c claims
	if err := id.Claims(&c); err != nil {
		return signin.Assertion{}, refused("the ID token's claims: %w", err)
	}
	switch {
	case subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(f.nonce)) != 1:
		return signin.Assertion{}, refused("the ID token is for another question")
	case c.Party != "" && c.Party != client || c.Party == "" && len(id.Audience) != 1:
		return signin.Assertion{}, refused("the ID token was made for another client")
	case id.IssuedAt.Before(f.begun.Add(-skew)):
		return signin.Assertion{}, refused("the ID token is older than the question")
	}
	a := signin.Assertion{Issuer: id.Issuer, Subject: id.Subject}
	if c.Verified == true {
		a.Email = c.Email
	}
	if c.AuthTime > 0 {
		a.Proven = time.Unix(c.AuthTime, 0)
	}
	return a, nil
}

// fail sends a person back to where the other ways in are. What went wrong is for the log.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok || f.Kind == fault.Internal {
		h.c.Log.ErrorContext(r.Context(), "organisation's sign-in", "error", err)
		onward(w, http.StatusInternalServerError, "That did not work", "/login?problem=failed")
		return
	}
	h.c.Log.InfoContext(r.Context(), "organisation's sign-in", "code", f.Code, "error", fmt.Sprintf("%.500s", f.Error()))
	where := map[string]string{"identity.unknown": "unknown", "access.ended": "unknown", "identity.other": "other", "identity.provider": "unavailable"}[f.Code]
	if where == "" {
		where = "failed"
	}
	onward(w, f.Kind.Status(), "That did not work", "/login?problem="+where)
}

var page = template.Must(template.New("").Parse(`<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{{.Text}} · Hallmark</title>` +
	`<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="/assets/console.css"></head>` +
	`<body><main class="door"><h1>{{.Text}}</h1>{{with .To}}<p><a href="{{.}}">Go on</a></p>{{end}}</main></body></html>`))

// onward answers a page that goes on to an address by itself; without one it stays.
func onward(w http.ResponseWriter, status int, text, to string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	if to != "" {
		h.Set("Refresh", "0; url="+to)
	}
	w.WriteHeader(status)
	_ = page.Execute(w, struct{ Text, To string }{text, to}) // who asked has gone
}
