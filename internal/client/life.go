package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/retire"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/telemetry"
)

func ofDevice(id, what string) string { return "/devices/" + url.PathEscape(id) + "/" + what }

// Move records what happened to a device that it does not say itself.
func (c *Client) Move(ctx context.Context, id string, r httpapi.MoveRequest) (httpapi.Standing, error) {
	return post[httpapi.Standing](ctx, c, ofDevice(id, "moves"), r)
}

// Judge says whether a device is what it says it is, and whose.
func (c *Client) Judge(ctx context.Context, id string, r httpapi.LegitimacyRequest) (httpapi.Standing, error) {
	return send[httpapi.Standing](ctx, c, http.MethodPut, ofDevice(id, "legitimacy"), r)
}

// Replace records that another device took over from this one.
func (c *Client) Replace(ctx context.Context, id string, r httpapi.ReplacementRequest) (httpapi.Standing, error) {
	return post[httpapi.Standing](ctx, c, ofDevice(id, "replacement"), r)
}

// Forget destroys what is private of a device whose life has ended.
func (c *Client) Forget(ctx context.Context, id string) (httpapi.Standing, error) {
	return post[httpapi.Standing](ctx, c, ofDevice(id, "forget"), nil)
}

// RevokeDevice takes every identity of a device.
func (c *Client) RevokeDevice(ctx context.Context, id string, code int) error {
	_, err := post[httpapi.RevokeRequest](ctx, c, ofDevice(id, "revoke"), httpapi.RevokeRequest{Code: code})
	return err
}

// Settings compares a device's configuration: as it is wanted, and as it is.
func (c *Client) Settings(ctx context.Context, id string) ([]device.Setting, error) {
	return list[device.Setting](ctx, c, ofDevice(id, "settings"))
}

// DeviceCommands lists a device's commands, newest first.
func (c *Client) DeviceCommands(ctx context.Context, id string) ([]httpapi.Outcome, error) {
	return list[httpapi.Outcome](ctx, c, ofDevice(id, "commands"))
}

// CommandDevices lists the devices of a command and what became of it on each.
func (c *Client) CommandDevices(ctx context.Context, id string) ([]httpapi.Outcome, error) {
	return list[httpapi.Outcome](ctx, c, "/commands/"+url.PathEscape(id)+"/devices")
}

// Certificates lists those that were issued to a device.
func (c *Client) Certificates(ctx context.Context, device string) ([]httpapi.Certificate, error) {
	return list[httpapi.Certificate](ctx, c, ofDevice(device, "certificates"))
}

// RevokeCertificate revokes one, by its issuer's key ID and its serial number in hex.
func (c *Client) RevokeCertificate(ctx context.Context, issuer, serial string, code int) error {
	_, err := post[httpapi.RevokeRequest](ctx, c, "/certificates/"+url.PathEscape(issuer)+"/"+url.PathEscape(serial)+"/revoke", httpapi.RevokeRequest{Code: code})
	return err
}

// Issuers lists the certification authorities.
func (c *Client) Issuers(ctx context.Context) ([]httpapi.Issuer, error) {
	return list[httpapi.Issuer](ctx, c, "/issuers")
}

// IssuerLists tells how fresh the lists of revocations of a CA are.
func (c *Client) IssuerLists(ctx context.Context, id string) (pki.ListsStanding, error) {
	return get[pki.ListsStanding](ctx, c, "/issuers/"+url.PathEscape(id)+"/lists")
}

// RevokeIssuer revokes everything that an order's CA has signed.
func (c *Client) RevokeIssuer(ctx context.Context, id string, code int) error {
	_, err := post[httpapi.RevokeRequest](ctx, c, "/issuers/"+url.PathEscape(id)+"/revoke", httpapi.RevokeRequest{Code: code})
	return err
}

// Revocations lists what was revoked, oldest first.
func (c *Client) Revocations(ctx context.Context) ([]pki.Revocation, error) {
	return list[pki.Revocation](ctx, c, "/revocations")
}

// Product shows one.
func (c *Client) Product(ctx context.Context, id string) (product.Product, error) {
	return get[product.Product](ctx, c, "/products/"+url.PathEscape(id))
}

// Bundle gives a product's trust bundle; version 0 is the current one.
func (c *Client) Bundle(ctx context.Context, productID string, version string) (httpapi.BundleView, error) {
	return get[httpapi.BundleView](ctx, c, "/products/"+url.PathEscape(productID)+"/bundle"+query("version", version))
}

// Order shows one.
func (c *Client) Order(ctx context.Context, id string) (factory.Order, error) {
	v, err := get[httpapi.OrderView](ctx, c, "/orders/"+url.PathEscape(id))
	return v.Order, err
}

// OpenRollouts lists those that have not ended, newest first; an empty product means all.
func (c *Client) OpenRollouts(ctx context.Context, productID string) ([]rollout.Rollout, error) {
	return list[rollout.Rollout](ctx, c, "/rollouts"+query("product", productID, "open", "true"))
}

// Finding shows one.
func (c *Client) Finding(ctx context.Context, id string) (monitor.Finding, error) {
	return get[monitor.Finding](ctx, c, "/findings/"+url.PathEscape(id))
}

// RemediesOf lists the cases of a product's devices; an empty product means all.
func (c *Client) RemediesOf(ctx context.Context, productID string) ([]remedy.Case, error) {
	return list[remedy.Case](ctx, c, "/remedies"+query("product", productID))
}

// Remedy shows a device's open case.
func (c *Client) Remedy(ctx context.Context, device string) (remedy.Case, error) {
	return get[remedy.Case](ctx, c, "/remedies/"+url.PathEscape(device))
}

// DecideRemedy does one of approve and dismiss.
func (c *Client) DecideRemedy(ctx context.Context, device, verb, reason string) error {
	_, err := post[httpapi.Reason](ctx, c, "/remedies/"+url.PathEscape(device)+"/"+url.PathEscape(verb), httpapi.Reason{Reason: reason})
	return err
}

// Reprovision has the contained device of a case made anew.
func (c *Client) Reprovision(ctx context.Context, device string, r httpapi.ReprovideRequest) error {
	_, err := post[httpapi.Reason](ctx, c, "/remedies/"+url.PathEscape(device)+"/reprovision", r)
	return err
}

// Retirements lists them by device; an empty product means all.
func (c *Client) Retirements(ctx context.Context, productID string) ([]retire.Retirement, error) {
	return list[retire.Retirement](ctx, c, "/retirements"+query("product", productID))
}

// WriteOff gives up waiting for a device to say that it wiped itself.
func (c *Client) WriteOff(ctx context.Context, device, reason string) (retire.Retirement, error) {
	return post[retire.Retirement](ctx, c, "/retirements/"+url.PathEscape(device)+"/write-off", httpapi.Reason{Reason: reason})
}

// Warrants lists those that were submitted, by ID; an empty product means all.
func (c *Client) Warrants(ctx context.Context, productID string) ([]httpapi.WarrantReply, error) {
	return list[httpapi.WarrantReply](ctx, c, "/warrants"+query("product", productID))
}

// Grants lists who may read which streams.
func (c *Client) Grants(ctx context.Context, q telemetry.GrantQuery) ([]telemetry.Grant, error) {
	return list[telemetry.Grant](ctx, c, "/streams/grants"+query("product", q.Product, "reader", q.Reader))
}

// RevokeGrant takes a reader's right to a stream back.
func (c *Client) RevokeGrant(ctx context.Context, id string, r httpapi.RevokeGrantRequest) error {
	_, err := post[httpapi.Reason](ctx, c, "/streams/grants/"+url.PathEscape(id)+"/revoke", r)
	return err
}

// RequestIssuer has the key of a new CA made, and gives the request for the ceremony.
func (c *Client) RequestIssuer(ctx context.Context, r httpapi.AuthorityRequest) (httpapi.Requested, error) {
	return post[httpapi.Requested](ctx, c, "/issuers/requests", r)
}

// InstallIssuer takes in a ceremony's answer: the new CA takes over.
func (c *Client) InstallIssuer(ctx context.Context, grant []byte) (httpapi.Issuer, error) {
	return post[httpapi.Issuer](ctx, c, "/issuers/install", httpapi.Answer{Content: grant})
}

// TrustRoot believes another root.
func (c *Client) TrustRoot(ctx context.Context, der []byte) (httpapi.Issuer, error) {
	return post[httpapi.Issuer](ctx, c, "/issuers/trust", httpapi.Answer{Content: der})
}

// RequestIssuerList gives what a root has to sign: the list of the CAs below it that were revoked.
func (c *Client) RequestIssuerList(ctx context.Context, id, purpose string) (httpapi.Requested, error) {
	return post[httpapi.Requested](ctx, c, "/issuers/"+url.PathEscape(id)+"/list-request", httpapi.ListAsked{Purpose: purpose})
}

// PutIssuerList publishes the list that a root has signed.
func (c *Client) PutIssuerList(ctx context.Context, id string, der []byte) (httpapi.PublishedList, error) {
	return post[httpapi.PublishedList](ctx, c, "/issuers/"+url.PathEscape(id)+"/list", httpapi.Answer{Content: der})
}

// RevokeMany revokes a list, or counts what it would.
func (c *Client) RevokeMany(ctx context.Context, r httpapi.BulkRevocation) (pki.BulkDone, error) {
	return post[pki.BulkDone](ctx, c, "/revocations", r)
}
