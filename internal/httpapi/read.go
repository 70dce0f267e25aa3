package httpapi

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/once"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
)

// DeviceDetail is one device and its history.
type DeviceDetail struct {
	Device   fleet.Detail `json:"device"`
	Timeline []fleet.Line `json:"timeline"`
}

// FactPage is a page of a search in a log, newest first.
type FactPage struct {
	Items  []fleet.Line `json:"items" nullable:"false"`
	Before *uint64      `json:"before,omitempty" doc:"give it as 'before' for the next, older page; absent on the last"`
}

// Entry is one fact of a log with its proof.
type Entry struct {
	Log   string     `json:"log"`
	Fact  wire.Fact  `json:"fact"`
	Entry []byte     `json:"entry" doc:"the bytes whose hash is the leaf"`
	Proof wire.Proof `json:"proof"`

	Private json.RawMessage `json:"private,omitempty" doc:"an object: what was said in private, beside the log; absent when there is nothing, or it was forgotten"`
}

// TokenReply carries a new secret; it is shown this once.
type TokenReply struct {
	Secret string `json:"secret"`
}

// TokenSpec describes the holder of a new token.
type TokenSpec struct {
	Caller  string        `json:"caller" minLength:"1" maxLength:"128" doc:"the name it acts under, e.g. person:alice or token:ci"`
	Kind    access.Kind   `json:"kind" enum:"person,machine"`
	Roles   []access.Role `json:"roles" minItems:"1" maxItems:"16"`
	Scope   []string      `json:"scope,omitempty" maxItems:"256" doc:"limits it to these products, or groups of them (pump/eu/berlin); empty means everywhere"`
	Owner   string        `json:"owner,omitempty" maxLength:"64" doc:"whose member it is: it sees and commands what that owner has, and nothing else; roles viewer and operator"`
	Use     signin.Use    `json:"use" enum:"token,once" doc:"once: a sign-in link's code"`
	Seconds int64         `json:"seconds" minimum:"1" maximum:"31536000"`
}

// RevokeGrantRequest names the product of a grant, and why it ends.
type RevokeGrantRequest struct {
	Product string `json:"product" minLength:"1" maxLength:"64"`
	Reason  string `json:"reason" minLength:"1" maxLength:"512"`
}

func (a *api) registerRead(h huma.API) {
	huma.Register(h, op("fleet-summary", http.MethodGet, "/fleet", "Count the fleet by state, version and verdict"),
		func(ctx context.Context, _ *struct{}) (*body[fleet.Summary], error) {
			s, err := a.Fleet.Summary(ctx, callerOf(ctx))
			return reply(a, ctx, s, err)
		})
	huma.Register(h, op("list-devices", http.MethodGet, "/devices", "List devices in order of their ID"),
		func(ctx context.Context, in *struct {
			OfGroup
			State     string `query:"state" maxLength:"32" example:"active"`
			Verdict   string `query:"verdict" enum:",affirming,warning,contraindicated,unknown" doc:"what its evidence says; unknown: there is none, or it is stale" example:"contraindicated"`
			Version   string `query:"version" maxLength:"128" doc:"only those that run it" example:"1.1.0"`
			Assurance string `query:"assurance" enum:",enforces,proves,says" doc:"what their word is worth" example:"says"`
			Release   string `query:"release" pattern:"^([0-9a-f]{64})?$" doc:"only those that run it, by its digest"`
			Bundle    string `query:"bundle" pattern:"^[0-9]{0,18}$" doc:"only those that believe this version of their product's trust bundle"`
			Prefix    string `query:"prefix" pattern:"^[0-9a-f]{0,64}$" doc:"how the ID begins" example:"0123"`
			Findings  bool   `query:"findings" doc:"only those with open findings"`
			Paging
		},
		) (*body[Page[fleet.Device]], error) {
			page, next, err := a.Fleet.Devices(ctx, callerOf(ctx), fleet.Query{
				Product: in.Product, Group: in.Group, After: in.After, Limit: in.Limit,
				Filter: device.Filter{
					State: in.State, Verdict: in.Verdict, Version: in.Version, Assurance: in.Assurance, Release: in.Release, Bundle: in.Bundle, Prefix: in.Prefix, Findings: in.Findings,
				},
			})
			if page == nil {
				page = []fleet.Device{}
			}
			return reply(a, ctx, Page[fleet.Device]{Items: page, Next: next}, err)
		})
	huma.Register(h, op("get-device", http.MethodGet, "/devices/{id}", "Show one device and its history, factory to now"),
		func(ctx context.Context, in *ByID) (*tagged[DeviceDetail], error) {
			return show(a, ctx, once.Device, in.ID, func() (DeviceDetail, error) {
				d, lines, err := a.Fleet.Device(ctx, callerOf(ctx), in.ID)
				return DeviceDetail{Device: d, Timeline: lines}, err
			})
		})
	huma.Register(h, op("get-entry", http.MethodGet, "/log/{log}/entries/{index}", "One entry of a log with its inclusion proof"),
		func(ctx context.Context, in *struct {
			Log   string `path:"log" enum:"control,events"`
			Index uint64 `path:"index"`
		},
		) (*body[Entry], error) {
			e, err := a.entry(ctx, callerOf(ctx), ledger.Ref{Log: ledger.Log(in.Log), Index: in.Index})
			return reply(a, ctx, e, err)
		})
	huma.Register(h, op("list-facts", http.MethodGet, "/log/{log}/facts", "Search a log, newest first"),
		func(ctx context.Context, in *struct {
			Log     string `path:"log" enum:"control,events"`
			Subject string `query:"subject" maxLength:"256" doc:"whom the fact is about, exactly: a device, an order, a release, …"`
			Kind    string `query:"kind" maxLength:"64" doc:"e.g. release.published"`
			Before  uint64 `query:"before" doc:"only entries with a smaller index"`
			Limit   int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
		},
		) (*body[FactPage], error) {
			page, more, err := a.Fleet.Facts(ctx, callerOf(ctx), fleet.FactQuery{
				Log: in.Log, Subject: in.Subject, Kind: in.Kind, Before: in.Before, Limit: in.Limit,
			})
			out := FactPage{Items: page}
			if page == nil {
				out.Items = []fleet.Line{}
			}
			if more {
				out.Before = page[len(page)-1].Index
			}
			return reply(a, ctx, out, err)
		})
	huma.Register(h, op("get-fact", http.MethodGet, "/facts/{uid}", "The fact a receipt names (header Hallmark-Facts), with its inclusion proof"),
		func(ctx context.Context, in *struct {
			UID string `path:"uid" pattern:"^[0-9a-f]{32}$"`
		},
		) (*body[Entry], error) {
			e, err := a.fact(ctx, callerOf(ctx), in.UID)
			return reply(a, ctx, e, err)
		})
}

// registerAccess has the operations that say who may do what.
func (a *api) registerAccess(h huma.API) {
	huma.Register(h, mark(op("create-token", http.MethodPost, "/tokens", "Issue an access token"), givesSecret),
		func(ctx context.Context, in *body[TokenSpec]) (*body[TokenReply], error) {
			s, err := a.Credentials.Issue(ctx, callerOf(ctx), signin.Grant{
				Caller: in.Body.Caller, Kind: in.Body.Kind, Roles: in.Body.Roles, Owner: in.Body.Owner, Scope: in.Body.Scope,
				Use: in.Body.Use, Life: time.Duration(in.Body.Seconds) * time.Second,
			})
			return reply(a, ctx, TokenReply{Secret: s}, err)
		})
}

// registerStreams has the operations on sealed data.
func (a *api) registerStreams(h huma.API) {
	huma.Register(h, op("list-grants", http.MethodGet, "/streams/grants", "List who may read which streams, by ID"),
		func(ctx context.Context, in *struct {
			OfProduct
			Reader string `query:"reader" maxLength:"128" example:"person:alice"`
			Paging
		},
		) (*body[Page[telemetry.Grant]], error) {
			return paged(a, ctx, in.Paging, func(g telemetry.Grant) string { return g.ID }, func(after string, limit int) ([]telemetry.Grant, error) {
				return a.Telemetry.Grants(ctx, callerOf(ctx), telemetry.GrantQuery{Reader: in.Reader, Product: in.Product, After: after, Limit: limit})
			})
		})
	huma.Register(h, op("revoke-grant", http.MethodPost, "/streams/grants/{id}/revoke", "Take a reader's right to a stream back"),
		func(ctx context.Context, in *struct {
			ByID
			Body RevokeGrantRequest
		},
		) (*body[Reason], error) {
			return reply(a, ctx, Reason{in.Body.Reason}, a.Telemetry.Revoke(ctx, callerOf(ctx), in.Body.Product, in.ID, in.Body.Reason))
		})
	huma.Register(h, op("create-grant", http.MethodPost, "/streams/grants", "Let a reader read a stream for a purpose"),
		func(ctx context.Context, in *body[telemetry.Grant]) (*body[telemetry.Grant], error) {
			return reply(a, ctx, in.Body, a.Telemetry.Grant(ctx, callerOf(ctx), in.Body))
		})
	huma.Register(h, mark(op("read-stream", http.MethodPost, "/streams/read", "Read a device's sealed stream: ciphertext, and keys sealed to the reader"), givesSecret),
		func(ctx context.Context, in *body[telemetry.ReadRequest]) (*body[telemetry.ReadReply], error) {
			r, err := a.Telemetry.Read(ctx, callerOf(ctx), in.Body)
			return reply(a, ctx, r, err)
		})
}

func (a *api) entry(ctx context.Context, caller access.Caller, ref ledger.Ref) (Entry, error) {
	if err := a.Guard.Check(ctx, caller, access.LedgerRead, access.Resource{Type: "ledger", ID: string(ref.Log)}); err != nil {
		return Entry{}, err
	}
	if size, err := a.Ledger.Size(ctx, ref.Log); err != nil || ref.Index >= size {
		return Entry{}, errors.Join(err, ledgerFault(fmt.Errorf("%s entry %d: %w", ref.Log, ref.Index, ledger.ErrNotFound)))
	}
	l, err := a.Ledger.Prove(ctx, ref)
	if err != nil {
		return Entry{}, ledgerFault(err)
	}
	f, err := wire.DecodeFact(l.Entry)
	if err != nil {
		return Entry{}, err
	}
	private, err := a.Ledger.Private(ctx, f)
	return Entry{Log: string(ref.Log), Fact: f, Private: private, Entry: l.Entry, Proof: l.Proof}, err
}

// fact finds a fact by its UID; one that has no place yet is to be asked for again.
func (a *api) fact(ctx context.Context, caller access.Caller, uid string) (Entry, error) {
	raw, err := hex.DecodeString(uid)
	if err != nil || len(raw) != 16 {
		return Entry{}, fault.New(fault.Invalid, "fact.uid", "a fact's UID is 32 hex digits", "take it from `hallmark fact list`")
	}
	if err := a.Guard.Check(ctx, caller, access.LedgerRead, access.Resource{Type: "ledger", ID: uid}); err != nil {
		return Entry{}, err // before it is told whether there is one
	}
	ref, placed, err := a.Ledger.Locate(ctx, [16]byte(raw))
	if err != nil {
		return Entry{}, ledgerFault(err)
	}
	if !placed {
		return Entry{}, fault.New(fault.Unavailable, "fact.pending", "the fact is durable, and has no place in its log yet", "ask again in a second")
	}
	return a.entry(ctx, caller, ref)
}

func parseDigest(s string) ([]byte, error) {
	d, err := hex.DecodeString(s)
	if err != nil || len(d) != 32 {
		return nil, fault.New(fault.Invalid, "digest.malformed", "a digest is 64 hex digits", "take it whole from `hallmark release list`")
	}
	return d, nil
}
