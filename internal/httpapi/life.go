package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/once"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
)

// MoveRequest is what happened to a device that it does not say itself.
type MoveRequest struct {
	Event  device.Event `json:"event" enum:"clear,lose,find,maintain,resume" doc:"clear: a suspicion of two devices with one identity was unfounded; lose, find: nobody knows where it is, it is back; maintain, resume: out of service for repair, repaired"`
	Reason string       `json:"reason" minLength:"1" maxLength:"512"`
}

// LegitimacyRequest is a judgement.
type LegitimacyRequest struct {
	Legitimacy device.Legitimacy `json:"legitimacy" enum:"genuine,refurbished,resold,unknown"`
	Reason     string            `json:"reason" minLength:"1" maxLength:"512"`
}

// ReplacementRequest names the device that takes over.
type ReplacementRequest struct {
	By     string `json:"by" minLength:"1" maxLength:"64" doc:"device ID"`
	Reason string `json:"reason" minLength:"1" maxLength:"512"`
}

// Standing is where a device is in its life.
type Standing struct {
	ID         string            `json:"id"`
	Product    string            `json:"product"`
	Group      string            `json:"group,omitempty" doc:"of the product"`
	State      device.State      `json:"state"`
	Legitimacy device.Legitimacy `json:"legitimacy"`
	Since      time.Time         `json:"since" doc:"of the state"`
	Replaces   string            `json:"replaces,omitempty" doc:"the device this one took over from"`
	ReplacedBy string            `json:"replaced_by,omitempty"`
	Forgotten  time.Time         `json:"forgotten,omitzero" doc:"since when what was private of it is destroyed"`
}

func standing(d device.Device) Standing {
	return Standing{
		ID: d.ID, Product: d.Product, Group: d.Group, State: d.State, Legitimacy: d.Legitimacy, Since: d.Since, Replaces: d.Replaces, ReplacedBy: d.ReplacedBy,
		Forgotten: d.Twin.Forgotten,
	}
}

// registerLife has what people say of a device, where it says nothing itself.
func (a *api) registerLife(h huma.API) {
	after := func(ctx context.Context, id string, err error) (Standing, error) {
		if err != nil {
			return Standing{}, err
		}
		d, err := a.Device.Get(ctx, callerOf(ctx), id)
		return standing(d), err
	}
	huma.Register(h, op("move-device", http.MethodPost, "/devices/{id}/moves", "Record what happened to a device"),
		func(ctx context.Context, in *struct {
			ByID
			Matching
			Body MoveRequest
		},
		) (*tagged[Standing], error) {
			return change(a, ctx, in.Matching, once.Device, in.ID, func(ctx context.Context) (Standing, error) {
				d, err := a.Device.Move(ctx, callerOf(ctx), in.ID, in.Body.Event, nil, in.Body.Reason)
				return standing(d), err
			})
		})
	huma.Register(h, op("judge-device", http.MethodPut, "/devices/{id}/legitimacy", "Say whether a device is what it says it is, and whose"),
		func(ctx context.Context, in *struct {
			ByID
			Matching
			Body LegitimacyRequest
		},
		) (*tagged[Standing], error) {
			return change(a, ctx, in.Matching, once.Device, in.ID, func(ctx context.Context) (Standing, error) {
				return after(ctx, in.ID, a.Device.Judge(ctx, callerOf(ctx), in.ID, in.Body.Legitimacy, nil, in.Body.Reason))
			})
		})
	huma.Register(h, op("forget-device", http.MethodPost, "/devices/{id}/forget", "Destroy what is private of a device whose life has ended"),
		func(ctx context.Context, in *struct {
			ByID
			Matching
		},
		) (*tagged[Standing], error) {
			return change(a, ctx, in.Matching, once.Device, in.ID, func(ctx context.Context) (Standing, error) {
				d, err := a.Device.Forget(ctx, callerOf(ctx), in.ID)
				return standing(d), err
			})
		})
	huma.Register(h, op("replace-device", http.MethodPost, "/devices/{id}/replacement", "Record that another device took over from this one"),
		func(ctx context.Context, in *struct {
			ByID
			Matching
			Body ReplacementRequest
		},
		) (*tagged[Standing], error) {
			return change(a, ctx, in.Matching, once.Device, in.ID, func(ctx context.Context) (Standing, error) {
				return after(ctx, in.ID, a.Device.Replace(ctx, callerOf(ctx), in.ID, in.Body.By, nil, in.Body.Reason))
			})
		})
}

// Certificate is one that was issued to a device.
type Certificate struct {
	Issuer    string       `json:"issuer" doc:"subject key ID of the CA, hex"`
	Serial    string       `json:"serial" doc:"hex"`
	Device    string       `json:"device"`
	Role      profile.Role `json:"role"`
	NotBefore time.Time    `json:"not_before"`
	NotAfter  time.Time    `json:"not_after"`
	Ended     time.Time    `json:"ended,omitzero" doc:"when it was or will be void before its time"`
	DER       []byte       `json:"der"`
}

// RevokeRequest says why, as RFC 5280 §5.3.1 counts reasons.
type RevokeRequest struct {
	Code int `json:"reason_code" enum:"0,1,2,3,4,5,9,10" doc:"RFC 5280 §5.3.1: 1 key compromise, 2 CA compromise, 4 superseded, 5 cessation of operation, 9 privilege withdrawn"`
}

// registerCertificates has the operations on certificates.
func (a *api) registerCertificates(h huma.API) {
	a.registerAuthorities(h)
	huma.Register(h, op("list-device-certificates", http.MethodGet, "/devices/{id}/certificates", "List the certificates that were issued to a device"),
		func(ctx context.Context, in *struct {
			ByID
			Paging
		},
		) (*body[Page[Certificate]], error) {
			return paged(a, ctx, in.Paging, func(c Certificate) string { return c.Issuer + "/" + c.Serial }, func(after string, limit int) ([]Certificate, error) {
				return a.certificates(ctx, in.ID, after, limit)
			})
		})
	huma.Register(h, op("revoke-device", http.MethodPost, "/devices/{id}/revoke", "Take every identity of a device, for good"),
		func(ctx context.Context, in *struct {
			ByID
			Body RevokeRequest
		},
		) (*body[RevokeRequest], error) {
			d, err := a.Device.Get(ctx, callerOf(ctx), in.ID)
			if err != nil {
				return nil, a.problem(ctx, err)
			}
			return reply(a, ctx, in.Body, a.PKI.RevokeDevice(ctx, callerOf(ctx), in.ID, access.Join(d.Product, d.Group), in.Body.Code))
		})
	huma.Register(h, op("revoke-certificate", http.MethodPost, "/certificates/{issuer}/{serial}/revoke", "Revoke one certificate"),
		func(ctx context.Context, in *struct {
			Issuer string `path:"issuer" pattern:"^[0-9a-f]{1,128}$"`
			Serial string `path:"serial" pattern:"^[0-9a-f]{1,64}$"`
			Body   RevokeRequest
		},
		) (*body[RevokeRequest], error) {
			return reply(a, ctx, in.Body, a.PKI.Revoke(ctx, callerOf(ctx), in.Issuer+"/"+in.Serial, in.Body.Code))
		})
	huma.Register(h, op("revoke-issuer", http.MethodPost, "/issuers/{id}/revoke", "Revoke everything that an order's CA has signed"),
		func(ctx context.Context, in *struct {
			ID   string `path:"id" pattern:"^[0-9a-f]{1,128}$"`
			Body RevokeRequest
		},
		) (*body[RevokeRequest], error) {
			return reply(a, ctx, in.Body, a.PKI.RevokeOrderCA(ctx, callerOf(ctx), in.ID, in.Body.Code))
		})
	huma.Register(h, op("list-revocations", http.MethodGet, "/revocations", "List what was revoked, oldest first"),
		func(ctx context.Context, in *struct {
			After int64 `query:"after" minimum:"0" doc:"'next' of the page before"`
			Limit int   `query:"limit" minimum:"1" maximum:"200" default:"50"`
		},
		) (*body[Page[pki.Revocation]], error) {
			key := func(r pki.Revocation) string { return strconv.FormatInt(r.Seq, 10) }
			return paged(a, ctx, Paging{Limit: in.Limit}, key, func(_ string, limit int) ([]pki.Revocation, error) {
				return a.PKI.Revoked(ctx, callerOf(ctx), in.After, limit)
			})
		})
}

func (a *api) certificates(ctx context.Context, id, after string, limit int) ([]Certificate, error) {
	d, err := a.Device.Get(ctx, callerOf(ctx), id)
	if err != nil {
		return nil, err
	}
	cs, err := a.PKI.Certificates(ctx, callerOf(ctx), id, access.Join(d.Product, d.Group), after, limit)
	out := make([]Certificate, 0, len(cs))
	for _, c := range cs {
		out = append(out, Certificate{
			Issuer: c.Issuer, Serial: c.Serial, Device: c.Device, Role: c.Role, NotBefore: c.NotBefore, NotAfter: c.NotAfter, Ended: c.Ended, DER: c.DER,
		})
	}
	return out, err
}
