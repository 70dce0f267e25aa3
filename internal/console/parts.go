package console

import (
	"context"
	"net/http"
	"strings"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/supply/parts"
)

// Parts reads who supplies what, in which lots it came, and what was made of them.
type Parts interface {
	Suppliers(ctx context.Context, caller access.Caller, after string, limit int) ([]parts.Supplier, error)
	Supplier(ctx context.Context, caller access.Caller, id string) (parts.Supplier, error)
	Parts(ctx context.Context, caller access.Caller, supplier, after string, limit int) ([]parts.Part, error)
	Part(ctx context.Context, caller access.Caller, id string) (parts.Part, error)
	Lots(ctx context.Context, caller access.Caller, part, after string, limit int) ([]parts.Lot, error)
	Lot(ctx context.Context, caller access.Caller, id string) (parts.Lot, error)
	Devices(ctx context.Context, caller access.Caller, lot, after string, limit int) ([]parts.Built, error)
	Count(ctx context.Context, caller access.Caller, lot string) (int64, error)
	OfOrder(ctx context.Context, caller access.Caller, order string) ([]parts.Lot, error)
	OfDevice(ctx context.Context, caller access.Caller, device string) ([]parts.Lot, error)
}

// paged gives the page that was asked for of a list; more is where to go on.
func paged[T any](r *http.Request, list func(after string, limit int) ([]T, error), key func(T) string) (page []T, more string, err error) {
	page, err = list(clip(r.URL.Query().Get("after"), 256), pageSize+1)
	if len(page) > pageSize {
		page = page[:pageSize]
		more = r.URL.Path + "?after=" + queryEscape(key(page[pageSize-1]))
	}
	return page, more, err
}

// partsKinds are the facts that change the pages of suppliers, parts and lots.
const partsKinds = "supplier. part. lot. order.lots"

type suppliersPageData struct {
	Suppliers []parts.Supplier
	More      string
	Actions   []action
}

func (h *handler) suppliers(w http.ResponseWriter, r *http.Request, caller access.Caller) (err error) {
	v := h.view(r, caller, "Suppliers", partsKinds)
	p := suppliersPageData{Actions: v.newSupplier()}
	if p.Suppliers, p.More, err = paged(r, func(after string, limit int) ([]parts.Supplier, error) {
		return h.cfg.Stages.Parts.Suppliers(r.Context(), caller, after, limit)
	}, func(s parts.Supplier) string { return s.ID }); err != nil {
		return err
	}
	h.render(w, r, http.StatusOK, suppliersPage(v, p))
	return nil
}

type supplierPageData struct {
	Supplier parts.Supplier
	Parts    []parts.Part
	More     string
	Actions  []action
}

func (h *handler) supplier(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	s, err := h.cfg.Stages.Parts.Supplier(r.Context(), caller, r.PathValue("id"))
	if err != nil {
		return err
	}
	v := h.view(r, caller, "Suppliers", partsKinds)
	p := supplierPageData{Supplier: s, Actions: v.supplierActions(s)}
	if p.Parts, p.More, err = paged(r, func(after string, limit int) ([]parts.Part, error) {
		return h.cfg.Stages.Parts.Parts(r.Context(), caller, s.ID, after, limit)
	}, func(p parts.Part) string { return p.ID }); err != nil {
		return err
	}
	h.render(w, r, http.StatusOK, supplierPage(v, p))
	return nil
}

type partsPageData struct {
	Parts []parts.Part
	More  string
}

func (h *handler) parts(w http.ResponseWriter, r *http.Request, caller access.Caller) (err error) {
	var p partsPageData
	if p.Parts, p.More, err = paged(r, func(after string, limit int) ([]parts.Part, error) {
		return h.cfg.Stages.Parts.Parts(r.Context(), caller, "", after, limit)
	}, func(p parts.Part) string { return p.ID }); err != nil {
		return err
	}
	h.render(w, r, http.StatusOK, partsPage(h.view(r, caller, "Suppliers", partsKinds), p))
	return nil
}

type partPageData struct {
	Part    parts.Part
	Lots    []parts.Lot
	More    string
	Actions []action
}

func (h *handler) part(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	one, err := h.cfg.Stages.Parts.Part(r.Context(), caller, r.PathValue("id"))
	if err != nil {
		return err
	}
	v := h.view(r, caller, "Suppliers", partsKinds)
	p := partPageData{Part: one, Actions: v.partActions(one)}
	if p.Lots, p.More, err = paged(r, func(after string, limit int) ([]parts.Lot, error) {
		return h.cfg.Stages.Parts.Lots(r.Context(), caller, one.ID, after, limit)
	}, func(l parts.Lot) string { return l.ID }); err != nil {
		return err
	}
	h.render(w, r, http.StatusOK, partPage(v, p))
	return nil
}

type lotsPageData struct {
	Lots []parts.Lot
	More string
}

func (h *handler) lots(w http.ResponseWriter, r *http.Request, caller access.Caller) (err error) {
	var p lotsPageData
	if p.Lots, p.More, err = paged(r, func(after string, limit int) ([]parts.Lot, error) {
		return h.cfg.Stages.Parts.Lots(r.Context(), caller, "", after, limit)
	}, func(l parts.Lot) string { return l.ID }); err != nil {
		return err
	}
	h.render(w, r, http.StatusOK, lotsPage(h.view(r, caller, "Suppliers", partsKinds), p))
	return nil
}

type lotPageData struct {
	Lot     parts.Lot
	Part    parts.Part
	Count   int64 // devices that may have a part of it, and whose life has not ended
	Devices []parts.Built
	More    string
	Actions []action
}

func (h *handler) lot(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	ctx := r.Context()
	l, err := h.cfg.Stages.Parts.Lot(ctx, caller, r.PathValue("id"))
	if err != nil {
		return err
	}
	v := h.view(r, caller, "Suppliers", partsKinds+" device.")
	p := lotPageData{Lot: l, Actions: v.lotActions(l)}
	if p.Part, err = h.cfg.Stages.Parts.Part(ctx, caller, l.Part); err != nil {
		return err
	}
	if p.Count, err = h.cfg.Stages.Parts.Count(ctx, caller, l.ID); err != nil {
		return err
	}
	if p.Devices, p.More, err = paged(r, func(after string, limit int) ([]parts.Built, error) {
		return h.cfg.Stages.Parts.Devices(ctx, caller, l.ID, after, limit)
	}, parts.Built.Key); err != nil {
		return err
	}
	h.render(w, r, http.StatusOK, lotPage(v, p))
	return nil
}

func (v view) mayParts(kind, id string, grave bool) bool {
	return v.may(access.PartsManage, access.Resource{Type: kind, ID: id, Grave: grave})
}

func (v view) newSupplier() []action {
	if !v.mayParts("supplier", "", false) {
		return nil
	}
	return []action{{
		Label: "Write a supplier down", Title: "Write a supplier down", Method: http.MethodPut, Path: "/api/v1/suppliers/{id}", Body: "{}",
		Explain: "What was written under the same ID before is replaced. Another name for a supplier that a gate allows by its ID takes two people.",
		Fields:  append([]field{nameField("")}, supplierFields(parts.Supplier{})...),
	}}
}

// nameField asks for an ID that people choose, which goes into the path.
func nameField(value string) field {
	return field{Name: "id", Label: "ID, yours: lower-case letters, digits, - and .", Kind: "text", Value: value}
}

func supplierFields(s parts.Supplier) []field {
	return []field{
		{Name: "name", Label: "Its name", Kind: "text", Value: s.Name},
		{Name: "names", Label: "What bills of materials call it, one a line", Kind: "lines", Value: lines(s.Names), Optional: true},
		{Name: "site", Label: "Where more is said of it", Kind: "text", Value: s.Site, Optional: true},
	}
}

func (v view) supplierActions(s parts.Supplier) (out []action) {
	path := "/api/v1/suppliers/" + pathEscape(s.ID)
	change := action{
		Label: "Change", Title: "What is said of " + s.ID, Method: http.MethodPut, Path: path, Body: "{}", Fields: supplierFields(s),
		Explain: "Another name takes two people where a product's gate allows the supplier by its ID: the gate would let it through from then on.",
	}
	if !s.Ended.IsZero() {
		change.Label, change.Explain = "Take of it again", "Nothing was taken of it for a reason: this takes two people."
	}
	if v.mayParts("supplier", s.ID, !s.Ended.IsZero()) {
		out = append(out, change)
	}
	if !s.Ended.IsZero() || !v.mayParts("supplier", s.ID, false) {
		return out
	}
	return append(out, action{
		Label: "Write a part down", Title: "Write a part of " + s.ID + " down", Method: http.MethodPut, Path: "/api/v1/parts/{id}", Body: body(map[string]string{"supplier": s.ID}),
		Explain: "What was said of a part of this supplier with the same ID is replaced.",
		Fields:  append([]field{nameField(""), {Name: "kind", Label: "Kind", Kind: "one", Options: []option{{string(parts.Hardware), "hardware"}, {string(parts.Software), "software"}}}}, partFields(parts.Part{})...),
	}, action{
		Label: "Take nothing more", Title: "Take nothing of " + s.ID + " any more", Path: path + "/end", Body: "{}", Field: "reason", Typed: s.ID, Tone: "bad",
		Explain: "It gets no new parts and lots, and gates that allow it by its ID allow it no more. What was built in stays built in. To take of it again takes two people.",
	})
}

func partFields(p parts.Part) []field {
	return []field{
		{Name: "name", Label: "What it is", Kind: "text", Value: p.Name},
		{Name: "number", Label: "The supplier's part number, or the version of software", Kind: "text", Value: p.Number, Optional: true},
		{Name: "purl", Label: "Package URL of software, pkg:…", Kind: "text", Value: p.PURL, Optional: true},
	}
}

func (v view) partActions(p parts.Part) []action {
	if !v.mayParts("part", p.ID, false) {
		return nil
	}
	out := []action{{
		Label: "Change", Title: "What is said of " + p.ID, Method: http.MethodPut, Path: "/api/v1/parts/" + pathEscape(p.ID), Explain: "Whose it is, and its kind, stay.",
		Body: body(map[string]string{"supplier": p.Supplier, "kind": string(p.Kind)}), Fields: partFields(p),
	}}
	if p.Kind == parts.Hardware {
		out = append(out, action{
			Label: "A lot has come", Title: "Write a lot of " + p.ID + " down that has come", Path: "/api/v1/lots", Body: body(map[string]string{"part": p.ID}),
			Explain: "Its certificate of conformity is brought on its page. Orders name it from then on.",
			Fields: []field{
				nameField(p.ID + "-"), {Name: "number", Label: "The supplier's number of it", Kind: "text"}, {Name: "received", Label: "When it came (empty: now)", Kind: "date", Optional: true},
			},
		})
	}
	return out
}

func (v view) lotActions(l parts.Lot) (out []action) {
	path := "/api/v1/lots/" + pathEscape(l.ID)
	if v.mayParts("lot", l.ID, l.Certificate != "") {
		a := action{
			Label: "Bring its certificate", Title: "The certificate of conformity of " + l.ID, Path: path + "/certificate", Body: "{}",
			Explain: "It is kept as it is, and its digest is told in the ledger.",
			Fields:  []field{{Name: "file", Label: "The certificate", Kind: "upload"}},
		}
		if l.Certificate != "" {
			a.Label, a.Explain = "Bring another certificate", "In the place of the one that is here. It takes two people: by hallmark supply lot certify --propose."
		}
		out = append(out, a)
	}
	if l.Recalled.IsZero() && v.mayParts("lot", l.ID, false) {
		out = append(out, action{
			Label: "Recall", Title: "Say that lot " + l.ID + " is bad", Path: path + "/recall", Body: "{}", Field: "reason", Typed: l.ID, Tone: "bad",
			Explain: "Who watches the fleet gets a finding with the devices that may have a part of it, and no order is created with it. Devices go on: what becomes of them is for you to say.",
		})
	}
	if !l.Recalled.IsZero() && v.mayParts("lot", l.ID, true) {
		out = append(out, action{
			Label: "It is good after all", Title: "Say that lot " + l.ID + " is good after all", Path: path + "/clear", Body: "{}", Field: "reason",
			Explain: "Its finding closes. It takes two people.",
		})
	}
	return out
}

// orderLots says of which lots an order is made.
func (v view) orderLots(o factory.Order) []action {
	if !v.may(access.PartsManage, access.Resource{Type: "order", ID: o.ID, Product: o.Product}) {
		return nil
	}
	return []action{{
		Label: "Name lots", Title: "Of which lots is " + o.ID + " made?", Path: "/api/v1/orders/" + pathEscape(o.ID) + "/lots", Body: "{}",
		Explain: "Beside those that it names already. All of its devices are found by each of them.",
		Fields:  []field{{Name: "lots", Label: "IDs of lots, with spaces between", Kind: "list"}},
	}}
}

// takeLot says that an order has nothing of a lot after all.
func (v view) takeLot(o factory.Order, l parts.Lot) []action {
	if !v.may(access.PartsManage, access.Resource{Type: "order", ID: o.ID, Product: o.Product, Grave: true}) {
		return nil
	}
	return []action{{
		Label: "Take away", Title: "Say that " + o.ID + " has nothing of lot " + l.ID + " after all", Path: "/api/v1/orders/" + pathEscape(o.ID) + "/lots/taken",
		Body: body(map[string]string{"lot": l.ID}), Field: "reason", Tone: "bad",
		Explain: "Its devices are not found by this lot any more, also if it is recalled. It takes two people.",
	}}
}

// lines puts each on one of its own.
func lines(list []string) string { return strings.Join(list, "\n") }

// lotStands says how a lot stands, in a word and a tone.
func lotStands(l parts.Lot) (word, tone string) {
	switch {
	case !l.Recalled.IsZero():
		return "recalled", "bad"
	case l.Certificate == "":
		return "no certificate", "warn"
	}
	return "certified", "good"
}

func partColumns(whose bool) []string {
	if whose {
		return []string{"Part", "Supplier", "What it is", "Kind", "Number or version", "Changed"}
	}
	return []string{"Part", "What it is", "Kind", "Number or version", "Changed"}
}

func lotColumns(of bool) []string {
	if of {
		return []string{"Lot", "Part", "Supplier's number", "Standing", "Came"}
	}
	return []string{"Lot", "Supplier's number", "Standing", "Came"}
}

// devicesInUse says of how many devices there is something to do.
func devicesInUse(n int) string {
	if n == 1 {
		return "device is in use"
	}
	return "devices are in use"
}
