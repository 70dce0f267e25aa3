package console

import (
	"context"
	"net/http"
	"time"

	"github.com/a-h/templ"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/onboard/owner"
)

type (
	// Owners reads whom devices belong to.
	Owners interface {
		List(ctx context.Context, caller access.Caller, after string, limit int) ([]owner.Owner, error)
		Get(ctx context.Context, caller access.Caller, id string) (owner.Owner, error)
		Lineage(ctx context.Context, caller access.Caller, device string) ([]owner.Period, error)
		MarksOf(ctx context.Context, caller access.Caller, device string) ([]owner.Mark, error)
		Recalls(ctx context.Context, caller access.Caller, product string) ([]owner.Recall, error)
	}
	// Transfers reads how devices leave their owners.
	Transfers interface {
		Transfers(ctx context.Context, caller access.Caller, after string, limit int) ([]owner.Transfer, error)
		LastTransfer(ctx context.Context, caller access.Caller, device string) (owner.Transfer, error)
		Preview(ctx context.Context, caller access.Caller, devices []string) ([]owner.Preview, error)
	}
)

type ownersPageData struct {
	Owners    []owner.Owner
	Next      string
	Transfers []owner.Transfer
	Recalls   []owner.Recall
	Actions   []action

	MoreTransfers bool
}

func (h *handler) owners(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	ctx := r.Context()
	var p ownersPageData
	var err error
	if p.Owners, err = h.cfg.Stages.Owners.List(ctx, caller, r.URL.Query().Get("after"), pageSize+1); err != nil {
		return err
	}
	if len(p.Owners) > pageSize {
		p.Owners = p.Owners[:pageSize]
		p.Next = p.Owners[pageSize-1].ID
	}
	if p.Transfers, err = h.cfg.Stages.Transfers.Transfers(ctx, caller, "", pageSize+1); unlessDenied(err) != nil {
		return err
	}
	if p.Recalls, err = h.cfg.Stages.Owners.Recalls(ctx, caller, ""); unlessDenied(err) != nil {
		return err
	}
	p.MoreTransfers = len(p.Transfers) > pageSize
	p.Transfers = p.Transfers[:min(len(p.Transfers), pageSize)]
	v := h.view(r, caller, "Owners", "owner. device.claimed device.transfer recall.")
	p.Actions = v.ownersActions()
	h.render(w, r, http.StatusOK, ownersPage(v, p))
	return nil
}

func (v view) ownersActions() []action {
	var out []action
	if v.may(access.OwnerManage, access.Resource{Type: "owner"}) {
		out = append(out, action{
			Label: "New owner", Title: "Make an owner", Path: "/api/v1/owners", Body: "{}", Fields: []field{{Name: "name", Label: "What people call it", Kind: "text"}},
			Explain: "The name is kept in private: the ledger has an ID made up by chance.",
		})
	}
	if v.may(access.DeviceRecall, access.Resource{Type: "product"}) {
		out = append(out, action{
			Label: "Recall devices", Title: "Recall devices of a product", Path: "/api/v1/recalls", Body: "{}", Tone: "bad",
			Fields: []field{
				{Name: "product", Label: "Product", Kind: "text"},
				{Name: "order", Label: "Only of this production order", Kind: "text", Optional: true},
				{Name: "hardware", Label: "Only this hardware revision", Kind: "text", Optional: true},
				{Name: "reason", Label: "What is wrong, for everybody to read", Kind: "long"},
				{Name: "remedy", Label: "What to do, for everybody to read", Kind: "long"},
				{Name: "due", Label: "Until when", Kind: "date"},
			},
			Explain: "Every device of these is marked until it is mended. It is public for ever. Count them first: hallmark recall create … --dry-run.",
		})
	}
	return out
}

func (h *handler) ownerOf(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	o, err := h.cfg.Stages.Owners.Get(r.Context(), caller, r.PathValue("id"))
	if err != nil {
		return err
	}
	v := h.view(r, caller, "Owners", "owner. device.claimed device.transfer", o.ID)
	var list []action
	if o.Ended.IsZero() && o.Devices == 0 && v.may(access.OwnerManage, access.Resource{Type: "owner", ID: o.ID}) {
		list = append(list, action{
			Label: "End", Title: "End this owner", Path: "/api/v1/owners/" + pathEscape(o.ID) + "/end", Tone: "bad", Typed: o.ID,
			Explain: "Its people can do nothing any more. It has no devices.",
		})
	}
	h.render(w, r, http.StatusOK, ownerPage(v, o, list))
	return nil
}

func (h *handler) claim(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	if _, err := h.cfg.Stages.Owners.List(r.Context(), caller, "", 1); err != nil { // who may read none may claim for none
		return err
	}
	device := r.URL.Query().Get("device")
	if len(device) > 64 {
		device = ""
	}
	v := h.view(r, caller, "Owners", "")
	var list []action
	if device != "" && v.may(access.DeviceClaim, access.Resource{Type: "owner", ID: caller.Owner}) {
		a := action{
			Label: "Claim it", Title: "Claim this device", Path: "/api/v1/devices/" + pathEscape(device) + "/claim", Body: "{}",
			Fields:  []field{{Name: "code", Label: "The code that came with it", Kind: "text"}},
			Explain: "It belongs to your organisation from then on: its people see and command it.",
		}
		if caller.Owner == "" {
			a.Fields = append(a.Fields, field{Name: "owner", Label: "For which owner: ID", Kind: "text"})
		}
		list = append(list, a)
	}
	h.render(w, r, http.StatusOK, claimPage(v, device, list))
	return nil
}

func (h *handler) transfer(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	ctx, id := r.Context(), r.PathValue("id")
	ps, err := h.cfg.Stages.Transfers.Preview(ctx, caller, []string{id})
	if err != nil {
		return err
	}
	d, _, err := h.cfg.Fleet.Device(ctx, caller, id)
	if err != nil {
		return err
	}
	v := h.view(r, caller, "Owners", "device.claimed device.transfer", id)
	last, err := h.cfg.Stages.Transfers.LastTransfer(ctx, caller, id)
	if fault.KindOf(err) == fault.NotFound {
		last, err = owner.Transfer{}, nil
	}
	if unlessDenied(err) != nil {
		return err
	}
	var list []action
	if v.may(access.DeviceTransfer, placeOf(d)) {
		list = append(transferActions(ps[0], last), v.handoverActions(placeOf(d), ps[0], last)...)
	}
	h.render(w, r, http.StatusOK, transferPage(v, d.Product, ps[0], last, list, time.Now()))
	return nil
}

// transferActions begin a transfer. A warrant is signed where the key for it is, and comes as a file.
func transferActions(p owner.Preview, last owner.Transfer) []action {
	under := last.Device != "" && last.Done.IsZero()
	if p.Rollout != "" || under {
		return nil
	}
	a := action{
		Label: "Hand it on", Title: "End its time with its owner", Path: "/api/v1/transfers", Tone: "bad", Typed: short(p.Device), Field: "reason",
		Body: body(map[string]any{"devices": []string{p.Device}}), Explain: "At once, and for good: see what would end.", Reveal: codesOnce(),
		Fields: []field{{Name: "kind", Label: "To", Kind: "one", Value: "resale", Options: []option{
			{"resale", "another owner: you get the code that they claim it with"}, {"refurbish", "the maker, to be refurbished"},
		}}},
	}
	switch {
	case p.Warrant == owner.WarrantOwner:
		a.Fields = append(a.Fields, field{Name: "warrants", Label: "Warrant for the act disown, signed with the owner's key", Kind: "file"})
	case p.Warrant == owner.WarrantMaker:
		a.Fields = append(a.Fields, field{Name: "warrants", Label: "Warrant for the act disown, signed with the product's offline keys", Kind: "file"})
	case p.Period == 0:
		a.Label, a.Title, a.Fields = "Refurbish it", "Begin anew with this device, to be refurbished", nil
		a.Body = body(map[string]any{"devices": []string{p.Device}, "kind": "refurbish"})
	}
	return []action{a}
}

// handoverActions hand a device to another instance, or keep it after all.
func (v view) handoverActions(res access.Resource, p owner.Preview, last owner.Transfer) []action {
	if last.Device != "" && last.Done.IsZero() {
		if last.Kind != owner.Rehome || last.LetGo {
			return nil
		}
		return []action{{
			Label: "Let it stay", Title: "Give up handing this device over", Path: "/api/v1/transfers/" + pathEscape(p.Device) + "/give-up", Body: "{}", Field: "reason",
			Explain: "As long as it was not told to go, or has refused. It belongs to whom it did; sealed data and settings that the beginning destroyed do not come back.",
		}}
	}
	res.Grave = true
	if p.Rollout != "" || !v.may(access.DeviceTransfer, res) {
		return nil
	}
	return []action{{
		Label: "Hand it to another instance", Title: "Hand this device to another instance, for good", Path: "/api/v1/transfers", Tone: "bad", Typed: short(p.Device), Field: "reason",
		Body: body(map[string]any{"devices": []string{p.Device}, "kind": owner.Rehome}),
		Fields: []field{
			{Name: "offer", Label: "The offer of the instance that it goes to", Kind: "bytes"},
			{Name: "warrants", Label: "The warrant for the act rehome, signed with the product's offline keys, and of a device that defends its owner with the owner's key too", Kind: "file"},
		},
		Explain: "Nobody here has a say over it any more, with whatever keys, once it has gone. The other instance has to know it before: welcome it there. It takes two people.",
	}}
}

func (h *handler) transfers(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	list, err := h.cfg.Stages.Transfers.Transfers(r.Context(), caller, clip(r.URL.Query().Get("after"), 64), pageSize+1)
	if err != nil {
		return err
	}
	more := ""
	if len(list) > pageSize {
		list = list[:pageSize]
		more = "/transfers?after=" + queryEscape(list[pageSize-1].Device)
	}
	h.render(w, r, http.StatusOK, transfersPage(h.view(r, caller, "Owners", "device.claimed device.transfer"), list, more, time.Now()))
	return nil
}

// stuckAfter is how long a device may take to let go before somebody should look.
const stuckAfter = 24 * time.Hour

// stuck says why nothing moves; empty: it does.
func stuck(t owner.Transfer, now time.Time) string {
	switch {
	case !t.Done.IsZero() || t.LetGo:
		return ""
	case t.Refused != "":
		return "It says no (" + t.Refused + "). It may defend an owner whose warrant it has not seen: look at its findings, and begin again with the warrant it wants once this one is done."
	case now.Sub(t.Begun) > stuckAfter:
		return "It has not answered for more than a day: switch it on and bring it on line. Until it lets go nobody can claim it, and its old owner is out all the same."
	}
	return ""
}

// stage is a step of a way.
type stage struct{ Name, Text, Tone string }

// transferSteps is how far a device is on its way from one owner to the next.
func transferSteps(t owner.Transfer, now time.Time) []stage {
	to := func(done, under bool, name, after, before string) stage {
		switch {
		case done:
			return stage{name, after, "good"}
		case under:
			return stage{name, before, "busy"}
		}
		return stage{name, "comes after that", ""}
	}
	if t.Kind == owner.Rehome {
		return handoverSteps(t, now, to)
	}
	told := to(t.LetGo, t.Revoked, "The device lets go", "it has forgotten settings, certificate and key", transferWords(t))
	if stuck(t, now) != "" {
		told.Tone = "warn"
	}
	return []stage{
		{"Its owner is out", "commands withdrawn, sealed data destroyed", "good"},
		to(t.Revoked, true, "Certificates revoked", "those of the owner's time", "under way"),
		told,
		to(!t.Done.IsZero(), t.LetGo, "The next owner can claim it", "with the code", "under way"),
	}
}

// handoverSteps is how far a device is on its way to another instance: it has its certificate until it has said that it goes.
func handoverSteps(t owner.Transfer, now time.Time, to func(done, under bool, name, after, before string) stage) []stage {
	out := stage{"Its owner is out", "commands withdrawn, sealed data destroyed", "good"}
	if !t.GivenUp.IsZero() {
		return []stage{out, {"It stays", "it was given up before the device was told, and its time with its owner goes on", "good"}}
	}
	told := to(t.LetGo, true, "The device goes", "it has said so", transferWords(t))
	if stuck(t, now) != "" {
		told.Tone = "warn"
	}
	return []stage{
		out, told, to(t.Revoked, t.LetGo, "Certificates revoked", "all that were given out here", "under way"),
		to(!t.Done.IsZero(), t.Revoked, "Its life here has ended", "it is at its new home", "under way"),
	}
}

func placeOf(d fleet.Detail) access.Resource {
	return access.Resource{Type: "device", ID: d.ID, Product: d.Product, Group: d.Group}
}

// ownershipData is what the device page shows of whom it belongs to.
type ownershipData struct {
	Periods  []owner.Period
	Marks    []owner.Mark
	Transfer *owner.Transfer
	Actions  []action
	HandOn   string
}

func (h *handler) ownership(ctx context.Context, caller access.Caller, v view, d fleet.Detail) (p ownershipData, err error) {
	if p.Periods, err = h.cfg.Stages.Owners.Lineage(ctx, caller, d.ID); unlessDenied(err) != nil {
		return p, err
	}
	if p.Marks, err = h.cfg.Stages.Owners.MarksOf(ctx, caller, d.ID); unlessDenied(err) != nil {
		return p, err
	}
	t, err := h.cfg.Stages.Transfers.LastTransfer(ctx, caller, d.ID)
	if err == nil {
		p.Transfer = &t
	} else if fault.KindOf(err) != fault.NotFound && unlessDenied(err) != nil {
		return p, err
	}
	if v.may(access.DeviceMark, placeOf(d)) {
		path, a := "/api/v1/devices/"+pathEscape(d.ID), action{
			Label: "Stolen", Title: "Mark this device as stolen", Tone: "bad", Typed: short(d.ID), Body: "{}", Field: "reason",
			Explain: "It gets no certificate any more, cannot be claimed or handed on, and is kept in quarantine. The mark can be lifted.",
		}
		a.Path = path + "/stolen"
		if len(p.Marks) > 0 && p.Marks[0].Recall == "" {
			a = action{Label: "Found", Title: "Lift the mark that it was stolen", Path: path + "/found", Body: "{}", Field: "reason", Explain: "Its quarantine ends."}
		}
		p.Actions = append(p.Actions, a)
	}
	if v.may(access.DeviceTransfer, placeOf(d)) {
		p.HandOn = "/transfer/" + pathEscape(d.ID)
	}
	return p, nil
}

func ownerLink(id string) templ.SafeURL { return templ.SafeURL("/owners/" + pathEscape(id)) }

func transferWords(t owner.Transfer) string {
	switch {
	case !t.GivenUp.IsZero():
		return "given up"
	case !t.Done.IsZero():
		return "done"
	case t.LetGo:
		return "it let go"
	case t.Refused != "":
		return "it said no: " + t.Refused
	case t.Tries == 0:
		return "not told yet"
	}
	return "told, and not answered yet"
}

func holdsWords(p owner.Period) string {
	switch {
	case !p.Until.IsZero():
		return "let go"
	case p.Holds:
		return "defends this owner"
	case len(p.Key) == 0:
		return "knows nothing of it: bound on this server only"
	case p.Refused != "":
		return "said no: " + p.Refused
	}
	return "has not answered yet"
}

func leaveWords(p owner.Preview) string {
	switch p.Warrant {
	case owner.WarrantOwner:
		return "a warrant of the owner's key, which only they have"
	case owner.WarrantMaker:
		return "a warrant of the product's warrant keys, which are offline"
	}
	return "none"
}

func transferTitle(t owner.Transfer) string {
	if !t.GivenUp.IsZero() {
		return "Handing it over was given up"
	}
	if t.Done.IsZero() {
		return "It is being handed on (" + string(t.Kind) + ")"
	}
	return "It was handed on last (" + string(t.Kind) + ")"
}
