package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/supply"
	"github.com/hallmark-iot/hallmark/supply/statement"
	"github.com/hallmark-iot/hallmark/wire"
)

// Contents says what a release's document is, and lists what it is made of.
func (c *Client) Contents(ctx context.Context, release string) (supply.Contents, []supply.Part, error) {
	path := "/releases/" + url.PathEscape(release) + "/components"
	head, err := get[httpapi.ReleaseContents](ctx, c, path+"?limit=1")
	if err != nil {
		return supply.Contents{}, nil, err
	}
	parts, err := list[supply.Part](ctx, c, path)
	return head.Document, parts, err
}

// FindComponent says where a component is, or one that an advisory is about.
func (c *Client) FindComponent(ctx context.Context, what string) (httpapi.Found, error) {
	return get[httpapi.Found](ctx, c, "/components?what="+url.QueryEscape(what))
}

// Advisories lists the ecosystems whose advisories are there.
func (c *Client) Advisories(ctx context.Context) ([]supply.Database, error) {
	return list[supply.Database](ctx, c, "/advisories")
}

// ImportAdvisories sends an ecosystem's advisories as they are read; fewer: there may be many fewer than before.
func (c *Client) ImportAdvisories(ctx context.Context, ecosystem string, fewer bool, all io.Reader) (supply.Database, error) {
	var d supply.Database
	err := c.working().once(ctx, http.MethodPost, "/advisories/"+url.PathEscape(ecosystem)+"?fewer="+strconv.FormatBool(fewer), http.Header{"Content-Type": {"application/octet-stream"}}, all, &d)
	return d, err
}

// SupplyPolicy gives what the supply gate asks of a product's releases.
func (c *Client) SupplyPolicy(ctx context.Context, productID string) (supply.Policy, error) {
	return get[supply.Policy](ctx, c, "/products/"+url.PathEscape(productID)+"/supply")
}

// SetSupplyPolicy says what it asks from now on.
func (c *Client) SetSupplyPolicy(ctx context.Context, productID string, p supply.Policy) (supply.Policy, error) {
	return send[supply.Policy](ctx, c, http.MethodPut, "/products/"+url.PathEscape(productID)+"/supply", p)
}

// AskSupplyGate says what it would find.
func (c *Client) AskSupplyGate(ctx context.Context, productID string, q httpapi.GateQuestion) (wire.GateDecision, error) {
	return post[wire.GateDecision](ctx, c, "/products/"+url.PathEscape(productID)+"/gate", q)
}

// ReleaseGate gives what it found of a release.
func (c *Client) ReleaseGate(ctx context.Context, release string) (wire.GateDecision, error) {
	return get[wire.GateDecision](ctx, c, "/releases/"+url.PathEscape(release)+"/gate")
}

// ReleaseSummary gives what was signed of that for others when the release was published.
func (c *Client) ReleaseSummary(ctx context.Context, release string) (statement.Envelope, error) {
	return get[statement.Envelope](ctx, c, "/releases/"+url.PathEscape(release)+"/summary")
}

// ReleaseDocument gets a document that a release names.
func (c *Client) ReleaseDocument(ctx context.Context, digest string, kind release.DocumentKind) ([]byte, error) {
	return get[file](ctx, c, "/releases/"+url.PathEscape(digest)+"/documents/"+url.PathEscape(string(kind)))
}

// TakeException takes in a signed document that says why known flaws are none.
func (c *Client) TakeException(ctx context.Context, productID string, document io.Reader) (supply.Exception, error) {
	var e supply.Exception
	err := c.working().once(ctx, http.MethodPost, "/products/"+url.PathEscape(productID)+"/exceptions", http.Header{"Content-Type": {"application/octet-stream"}}, document, &e)
	return e, err
}
