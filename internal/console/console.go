// Package console shows the fleet to people: server-rendered pages, every asset embedded, no script needed to read them.
//
// Over all stages, an adapter. It reads through package fleet and the stages as the signed-in caller, and changes nothing: what
// a person does here, script in his browser asks of the API. It trusts Sessions to say who that is. Device-supplied text reaches
// a page only through templ, which escapes it.
package console

import (
	"context"
	"embed"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/pki/ceremony"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/retire"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
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

// Config is what the console needs; every field but Log and Secure must be set.
type Config struct {
	Fleet    *fleet.Service
	Stages   Stages
	Sessions Sessions
	// Allowed says whether the caller might do something, without doing it: what he might not is not offered. The API decides.
	Allowed func(ctx context.Context, caller access.Caller, action access.Action, res access.Resource) bool
	Trust   Trust
	// Position is up to where a page that is read from now on knows the logs, for its stream of events to go on from there; nil: nobody knows.
	Position func(ctx context.Context) (string, error)
	Pulse    func() map[string]Beat // when each of the instance's loops last went well
	Log      *slog.Logger
	Secure   bool // the listener is TLS: cookies say so
	// Organisation is what the organisation's own sign-in is called, served at /auth/oidc/; empty when there is none.
	Organisation string
	Site         string // where people reach the console, https://host: for labels
	// Genuine answers strangers; Curb says whether one at a remote address may ask just now, nil: always. Root is the fingerprint of the maker's
	// root certificate.
	Genuine Genuineness
	Curb    func(remote string) bool
	Root    string
}

// Trust is what verifies the logs: the keys in the instance's trust file.
type Trust struct {
	Logs      map[ledger.Log]LogTrust
	Witnesses map[string][]byte // Ed25519 keys by name
	Quorum    int
}

// LogTrust is a log's origin line and Ed25519 key.
type LogTrust struct {
	Origin string
	Key    []byte
}

// Stages are the services whose own reading verbs the pages show.
type Stages struct {
	Products    Products
	Orders      Orders
	Desks       Desks
	Masters     Masters
	Enrolments  Enrolments
	Owners      Owners
	Transfers   Transfers
	Vouchers    Vouchers
	Makers      Makers
	Clients     Clients
	Chips       Chips
	Authorities Authorities
	Devices     Devices
	Evidence    Evidence
	Releases    Releases
	Supply      Supply
	Parts       Parts
	Rollouts    Rollouts
	Cases       Cases
	Retirements Retirements
	Compliance  Compliance
	Ceremonies  Ceremonies // nil: none are shown
	Ledger      Ledger
	Proposals   Proposals
	Members     Members
	Audit       Audit
}

// Each stage as the pages need it; the stages' services are these. A product that is empty means every one.
type (
	// Products lists products.
	Products interface {
		List(ctx context.Context, caller access.Caller) ([]product.Product, error)
	}
	// Ceremonies lists the key ceremonies on record.
	Ceremonies interface {
		Ceremonies(ctx context.Context, caller access.Caller, after string, limit int) ([]ceremony.Held, error)
	}
	// Orders reads production orders.
	Orders interface {
		List(ctx context.Context, caller access.Caller, product string) ([]factory.Order, error)
		Page(ctx context.Context, caller access.Caller, product, after string, limit int) ([]factory.Order, error)
		Get(ctx context.Context, caller access.Caller, id string) (factory.Order, error)
		Reconcile(ctx context.Context, caller access.Caller, id string) (factory.Reconciliation, error)
		Differences(ctx context.Context, caller access.Caller, id string, q factory.Question, after string, limit int) (rows []factory.Difference, next string, err error)
	}
	// Desks reads where orders are wrapped without a server.
	Desks interface {
		Desks(ctx context.Context, caller access.Caller) ([]factory.Desk, error)
	}
	// Enrolments reads the requests that take a person, by device.
	Enrolments interface {
		Waitings(ctx context.Context, caller access.Caller, place string, state onboard.Word, after string, limit int) ([]onboard.Waiting, error)
	}
	// Devices reads the registry.
	Devices interface {
		Get(ctx context.Context, caller access.Caller, id string) (device.Device, error)
		DeviceCommands(ctx context.Context, caller access.Caller, id string) ([]device.CommandDevice, error)
		Settings(ctx context.Context, caller access.Caller, id string) ([]device.Setting, error)
		CurrentBundle(ctx context.Context, product string) (device.Bundle, error)
		BundleStatus(ctx context.Context, caller access.Caller, product string) (device.BundleStatus, error)
	}
	// Evidence reads verdicts.
	Evidence interface {
		Current(ctx context.Context, caller access.Caller, id string) (attest.Verdict, error)
	}
	// Releases reads releases.
	Releases interface {
		List(ctx context.Context, caller access.Caller, product string) ([]release.Release, error)
		Get(ctx context.Context, caller access.Caller, digest [32]byte) (release.Release, error)
		ListDeltas(ctx context.Context, caller access.Caller, digest [32]byte) ([]release.Delta, error)
		Approvers(ctx context.Context, caller access.Caller, product string) ([]release.Approver, error)
	}
	// Rollouts reads rollouts.
	Rollouts interface {
		List(ctx context.Context, caller access.Caller, product string) ([]rollout.Rollout, error)
		Page(ctx context.Context, caller access.Caller, place string, open bool, after string, limit int) ([]rollout.Rollout, error)
		Get(ctx context.Context, caller access.Caller, id string) (rollout.Rollout, []rollout.DeviceView, error)
		Devices(ctx context.Context, caller access.Caller, id string, which rollout.Which, after string, limit int) ([]rollout.DeviceView, error)
		Progress(ctx context.Context, caller access.Caller, id string) ([]rollout.Point, error)
	}
	// Cases reads the open cases, oldest first.
	Cases interface {
		Page(ctx context.Context, caller access.Caller, product, after string, limit int) ([]remedy.Case, error)
	}
	// Retirements reads one.
	Retirements interface {
		Get(ctx context.Context, caller access.Caller, id string) (retire.Retirement, error)
	}
	// Proposals reads what waits for a second person, newest first.
	Proposals interface {
		List(ctx context.Context, caller access.Caller, place, before string, limit int) ([]proposal.Proposal, error)
		Get(ctx context.Context, caller access.Caller, id string) (proposal.Proposal, error)
	}
	// Members reads who may call.
	Members interface {
		Members(ctx context.Context, caller access.Caller, after string, limit int) ([]signin.Member, error)
		Member(ctx context.Context, caller access.Caller, id string) (signin.Member, error)
		Held(ctx context.Context, caller access.Caller, member string) ([]signin.Credential, error)
		Identities(ctx context.Context, caller access.Caller, member string) ([]signin.Identity, error)
	}
	// Audit reads what was decided, newest first.
	Audit interface {
		List(ctx context.Context, caller access.Caller, f access.RecordedFilter, before int64, limit int) ([]access.Recorded, error)
	}
	// Ledger reads the logs.
	Ledger interface {
		Latest(ctx context.Context, log ledger.Log) (ledger.Published, error)
		Entry(ctx context.Context, ref ledger.Ref) ([]byte, error)
		Private(ctx context.Context, f wire.Fact) ([]byte, error)
	}
)

const cookie = "hallmark-session"

// policy allows what the pages bring themselves, and nothing else.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; " +
	"base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types hallmark"

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
	mux.HandleFunc("GET /genuine", h.genuineForm)
	mux.HandleFunc("GET /g/{device}", h.genuine)
	mux.HandleFunc("GET /g/{device}/verdict", h.verdictFile)
	mux.HandleFunc("POST /g/{device}/ask", h.askDevice)
	mux.HandleFunc("GET /g/{device}/qr.svg", h.code)
	for path, page := range map[string]func(http.ResponseWriter, *http.Request, access.Caller) error{
		"/{$}": h.overview, "/devices": h.devices, "/devices/{id}": h.device,
		"/findings": h.findings, "/cases": h.cases,
		"/releases": h.releases, "/releases/{digest}": h.release, "/releases/{digest}/components": h.contents, "/components": h.components, "/rollouts": h.rollouts, "/rollouts/{id}": h.rollout,
		"/supply": h.gates, "/supply/{product}": h.gate, "/decisions/{index}": h.decided,
		"/suppliers": h.suppliers, "/suppliers/{id}": h.supplier, "/parts": h.parts, "/parts/{id}": h.part, "/lots": h.lots, "/lots/{id}": h.lot,
		"/orders": h.orders, "/orders/{id}": h.order, "/orders/{id}/differences": h.differences, "/chips": h.chips, "/desks": h.desks, "/masters": h.masters, "/masters/{digest}": h.master, "/certificates": h.certificates, "/enrolments": h.enrolments,
		"/owners": h.owners, "/owners/{id}": h.ownerOf, "/claim": h.claim, "/transfer/{id}": h.transfer, "/transfers": h.transfers,
		"/vouchers": h.vouchers, "/vouchers/{id}": h.voucher, "/makers": h.makers, "/clients": h.clients, "/authorities": h.authorities, "/bundles": h.bundles, "/bundles/{product}": h.bundle,
		"/compliance": h.compliance, "/compliance/{framework}/{control}": h.control,
		"/streams": h.streams, "/ledger": h.ledger, "/ledger/{log}/{index}": h.entry, "/platform": h.platform, "/account": h.account,
		"/proposals": h.proposals, "/proposals/{id}": h.proposal, "/members": h.members, "/members/{id}": h.member, "/audit": h.audit,
		"/": h.nowhere,
	} {
		mux.HandleFunc("GET "+path, h.signedIn(page))
	}
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

func (h *handler) signedIn(page func(http.ResponseWriter, *http.Request, access.Caller) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie(cookie)
		if err == nil {
			var caller access.Caller
			if caller, err = h.cfg.Sessions.Caller(r.Context(), c.Value); err == nil {
				if r, err = h.placed(r); err == nil {
					err = page(w, r, caller)
				}
				if err != nil {
					h.fail(w, r, caller, err)
				}
				return
			}
		}
		http.Redirect(w, r, "/login", http.StatusSeeOther)
	}
}

type positionKey struct{}

// placed notes in a request where the logs are, before anything is read for its page.
func (h *handler) placed(r *http.Request) (*http.Request, error) {
	if h.cfg.Position == nil {
		return r, nil
	}
	at, err := h.cfg.Position(r.Context())
	return r.WithContext(context.WithValue(r.Context(), positionKey{}, at)), err
}

func (h *handler) nowhere(http.ResponseWriter, *http.Request, access.Caller) error {
	return fault.New(fault.NotFound, "console.page", "there is no such page", "go to the overview")
}

// login shows how to sign in. It changes nothing, also for who brings a code: a GET is made by whatever looks at a link.
func (h *handler) login(w http.ResponseWriter, r *http.Request) {
	if once := r.URL.Query().Get("once"); once != "" {
		h.render(w, r, http.StatusOK, linkPage(clip(once, 128)))
		return
	}
	h.render(w, r, http.StatusOK, loginPage(signInProblem(r.URL.Query().Get("problem")), h.cfg.Organisation))
}

// signInProblem is what a way of signing in that ends elsewhere has to say here. Only what is known is shown: the address is anybody's.
func signInProblem(code string) string {
	switch code {
	case "":
		return ""
	case "unknown":
		return "Your organisation says who you are, and nobody here is bound to that. Ask an administrator to do it: hallmark member bind."
	case "unavailable":
		return "Your organisation's sign-in does not answer just now. The other ways work."
	case "other":
		return "You confirmed as somebody else than who is signed in here."
	}
	return "Signing in did not work. Begin again, or choose another way."
}

// begin takes a token, or the code of a link.
func (h *handler) begin(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	token := r.PostFormValue("once")
	if token == "" {
		token = r.PostFormValue("token")
	}
	secret, until, err := h.cfg.Sessions.Begin(r.Context(), strings.TrimSpace(token))
	if fault.KindOf(err) == fault.Denied {
		h.render(w, r, http.StatusForbidden, loginPage("That token or link is not valid, has expired, or was used already.", h.cfg.Organisation))
		return
	}
	if err != nil {
		h.cfg.Log.ErrorContext(r.Context(), "sign in", "error", err)
		h.render(w, r, http.StatusServiceUnavailable, loginPage("Nobody can be signed in at the moment. Try again.", h.cfg.Organisation))
		return
	}
	//nolint:gosec // Secure follows the listener: on loopback the console is plain HTTP
	http.SetCookie(w, &http.Cookie{
		Name: cookie, Value: secret, Path: "/", Expires: until, HttpOnly: true, Secure: h.cfg.Secure, SameSite: http.SameSiteStrictMode,
	})
	// A redirect within one site keeps the strict cookie only when the browser itself navigates: hence a page, not a 303.
	w.Header().Set("Refresh", "0; url=/")
	h.render(w, r, http.StatusOK, signedInPage())
}

func (h *handler) fail(w http.ResponseWriter, r *http.Request, caller access.Caller, err error) {
	status, text := http.StatusInternalServerError, "Something went wrong on the server; its log says what."
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		status, text = f.Kind.Status(), f.Error()
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
