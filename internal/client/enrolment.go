package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
)

// SetEnrolment says how a product's devices are let in.
func (c *Client) SetEnrolment(ctx context.Context, productID string, e product.Enrolment) (product.Product, error) {
	return send[product.Product](ctx, c, http.MethodPut, "/products/"+url.PathEscape(productID)+"/enrolment", e)
}

// SetIsolation says what has to hold the programs of a product's devices.
func (c *Client) SetIsolation(ctx context.Context, productID string, layers []wire.Layer) (product.Product, error) {
	return send[product.Product](ctx, c, http.MethodPut, "/products/"+url.PathEscape(productID)+"/isolation", httpapi.IsolationPolicy{Layers: layers})
}

// SetBundleDue says for how many days a product's devices may stay behind a trust bundle.
func (c *Client) SetBundleDue(ctx context.Context, productID string, days int) (product.Product, error) {
	return send[product.Product](ctx, c, http.MethodPut, "/products/"+url.PathEscape(productID)+"/bundle/due", httpapi.BundleDue{Days: days})
}

// SetSchema says which parameters a product's devices have.
func (c *Client) SetSchema(ctx context.Context, productID string, s wire.Schema) (product.Product, error) {
	return send[product.Product](ctx, c, http.MethodPut, "/products/"+url.PathEscape(productID)+"/schema", httpapi.SchemaRequest{Parameters: s})
}

// Enrolments lists the requests of devices that take a person; empty words mean all.
func (c *Client) Enrolments(ctx context.Context, productID, state string) ([]onboard.Waiting, error) {
	return list[onboard.Waiting](ctx, c, "/enrolments"+query("product", productID, "state", state))
}

// Enrolment shows a device's.
func (c *Client) Enrolment(ctx context.Context, device string) (onboard.Waiting, error) {
	return get[onboard.Waiting](ctx, c, "/enrolments/"+url.PathEscape(device))
}

// DecideEnrolment does one of approve and refuse, of the request that was seen.
func (c *Client) DecideEnrolment(ctx context.Context, device, verb string, d httpapi.EnrolmentDecision) (onboard.Waiting, error) {
	return post[onboard.Waiting](ctx, c, "/enrolments/"+url.PathEscape(device)+"/"+url.PathEscape(verb), d)
}
