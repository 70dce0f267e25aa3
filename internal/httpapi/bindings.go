package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access/signin"
)

// IdentityRequest says who a person is with the organisation's sign-in: by one of both.
type IdentityRequest struct {
	Subject string `json:"subject,omitempty" maxLength:"255" doc:"the provider's name for the person, its claim sub"`
	Email   string `json:"email,omitempty" maxLength:"254" doc:"verified by the provider; holds until the first sign-in, whose subject is then pinned"`
}

// CertificateRequest is a machine's certificate.
type CertificateRequest struct {
	Certificate string `json:"certificate" minLength:"1" maxLength:"16384" doc:"PEM; only its public key and its dates matter"`
}

// registerBindings has the operations on how members are known besides by secrets.
func (a *api) registerBindings(h huma.API) {
	huma.Register(h, op("list-member-identities", http.MethodGet, "/members/{id}/identities", "List who a member is with the organisation's sign-in"),
		func(ctx context.Context, in *struct {
			OfMember
			Paging
		},
		) (*body[Page[signin.Identity]], error) {
			issuer := func(i signin.Identity) string { return i.Issuer }
			return paged(a, ctx, in.Paging, issuer, func(after string, limit int) ([]signin.Identity, error) {
				is, err := a.Credentials.Identities(ctx, callerOf(ctx), in.ID)
				return cut(is, issuer, after, limit), err
			})
		})
	huma.Register(h, op("bind-identity", http.MethodPost, "/members/{id}/identities/bind", "Let a person sign in with the organisation"),
		func(ctx context.Context, in *struct {
			OfMember
			Body IdentityRequest
		},
		) (*body[signin.Identity], error) {
			i, err := a.Credentials.BindIdentity(ctx, callerOf(ctx), in.ID, a.Issuer, in.Body.Subject, in.Body.Email)
			return reply(a, ctx, i, err)
		})
	huma.Register(h, op("unbind-identity", http.MethodPost, "/members/{id}/identities/unbind", "Let a person no longer sign in with the organisation"),
		func(ctx context.Context, in *struct {
			OfMember
			Issuer string `query:"issuer" maxLength:"512" doc:"which; left out: the one of this instance's sign-in"`
		},
		) (*body[Nothing], error) {
			if in.Issuer == "" {
				in.Issuer = a.Issuer
			}
			return reply(a, ctx, Nothing{}, a.Credentials.UnbindIdentity(ctx, callerOf(ctx), in.ID, in.Issuer))
		})
	huma.Register(h, op("bind-certificate", http.MethodPost, "/members/{id}/certificates/bind", "Let a machine be known by its client certificate's key"),
		func(ctx context.Context, in *struct {
			OfMember
			Body CertificateRequest
		},
		) (*body[CredentialView], error) {
			c, err := a.Credentials.BindCertificate(ctx, callerOf(ctx), in.ID, []byte(in.Body.Certificate))
			return reply(a, ctx, viewCredential(c), err)
		})
}

func viewCredential(c signin.Credential) CredentialView {
	return CredentialView{ID: c.ID(), Use: c.Use, From: c.From, Created: c.Created, Expires: c.Expires}
}
