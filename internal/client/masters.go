package client

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// TakeMaster gives a master to the instance, by how its file begins.
func (c *Client) TakeMaster(ctx context.Context, productID string, begin []byte) (factory.KeptMaster, error) {
	return post[factory.KeptMaster](ctx, c, "/masters", httpapi.MasterRequest{Product: productID, File: begin})
}

// Masters lists those that were given to the instance, newest first.
func (c *Client) Masters(ctx context.Context, productID string) ([]factory.KeptMaster, error) {
	return list[factory.KeptMaster](ctx, c, "/masters"+query("product", productID))
}

// Master shows one.
func (c *Client) Master(ctx context.Context, digest string) (factory.KeptMaster, error) {
	return get[factory.KeptMaster](ctx, c, "/masters/"+url.PathEscape(digest))
}

// GiveMasterDocument gives a document that a master names.
func (c *Client) GiveMasterDocument(ctx context.Context, digest string, kind factory.DocumentKind, r io.Reader) (m factory.KeptMaster, err error) {
	return m, c.working().once(ctx, http.MethodPost, documentPath(digest, kind), http.Header{"Content-Type": {"application/octet-stream"}}, r, &m)
}

// MasterDocument gets a document that a master names.
func (c *Client) MasterDocument(ctx context.Context, digest string, kind factory.DocumentKind) ([]byte, error) {
	return get[file](ctx, c, documentPath(digest, kind))
}

func documentPath(digest string, kind factory.DocumentKind) string {
	return "/masters/" + url.PathEscape(digest) + "/documents/" + url.PathEscape(string(kind))
}
