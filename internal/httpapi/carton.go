package httpapi

import (
	"context"
	"encoding/hex"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/wire/carton"
)

// CartonView is a carton but for the bytes of its blobs, which follow the head in their order.
type CartonView struct {
	Head    []byte         `json:"head" doc:"what the file begins with"`
	Devices []string       `json:"devices"`
	Blobs   []ArtifactView `json:"blobs" doc:"what follows: get-artifact"`
	Expires uint64         `json:"expires" doc:"Unix seconds: from then on no device takes it"`
}

// HistoryOf is what a device wrote to be carried.
type HistoryOf struct {
	History []byte `json:"history" maxLength:"5592408" doc:"base64"`
}

// registerCarton registers what goes to devices that no line reaches, and what comes back.
func (a *api) registerCarton(h huma.API) {
	huma.Register(h, op("pack-carton", http.MethodPost, "/releases/{digest}/carton", "Tell devices that no line reaches to install a release: what is to be carried to them comes back"),
		func(ctx context.Context, in *struct {
			ByDigest
			Body device.CartonOf
		},
		) (*body[CartonView], error) {
			d, err := in.digest()
			if err != nil {
				return nil, a.problem(ctx, err)
			}
			c, encoded, err := a.Device.Carton(ctx, callerOf(ctx), d, in.Body)
			return reply(a, ctx, viewCarton(c, encoded), err)
		})
	huma.Register(h, op("take-history", http.MethodPost, "/devices/histories", "Take in what a device says that installed from a carton; of the same again, or an older one, only the log is taken"),
		func(ctx context.Context, in *body[HistoryOf]) (*body[device.Taken], error) {
			t, err := a.Device.TakeHistory(ctx, callerOf(ctx), in.Body.History)
			return reply(a, ctx, t, err)
		})
}

func viewCarton(c carton.Head, encoded []byte) CartonView {
	v := CartonView{Head: encoded, Devices: make([]string, len(c.Devices)), Blobs: make([]ArtifactView, len(c.Blobs)), Expires: c.Expires()}
	for i, d := range c.Devices {
		v.Devices[i] = d.ID
	}
	for i, b := range c.Blobs {
		v.Blobs[i] = ArtifactView{Digest: hex.EncodeToString(b.Digest), Size: b.Size}
	}
	return v
}
