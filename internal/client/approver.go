package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/release"
)

// Approvers lists whose the keys are that approve a product's releases.
func (c *Client) Approvers(ctx context.Context, productID string) ([]release.Approver, error) {
	return list[release.Approver](ctx, c, "/products/"+url.PathEscape(productID)+"/approvers")
}

// BindApprover says whose a key is.
func (c *Client) BindApprover(ctx context.Context, productID, key, member string) (release.Approver, error) {
	return send[release.Approver](ctx, c, http.MethodPut, "/products/"+url.PathEscape(productID)+"/approvers/"+url.PathEscape(key), httpapi.ApproverRequest{Member: member})
}

// UnbindApprover says that it is nobody's any more.
func (c *Client) UnbindApprover(ctx context.Context, productID, key string) error {
	_, err := send[struct{}](ctx, c, http.MethodDelete, "/products/"+url.PathEscape(productID)+"/approvers/"+url.PathEscape(key), nil)
	return err
}
