package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/hallmark-iot/hallmark/comply"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// ControlView is how one control stands.
type ControlView = httpapi.ControlView

func ofControl(product, framework, control, what string) string {
	return "/compliance/" + url.PathEscape(framework) + "/" + url.PathEscape(control) + what + query("product", product)
}

// Controls lists how the controls stand for a product; framework and standing may be empty.
func (c *Client) Controls(ctx context.Context, product, framework string, standing comply.Status) ([]comply.Assessment, error) {
	return list[comply.Assessment](ctx, c, "/compliance"+query("product", product, "framework", framework, "standing", string(standing)))
}

// Control shows how one stands, and why.
func (c *Client) Control(ctx context.Context, product, framework, control string) (ControlView, error) {
	return get[ControlView](ctx, c, ofControl(product, framework, control, ""))
}

// State says how a control is met, or why it does not apply.
func (c *Client) State(ctx context.Context, product, framework, control string, w comply.Words) (comply.Statement, error) {
	return send[comply.Statement](ctx, c, http.MethodPut, ofControl(product, framework, control, "/statement"), w)
}

// Compliance reports how a product stands, by every framework when it is empty.
func (c *Client) Compliance(ctx context.Context, product, framework string) (comply.Report, error) {
	return get[comply.Report](ctx, c, "/compliance/report"+query("product", product, "framework", framework))
}
