// Package passkey lets people sign in, and prove again that it is them, with passkeys (W3C WebAuthn level 2).
//
// Over all stages, an adapter. It runs the ceremonies over HTTP, under /auth/; who may do what afterwards is for package access,
// which keeps the keys and begins the sessions. It trusts the library for the cryptography, and the origin that the browser names
// only as far as it is one of its own. Ceremonies are kept in memory: a restart asks a person to begin again, nothing more.
package passkey

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/fault"
)

// Config is what the ceremonies need.
type Config struct {
	Credentials *signin.Service
	Domain      string   // the relying party's ID: the DNS name people use; "localhost" on one machine; empty: there is none
	Origins     []string // scheme://name[:port] of each address of the console
	Secure      bool     // the listener is TLS: cookies say so
	Log         *slog.Logger
}

// SessionCookie is the console's.
const (
	SessionCookie  = "hallmark-session"
	ceremonyCookie = "hallmark-ceremony"
)

// maxBody bounds an authenticator's answer.
const maxBody = 64 << 10

type handler struct {
	c  Config
	wa *webauthn.WebAuthn
	ceremonies
}

// New makes the handler of /auth/. It answers JSON; errors are RFC 9457 problems. Without a domain there is only signing out, because
// browsers make no passkeys for bare addresses.
func New(c Config) (http.Handler, error) {
	h := &handler{c: c}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /auth/logout", h.logout)
	if c.Domain == "" {
		return http.NewCrossOriginProtection().Handler(mux), nil
	}
	var err error
	h.wa, err = webauthn.New(&webauthn.Config{
		RPID: c.Domain, RPDisplayName: "Hallmark", RPOrigins: c.Origins,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, RequireResidentKey: protocol.ResidentKeyRequired(), UserVerification: protocol.VerificationRequired,
		},
	})
	if err != nil {
		return nil, err
	}
	mux.HandleFunc("POST /auth/passkey/login/begin", h.loginBegin)
	mux.HandleFunc("POST /auth/passkey/login/finish", h.loginFinish)
	mux.HandleFunc("POST /auth/passkey/verify/begin", h.signedIn(h.verifyBegin))
	mux.HandleFunc("POST /auth/passkey/verify/finish", h.signedIn(h.verifyFinish))
	mux.HandleFunc("POST /auth/passkey/register/begin", h.signedIn(h.registerBegin))
	mux.HandleFunc("POST /auth/passkey/register/finish", h.signedIn(h.registerFinish))
	mux.HandleFunc("GET /auth/passkeys", h.signedIn(h.list))
	mux.HandleFunc("DELETE /auth/passkeys/{id}", h.signedIn(h.drop))
	return http.NewCrossOriginProtection().Handler(mux), nil
}

// person is a member as the library sees one.
type person struct {
	id   string
	keys []signin.Passkey
}

// WebAuthnID implements webauthn.User: an authenticator keeps it, so it says nothing.
func (p person) WebAuthnID() []byte {
	sum := sha256.Sum256([]byte("hallmark member " + p.id))
	return sum[:]
}

// WebAuthnName implements webauthn.User.
func (p person) WebAuthnName() string { return p.id }

// WebAuthnDisplayName implements webauthn.User.
func (p person) WebAuthnDisplayName() string { return p.id }

// WebAuthnCredentials implements webauthn.User.
func (p person) WebAuthnCredentials() []webauthn.Credential {
	var out []webauthn.Credential
	for _, k := range p.keys {
		var c webauthn.Credential
		if json.Unmarshal(k.Data, &c) == nil { // one that cannot be read is not there
			out = append(out, c)
		}
	}
	return out
}

// ceremonies are those under way, by the secret that the browser's cookie holds.
type ceremonies struct {
	mu sync.Mutex
	by map[string]ceremony // guarded by mu
}

type ceremony struct {
	what string
	data webauthn.SessionData
	end  time.Time
}

// maxCeremonies bounds them, life how long one may take.
const (
	maxCeremonies = 10_000
	life          = 5 * time.Minute
)

var errBusy = fault.New(fault.Unavailable, "passkey.busy", "too many people are signing in just now", "try again in a minute")

func (s *ceremonies) begin(what string, data webauthn.SessionData) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.by == nil {
		s.by = map[string]ceremony{}
	}
	if len(s.by) >= maxCeremonies {
		for k, c := range s.by {
			if now.After(c.end) {
				delete(s.by, k)
			}
		}
	}
	if len(s.by) >= maxCeremonies {
		return "", errBusy
	}
	secret := rand.Text()
	s.by[secret] = ceremony{what: what, data: data, end: now.Add(life)}
	return secret, nil
}

// take ends a ceremony: its challenge is good for one answer.
func (s *ceremonies) take(what, secret string) (webauthn.SessionData, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.by[secret]
	delete(s.by, secret)
	return c.data, ok && c.what == what && time.Now().Before(c.end)
}

func (h *handler) cookie(name, value, path string, until time.Time) *http.Cookie {
	//nolint:gosec // Secure follows the listener: on loopback the console is plain HTTP
	return &http.Cookie{Name: name, Value: value, Path: path, Expires: until, HttpOnly: true, Secure: h.c.Secure, SameSite: http.SameSiteStrictMode}
}

// started answers the options, and ties the ceremony to this browser.
func (h *handler) started(w http.ResponseWriter, r *http.Request, what string, options any, data *webauthn.SessionData, err error) {
	var secret string
	if err == nil {
		secret, err = h.begin(what, *data)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	http.SetCookie(w, h.cookie(ceremonyCookie, secret, "/auth/", time.Now().Add(life)))
	h.json(w, options)
}

func (h *handler) ceremony(w http.ResponseWriter, r *http.Request, what string) (webauthn.SessionData, bool) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	c, err := r.Cookie(ceremonyCookie)
	if err == nil {
		if data, ok := h.take(what, c.Value); ok {
			return data, true
		}
	}
	h.fail(w, r, fault.New(fault.Invalid, "passkey.ceremony", "this was begun in another browser, or too long ago", "begin again"))
	return webauthn.SessionData{}, false
}

func (h *handler) loginBegin(w http.ResponseWriter, r *http.Request) {
	options, data, err := h.wa.BeginDiscoverableLogin(webauthn.WithUserVerification(protocol.VerificationRequired))
	h.started(w, r, "login", options, data, err)
}

func (h *handler) loginFinish(w http.ResponseWriter, r *http.Request) {
	m, ok := h.asserted(w, r, "login")
	if !ok {
		return
	}
	secret, until, err := h.c.Credentials.BeginByPasskey(r.Context(), m)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	http.SetCookie(w, h.cookie(SessionCookie, secret, "/", until))
	h.json(w, map[string]string{"member": m.ID})
}

// asserted takes an authenticator's answer: which member it is of, and that its counter has gone on.
func (h *handler) asserted(w http.ResponseWriter, r *http.Request, what string) (signin.Member, bool) {
	data, ok := h.ceremony(w, r, what)
	if !ok {
		return signin.Member{}, false
	}
	parsed, err := protocol.ParseCredentialRequestResponse(r)
	if err != nil {
		h.fail(w, r, fault.Newf(fault.Invalid, "passkey.malformed", "the authenticator's answer: %w", err).With("try again in a browser that is up to date"))
		return signin.Member{}, false
	}
	m, err := h.c.Credentials.UsePasskey(r.Context(), parsed.RawID, func(p signin.Passkey) (signin.Passkey, error) {
		u := person{id: p.Member, keys: []signin.Passkey{p}}
		data.AllowedCredentialIDs, data.UserID = nil, nil // whose it is, is what the answer tells
		_, cred, err := h.wa.ValidatePasskeyLogin(func(_, handle []byte) (webauthn.User, error) {
			if string(handle) != string(u.WebAuthnID()) {
				return nil, errors.New("the passkey was made for somebody else")
			}
			return u, nil
		}, data, parsed)
		if err != nil {
			return p, fault.Newf(fault.Denied, "passkey.refused", "the passkey was not accepted: %w", err).With("try again with an authenticator that this account has")
		}
		if cred.Authenticator.CloneWarning {
			return p, fault.New(fault.Denied, "passkey.cloned", "this passkey's counter went back: there may be a copy of it", "remove it, and add a new one")
		}
		p.Data, err = json.Marshal(cred)
		return p, err
	})
	if err != nil {
		h.fail(w, r, err)
		return signin.Member{}, false
	}
	return m, true
}

func (h *handler) signedIn(next func(http.ResponseWriter, *http.Request, access.Caller, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie(SessionCookie)
		if err != nil {
			h.fail(w, r, fault.New(fault.Denied, "access.no-session", "nobody is signed in", "sign in"))
			return
		}
		caller, err := h.c.Credentials.Caller(r.Context(), c.Value)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		next(w, r, caller, c.Value)
	}
}

func (h *handler) verifyBegin(w http.ResponseWriter, r *http.Request, caller access.Caller, _ string) {
	u, err := h.person(r, caller)
	if err == nil && len(u.WebAuthnCredentials()) == 0 {
		err = fault.New(fault.Conflict, "passkey.none", "you have no passkey to confirm with", "sign in again, and add one")
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	options, data, err := h.wa.BeginLogin(u, webauthn.WithUserVerification(protocol.VerificationRequired))
	h.started(w, r, "verify", options, data, err)
}

func (h *handler) verifyFinish(w http.ResponseWriter, r *http.Request, _ access.Caller, session string) {
	m, ok := h.asserted(w, r, "verify")
	if !ok {
		return
	}
	if err := h.c.Credentials.Confirm(r.Context(), session, m); err != nil {
		h.fail(w, r, err)
		return
	}
	h.json(w, map[string]any{"member": m.ID, "fresh_s": int(signin.StepUp / time.Second)})
}

func (h *handler) person(r *http.Request, caller access.Caller) (person, error) {
	keys, err := h.c.Credentials.Passkeys(r.Context(), caller)
	return person{id: caller.ID, keys: keys}, err
}

func (h *handler) registerBegin(w http.ResponseWriter, r *http.Request, caller access.Caller, _ string) {
	u, err := h.person(r, caller)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	var known []protocol.CredentialDescriptor
	for _, c := range u.WebAuthnCredentials() {
		known = append(known, c.Descriptor())
	}
	options, data, err := h.wa.BeginRegistration(u, webauthn.WithExclusions(known))
	h.started(w, r, "register "+caller.ID, options, data, err)
}

func (h *handler) registerFinish(w http.ResponseWriter, r *http.Request, caller access.Caller, _ string) {
	data, ok := h.ceremony(w, r, "register "+caller.ID)
	if !ok {
		return
	}
	u, err := h.person(r, caller)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	cred, err := h.wa.FinishRegistration(u, data, r)
	if err != nil {
		h.fail(w, r, fault.Newf(fault.Invalid, "passkey.refused", "the passkey was not accepted: %w", err).With("try again with an authenticator that this account has"))
		return
	}
	raw, err := json.Marshal(cred)
	if err == nil {
		err = h.c.Credentials.AddPasskey(r.Context(), caller, cred.ID, raw, r.URL.Query().Get("label"))
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.json(w, map[string]string{"id": base64.RawURLEncoding.EncodeToString(cred.ID)})
}

// shown is a passkey as its owner sees it.
type shown struct {
	ID      string    `json:"id"`
	Label   string    `json:"label"`
	Created time.Time `json:"created"`
	Used    time.Time `json:"used,omitzero"`
}

func (h *handler) list(w http.ResponseWriter, r *http.Request, caller access.Caller, _ string) {
	keys, err := h.c.Credentials.Passkeys(r.Context(), caller)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	out := make([]shown, 0, len(keys))
	for _, k := range keys {
		out = append(out, shown{base64.RawURLEncoding.EncodeToString(k.ID), k.Label, k.Created, k.Used})
	}
	h.json(w, out)
}

func (h *handler) drop(w http.ResponseWriter, r *http.Request, caller access.Caller, _ string) {
	id, err := base64.RawURLEncoding.DecodeString(r.PathValue("id"))
	if err != nil {
		err = fault.New(fault.Invalid, "passkey.id", "that is no passkey's ID", "list them")
	} else {
		err = h.c.Credentials.DropPasskey(r.Context(), caller, id)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *handler) logout(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(SessionCookie); err == nil {
		if err := h.c.Credentials.End(r.Context(), c.Value); err != nil {
			h.fail(w, r, err)
			return
		}
	}
	http.SetCookie(w, h.cookie(SessionCookie, "", "/", time.Unix(1, 0)))
	w.WriteHeader(http.StatusNoContent)
}

func (h *handler) json(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // who asked has gone
}

func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	f, ok := errors.AsType[*fault.Fault](err)
	if !ok || f.Kind == fault.Internal {
		h.c.Log.ErrorContext(r.Context(), "passkey", "path", r.URL.Path, "error", err)
		f = fault.New(fault.Internal, "internal", "something went wrong on the server; its log says what", "try again; tell whoever runs this server when it goes on")
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(f.Kind.Status())
	_ = json.NewEncoder(w).Encode(map[string]any{ // who asked has gone
		"type": f.Type(), "title": f.Kind.String(), "status": f.Kind.Status(), "detail": f.Error(),
	})
}
