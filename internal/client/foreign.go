package client

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/onboard/foreign"
)

// ForeignCAs lists the CAs of other makers; an empty product means all.
func (c *Client) ForeignCAs(ctx context.Context, product string) ([]foreign.CA, error) {
	return list[foreign.CA](ctx, c, "/foreign-cas"+query("product", product))
}

// TrustForeignCA has one believed.
func (c *Client) TrustForeignCA(ctx context.Context, r httpapi.ForeignRequest) (foreign.CA, error) {
	return post[foreign.CA](ctx, c, "/foreign-cas", r)
}

// EndForeignCA has one believed no more.
func (c *Client) EndForeignCA(ctx context.Context, id, reason string) error {
	_, err := post[httpapi.Reason](ctx, c, "/foreign-cas/"+url.PathEscape(id)+"/end", httpapi.Reason{Reason: reason})
	return err
}

// WelcomeDevice takes a device that another instance hands over.
func (c *Client) WelcomeDevice(ctx context.Context, product string, r httpapi.Arriving) (foreign.Welcomed, error) {
	return post[foreign.Welcomed](ctx, c, "/products/"+url.PathEscape(product)+"/arrivals", r)
}

// ImportDevices sends a list of devices as it is read.
func (c *Client) ImportDevices(ctx context.Context, l foreign.List, data io.Reader) (foreign.Report, error) {
	var r foreign.Report
	dry := ""
	if l.Dry {
		dry = "true"
	}
	path := "/products/" + url.PathEscape(l.Product) + "/devices" + query("format", string(l.Format), "hardware", l.Hardware, "ca", l.CA, "dry_run", dry)
	err := c.working().once(ctx, http.MethodPost, path, http.Header{"Content-Type": {"application/octet-stream"}}, data, &r)
	return r, err
}
