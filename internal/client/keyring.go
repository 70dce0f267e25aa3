package client

import (
	"context"
	"net/url"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/keyring"
)

// Keys lists the instance's online keys.
func (c *Client) Keys(ctx context.Context) ([]keyring.Key, error) {
	p, err := get[httpapi.Page[keyring.Key]](ctx, c, "/keys")
	return p.Items, err
}

// RotateKey makes a new key beside those of its role.
func (c *Client) RotateKey(ctx context.Context, role keyring.Role, suite, reason string) (keyring.Key, error) {
	return post[keyring.Key](ctx, c, "/keys", httpapi.KeyRequest{Role: role, Suite: suite, Reason: reason})
}

// RetireKey ends the use of a key.
func (c *Client) RetireKey(ctx context.Context, name string, force bool, reason string) (keyring.Key, error) {
	return post[keyring.Key](ctx, c, "/keys/"+url.PathEscape(name)+"/retire", httpapi.KeyEnd{Reason: reason, Force: force})
}

// BundleStatus shows how far a product's trust bundle has come.
func (c *Client) BundleStatus(ctx context.Context, product string) (device.BundleStatus, error) {
	return get[device.BundleStatus](ctx, c, "/products/"+url.PathEscape(product)+"/bundle/status")
}
