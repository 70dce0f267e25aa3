package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/onboard/owner"
)

// OwnerRequest names a new owner.
type OwnerRequest struct {
	Name string `json:"name" minLength:"1" maxLength:"128" doc:"kept in private: facts have the ID"`
}

// LabelsRequest says for which devices claim codes are made.
type LabelsRequest struct {
	Product string   `json:"product" minLength:"1" maxLength:"64"`
	Order   string   `json:"order,omitempty" maxLength:"64" doc:"for all devices of this production order that belong to nobody"`
	Devices []string `json:"devices,omitempty" maxItems:"1000" doc:"or for these"`
	After   string   `json:"after,omitempty" maxLength:"64" doc:"'next' of the answer before"`
}

// Labels are claim codes, shown this once.
type Labels struct {
	Labels []owner.Label `json:"labels" nullable:"false"`
	Next   string        `json:"next,omitempty" doc:"there are more devices: give it as 'after'"`
}

// ClaimRequest is the code that came with a device.
type ClaimRequest struct {
	Code  string `json:"code" minLength:"1" maxLength:"64"`
	Owner string `json:"owner,omitempty" maxLength:"64" doc:"for whom the maker's people claim; an owner's members claim for theirs"`
	Key   []byte `json:"key,omitempty" doc:"the owner's public key (SubjectPublicKeyInfo, P-256, DER): the device lets go only by a warrant of it, or of the product's warrant keys; without one the owner is bound on this server only"`
}

// Ownership is whom a device belonged to, and what is said of it.
type Ownership struct {
	Periods  []owner.Period  `json:"periods" nullable:"false" doc:"oldest first"`
	Transfer *owner.Transfer `json:"transfer,omitempty" doc:"the last, if there was one"`
	Marks    []owner.Mark    `json:"marks" nullable:"false" doc:"stolen, and recalls that are not mended"`
}

// TransferRequest says which devices leave their owner, and how.
type TransferRequest struct {
	Devices  []string   `json:"devices" minItems:"1" maxItems:"200"`
	Kind     owner.Kind `json:"kind" enum:"resale,refurbish,rehome" doc:"resale: sold on, with a code for the next owner; refurbish: back to the maker; rehome: to an instance of its owner's own, for good"`
	Reason   string     `json:"reason" minLength:"1" maxLength:"512"`
	Warrants [][]byte   `json:"warrants,omitempty" maxItems:"200" doc:"for the act disown: of the owner's key, one for each device that defends its owner; or, by the maker's people, one of the product's warrant keys for all devices that have an owner. rehome: for the act rehome, of the product's warrant keys, and of the owner's key on the same document where the device defends an owner"`
	Offer    []byte     `json:"offer,omitempty" maxLength:"90000" doc:"rehome: the offer of the other instance, as hallmark bundle offer writes it there"`
}

// Transfers is what was begun, with the codes for the next owners, shown this once.
type Transfers struct {
	Transfers []owner.Begun `json:"transfers" nullable:"false"`
}

// TransferPreview is what a transfer would do.
type TransferPreview struct {
	Devices []owner.Preview `json:"devices" nullable:"false"`
}

// PreviewRequest names devices.
type PreviewRequest struct {
	Devices []string `json:"devices" minItems:"1" maxItems:"200"`
}

// RecallRequest says which devices are called back, and why. All of it is public.
type RecallRequest struct {
	Product  string `json:"product" minLength:"1" maxLength:"64"`
	Hardware string `json:"hardware,omitempty" maxLength:"64" doc:"only this revision"`
	Order    string `json:"order,omitempty" maxLength:"64" doc:"only of this production order"`
	From     string `json:"from,omitempty" maxLength:"64" doc:"only from this device ID on"`
	To       string `json:"to,omitempty" maxLength:"64" doc:"only up to this device ID"`
	Reason   string `json:"reason" minLength:"1" maxLength:"1024" doc:"what is wrong, for everybody to read"`
	Remedy   string `json:"remedy" minLength:"1" maxLength:"1024" doc:"what to do, for everybody to read"`
	Due      string `json:"due" format:"date-time" doc:"until when it should be done"`
}

// registerOwners has the operations on owners, and on whom devices belong to.
func (a *api) registerOwners(h huma.API) {
	huma.Register(h, op("list-owners", http.MethodGet, "/owners", "List owners, by ID"),
		func(ctx context.Context, in *struct{ Paging }) (*body[Page[owner.Owner]], error) {
			return paged(a, ctx, in.Paging, func(o owner.Owner) string { return o.ID }, func(after string, limit int) ([]owner.Owner, error) {
				return a.Owner.List(ctx, callerOf(ctx), after, limit)
			})
		})
	huma.Register(h, op("create-owner", http.MethodPost, "/owners", "Make an owner, whom devices can belong to"),
		func(ctx context.Context, in *body[OwnerRequest]) (*body[owner.Owner], error) {
			o, err := a.Owner.Create(ctx, callerOf(ctx), in.Body.Name)
			return reply(a, ctx, o, err)
		})
	huma.Register(h, op("get-owner", http.MethodGet, "/owners/{id}", "Show an owner"),
		func(ctx context.Context, in *ByID) (*body[owner.Owner], error) {
			o, err := a.Owner.Get(ctx, callerOf(ctx), in.ID)
			return reply(a, ctx, o, err)
		})
	huma.Register(h, op("end-owner", http.MethodPost, "/owners/{id}/end", "End an owner that has no devices any more"),
		func(ctx context.Context, in *ByID) (*body[owner.Owner], error) {
			o, err := a.Owner.End(ctx, callerOf(ctx), in.ID)
			return reply(a, ctx, o, err)
		})
	huma.Register(h, mark(op("create-claim-codes", http.MethodPost, "/claim-codes", "Make the codes by which devices are claimed, for their labels"), givesSecret),
		func(ctx context.Context, in *body[LabelsRequest]) (*body[Labels], error) {
			r := in.Body
			labels, next, err := a.Owner.MakeCodes(ctx, callerOf(ctx), owner.Labels{Product: r.Product, Order: r.Order, Devices: r.Devices, After: r.After})
			if labels == nil {
				labels = []owner.Label{}
			}
			return reply(a, ctx, Labels{Labels: labels, Next: next}, err)
		})
	huma.Register(h, mark(op("claim-device", http.MethodPost, "/devices/{id}/claim", "Claim a device for an owner, with its code"), givesSecret),
		func(ctx context.Context, in *struct {
			ByID
			Body ClaimRequest
		},
		) (*body[owner.Period], error) {
			p, err := a.Owner.Claim(ctx, callerOf(ctx), owner.Claim{Device: in.ID, Code: in.Body.Code, Owner: in.Body.Owner, Key: in.Body.Key})
			return reply(a, ctx, p, err)
		})
	huma.Register(h, op("get-ownership", http.MethodGet, "/devices/{id}/ownership", "Show whom a device belonged to, and what is said of it"),
		func(ctx context.Context, in *ByID) (*body[Ownership], error) {
			o, err := a.ownership(ctx, in.ID)
			return reply(a, ctx, o, err)
		})
	a.registerTransfers(h)
	a.registerMarks(h)
}
