package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

func ofMember(id, what string) string { return "/members/" + url.PathEscape(id) + what }

// Member gives one.
func (c *Client) Member(ctx context.Context, id string) (signin.Member, error) {
	return get[signin.Member](ctx, c, ofMember(id, ""))
}

// Identities lists who a member is with the organisation's sign-in.
func (c *Client) Identities(ctx context.Context, id string) ([]signin.Identity, error) {
	return list[signin.Identity](ctx, c, ofMember(id, "/identities"))
}

// BindIdentity lets a person sign in with the organisation, known by subject or by email.
func (c *Client) BindIdentity(ctx context.Context, id, subject, email string) (signin.Identity, error) {
	return post[signin.Identity](ctx, c, ofMember(id, "/identities/bind"), httpapi.IdentityRequest{Subject: subject, Email: email})
}

// UnbindIdentity takes it away; an empty issuer is this instance's.
func (c *Client) UnbindIdentity(ctx context.Context, id, issuer string) error {
	_, err := send[httpapi.Nothing](ctx, c, http.MethodPost, ofMember(id, "/identities/unbind")+query("issuer", issuer), nil)
	return err
}

// BindCertificate lets a machine be known by a certificate's key.
func (c *Client) BindCertificate(ctx context.Context, id, pem string) (httpapi.CredentialView, error) {
	return post[httpapi.CredentialView](ctx, c, ofMember(id, "/certificates/bind"), httpapi.CertificateRequest{Certificate: pem})
}

// Decisions lists decisions, newest first.
func (c *Client) Decisions(ctx context.Context, f access.RecordedFilter) ([]access.Recorded, error) {
	denied := ""
	if f.Denied {
		denied = strconv.FormatBool(true)
	}
	return list[access.Recorded](ctx, c, "/audit"+query("caller", f.Caller, "action", string(f.Action), "denied", denied))
}
