// Package httpapi is the API for people's tools and machines: JSON over HTTP, described by OpenAPI 3.1 at /openapi.json.
//
// Over all stages, an adapter. It authenticates (a bearer token, or the console's session), decodes, calls one service verb with
// the caller, and maps faults to RFC 9457 problems in one place. It decides nothing. It guarantees that a request with an
// Idempotency-Key is done at most once, and one with If-Match only to what was seen, by having the store settle both with the
// first write; and that a stream of events costs one reader of the ledger, however many listen. It trusts the credential store to
// say who a token belongs to.
package httpapi

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"path"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/fault"
)

// Authenticator finds the caller behind a secret; a fault of kind Denied when there is none.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (access.Caller, error) // an API token
	Caller(ctx context.Context, session string) (access.Caller, error)     // a console session
	Certificate(ctx context.Context, proven *x509.Certificate) (access.Caller, error)
}

type api struct {
	Services
	auth Authenticator
	log  *slog.Logger

	carryOut func(ctx context.Context, p proposal.Proposal, caller access.Caller) (*recorder, error)
}

// version of the API: the path's v1 changes only when a client would break.
const version = "1.0.0"

// Handler serves the API under /api/v1, its description at /openapi.json and the logs' public files under /log.
func Handler(s Services, auth Authenticator, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	a := &api{Services: s, auth: auth, log: log}
	f := &front{api: a, mux: mux, running: map[[2]string][32]byte{}}
	a.carryOut = f.carryOut
	d := operations(a, mux)
	f.summaries, f.marks = summaries(d), marks(d)
	same := http.NewCrossOriginProtection()
	same.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.write(w, r, &huma.ErrorModel{Status: http.StatusForbidden, Title: "denied", Detail: "a browser does not change things here from another site's page"})
	}))
	return same.Handler(f)
}

// Description is the API's description, as /openapi.json gives it, without a server: clients and the reference are made from it.
func Description() *huma.OpenAPI {
	return operations(&api{}, http.NewServeMux())
}

// operations registers every operation, and gives their description.
func operations(a *api, mux *http.ServeMux) *huma.OpenAPI {
	cfg := huma.DefaultConfig("Hallmark", version)
	cfg.OpenAPIPath, cfg.DocsPath, cfg.SchemasPath = "/openapi", "", ""
	cfg.Formats = formats()
	cfg.CreateHooks = nil // no $schema member, no Link header
	cfg.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token":       {Type: "http", Scheme: "bearer", Description: "An access token: hmk_…"},
		"certificate": {Type: "mutualTLS", Description: "A machine's client certificate, whose key is bound to it. A token that is given wins."},
	}
	cfg.Security = []map[string][]string{{"token": {}}, {"certificate": {}}}
	h := humago.New(mux, cfg)
	a.register(h)
	document(h)
	return h.OpenAPI()
}

// summaries are those of what changes something, by pattern.
func summaries(d *huma.OpenAPI) map[string]string {
	out := map[string]string{}
	for path, item := range d.Paths {
		for method, o := range methods(item) {
			if method != http.MethodGet {
				out[method+" "+path] = o.Summary
			}
		}
	}
	return out
}

// schemaName tells types of one name apart by their stage: release.Component, wire.Component. A stage's own thing has its name
// once: Product, not ProductProduct.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	stage := path.Base(t.PkgPath())
	if of := path.Base(path.Dir(t.PkgPath())); of == "access" { // its rooms are not the clients' business
		stage = of
	}
	if stage == "v2" && strings.HasPrefix(name, "Error") { // huma's own
		return "Problem" + strings.TrimSuffix(strings.TrimPrefix(name, "Error"), "Model")
	}
	stage = strings.ToUpper(stage[:1]) + stage[1:]
	if stage == "." || stage == "Httpapi" || strings.HasPrefix(name, stage) {
		return name
	}
	return stage + name
}

type callerKey struct{}

// callerOf gives the caller that authenticate found; an operation without one would be a defect, and is nobody.
func callerOf(ctx context.Context) access.Caller {
	c, _ := ctx.Value(callerKey{}).(access.Caller)
	return c
}

const sessionCookie = "hallmark-session"

// problem turns a service's error into what the client may see.
func (a *api) problem(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	noteNeed(ctx, err)
	if p := requestProblem(err); p != nil {
		return p
	}
	var f *fault.Fault
	if errors.As(err, &f) && f.Kind != fault.Internal {
		return &huma.ErrorModel{
			Type: f.Type(), Title: f.Kind.String(), Status: f.Kind.Status(), Detail: f.Error(),
		}
	}
	a.log.ErrorContext(ctx, "internal error", "error", err)
	return huma.Error500InternalServerError("something went wrong on the server; its log says what")
}

// changedMeanwhile answers an If-Match that does not hold.
var changedMeanwhile = &huma.ErrorModel{
	Status: http.StatusPreconditionFailed, Type: "urn:hallmark:fault:if-match.changed", Title: "changed meanwhile",
	Detail: "the resource is not as you last saw it: read it again and decide anew",
}

// op describes an operation. Its tag is the first part of its path.
func op(id, method, path, summary string) huma.Operation {
	o := huma.Operation{
		OperationID: id, Method: method, Path: "/api/v1" + path, Summary: summary, Description: descriptions[id],
		Tags: []string{tagFor(path)}, Errors: errorsOf(method), RejectUnknownQueryParameters: true,
	}
	if method != http.MethodGet {
		o.MaxBodyBytes, o.BodyReadTimeout = maxBody, -1 // front has read it
	}
	return o
}

// What the front has to know of an operation is said where the operation is written.
const (
	readsBody   = "reads-body"   // as it comes, and stores it by its content: the same again changes nothing, with or without a key
	givesSecret = "gives-secret" // its answer holds a secret that is nowhere else, or what may be destroyed or taken back meanwhile: it is not kept
	forAnybody  = "for-anybody"  // it asks for no token: its callers are strangers, of whom each may ask a little
)

// mark says one of these of an operation.
func mark(o huma.Operation, what string) huma.Operation {
	o.Metadata = maps.Clone(o.Metadata)
	if o.Metadata == nil {
		o.Metadata = map[string]any{}
	}
	o.Metadata[what] = true
	return o
}

func marked(o *huma.Operation, what string) bool { return o.Metadata[what] == true }

// marks are those of all operations, by mark and pattern.
func marks(d *huma.OpenAPI) map[string]map[string]bool {
	out := map[string]map[string]bool{}
	for path, item := range d.Paths {
		for method, o := range methods(item) {
			for what := range o.Metadata {
				if out[what] == nil {
					out[what] = map[string]bool{}
				}
				out[what][method+" "+path] = true
			}
		}
	}
	return out
}

func methods(item *huma.PathItem) map[string]*huma.Operation {
	all := map[string]*huma.Operation{
		http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put, http.MethodPatch: item.Patch, http.MethodDelete: item.Delete,
	}
	maps.DeleteFunc(all, func(_ string, o *huma.Operation) bool { return o == nil })
	return all
}

type body[T any] struct{ Body T }

func reply[T any](a *api, ctx context.Context, v T, err error) (*body[T], error) {
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &body[T]{Body: v}, nil
}
