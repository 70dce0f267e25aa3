package client

import (
	"context"
	"net/url"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// DeskFile gives what a desk must pin of the instance.
func (c *Client) DeskFile(ctx context.Context) (factory.DeskFile, error) {
	return get[factory.DeskFile](ctx, c, "/oem/desk")
}

// Desks lists them, those that were removed too.
func (c *Client) Desks(ctx context.Context) ([]factory.Desk, error) {
	return list[factory.Desk](ctx, c, "/desks")
}

// AddDesk takes in a desk, by what it wrote of itself.
func (c *Client) AddDesk(ctx context.Context, desk []byte, quota uint32) (factory.Desk, error) {
	return post[factory.Desk](ctx, c, "/desks", httpapi.DeskRequest{Desk: desk, Quota: quota})
}

// RemoveDesk takes in no order that a desk makes from now on.
func (c *Client) RemoveDesk(ctx context.Context, name, reason string) (factory.Desk, error) {
	return post[factory.Desk](ctx, c, "/desks/"+url.PathEscape(name)+"/remove", httpapi.Reason{Reason: reason})
}

// RegisterOrder takes in an order that a desk has wrapped.
func (c *Client) RegisterOrder(ctx context.Context, registration []byte) (OrderView, error) {
	return post[OrderView](ctx, c, "/registrations", httpapi.RegistrationRequest{File: registration})
}
