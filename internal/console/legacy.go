package console

import (
	"cmp"
	"context"
	"encoding/hex"
	"net/http"
	"slices"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/onboard/legacy"
	"github.com/hallmark-iot/hallmark/product"
)

// Clients reads who asked to be let in with the client of another update system, and who was.
type Clients interface {
	List(ctx context.Context, caller access.Caller, product string, state legacy.State, after string, limit int) ([]legacy.Client, error)
}

// maxClients bounds the clients of a product on their page; the command lists them all.
const maxClients = 500

type clientsPageData struct {
	Clients []legacy.Client
	Actions []action
}

// clients shows those that wait for a person first.
func (h *handler) clients(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	products, err := h.cfg.Stages.Products.List(r.Context(), caller)
	if err != nil {
		return err
	}
	var p clientsPageData
	for _, one := range products {
		list, err := h.cfg.Stages.Clients.List(r.Context(), caller, one.ID, "", "", maxClients)
		if unlessDenied(err) != nil {
			return err
		}
		p.Clients = append(p.Clients, list...)
	}
	slices.SortStableFunc(p.Clients, func(a, b legacy.Client) int { return cmp.Compare(stageOf(a.State), stageOf(b.State)) })
	v := h.view(r, caller, "Other clients", "legacy. device.imported")
	p.Actions = v.clientsActions(products)
	h.render(w, r, http.StatusOK, clientsPage(v, p))
	return nil
}

func stageOf(s legacy.State) int {
	return slices.Index([]legacy.State{legacy.Pending, legacy.Admitted, legacy.Refused}, s)
}

// knownBy says by what a client is known.
func knownBy(c legacy.Client) string {
	switch {
	case len(c.Key) > 0:
		return "key " + short(hex.EncodeToString(c.Key))
	case c.Token:
		return "token"
	}
	return "nothing"
}

func (v view) clientsActions(products []product.Product) []action {
	var out []action
	for _, p := range products {
		if !v.may(access.DeviceImport, access.Resource{Type: "product", ID: p.ID, Product: p.ID}) {
			continue
		}
		out = append(out, action{
			Label: "Admit a client of " + p.ID, Title: "Let in a client of hawkBit's protocol (DDI)", Path: "/api/v1/products/" + pathEscape(p.ID) + "/legacy-clients", Body: `{"kind":"ddi"}`,
			Explain: "Its device is registered, and from then on only says what it runs. Admitted again, it gets another token, and the one it has counts no more.",
			Fields: []field{
				{Name: "name", Label: "Its name, as it calls itself", Kind: "text"},
				{Name: "consent", Label: "Updates", Kind: "json", Value: "false", Options: []option{{"false", "as they come"}, {"true", "when whoever has it agreed to each"}}},
			},
			Reveal: []shown{{At: "token", Label: "Its token. It is shown this once: keep it now."}, {At: "client.device", Label: "Its device"}},
		})
	}
	return out
}

// clientActions lets a client of Mender's in that asked, by the key that it has shown, and any client in no more.
func (v view) clientActions(c legacy.Client) []action {
	if c.State == legacy.Refused || !v.may(access.DeviceImport, access.Resource{Type: "product", ID: c.Product, Product: c.Product}) {
		return nil
	}
	var out []action
	if c.Kind == legacy.Mender && c.State == legacy.Pending {
		out = append(out, action{
			Label: "Admit", Title: "Let this client of Mender's in", Path: "/api/v1/products/" + pathEscape(c.Product) + "/legacy-clients", Field: "reason",
			Body:    body(legacy.Admission{Kind: c.Kind, Name: c.Name, Key: c.Key}),
			Explain: "It is known by key " + hex.EncodeToString(c.Key) + " from then on: hold it against the device's own. Its device is registered, and only says what it runs.",
		})
	}
	return append(out, action{
		Label: "Refuse", Title: "Let this client in no more, or not at all", Path: "/api/v1/products/" + pathEscape(c.Product) + "/legacy-clients/refusals", Field: "reason", Tone: "bad",
		Body: body(map[string]string{"kind": string(c.Kind), "name": c.Name}), Explain: "Its token and key count no more. Its device stays in the registry: retire it there.",
	})
}

func clientTone(s legacy.State) string {
	switch s {
	case legacy.Pending:
		return "warn"
	case legacy.Admitted:
		return "good"
	case legacy.Refused:
	}
	return ""
}
