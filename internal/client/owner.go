package client

import (
	"context"
	"net/url"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/onboard/owner"
)

// Bodies of the operations on owners.
type (
	LabelsRequest   = httpapi.LabelsRequest
	ClaimRequest    = httpapi.ClaimRequest
	Ownership       = httpapi.Ownership
	TransferRequest = httpapi.TransferRequest
	RecallRequest   = httpapi.RecallRequest
)

// Owners lists owners by ID.
func (c *Client) Owners(ctx context.Context) ([]owner.Owner, error) {
	return list[owner.Owner](ctx, c, "/owners")
}

// CreateOwner makes an owner.
func (c *Client) CreateOwner(ctx context.Context, name string) (owner.Owner, error) {
	return post[owner.Owner](ctx, c, "/owners", httpapi.OwnerRequest{Name: name})
}

// Owner shows one.
func (c *Client) Owner(ctx context.Context, id string) (owner.Owner, error) {
	return get[owner.Owner](ctx, c, "/owners/"+url.PathEscape(id))
}

// EndOwner ends one that has no devices.
func (c *Client) EndOwner(ctx context.Context, id string) (owner.Owner, error) {
	return post[owner.Owner](ctx, c, "/owners/"+url.PathEscape(id)+"/end", nil)
}

// ClaimCodes makes codes for one page of devices.
func (c *Client) ClaimCodes(ctx context.Context, r LabelsRequest) (httpapi.Labels, error) {
	return post[httpapi.Labels](ctx, c, "/claim-codes", r)
}

// Claim claims a device.
func (c *Client) Claim(ctx context.Context, device string, r ClaimRequest) (owner.Period, error) {
	return post[owner.Period](ctx, c, "/devices/"+url.PathEscape(device)+"/claim", r)
}

// Ownership shows whom a device belonged to, and what is said of it.
func (c *Client) Ownership(ctx context.Context, device string) (Ownership, error) {
	return get[Ownership](ctx, c, "/devices/"+url.PathEscape(device)+"/ownership")
}

// PreviewTransfer says what a transfer would end.
func (c *Client) PreviewTransfer(ctx context.Context, devices []string) ([]owner.Preview, error) {
	p, err := post[httpapi.TransferPreview](ctx, c, "/transfers/dry-run", httpapi.PreviewRequest{Devices: devices})
	return p.Devices, err
}

// Transfer ends the time of devices with their owner.
func (c *Client) Transfer(ctx context.Context, r TransferRequest) ([]owner.Begun, error) {
	t, err := post[httpapi.Transfers](ctx, c, "/transfers", r)
	return t.Transfers, err
}

// GiveUp takes a handover to another instance back that the device has not been told of.
func (c *Client) GiveUp(ctx context.Context, device, reason string) (owner.Transfer, error) {
	return post[owner.Transfer](ctx, c, "/transfers/"+url.PathEscape(device)+"/give-up", httpapi.Reason{Reason: reason})
}

// Transfers lists those that wait for their devices.
func (c *Client) Transfers(ctx context.Context) ([]owner.Transfer, error) {
	return list[owner.Transfer](ctx, c, "/transfers")
}

// Mark says that a device was stolen, or found.
func (c *Client) Mark(ctx context.Context, device string, stolen bool, reason string) (Ownership, error) {
	what := "found"
	if stolen {
		what = "stolen"
	}
	return post[Ownership](ctx, c, "/devices/"+url.PathEscape(device)+"/"+what, httpapi.Reason{Reason: reason})
}

// Recalls lists recalls, newest first; an empty product means all.
func (c *Client) Recalls(ctx context.Context, product string) ([]owner.Recall, error) {
	p, err := get[httpapi.Page[owner.Recall]](ctx, c, "/recalls"+query("product", product))
	return p.Items, err
}

// Recall recalls devices, or with dry counts them.
func (c *Client) Recall(ctx context.Context, r RecallRequest, dry bool) (owner.Recall, error) {
	path := "/recalls"
	if dry {
		path += "/dry-run"
	}
	return post[owner.Recall](ctx, c, path, r)
}

// Mended lifts a recall for one device.
func (c *Client) Mended(ctx context.Context, recall, device, reason string) (Ownership, error) {
	return post[Ownership](ctx, c, "/recalls/"+url.PathEscape(recall)+"/devices/"+url.PathEscape(device)+"/mended", httpapi.Reason{Reason: reason})
}
