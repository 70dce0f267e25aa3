// Package console shows the fleet to people: server-rendered pages, every asset embedded, no script needed to read them.
//
// Over all stages, an adapter. It reads through package fleet as the signed-in caller and changes nothing; it trusts Sessions
// to say who that is. Device-supplied text reaches a page only through templ, which escapes it.
package console

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/fleet"
)

//go:generate templ generate

//go:embed assets
var assets embed.FS

// Sessions knows who is signed in.
type Sessions interface {
	// Begin exchanges an access token, or a one-time code, for a session's secret.
	Begin(ctx context.Context, token string) (secret string, until time.Time, err error)
	// Caller finds the session's caller; a fault of kind Denied when there is none.
	Caller(ctx context.Context, secret string) (access.Caller, error)
}

// Config is what the console needs.
type Config struct {
	Fleet    *fleet.Service
	Sessions Sessions
	Log      *slog.Logger
	Secure   bool // the listener is TLS: cookies say so
}

const cookie = "hallmark-session"

// policy allows what the pages bring themselves, and nothing else.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

type handler struct{ cfg Config }

// Handler serves the console at /.
func Handler(cfg Config) http.Handler {
	h := &handler{cfg: cfg}
	mux := http.NewServeMux()
	static, err := fs.Sub(assets, "assets")
	if err != nil {
		panic(err) // the embedded tree is constant
	}
	mux.Handle("GET /assets/", http.StripPrefix("/assets/", http.FileServerFS(static)))
	mux.HandleFunc("GET /login", h.login)
	mux.HandleFunc("POST /login", h.begin)
	mux.HandleFunc("GET /{$}", h.signedIn(h.fleet))
	mux.HandleFunc("GET /devices/{id}", h.signedIn(h.device))
	return http.NewCrossOriginProtection().Handler(headers(mux))
}

func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}

type view struct {
	Caller string
	Page   string
}

func (v view) current(page string) string {
	if v.Page == page {
		return "page"
	}
	return "false"
}

func (h *handler) signedIn(next func(http.ResponseWriter, *http.Request, access.Caller)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie(cookie)
		if err == nil {
			var caller access.Caller
			if caller, err = h.cfg.Sessions.Caller(r.Context(), c.Value); err == nil {
				next(w, r, caller)
				return
			}
		}
		http.Redirect(w, r, "/login", http.StatusSeeOther)
	}
}

func (h *handler) login(w http.ResponseWriter, r *http.Request) {
	if once := r.URL.Query().Get("once"); once != "" {
		h.start(w, r, once)
		return
	}
	h.render(w, r, http.StatusOK, loginPage(view{}, ""))
}

func (h *handler) begin(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	h.start(w, r, strings.TrimSpace(r.PostFormValue("token")))
}

func (h *handler) start(w http.ResponseWriter, r *http.Request, token string) {
	secret, until, err := h.cfg.Sessions.Begin(r.Context(), token)
	if err != nil {
		h.render(w, r, http.StatusForbidden, loginPage(view{}, "That token is not valid, or was used already."))
		return
	}
	//nolint:gosec // Secure follows the listener: on loopback the console is plain HTTP
	http.SetCookie(w, &http.Cookie{
		Name: cookie, Value: secret, Path: "/", Expires: until, HttpOnly: true, Secure: h.cfg.Secure, SameSite: http.SameSiteStrictMode,
	})
	// A redirect within one site keeps the strict cookie only when the browser itself navigates: hence a page, not a 303.
	w.Header().Set("Refresh", "0; url=/")
	h.render(w, r, http.StatusOK, loginPage(view{}, ""))
}

func (h *handler) fleet(w http.ResponseWriter, r *http.Request, caller access.Caller) {
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil {
		limit = 50
	}
	q := fleet.Query{
		Product: r.URL.Query().Get("product"), State: r.URL.Query().Get("state"), After: r.URL.Query().Get("after"), Limit: limit,
	}
	summary, err := h.cfg.Fleet.Summary(r.Context(), caller)
	if err != nil {
		h.fail(w, r, caller, err)
		return
	}
	devices, next, err := h.cfg.Fleet.Devices(r.Context(), caller, q)
	if err != nil {
		h.fail(w, r, caller, err)
		return
	}
	h.render(w, r, http.StatusOK, fleetPage(view{Caller: caller.ID, Page: "fleet"}, summary, q, devices, next))
}

func (h *handler) device(w http.ResponseWriter, r *http.Request, caller access.Caller) {
	d, lines, err := h.cfg.Fleet.Device(r.Context(), caller, r.PathValue("id"))
	if err != nil {
		h.fail(w, r, caller, err)
		return
	}
	h.render(w, r, http.StatusOK, devicePage(view{Caller: caller.ID, Page: "device"}, d, lines))
}

func (h *handler) fail(w http.ResponseWriter, r *http.Request, caller access.Caller, err error) {
	status, text := http.StatusInternalServerError, "Something went wrong on the server; its log says what."
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		text = f.Error()
		switch f.Kind {
		case fault.NotFound:
			status = http.StatusNotFound
		case fault.Denied:
			status = http.StatusForbidden
		case fault.Invalid:
			status = http.StatusBadRequest
		case fault.Conflict, fault.Exhausted:
			status = http.StatusConflict
		case fault.Unavailable:
			status = http.StatusServiceUnavailable
		case fault.Internal:
		}
	} else {
		h.cfg.Log.ErrorContext(r.Context(), "console", "path", r.URL.Path, "error", err)
	}
	h.render(w, r, status, errorPage(view{Caller: caller.ID}, status, text))
}

func (h *handler) render(w http.ResponseWriter, r *http.Request, status int, c templ.Component) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if err := c.Render(r.Context(), w); err != nil {
		h.cfg.Log.DebugContext(r.Context(), "console: client went away", "error", err)
	}
}

func states() []string {
	return []string{
		"ordered", "provisioned", "onboarded", "active", "quarantined", "dormant", "maintenance",
		"decommissioning", "decommissioned", "disposed", "lost", "suspected-clone",
	}
}

func stateTone(s string) string {
	switch s {
	case "active":
		return "good"
	case "quarantined", "suspected-clone", "lost":
		return "bad"
	case "dormant", "maintenance", "decommissioning":
		return "warn"
	}
	return ""
}

func healthTone(s string) string {
	switch s {
	case "healthy":
		return "good"
	case "unhealthy":
		return "bad"
	}
	return ""
}

func verdictTone(s string) string {
	switch s {
	case "affirming":
		return "good"
	case "contraindicated":
		return "bad"
	case "warning":
		return "warn"
	}
	return ""
}

func badIf(n int) string {
	if n > 0 {
		return "bad"
	}
	return ""
}

func warnIf(n int) string {
	if n > 0 {
		return "warn"
	}
	return ""
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// short shows the first 12 characters of an identifier; the whole is one click away.
func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

func shortActor(a string) string {
	if id, ok := strings.CutPrefix(a, "device:"); ok {
		return "the device " + short(id)
	}
	return a
}

func proofLink(l fleet.Line) templ.SafeURL {
	return templ.SafeURL(fmt.Sprintf("/api/v1/log/%s/entries/%d", url.PathEscape(l.Log), *l.Index))
}

func nextLink(q fleet.Query, after string) templ.SafeURL {
	v := url.Values{"after": {after}, "limit": {strconv.Itoa(q.Limit)}}
	if q.State != "" {
		v.Set("state", q.State)
	}
	if q.Product != "" {
		v.Set("product", q.Product)
	}
	return templ.SafeURL("/?" + v.Encode())
}
