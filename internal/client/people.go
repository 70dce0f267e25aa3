package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// Self says who the caller is to the server.
func (c *Client) Self(ctx context.Context) (httpapi.Self, error) {
	return get[httpapi.Self](ctx, c, "/me")
}

// Members lists who may call, by name.
func (c *Client) Members(ctx context.Context) ([]signin.Member, error) {
	return list[signin.Member](ctx, c, "/members")
}

// SetRoles says what a member may do.
func (c *Client) SetRoles(ctx context.Context, id string, r httpapi.RolesRequest) (signin.Member, error) {
	return send[signin.Member](ctx, c, http.MethodPut, "/members/"+url.PathEscape(id)+"/roles", r)
}

// EndMember takes a member every token, session and passkey.
func (c *Client) EndMember(ctx context.Context, id string) (signin.Member, error) {
	return post[signin.Member](ctx, c, "/members/"+url.PathEscape(id)+"/end", nil)
}

// Secrets lists a member's tokens and sessions, which are named and not shown.
func (c *Client) Secrets(ctx context.Context, id string) ([]httpapi.CredentialView, error) {
	return list[httpapi.CredentialView](ctx, c, "/members/"+url.PathEscape(id)+"/credentials")
}

// RevokeSecret revokes one of them.
func (c *Client) RevokeSecret(ctx context.Context, id, secret string) error {
	_, err := post[struct{}](ctx, c, "/members/"+url.PathEscape(id)+"/credentials/"+url.PathEscape(secret)+"/revoke", nil)
	return err
}
