package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/once"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/retire"
)

// DisposeRequest tells what was done with the piece.
type DisposeRequest struct {
	How string `json:"how" minLength:"1" maxLength:"512"`
}

// ReprovideRequest asks for a device to be made anew.
type ReprovideRequest struct {
	Release string `json:"release,omitempty" pattern:"^([0-9a-f]{64})?$" doc:"digest of the release to put on it; empty: the one it should run"`
	Reason  string `json:"reason" minLength:"1" maxLength:"512"`
}

func (a *api) registerCare(h huma.API) {
	huma.Register(h, op("list-findings", http.MethodGet, "/findings", "List findings, newest first"),
		func(ctx context.Context, in *struct {
			OfGroup
			Subject string `query:"subject" maxLength:"256" doc:"only about this, a device mostly"`
			Kind    string `query:"kind" maxLength:"64" example:"checkin.overdue"`
			Open    bool   `query:"open" doc:"only those that are not closed"`
			Paging
		},
		) (*body[Page[monitor.Finding]], error) {
			return paged(a, ctx, in.Paging, func(f monitor.Finding) string { return f.ID }, func(after string, limit int) ([]monitor.Finding, error) {
				return a.Monitor.List(ctx, callerOf(ctx), monitor.Query{
					Product: in.Product, Group: in.Group, Subject: in.Subject, Kind: monitor.Kind(in.Kind), OpenOnly: in.Open, Newest: true, After: after, Limit: limit,
				})
			})
		})
	huma.Register(h, op("get-finding", http.MethodGet, "/findings/{id}", "Show a finding"),
		func(ctx context.Context, in *ByID) (*tagged[monitor.Finding], error) {
			return show(a, ctx, once.Finding, in.ID, func() (monitor.Finding, error) { return a.Monitor.Get(ctx, callerOf(ctx), in.ID) })
		})
	huma.Register(h, op("close-finding", http.MethodPost, "/findings/{id}/close", "Close a finding, with the reason"),
		func(ctx context.Context, in *becauseOf) (*tagged[Reason], error) {
			return change(a, ctx, in.Matching, once.Finding, in.ID, func(ctx context.Context) (Reason, error) {
				return in.Body, a.Monitor.Close(ctx, callerOf(ctx), in.ID, in.Body.Reason, nil)
			})
		})
	a.registerRemedies(h)
	a.registerRetirements(h)
}

// becauseOf is the input of a verb that needs a thing and a reason.
type becauseOf struct {
	ByID
	Matching
	Body Reason
}

func (a *api) registerRemedies(h huma.API) {
	huma.Register(h, op("list-remedies", http.MethodGet, "/remedies", "List the open cases of devices in trouble, by device"),
		func(ctx context.Context, in *struct {
			OfGroup
			Paging
		},
		) (*body[Page[remedy.Case]], error) {
			return paged(a, ctx, in.Paging, func(c remedy.Case) string { return c.Device }, func(after string, limit int) ([]remedy.Case, error) {
				return a.Remedy.Page(ctx, callerOf(ctx), in.place(), after, limit)
			})
		})
	huma.Register(h, op("get-remedy", http.MethodGet, "/remedies/{id}", "Show a device's open case"),
		func(ctx context.Context, in *ByID) (*tagged[remedy.Case], error) {
			return show(a, ctx, once.Case, in.ID, func() (remedy.Case, error) { return a.Remedy.Get(ctx, callerOf(ctx), in.ID) })
		})
	a.onCase(h, "approve", "Quarantine the device of a held case after all", a.Remedy.Approve)
	a.onCase(h, "dismiss", "End an unfounded case: a contained device is released", a.Remedy.Dismiss)
	huma.Register(h, op("reprovision-remedy", http.MethodPost, "/remedies/{id}/reprovision", "Have the contained device of a case made anew"),
		func(ctx context.Context, in *struct {
			ByID
			Matching
			Body ReprovideRequest
		},
		) (*tagged[Reason], error) {
			return change(a, ctx, in.Matching, once.Case, in.ID, func(ctx context.Context) (Reason, error) {
				var release []byte
				if in.Body.Release != "" {
					d, err := parseDigest(in.Body.Release)
					if err != nil {
						return Reason{}, err
					}
					release = d
				}
				return Reason{in.Body.Reason}, a.Remedy.Reprovide(ctx, callerOf(ctx), in.ID, release, in.Body.Reason)
			})
		})
}

// onCase registers a verb that needs a case and a reason.
func (a *api) onCase(h huma.API, name, summary string, verb func(ctx context.Context, caller access.Caller, id, reason string) error) {
	huma.Register(h, op(name+"-remedy", http.MethodPost, "/remedies/{id}/"+name, summary),
		func(ctx context.Context, in *becauseOf) (*tagged[Reason], error) {
			return change(a, ctx, in.Matching, once.Case, in.ID, func(ctx context.Context) (Reason, error) {
				return in.Body, verb(ctx, callerOf(ctx), in.ID, in.Body.Reason)
			})
		})
}

func (a *api) registerRetirements(h huma.API) {
	huma.Register(h, op("list-retirements", http.MethodGet, "/retirements", "List retirements, by device"),
		func(ctx context.Context, in *struct {
			OfGroup
			Paging
		},
		) (*body[Page[retire.Retirement]], error) {
			return paged(a, ctx, in.Paging, func(r retire.Retirement) string { return r.Device }, func(after string, limit int) ([]retire.Retirement, error) {
				return a.Retire.Page(ctx, callerOf(ctx), in.place(), after, limit)
			})
		})
	huma.Register(h, op("retire-devices", http.MethodPost, "/retirements", "Retire devices, by an offline warrant for the wipe"),
		func(ctx context.Context, in *body[retire.Order]) (*body[[]retire.Retirement], error) {
			rs, err := a.Retire.Retire(ctx, callerOf(ctx), in.Body)
			return reply(a, ctx, append([]retire.Retirement{}, rs...), err)
		})
	huma.Register(h, op("get-retirement", http.MethodGet, "/retirements/{id}", "Show a device's retirement"),
		func(ctx context.Context, in *ByID) (*tagged[retire.Retirement], error) {
			return show(a, ctx, once.Retirement, in.ID, func() (retire.Retirement, error) { return a.Retire.Get(ctx, callerOf(ctx), in.ID) })
		})
	huma.Register(h, op("write-off-device", http.MethodPost, "/retirements/{id}/write-off", "Give up waiting for a device to say that it wiped itself"),
		func(ctx context.Context, in *becauseOf) (*tagged[retire.Retirement], error) {
			return change(a, ctx, in.Matching, once.Retirement, in.ID, func(ctx context.Context) (retire.Retirement, error) {
				return a.Retire.WriteOff(ctx, callerOf(ctx), in.ID, in.Body.Reason)
			})
		})
	huma.Register(h, op("dispose-device", http.MethodPost, "/retirements/{id}/dispose", "Record what was done with a wiped device"),
		func(ctx context.Context, in *struct {
			ByID
			Matching
			Body DisposeRequest
		},
		) (*tagged[retire.Retirement], error) {
			return change(a, ctx, in.Matching, once.Retirement, in.ID, func(ctx context.Context) (retire.Retirement, error) {
				return a.Retire.Dispose(ctx, callerOf(ctx), in.ID, in.Body.How)
			})
		})
	huma.Register(h, op("get-proof-of-disposal", http.MethodGet, "/retirements/{id}/proof", "Proof of disposal, checkable without us"),
		func(ctx context.Context, in *ByID) (*body[retire.Proof], error) {
			p, err := a.Retire.Proof(ctx, callerOf(ctx), in.ID)
			return reply(a, ctx, p, err)
		})
}
