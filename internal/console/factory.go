package console

import (
	"context"
	"net/http"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/factory/chips"
)

// Chips reads whose manifests of chips with keys are believed.
type Chips interface {
	Vendors(ctx context.Context, caller access.Caller) ([]chips.Vendor, error)
	Chip(ctx context.Context, caller access.Caller, uid string) (chips.Chip, error)
}

// differenceLists are the lists of what does not agree, as they are called to people.
func differenceLists() []option {
	return []option{
		{string(factory.Clones), "Clones"},
		{string(factory.OverProduction), "Over-production"},
		{string(factory.Refused), "Refused"},
		{string(factory.Alarms), "All alarms"},
		{string(factory.Missing), "Missing"},
		{string(factory.Unregistered), "Without a record"},
		{string(factory.Unseen), "Never heard of"},
		{string(factory.Reworks), "Made anew"},
	}
}

// differenceWords says what a list holds.
func differenceWords(q factory.Question) string {
	return map[factory.Question]string{
		factory.Clones:         "Records with the chip or a key of another piece.",
		factory.OverProduction: "Records with a ticket or a place that was used, or from after the end.",
		factory.Refused:        "Alarms that hold their place among the order's records. Their pieces are no devices.",
		factory.Alarms:         "Records that are authentic and cannot be true.",
		factory.Missing:        "Records that the station must have and that are not here.",
		factory.Unregistered:   "Who came with a certificate by the order's CA and is on no record: it gets no certificate, and waits or is refused.",
		factory.Unseen:         "Devices that were made and never heard of.",
		factory.Reworks:        "Records of pieces that failed before, with the record before.",
	}[q]
}

func differenceTone(q factory.Question) string {
	if q == factory.Clones || q == factory.OverProduction || q == factory.Alarms || q == factory.Refused {
		return "bad"
	}
	if q == factory.Missing || q == factory.Unregistered {
		return "warn"
	}
	return ""
}

type differencesPageData struct {
	Order string
	List  factory.Question
	Rows  []factory.Difference
	More  string
}

func (h *handler) differences(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	o, err := h.cfg.Stages.Orders.Get(r.Context(), caller, r.PathValue("id"))
	if err != nil {
		return err
	}
	p := differencesPageData{Order: o.ID, List: factory.Question(r.URL.Query().Get("list"))}
	if p.List == "" {
		p.List = factory.Alarms
	}
	var next string
	if p.Rows, next, err = h.cfg.Stages.Orders.Differences(r.Context(), caller, o.ID, p.List, r.URL.Query().Get("after"), pageSize); err != nil {
		return err
	}
	if next != "" {
		p.More = differencesPath(o.ID, string(p.List)) + "&after=" + queryEscape(next)
	}
	h.render(w, r, http.StatusOK, differencesPage(h.view(r, caller, "Orders", "order. device.provisioned"), p))
	return nil
}

func differencesPath(order, list string) string {
	return "/orders/" + pathEscape(order) + "/differences?list=" + queryEscape(list)
}

type desksPageData struct {
	Desks   []factory.Desk
	More    string
	Actions []action
}

func (h *handler) desks(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	all, err := h.cfg.Stages.Desks.Desks(r.Context(), caller)
	if err != nil {
		return err
	}
	v := h.view(r, caller, "Desks", "desk. order.")
	p := desksPageData{Actions: v.desksActions()}
	p.Desks, p.More = cutAfter(all, "/desks?after=", r.URL.Query().Get("after"), func(d factory.Desk) string { return d.Name })
	h.render(w, r, http.StatusOK, desksPage(v, p))
	return nil
}

func (v view) desksActions() (out []action) {
	if v.may(access.OrderCreate, access.Resource{Type: "order"}) {
		out = append(out, action{
			Label: "Register an order", Title: "Take in an order that a desk has wrapped", Path: "/api/v1/registrations", Body: "{}",
			Explain: "Everything in it is checked before its CA is believed. Late is late, not wrong; the same again changes nothing.",
			Fields:  []field{{Name: "file", Label: "The registration, as the desk wrote it", Kind: "bytes"}},
		})
	}
	return out
}

// removeDesk ends a desk's orders.
func (v view) removeDesk(d factory.Desk) []action {
	if !d.Removed.IsZero() || !v.may(access.DeskManage, access.Resource{Type: "instance"}) {
		return nil
	}
	return []action{{
		Label: "Remove", Title: "Take in no order that this desk makes from now on", Path: "/api/v1/desks/" + pathEscape(d.Name) + "/remove", Body: "{}", Field: "reason", Tone: "bad", Typed: d.Name,
		Explain: "Its orders that are here go on. One that says it was made before takes two people. Stations leave its order key out when they are told: hallmark order oem.",
	}}
}

type chipsPageData struct {
	Vendors []chips.Vendor
	More    string
	Orders  []factory.Order // that demand chips of a vendor
	Asked   string
	Chip    *chips.Chip
	Actions []action
}

func (h *handler) chips(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	all, err := h.cfg.Stages.Chips.Vendors(r.Context(), caller)
	if err != nil {
		return err
	}
	orders, err := perProduct(r.Context(), caller, h.cfg.Stages.Orders.List)
	if unlessDenied(err) != nil {
		return err
	}
	v := h.view(r, caller, "Chips", "chip. chips.")
	p := chipsPageData{Actions: v.chipsActions(), Asked: r.URL.Query().Get("uid")}
	p.Vendors, p.More = cutAfter(all, "/chips?after=", r.URL.Query().Get("after"), func(v chips.Vendor) string { return v.ID })
	for _, o := range orders {
		if o.Chips != "" && len(p.Orders) < pageSize {
			p.Orders = append(p.Orders, o)
		}
	}
	if p.Asked != "" {
		if c, err := h.cfg.Stages.Chips.Chip(r.Context(), caller, p.Asked); err == nil {
			p.Chip = &c
		}
	}
	h.render(w, r, http.StatusOK, chipsPage(v, p))
	return nil
}

func (v view) chipsActions() []action {
	if !v.may(access.ChipVendor, access.Resource{Type: "instance", Grave: true}) {
		return nil
	}
	return []action{{
		Label: "Believe a vendor", Title: "Believe a silicon vendor's manifests", Path: "/api/v1/chip-vendors", Body: "{}",
		Explain: "Compare the certificates' fingerprints with what the vendor publishes, by another way than the file came. Those that were there before are replaced. It takes two people.",
		Fields: []field{
			{Name: "id", Label: "Vendor: lower-case letters, digits, - and .", Kind: "text"},
			{Name: "pem", Label: "The certificates whose keys sign its manifests (PEM), all of them", Kind: "long"},
		},
	}}
}

// takeManifest takes in what a vendor says of its chips.
func (v view) takeManifest(x chips.Vendor) []action {
	if !x.Ended.IsZero() || !v.may(access.ChipImport, access.Resource{Type: "instance"}) {
		return nil
	}
	return []action{{
		Label: "Take a manifest", Title: "Take in a manifest of this vendor", Path: "/api/v1/chip-vendors/" + pathEscape(x.ID) + "/chips", Body: "{}",
		Explain: "Only entries that are signed by the vendor's keys are taken. The same again changes nothing. One that is very large is better sent by the command line, which goes on where it broke off.",
		Fields:  []field{{Name: "list", Label: "The manifest", Kind: "upload"}},
		Reveal:  []shown{{At: "imported", Label: "Taken"}, {At: "known", Label: "Known before"}, {At: "refused", Label: "Refused"}},
	}}
}

// endVendor takes a vendor's word no more.
func (v view) endVendor(x chips.Vendor) []action {
	if !x.Ended.IsZero() || !v.may(access.ChipVendor, access.Resource{Type: "instance"}) {
		return nil
	}
	return []action{{
		Label: "Believe no more", Title: "Take this vendor's word no more", Path: "/api/v1/chip-vendors/" + pathEscape(x.ID) + "/end", Body: "{}", Field: "reason", Tone: "bad", Typed: x.ID,
		Explain: "Chips that are known stay known, and orders that demand them go on: cancel those, and look at the devices, if there is doubt of chips that are here.",
	}}
}
