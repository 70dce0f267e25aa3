package client

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/supply"
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

// ImportAdvisories sends an ecosystem's advisories as they are read.
func (c *Client) ImportAdvisories(ctx context.Context, ecosystem string, all io.Reader) (supply.Database, error) {
	var d supply.Database
	err := c.working().once(ctx, http.MethodPost, "/advisories/"+url.PathEscape(ecosystem), http.Header{"Content-Type": {"application/octet-stream"}}, all, &d)
	return d, err
}
