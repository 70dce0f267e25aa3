package client

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/supply/parts"
)

// Suppliers lists them.
func (c *Client) Suppliers(ctx context.Context) ([]parts.Supplier, error) {
	return list[parts.Supplier](ctx, c, "/suppliers")
}

// Supplier gives one.
func (c *Client) Supplier(ctx context.Context, id string) (parts.Supplier, error) {
	return get[parts.Supplier](ctx, c, "/suppliers/"+url.PathEscape(id))
}

// SetSupplier writes one down, or changes it.
func (c *Client) SetSupplier(ctx context.Context, id string, r SupplierRequest) (parts.Supplier, error) {
	return send[parts.Supplier](ctx, c, http.MethodPut, "/suppliers/"+url.PathEscape(id), r)
}

// EndSupplier takes nothing of it any more.
func (c *Client) EndSupplier(ctx context.Context, id, reason string) (parts.Supplier, error) {
	return post[parts.Supplier](ctx, c, "/suppliers/"+url.PathEscape(id)+"/end", httpapi.Reason{Reason: reason})
}

// Parts lists those of a supplier; all with an empty one.
func (c *Client) Parts(ctx context.Context, supplier string) ([]parts.Part, error) {
	return list[parts.Part](ctx, c, "/parts?supplier="+url.QueryEscape(supplier))
}

// Part gives one.
func (c *Client) Part(ctx context.Context, id string) (parts.Part, error) {
	return get[parts.Part](ctx, c, "/parts/"+url.PathEscape(id))
}

// SetPart writes one down, or changes it.
func (c *Client) SetPart(ctx context.Context, id string, r PartRequest) (parts.Part, error) {
	return send[parts.Part](ctx, c, http.MethodPut, "/parts/"+url.PathEscape(id), r)
}

// Lots lists those of a part; all with an empty one.
func (c *Client) Lots(ctx context.Context, part string) ([]parts.Lot, error) {
	return list[parts.Lot](ctx, c, "/lots?part="+url.QueryEscape(part))
}

// Lot gives one.
func (c *Client) Lot(ctx context.Context, id string) (parts.Lot, error) {
	return get[parts.Lot](ctx, c, lotPath(id))
}

func lotPath(id string) string { return "/lots/" + url.PathEscape(id) }

// ReceiveLot writes one down.
func (c *Client) ReceiveLot(ctx context.Context, r LotRequest) (parts.Lot, error) {
	return post[parts.Lot](ctx, c, "/lots", r)
}

// CertifyLot brings its certificate of conformity.
func (c *Client) CertifyLot(ctx context.Context, id string, r io.Reader) (l parts.Lot, err error) {
	return l, c.working().once(ctx, http.MethodPost, lotPath(id)+"/certificate", http.Header{"Content-Type": {"application/octet-stream"}}, r, &l)
}

// LotCertificate gets it.
func (c *Client) LotCertificate(ctx context.Context, id string) ([]byte, error) {
	return get[file](ctx, c, lotPath(id)+"/certificate")
}

// RecallLot says that it is bad, and ClearLot that it is good after all.
func (c *Client) RecallLot(ctx context.Context, id, reason string) (parts.Lot, error) {
	return post[parts.Lot](ctx, c, lotPath(id)+"/recall", httpapi.Reason{Reason: reason})
}

// ClearLot says that a recalled lot is good after all.
func (c *Client) ClearLot(ctx context.Context, id, reason string) (parts.Lot, error) {
	return post[parts.Lot](ctx, c, lotPath(id)+"/clear", httpapi.Reason{Reason: reason})
}

// LotDevices counts the devices that may have a part of it, and lists them.
func (c *Client) LotDevices(ctx context.Context, id string) (int64, []parts.Built, error) {
	head, err := get[httpapi.LotDevices](ctx, c, lotPath(id)+"/devices?limit=1")
	if err != nil {
		return 0, nil, err
	}
	all, err := list[parts.Built](ctx, c, lotPath(id)+"/devices")
	return head.Devices, all, err
}

// OrderLots gives the lots that an order names.
func (c *Client) OrderLots(ctx context.Context, order string) ([]parts.Lot, error) {
	l, err := get[httpapi.LotList](ctx, c, "/orders/"+url.PathEscape(order)+"/lots")
	return l.Items, err
}

// DeviceLots gives the lots of which a device may have a part.
func (c *Client) DeviceLots(ctx context.Context, device string) ([]parts.Lot, error) {
	l, err := get[httpapi.LotList](ctx, c, "/devices/"+url.PathEscape(device)+"/lots")
	return l.Items, err
}

// NameLots says of which lots an order is made.
func (c *Client) NameLots(ctx context.Context, order string, lots []string) ([]parts.Lot, error) {
	l, err := post[httpapi.LotList](ctx, c, "/orders/"+url.PathEscape(order)+"/lots", httpapi.LotNames{Lots: lots})
	return l.Items, err
}

// TakeLot says that an order has nothing of a lot after all.
func (c *Client) TakeLot(ctx context.Context, order, lot, reason string) ([]parts.Lot, error) {
	l, err := post[httpapi.LotList](ctx, c, "/orders/"+url.PathEscape(order)+"/lots/taken", httpapi.LotTaken{Lot: lot, Reason: reason})
	return l.Items, err
}
