package client

import (
	"context"
	"net/url"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
)

func ofProduct(id, path string) string { return "/products/" + url.PathEscape(id) + path }

// LegacyClients lists a product's clients of other update systems in a state, of any with an empty one.
func (c *Client) LegacyClients(ctx context.Context, product string, state legacy.State) ([]legacy.Client, error) {
	return list[legacy.Client](ctx, c, ofProduct(product, "/legacy-clients")+query("state", string(state)))
}

// AdmitLegacyClient lets one in.
func (c *Client) AdmitLegacyClient(ctx context.Context, product string, a legacy.Admission) (legacy.Let, error) {
	return post[legacy.Let](ctx, c, ofProduct(product, "/legacy-clients"), a)
}

// RefuseLegacyClient lets one in no more.
func (c *Client) RefuseLegacyClient(ctx context.Context, product string, r httpapi.ClientRefusal) (legacy.Client, error) {
	return post[legacy.Client](ctx, c, ofProduct(product, "/legacy-clients/refusals"), r)
}

// LegacyLogs lists what a client wrote of its last updates that failed, the newest first.
func (c *Client) LegacyLogs(ctx context.Context, product, name string) ([]legacy.Log, error) {
	return list[legacy.Log](ctx, c, ofProduct(product, "/legacy-clients/logs")+query("name", name))
}

// LegacyGateways lists a product's gateways.
func (c *Client) LegacyGateways(ctx context.Context, product string) ([]legacy.Gateway, error) {
	return list[legacy.Gateway](ctx, c, ofProduct(product, "/legacy-gateways"))
}

// AddLegacyGateway adds one.
func (c *Client) AddLegacyGateway(ctx context.Context, product, name string) (httpapi.GatewayReply, error) {
	return post[httpapi.GatewayReply](ctx, c, ofProduct(product, "/legacy-gateways"), httpapi.GatewayRequest{Name: name})
}

// EndLegacyGateway ends one.
func (c *Client) EndLegacyGateway(ctx context.Context, product, name string) error {
	_, err := post[httpapi.GatewayRequest](ctx, c, ofProduct(product, "/legacy-gateways/end"), httpapi.GatewayRequest{Name: name})
	return err
}
