// Package httpapi is the API for people's tools and machines: JSON over HTTP, described by OpenAPI 3.1 at /openapi.json.
//
// Over all stages, an adapter. It authenticates (a bearer token, or the console's session), decodes, calls one service verb with
// the caller, and maps faults to RFC 9457 problems in one place. It decides nothing. It trusts the credential store to say who
// a token belongs to.
package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
)

// Authenticator finds the caller behind a secret; a fault of kind Denied when there is none.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (access.Caller, error) // an API token
	Caller(ctx context.Context, session string) (access.Caller, error)     // a console session
}

type api struct {
	Services
	auth Authenticator
	log  *slog.Logger
}

// version of the API: the path's v1 changes only when a client would break.
const version = "1.0.0"

// Handler serves the API under /api/v1, its description at /openapi.json and the logs' public files under /log.
func Handler(s Services, auth Authenticator, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	cfg := huma.DefaultConfig("Hallmark", version)
	cfg.OpenAPIPath, cfg.DocsPath, cfg.SchemasPath = "/openapi", "", ""
	cfg.CreateHooks = nil // no $schema member, no Link header
	cfg.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "An access token: hmk_…"},
	}
	cfg.Security = []map[string][]string{{"token": {}}}
	h := humago.New(mux, cfg)
	a := &api{Services: s, auth: auth, log: log}
	h.UseMiddleware(a.authenticate(h))
	a.register(h)
	return http.NewCrossOriginProtection().Handler(mux)
}

// schemaName tells types of one name apart by their stage: release.Component, wire.Component.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	stage := path.Base(t.PkgPath())
	if stage == "." || stage == "huma" || stage == "httpapi" {
		return name
	}
	return strings.ToUpper(stage[:1]) + stage[1:] + name
}

type callerKey struct{}

// callerOf gives the caller that authenticate found; an operation without one would be a defect, and is nobody.
func callerOf(ctx context.Context) access.Caller {
	c, _ := ctx.Value(callerKey{}).(access.Caller)
	return c
}

const sessionCookie = "hallmark-session"

func (a *api) authenticate(h huma.API) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		caller, err := a.callerOfRequest(ctx)
		if err != nil {
			status := http.StatusUnauthorized
			if fault.KindOf(err) != fault.Denied {
				a.log.ErrorContext(ctx.Context(), "authenticate", "error", err)
				status = http.StatusServiceUnavailable
			}
			ctx.SetHeader("WWW-Authenticate", `Bearer realm="hallmark"`)
			if err := huma.WriteErr(h, ctx, status, "a valid access token is needed: Authorization: Bearer hmk_…"); err != nil {
				a.log.DebugContext(ctx.Context(), "client went away", "error", err)
			}
			return
		}
		next(huma.WithValue(ctx, callerKey{}, caller))
	}
}

func (a *api) callerOfRequest(ctx huma.Context) (access.Caller, error) {
	if token, ok := strings.CutPrefix(ctx.Header("Authorization"), "Bearer "); ok {
		return a.auth.Authenticate(ctx.Context(), token)
	}
	if c, err := huma.ReadCookie(ctx, sessionCookie); err == nil {
		return a.auth.Caller(ctx.Context(), c.Value)
	}
	return access.Caller{}, fault.New(fault.Denied, "access.no-token", "no access token", "")
}

// statusOf maps the classes of fault to statuses, here and nowhere else.
func statusOf(k fault.Kind) int {
	switch k {
	case fault.Invalid:
		return http.StatusUnprocessableEntity
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict, fault.Exhausted:
		return http.StatusConflict
	case fault.Denied:
		return http.StatusForbidden
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	case fault.Internal:
	}
	return http.StatusInternalServerError
}

// problem turns a service's error into what the client may see.
func (a *api) problem(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var f *fault.Fault
	if errors.As(err, &f) && f.Kind != fault.Internal {
		return &huma.ErrorModel{
			Type: "urn:hallmark:fault:" + f.Code, Title: f.Kind.String(), Status: statusOf(f.Kind), Detail: f.Error(),
		}
	}
	a.log.ErrorContext(ctx, "internal error", "error", err)
	return huma.Error500InternalServerError("something went wrong on the server; its log says what")
}

// op describes an operation; reply adapts a verb's result.
func op(id, method, path, summary string) huma.Operation {
	return huma.Operation{OperationID: id, Method: method, Path: "/api/v1" + path, Summary: summary}
}

type body[T any] struct{ Body T }

func reply[T any](a *api, ctx context.Context, v T, err error) (*body[T], error) {
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &body[T]{Body: v}, nil
}
