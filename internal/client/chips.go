package client

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/hallmark-iot/hallmark/factory/chips"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// ChipVendors lists the vendors whose manifests are believed.
func (c *Client) ChipVendors(ctx context.Context) ([]chips.Vendor, error) {
	return list[chips.Vendor](ctx, c, "/chip-vendors")
}

// TrustChipVendor has a vendor's manifests believed.
func (c *Client) TrustChipVendor(ctx context.Context, id, pem string) (chips.Vendor, error) {
	return post[chips.Vendor](ctx, c, "/chip-vendors", httpapi.VendorRequest{ID: id, PEM: pem})
}

// EndChipVendor has its word taken no more.
func (c *Client) EndChipVendor(ctx context.Context, id, reason string) error {
	_, err := post[httpapi.Reason](ctx, c, "/chip-vendors/"+url.PathEscape(id)+"/end", httpapi.Reason{Reason: reason})
	return err
}

// Chip shows one.
func (c *Client) Chip(ctx context.Context, uid string) (chips.Chip, error) {
	return get[chips.Chip](ctx, c, "/chips/"+url.PathEscape(uid))
}

// ImportChips sends a manifest as it is read.
func (c *Client) ImportChips(ctx context.Context, vendor string, manifest io.Reader) (chips.Report, error) {
	var r chips.Report
	err := c.working().once(ctx, http.MethodPost, "/chip-vendors/"+url.PathEscape(vendor)+"/chips", http.Header{"Content-Type": {"application/octet-stream"}}, manifest, &r)
	return r, err
}
