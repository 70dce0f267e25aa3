package httpapi

import (
	"context"
	"encoding/hex"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/ledger/scitt"
	"github.com/hallmark-iot/hallmark/wire"
)

// CustodyMedia is the media type of a chain of custody.
const CustodyMedia = "application/hallmark-custody+cbor"

// download is an answer that is a file.
type download struct {
	Type string `header:"Content-Type"`
	Name string `header:"Content-Disposition"`
	Body []byte
}

// file answers with data as a file; name is ours, not a caller's.
func file(a *api, ctx context.Context, media, name string, data []byte, err error) (*download, error) {
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &download{Type: media, Name: `attachment; filename="` + name + `"`, Body: data}, nil
}

// fileOp says in the description what an answer is that is a file.
func fileOp(o huma.Operation, media, text string) huma.Operation {
	o.Responses = map[string]*huma.Response{"200": {
		Description: text, Content: map[string]*huma.MediaType{media: {Schema: &huma.Schema{Type: "string", Format: "binary"}}},
	}}
	return o
}

// registerCustody has what is proof by itself: it is checked without this server.
func (a *api) registerCustody(h huma.API) {
	huma.Register(h, fileOp(op("get-custody", http.MethodGet, "/devices/{id}/custody", "A device's chain of custody, factory to now, to be checked offline"),
		CustodyMedia, "The chain of custody, CBOR"),
		func(ctx context.Context, in *ByID) (*download, error) {
			c, err := a.Custody.Gather(ctx, callerOf(ctx), in.ID)
			if err != nil {
				return nil, a.problem(ctx, err)
			}
			data, err := wire.EncodeCustody(c)
			return file(a, ctx, CustodyMedia, c.Device+".hallmark", data, err)
		})
	huma.Register(h, fileOp(op("get-receipt", http.MethodGet, "/facts/{uid}/receipt", "A fact's receipt, for verifiers that know COSE receipts (RFC 9942)"),
		scitt.MediaType, "The receipt, COSE_Sign1"),
		func(ctx context.Context, in *struct {
			UID string `path:"uid" pattern:"^[0-9a-f]{32}$"`
		},
		) (*download, error) {
			raw, err := hex.DecodeString(in.UID)
			if err != nil || len(raw) != 16 {
				return nil, a.problem(ctx, fault.New(fault.Invalid, "fact.uid", "a fact's UID is 32 hex digits", "take it from `hallmark fact list`"))
			}
			data, err := a.Receipts.Receipt(ctx, callerOf(ctx), [16]byte(raw))
			return file(a, ctx, scitt.MediaType, in.UID+".receipt", data, err)
		})
}
