package httpapi

import (
	"context"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// CommandRequest asks for an act over devices of one product.
type CommandRequest struct {
	Product string             `json:"product" minLength:"1"`
	Act     wire.Act           `json:"act" minLength:"1" maxLength:"32"`
	Devices []string           `json:"devices" minItems:"1" maxItems:"100000"`
	Release string             `json:"release,omitempty" doc:"digest, for acts that bring code"`
	Config  []wire.ConfigEntry `json:"config,omitempty" maxItems:"64" doc:"of configure: laid over the configuration the device has"`
	TTL     int64              `json:"ttl_s,omitempty" minimum:"0" doc:"guarded acts: seconds until the device ends it by itself"`
	Reason  string             `json:"reason" minLength:"1" maxLength:"512"`
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
	Reason string                  `json:"reason,omitempty"`
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

// Outcome is one device's part in one command.
type Outcome struct {
	Command  string          `json:"command"`
	Device   string          `json:"device"`
	Act      wire.Act        `json:"act"`
	Release  string          `json:"release,omitempty" doc:"digest, for acts that bring code"`
	Standing device.Standing `json:"standing" doc:"pending, delivered, done, refused, failed, cancelled or expired"`
	Attempts int             `json:"attempts" doc:"deliveries"`
	Code     string          `json:"code,omitempty" doc:"of the device's result"`
	Text     string          `json:"text,omitempty"`
	At       time.Time       `json:"at" doc:"of the last change"`
}

func outcomes(cs []device.CommandDevice) []Outcome {
	out := make([]Outcome, 0, len(cs))
	for _, c := range cs {
		out = append(out, Outcome{
			Command: c.Command, Device: c.Device, Act: c.Act, Release: hex.EncodeToString(c.Release), Standing: c.Standing,
			Attempts: c.Attempts, Code: c.Code, Text: c.Text, At: c.At,
		})
	}
	return out
}

// BundleView is a trust bundle and the envelope it came in.
type BundleView struct {
	Bundle   wire.Bundle `json:"bundle"`
	Envelope []byte      `json:"envelope" doc:"COSE, base64"`
}

// registerCommands has the operations on commands, and on what a device is told.
func (a *api) registerCommands(h huma.API) {
	huma.Register(h, op("create-command", http.MethodPost, "/commands", "Command devices: routine and guarded acts"),
		func(ctx context.Context, in *body[CommandRequest]) (*body[CommandReply], error) {
			i, err := in.Body.instruction()
			if err != nil {
				return nil, a.problem(ctx, err)
			}
			id, err := a.Device.Command(ctx, callerOf(ctx), i)
			return reply(a, ctx, CommandReply{ID: id}, err)
		})
	huma.Register(h, op("dry-run-command", http.MethodPost, "/commands/dry-run", "Say whom a command would reach"),
		func(ctx context.Context, in *body[CommandRequest]) (*body[device.Preview], error) {
			i, err := in.Body.instruction()
			if err != nil {
				return nil, a.problem(ctx, err)
			}
			p, err := a.Device.Preview(ctx, callerOf(ctx), i)
			return reply(a, ctx, p, err)
		})
	huma.Register(h, op("get-command", http.MethodGet, "/commands/{id}", "Show a command and what became of it"),
		func(ctx context.Context, in *ByID) (*body[CommandView], error) {
			c, err := a.Device.CommandOf(ctx, callerOf(ctx), in.ID)
			if err != nil {
				return nil, a.problem(ctx, err)
			}
			counts, err := a.Device.CommandStatus(ctx, callerOf(ctx), in.ID)
			return reply(a, ctx, CommandView{ID: c.ID, Counts: counts, Wire: c.Wire, Reason: c.Reason}, err)
		})
	huma.Register(h, op("cancel-command", http.MethodPost, "/commands/{id}/cancel", "Withdraw a command from whom it has not reached"),
		func(ctx context.Context, in *struct {
			ByID
			Body Reason
		},
		) (*body[CommandReply], error) {
			return reply(a, ctx, CommandReply{ID: in.ID}, a.Device.CancelCommand(ctx, callerOf(ctx), in.ID, in.Body.Reason))
		})
	huma.Register(h, op("list-command-devices", http.MethodGet, "/commands/{id}/devices", "List the devices of a command and what became of it on each"),
		func(ctx context.Context, in *struct {
			ByID
			Paging
		},
		) (*body[Page[Outcome]], error) {
			return paged(a, ctx, in.Paging, func(o Outcome) string { return o.Device }, func(after string, limit int) ([]Outcome, error) {
				cs, err := a.Device.CommandDevices(ctx, callerOf(ctx), in.ID, after, limit)
				return outcomes(cs), err
			})
		})
	huma.Register(h, op("list-device-settings", http.MethodGet, "/devices/{id}/settings", "Compare a device's configuration: as it is wanted, and as it is"),
		func(ctx context.Context, in *struct {
			ByID
			Paging
		},
		) (*body[Page[device.Setting]], error) {
			name := func(s device.Setting) string { return s.Name }
			return paged(a, ctx, in.Paging, name, func(after string, limit int) ([]device.Setting, error) {
				all, err := a.Device.Settings(ctx, callerOf(ctx), in.ID)
				return cut(all, name, after, limit), err
			})
		})
	huma.Register(h, op("list-device-commands", http.MethodGet, "/devices/{id}/commands", "List a device's commands, newest first"),
		func(ctx context.Context, in *struct {
			ByID
			Paging
		},
		) (*body[Page[Outcome]], error) {
			return paged(a, ctx, in.Paging, func(o Outcome) string { return o.Command }, func(after string, limit int) ([]Outcome, error) {
				cs, err := a.Device.DeviceCommandPage(ctx, callerOf(ctx), in.ID, after, limit)
				return outcomes(cs), err
			})
		})
}

// registerTrust has the operations on trust bundles and offline warrants.
func (a *api) registerTrust(h huma.API) {
	huma.Register(h, op("list-warrants", http.MethodGet, "/warrants", "List the warrants that were submitted, by ID"),
		func(ctx context.Context, in *struct {
			OfProduct
			Paging
		},
		) (*body[Page[WarrantReply]], error) {
			return paged(a, ctx, in.Paging, func(w WarrantReply) string { return w.Warrant.ID }, func(after string, limit int) ([]WarrantReply, error) {
				ws, err := a.Device.Warrants(ctx, callerOf(ctx), in.Product, after, limit)
				out := make([]WarrantReply, 0, len(ws))
				for _, w := range ws {
					out = append(out, WarrantReply{UID: w.UID[:], Warrant: w.Wire})
				}
				return out, err
			})
		})
	huma.Register(h, op("get-bundle", http.MethodGet, "/products/{id}/bundle", "Show a product's trust bundle"),
		func(ctx context.Context, in *struct {
			ByID
			Version uint64 `query:"version" maximum:"9007199254740991" doc:"0: the current one"`
		},
		) (*body[BundleView], error) {
			b, err := a.Device.BundleOf(ctx, callerOf(ctx), in.ID, in.Version)
			return reply(a, ctx, BundleView{Bundle: b.Wire, Envelope: b.Envelope}, err)
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

func (in CommandRequest) instruction() (device.Instruction, error) {
	i := device.Instruction{
		Product: in.Product, Act: in.Act, Devices: in.Devices, TTL: time.Duration(in.TTL) * time.Second, Reason: in.Reason,
	}
	if in.Release != "" {
		d, err := parseDigest(in.Release)
		if err != nil {
			return i, err
		}
		i.Release = d
	}
	if len(in.Config) > 0 {
		entries := slices.Clone(in.Config)
		slices.SortFunc(entries, func(a, b wire.ConfigEntry) int { return strings.Compare(a.Name, b.Name) })
		config, err := wire.EncodeConfig(entries)
		if err != nil {
			return i, fault.New(fault.Invalid, "command.config", err.Error(),
				"names are dotted lower-case words of at most 64 bytes, each once; values have at most 1024 bytes; 64 entries at most")
		}
		i.Config = config
	}
	return i, nil
}
