package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/once"
)

// Self is the caller as the server knows it.
type Self struct {
	ID    string        `json:"id"`
	Kind  access.Kind   `json:"kind"`
	Roles []access.Role `json:"roles"`
	Scope []string      `json:"scope" doc:"limits it to these products, or groups of them (pump/eu/berlin); empty means everywhere"`
	Via   string        `json:"via" doc:"how it was authenticated"`
	Fresh bool          `json:"fresh" doc:"of a session: it was proven of late that it is this person"`
}

// RolesRequest says what a member may do.
type RolesRequest struct {
	Roles []access.Role `json:"roles" minItems:"1" maxItems:"16"`
	Scope []string      `json:"scope,omitempty" maxItems:"256" doc:"limits it to these products, or groups of them (pump/eu/berlin); empty means everywhere"`
}

// CredentialView is a secret, without it.
type CredentialView struct {
	ID      string     `json:"id" doc:"names it, and opens nothing"`
	Use     signin.Use `json:"use"`
	From    string     `json:"from,omitempty" doc:"of a session: what it was begun with"`
	Created time.Time  `json:"created"`
	Expires time.Time  `json:"expires"`
}

// Nothing is the answer of what has none to give.
type Nothing struct{}

// OfMember names a member in a path.
type OfMember struct {
	ID string `path:"id" minLength:"1" maxLength:"128" example:"person:alice"`
}

// registerMembers has the operations on who may call.
func (a *api) registerMembers(h huma.API) {
	huma.Register(h, op("get-self", http.MethodGet, "/me", "Show who you are here"),
		func(ctx context.Context, _ *struct{}) (*body[Self], error) {
			c := callerOf(ctx)
			return reply(a, ctx, Self{
				ID: c.ID, Kind: c.Kind, Roles: append([]access.Role{}, c.Roles...), Scope: append([]string{}, c.Scope...), Via: c.Via, Fresh: c.Fresh,
			}, nil)
		})
	huma.Register(h, op("list-members", http.MethodGet, "/members", "List who may call, by name"),
		func(ctx context.Context, in *struct{ Paging }) (*body[Page[signin.Member]], error) {
			return paged(a, ctx, in.Paging, func(m signin.Member) string { return m.ID }, func(after string, limit int) ([]signin.Member, error) {
				return a.Credentials.Members(ctx, callerOf(ctx), after, limit)
			})
		})
	huma.Register(h, op("get-member", http.MethodGet, "/members/{id}", "Show a member: yourself, or anybody to who manages access"),
		func(ctx context.Context, in *OfMember) (*tagged[signin.Member], error) {
			return show(a, ctx, once.Member, in.ID, func() (signin.Member, error) { return a.Credentials.Member(ctx, callerOf(ctx), in.ID) })
		})
	huma.Register(h, op("set-member-roles", http.MethodPut, "/members/{id}/roles", "Say what a member may do"),
		func(ctx context.Context, in *struct {
			OfMember
			Matching
			Body RolesRequest
		},
		) (*tagged[signin.Member], error) {
			return change(a, ctx, in.Matching, once.Member, in.ID, func(ctx context.Context) (signin.Member, error) {
				return a.Credentials.SetRoles(ctx, callerOf(ctx), in.ID, in.Body.Roles, in.Body.Scope)
			})
		})
	huma.Register(h, op("end-member", http.MethodPost, "/members/{id}/end", "Take a member every token, session and passkey, for good"),
		func(ctx context.Context, in *struct {
			OfMember
			Matching
		},
		) (*tagged[signin.Member], error) {
			return change(a, ctx, in.Matching, once.Member, in.ID, func(ctx context.Context) (signin.Member, error) {
				return a.Credentials.EndMember(ctx, callerOf(ctx), in.ID)
			})
		})
	huma.Register(h, op("list-member-credentials", http.MethodGet, "/members/{id}/credentials", "List a member's tokens and sessions"),
		func(ctx context.Context, in *struct {
			OfMember
			Paging
		},
		) (*body[Page[CredentialView]], error) {
			id := func(v CredentialView) string { return v.ID }
			return paged(a, ctx, in.Paging, id, func(after string, limit int) ([]CredentialView, error) {
				cs, err := a.Credentials.Held(ctx, callerOf(ctx), in.ID)
				out := make([]CredentialView, 0, len(cs))
				for _, c := range cs {
					out = append(out, viewCredential(c))
				}
				slices.SortFunc(out, func(x, y CredentialView) int { return strings.Compare(x.ID, y.ID) })
				return cut(out, id, after, limit), err
			})
		})
	huma.Register(h, op("revoke-credential", http.MethodPost, "/members/{id}/credentials/{credential}/revoke", "Revoke one token or session of a member"),
		func(ctx context.Context, in *struct {
			OfMember
			Credential string `path:"credential" pattern:"^[0-9a-f]{16}$"`
		},
		) (*body[Nothing], error) {
			return reply(a, ctx, Nothing{}, a.Credentials.Revoke(ctx, callerOf(ctx), in.ID, in.Credential))
		})
}
