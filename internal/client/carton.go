package client

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// PackCarton tells devices that no line reaches to install a release.
func (c *Client) PackCarton(ctx context.Context, digest string, of device.CartonOf) (httpapi.CartonView, error) {
	return post[httpapi.CartonView](ctx, c, "/releases/"+url.PathEscape(digest)+"/carton", of)
}

// TakeHistory hands in what a device wrote that installed from a carton.
func (c *Client) TakeHistory(ctx context.Context, history []byte) (device.Taken, error) {
	return post[device.Taken](ctx, c, "/devices/histories", httpapi.HistoryOf{History: history})
}

// Artifact writes an artifact's bytes as they come. Whether they are right is for the caller to say.
func (c *Client) Artifact(ctx context.Context, product, digest string, to io.Writer) error {
	return c.working().once(ctx, http.MethodGet, "/products/"+url.PathEscape(product)+"/artifacts/"+url.PathEscape(digest), http.Header{}, nil, to)
}
