package client

import (
	"context"
	"net/url"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/onboard/rekey"
)

// Vouch asks for a voucher for a device that lost its keys.
func (c *Client) Vouch(ctx context.Context, device string, r httpapi.VoucherRequest) (httpapi.VoucherReply, error) {
	return post[httpapi.VoucherReply](ctx, c, ofDevice(device, "vouchers"), r)
}

// Vouchers lists them; empty words mean all.
func (c *Client) Vouchers(ctx context.Context, product, group, device string, open bool) ([]rekey.Voucher, error) {
	only := ""
	if open {
		only = "true"
	}
	return list[rekey.Voucher](ctx, c, "/vouchers"+query("product", product, "group", group, "device", device, "open", only))
}

// Voucher shows one.
func (c *Client) Voucher(ctx context.Context, id string) (rekey.Voucher, error) {
	return get[rekey.Voucher](ctx, c, "/vouchers/"+url.PathEscape(id))
}

// RevokeVoucher ends one.
func (c *Client) RevokeVoucher(ctx context.Context, id, reason string) (rekey.Voucher, error) {
	return post[rekey.Voucher](ctx, c, "/vouchers/"+url.PathEscape(id)+"/revoke", httpapi.Reason{Reason: reason})
}

// FormerKeys lists the keys a device had before.
func (c *Client) FormerKeys(ctx context.Context, device string) ([]rekey.Former, error) {
	return list[rekey.Former](ctx, c, ofDevice(device, "keys"))
}

// Identity gives the certificate that a device got in the factory, with those above it.
func (c *Client) Identity(ctx context.Context, device string) (factory.Identity, error) {
	return get[factory.Identity](ctx, c, ofDevice(device, "identity"))
}
