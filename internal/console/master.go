package console

import (
	"context"
	"net/http"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/wire"
)

// Masters reads what orders can be made of.
type Masters interface {
	Masters(ctx context.Context, caller access.Caller, product, after string, limit int) ([]factory.KeptMaster, error)
	Master(ctx context.Context, caller access.Caller, digest string) (factory.KeptMaster, error)
}

// maxSaved is up to how many bytes of firmware an order's file is given out in a browser, which has it in memory more than once.
const maxSaved = 128 << 20

type mastersPageData struct {
	Masters []factory.KeptMaster
	More    string
	Actions []action
}

func (h *handler) masters(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	v := h.view(r, caller, "Masters", "order. bundle. release.")
	products, err := h.cfg.Stages.Products.List(r.Context(), caller)
	if unlessDenied(err) != nil {
		return err
	}
	p := mastersPageData{Actions: v.takeMaster(products)}
	if p.Masters, p.More, err = onePage(r, caller, func(ctx context.Context, place, after string, limit int) ([]factory.KeptMaster, error) {
		return h.cfg.Stages.Masters.Masters(ctx, caller, place, after, limit)
	}, func(m factory.KeptMaster) string { return m.Digest }); err != nil {
		return err
	}
	h.render(w, r, http.StatusOK, mastersPage(v, p))
	return nil
}

func (h *handler) master(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	m, err := h.cfg.Stages.Masters.Master(r.Context(), caller, r.PathValue("digest"))
	if err != nil {
		return err
	}
	v := h.view(r, caller, "Masters", "order. bundle. release.")
	h.render(w, r, http.StatusOK, masterPage(v, m, append(v.orderOfMaster(m, time.Now()), v.giveDocuments(m)...)))
	return nil
}

// takeMaster takes in a master for who may order devices of some product. Only how its file begins is sent.
func (v view) takeMaster(products []product.Product) []action {
	of := field{Name: "product", Label: "Of the product", Kind: "one"}
	for _, p := range products {
		if v.may(access.OrderCreate, access.Resource{Type: "order", Product: p.ID}) {
			of.Options = append(of.Options, option{p.ID, p.ID})
		}
	}
	if len(of.Options) == 0 {
		return nil
	}
	return []action{{
		Label: "Take in a master", Title: "Take in a master that orders can be made of", Path: "/api/v1/masters", Body: "{}",
		Explain: "An approver of the trust bundle in force must have signed it, and its release must be published here. Its firmware stays where it is: it comes from the release.",
		Fields:  []field{of, {Name: "file", Label: "The master (.hmm)", Kind: "begin"}},
		Reveal:  []shown{{At: "hardware", Label: "Hardware"}, {At: "revision", Label: "Revision"}, {At: "digest", Label: "Digest"}},
	}}
}

// giveDocuments gives the documents of a master that are not here.
func (v view) giveDocuments(m factory.KeptMaster) (out []action) {
	if !v.may(access.OrderCreate, access.Resource{Type: "order", Product: m.Product}) {
		return nil
	}
	for _, d := range []struct {
		kind factory.DocumentKind
		what string
		is   factory.Document
	}{{factory.SBOM, "SBOM", m.SBOM}, {factory.Provenance, "provenance", m.Provenance}} {
		if d.is.Size > 0 {
			continue
		}
		out = append(out, action{
			Label: "Give its " + d.what, Title: "Give the " + d.what + " that this master names", Path: documentPath(m, d.kind),
			Explain: "It is kept when it is the document that the master's approver signed for, and nothing else is.",
			Fields:  []field{{Name: "document", Label: "The document", Kind: "upload"}},
		})
	}
	return out
}

func documentPath(m factory.KeptMaster, kind factory.DocumentKind) string {
	return "/api/v1/masters/" + pathEscape(m.Digest) + "/documents/" + string(kind)
}

// orderOfMaster has devices made of a master, which says release and parameters.
func (v view) orderOfMaster(m factory.KeptMaster, now time.Time) []action {
	if m.WhyNot != "" || m.Size > maxSaved || !v.may(access.OrderCreate, access.Resource{Type: "order", Product: m.Product}) {
		return nil
	}
	return []action{placeOrder(m.Product+" "+m.Version, body(map[string]any{"product": m.Product, "hardware": m.Hardware, "master_digest": m.Digest}), now)}
}

// orderOfRelease has devices made with a published release, and parameters that are given here.
func (v view) orderOfRelease(r release.Release, now time.Time) []action {
	if r.Status != release.Published || firmwareOf(r) > maxSaved || !v.may(access.OrderCreate, access.Resource{Type: "order", Product: r.Manifest.Product}) {
		return nil
	}
	a := placeOrder(r.Manifest.Product+" "+r.Manifest.Version, body(map[string]any{
		"product": r.Manifest.Product, "release": hexOf(r.Digest[:]), "params": wire.DeviceParams{Flash: wire.Flash{Erase: 16 << 10, Slots: 2}},
	}), now)
	hardware := field{Name: "hardware", Label: "Hardware", Kind: "one"}
	for _, h := range r.Manifest.Hardware {
		hardware.Options = append(hardware.Options, option{h, h})
	}
	a.Fields = append([]field{hardware}, append(a.Fields,
		field{Name: "params.servers.device", Label: "Address that the devices call, https://…", Kind: "text"},
		field{Name: "params.flash.slot_size", Label: "Largest release that a device must take, bytes", Kind: "number", Value: "8388608"},
	)...)
	return []action{a}
}

// firmwareOf is how many bytes a release has.
func firmwareOf(r release.Release) (n uint64) {
	for _, c := range r.Manifest.Components {
		n += c.Size
	}
	return n
}

// placeOrder asks what an order says beside what is put on the devices.
func placeOrder(of, body string, now time.Time) action {
	return action{
		Label: "Have devices made", Title: "Have devices made: " + of, Path: "/api/v1/orders", Body: body,
		Explain: "From one station. The order's file comes back here, this once: save it. It is safe to mail.",
		Fields: []field{
			{Name: "quota", Label: "How many, at most", Kind: "number"},
			{Name: "descriptor", Label: "What the station says of itself (station.hmd)", Kind: "bytes"},
			{Name: "station_pin", Label: "The station's fingerprint, by telephone: 64 hex digits", Kind: "hex"},
			{Name: "not_after", Label: "Until", Kind: "date", Value: now.AddDate(0, 0, 30).UTC().Format(time.DateOnly)},
			{Name: "id", Label: "Its name (empty: chosen)", Kind: "text", Optional: true},
			{Name: "first_article", Label: "First article", Kind: "json", Options: []option{{"false", "none is demanded"}, {"true", "one is made and inspected before the others"}}},
			{Name: "keys", Label: "The devices' keys", Kind: "one", Optional: true, Options: []option{
				{"", "are made by the devices alone"}, {string(wire.OriginStation), "may be made by the station, and it shows for good"},
			}},
			{Name: "chips", Label: "Only chips of this vendor, which came with their keys (empty: any)", Kind: "text", Optional: true},
		},
		Reveal: []shown{{At: "order.id", Label: "Order"}, {At: "file", Label: "The order's file, which is given out this once", File: "order.hmo"}},
	}
}
