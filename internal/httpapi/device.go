package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/wire"
)

// CommandRequest asks for an act over devices of one product.
type CommandRequest struct {
	Product string   `json:"product" minLength:"1"`
	Act     wire.Act `json:"act" minLength:"1" maxLength:"32"`
	Devices []string `json:"devices" minItems:"1" maxItems:"100000"`
	Release string   `json:"release,omitempty" doc:"digest, for acts that bring code"`
	TTL     int64    `json:"ttl_s,omitempty" minimum:"0" doc:"guarded acts: seconds until the device ends it by itself"`
	Reason  string   `json:"reason" minLength:"1" maxLength:"512"`
}

// CommandReply names the command.
type CommandReply struct {
	ID string `json:"id"`
}

// CommandView is a command's counts by standing.
type CommandView struct {
	ID     string                  `json:"id"`
	Counts map[device.Standing]int `json:"counts"`
	Wire   wire.Command            `json:"command"`
}

// WarrantRequest carries an offline warrant and the devices it names.
type WarrantRequest struct {
	Envelope []byte   `json:"envelope"`
	Devices  []string `json:"devices" minItems:"1" maxItems:"100000"`
}

// WarrantReply names a logged warrant by the UID of its fact.
type WarrantReply struct {
	UID     []byte       `json:"uid"`
	Warrant wire.Warrant `json:"warrant"`
}

func (a *api) registerDevices(h huma.API) {
	huma.Register(h, op("create-command", http.MethodPost, "/commands", "Command devices: routine and guarded acts"),
		func(ctx context.Context, in *body[CommandRequest]) (*body[CommandReply], error) {
			id, err := a.command(ctx, callerOf(ctx), in.Body)
			return reply(a, ctx, CommandReply{ID: id}, err)
		})
	huma.Register(h, op("get-command", http.MethodGet, "/commands/{id}", "Show a command and what became of it"),
		func(ctx context.Context, in *ByID) (*body[CommandView], error) {
			c, err := a.Device.CommandOf(ctx, callerOf(ctx), in.ID)
			if err != nil {
				return nil, a.problem(ctx, err)
			}
			counts, err := a.Device.CommandStatus(ctx, callerOf(ctx), in.ID)
			return reply(a, ctx, CommandView{ID: c.ID, Counts: counts, Wire: c.Wire}, err)
		})
	huma.Register(h, op("cancel-command", http.MethodPost, "/commands/{id}/cancel", "Withdraw a command from whom it has not reached"),
		func(ctx context.Context, in *struct {
			ByID
			Body Reason
		},
		) (*body[CommandReply], error) {
			return reply(a, ctx, CommandReply{ID: in.ID}, a.Device.CancelCommand(ctx, callerOf(ctx), in.ID, in.Body.Reason))
		})
	huma.Register(h, op("submit-warrant", http.MethodPost, "/warrants", "Log an offline warrant for a fatal act"),
		func(ctx context.Context, in *body[WarrantRequest]) (*body[WarrantReply], error) {
			w, err := a.Device.SubmitWarrant(ctx, callerOf(ctx), in.Body.Envelope, in.Body.Devices)
			return reply(a, ctx, WarrantReply{UID: w.UID[:], Warrant: w.Wire}, err)
		})
	huma.Register(h, op("publish-bundle", http.MethodPost, "/bundles", "Publish the next trust bundle of a product"),
		func(ctx context.Context, in *body[Envelope]) (*body[wire.Bundle], error) {
			b, err := a.Device.PublishBundle(ctx, callerOf(ctx), in.Body.Envelope)
			return reply(a, ctx, b.Wire, err)
		})
}

func (a *api) command(ctx context.Context, caller access.Caller, in CommandRequest) (string, error) {
	i := device.Instruction{
		Product: in.Product, Act: in.Act, Devices: in.Devices, TTL: time.Duration(in.TTL) * time.Second, Reason: in.Reason,
	}
	if in.Release != "" {
		d, err := parseDigest(in.Release)
		if err != nil {
			return "", err
		}
		i.Release = d
	}
	return a.Device.Command(ctx, caller, i)
}
