package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/release"
)

// ApproverRequest says whose a key is.
type ApproverRequest struct {
	Member string `json:"member" minLength:"1" maxLength:"128" doc:"a person's member ID" example:"person:alice"`
}

// ByApprover names a key of a product.
type ByApprover struct {
	ByID
	Key string `path:"key" minLength:"1" maxLength:"64" doc:"key ID, hex" example:"00112233445566778899aabbccddeeff"`
}

// registerApprovers has the operations on whose keys approve releases.
func (a *api) registerApprovers(h huma.API) {
	huma.Register(h, op("list-approvers", http.MethodGet, "/products/{id}/approvers", "List whose the keys are that approve a product's releases"),
		func(ctx context.Context, in *struct {
			ByID
			Paging
		},
		) (*body[Page[release.Approver]], error) {
			key := func(p release.Approver) string { return p.Key }
			return paged(a, ctx, in.Paging, key, func(after string, limit int) ([]release.Approver, error) {
				all, err := a.Release.Approvers(ctx, callerOf(ctx), in.ID)
				return cut(all, key, after, limit), err
			})
		})
	huma.Register(h, op("bind-approver", http.MethodPut, "/products/{id}/approvers/{key}", "Say whose a key is that approves a product's releases"),
		func(ctx context.Context, in *struct {
			ByApprover
			Body ApproverRequest
		},
		) (*body[release.Approver], error) {
			p, err := a.Release.BindApprover(ctx, callerOf(ctx), in.ID, in.Key, in.Body.Member)
			return reply(a, ctx, p, err)
		})
	huma.Register(h, op("unbind-approver", http.MethodDelete, "/products/{id}/approvers/{key}", "Say that a key is nobody's any more"),
		func(ctx context.Context, in *ByApprover) (*struct{}, error) {
			return nil, a.problem(ctx, a.Release.UnbindApprover(ctx, callerOf(ctx), in.ID, in.Key))
		})
}
