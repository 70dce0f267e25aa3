package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/retire"
	"github.com/hallmark-iot/hallmark/rollout"
)

// query writes the members that are not empty.
func query(pairs ...string) string {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}

// Products lists products.
func (c *Client) Products(ctx context.Context) ([]product.Product, error) {
	return list[product.Product](ctx, c, "/products")
}

// Orders lists orders, newest first; an empty product means all.
func (c *Client) Orders(ctx context.Context, productID string) ([]factory.Order, error) {
	views, err := list[httpapi.OrderView](ctx, c, "/orders"+query("product", productID))
	out := make([]factory.Order, len(views))
	for i, v := range views {
		out[i] = v.Order
	}
	return out, err
}

// Releases lists a product's releases.
func (c *Client) Releases(ctx context.Context, productID string) ([]httpapi.ReleaseView, error) {
	return list[httpapi.ReleaseView](ctx, c, "/releases"+query("product", productID))
}

// Artifacts lists a product's artifacts, and which releases name them.
func (c *Client) Artifacts(ctx context.Context, productID string) ([]httpapi.StoredArtifact, error) {
	return list[httpapi.StoredArtifact](ctx, c, "/products/"+url.PathEscape(productID)+"/artifacts")
}

// PruneArtifacts deletes what nothing names of a product.
func (c *Client) PruneArtifacts(ctx context.Context, productID string, r httpapi.PruneRequest) (httpapi.Pruned, error) {
	return post[httpapi.Pruned](ctx, c, "/products/"+url.PathEscape(productID)+"/prune", r)
}

// Deltas lists the deltas to a release.
func (c *Client) Deltas(ctx context.Context, digest string) ([]httpapi.DeltaView, error) {
	return get[[]httpapi.DeltaView](ctx, c, "/releases/"+url.PathEscape(digest)+"/deltas")
}

// MakeDeltas has deltas made to a release, from another.
func (c *Client) MakeDeltas(ctx context.Context, digest, from string) ([]httpapi.DeltaView, error) {
	return post[[]httpapi.DeltaView](ctx, c, "/releases/"+url.PathEscape(digest)+"/deltas", httpapi.DeltasOf{From: from})
}

// ReleasePath finds the path of a device to a release.
func (c *Client) ReleasePath(ctx context.Context, digest, device string) (rollout.Path, error) {
	return get[rollout.Path](ctx, c, "/devices/"+url.PathEscape(device)+"/paths/"+url.PathEscape(digest))
}

// CloseRelease withdraws a release for good, and cancels what devices were told of it.
func (c *Client) CloseRelease(ctx context.Context, digest, reason string) (httpapi.ReleaseView, error) {
	return post[httpapi.ReleaseView](ctx, c, "/releases/"+url.PathEscape(digest)+"/close", httpapi.Reason{Reason: reason})
}

// Withdraw closes a release to further devices.
func (c *Client) Withdraw(ctx context.Context, digest, reason string) (httpapi.ReleaseView, error) {
	return post[httpapi.ReleaseView](ctx, c, "/releases/"+url.PathEscape(digest)+"/withdraw", httpapi.Reason{Reason: reason})
}

// DryRun says whom a rollout would reach.
func (c *Client) DryRun(ctx context.Context, s rollout.Spec) (rollout.Resolved, error) {
	return post[rollout.Resolved](ctx, c, "/rollouts/dry-run", s)
}

// Groups lists groups of devices by name: of a product, or of a group of it; empty ones mean all.
func (c *Client) Groups(ctx context.Context, productID, group string) ([]fleet.Group, error) {
	return list[fleet.Group](ctx, c, "/groups"+query("product", productID, "group", group))
}

// GroupDevices puts devices into a group of their product.
func (c *Client) GroupDevices(ctx context.Context, r httpapi.GroupRequest) error {
	_, err := post[httpapi.GroupRequest](ctx, c, "/groups", r)
	return err
}

// Rollouts lists rollouts, newest first; an empty product means all.
func (c *Client) Rollouts(ctx context.Context, productID string) ([]rollout.Rollout, error) {
	return list[rollout.Rollout](ctx, c, "/rollouts"+query("product", productID))
}

// MissingDevices lists those that a rollout which tells devices again has told, and that did not show.
func (c *Client) MissingDevices(ctx context.Context, id string) ([]rollout.DeviceView, error) {
	return list[rollout.DeviceView](ctx, c, "/rollouts/"+url.PathEscape(id)+"/devices?missing=true")
}

// RolloutProgress lists how a rollout stood over time, the oldest first.
func (c *Client) RolloutProgress(ctx context.Context, id string) ([]rollout.Point, error) {
	return list[rollout.Point](ctx, c, "/rollouts/"+url.PathEscape(id)+"/progress")
}

// ControlRollout does one of pause, resume, shut, halt and abort.
func (c *Client) ControlRollout(ctx context.Context, id, verb, reason string) (rollout.Rollout, error) {
	return post[rollout.Rollout](ctx, c, "/rollouts/"+url.PathEscape(id)+"/"+url.PathEscape(verb), httpapi.Reason{Reason: reason})
}

// SetRolloutBandwidth changes how fast the bytes of a rollout leave.
func (c *Client) SetRolloutBandwidth(ctx context.Context, id string, b rollout.Bandwidth, reason string) (rollout.Rollout, error) {
	return send[rollout.Rollout](ctx, c, http.MethodPut, "/rollouts/"+url.PathEscape(id)+"/bandwidth", httpapi.NewBandwidth{Bandwidth: b, Reason: reason})
}

// CancelCommand withdraws a command from whom it has not reached.
func (c *Client) CancelCommand(ctx context.Context, id, reason string) error {
	_, err := post[httpapi.CommandReply](ctx, c, "/commands/"+url.PathEscape(id)+"/cancel", httpapi.Reason{Reason: reason})
	return err
}

// Findings lists findings, open ones first.
func (c *Client) Findings(ctx context.Context, q monitor.Query) ([]monitor.Finding, error) {
	open := ""
	if q.OpenOnly {
		open = "true"
	}
	return list[monitor.Finding](ctx, c, "/findings"+query("product", q.Product, "subject", q.Subject, "kind", string(q.Kind), "open", open))
}

// CloseFinding closes one, with the reason.
func (c *Client) CloseFinding(ctx context.Context, id, reason string) error {
	_, err := post[httpapi.Reason](ctx, c, "/findings/"+url.PathEscape(id)+"/close", httpapi.Reason{Reason: reason})
	return err
}

// Remedies lists the cases of devices in trouble.
func (c *Client) Remedies(ctx context.Context) ([]remedy.Case, error) {
	return list[remedy.Case](ctx, c, "/remedies")
}

// Retirement shows a device's retirement.
func (c *Client) Retirement(ctx context.Context, id string) (retire.Retirement, error) {
	return get[retire.Retirement](ctx, c, "/retirements/"+url.PathEscape(id))
}

// Fact gives the fact that a receipt names, with its proof.
func (c *Client) Fact(ctx context.Context, uid string) (httpapi.Entry, error) {
	return get[httpapi.Entry](ctx, c, fmt.Sprintf("/facts/%s", url.PathEscape(uid)))
}
