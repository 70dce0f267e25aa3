package console

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/onboard/foreign"
	"github.com/hallmark-iot/hallmark/onboard/rekey"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

type (
	// Vouchers reads what devices that lost their keys were given, newest first.
	Vouchers interface {
		List(ctx context.Context, caller access.Caller, place, device string, open bool, before string, limit int) ([]rekey.Voucher, error)
		Get(ctx context.Context, caller access.Caller, id string) (rekey.Voucher, error)
		Lineage(ctx context.Context, caller access.Caller, device string) ([]rekey.Former, error)
	}
	// Makers reads the CAs of other makers.
	Makers interface {
		CAs(ctx context.Context, caller access.Caller, product string) ([]foreign.CA, error)
	}
	// Authorities reads the instance's CAs, and how fresh what each has published is.
	Authorities interface {
		Authorities(ctx context.Context, caller access.Caller) ([]pki.Standing, []pki.CARequested, error)
		ListsOf(ctx context.Context, caller access.Caller, ski string) (pki.ListsStanding, error)
	}
)

// secretOnce is shown of a new voucher.
func secretOnce() []shown {
	return []shown{{At: "secret", Label: "The voucher, for the technician. It is shown this once: keep it now."}, {At: "expires", Label: "It is good until"}}
}

// codesOnce is shown of a transfer that was begun.
func codesOnce() []shown {
	return []shown{{At: "transfers.*.code", Label: "The code for the next owner. It is shown this once: keep it now."}}
}

func (h *handler) vouchers(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	q := r.URL.Query()
	id, open := clip(q.Get("device"), 64), q.Get("open") != ""
	list, err := h.cfg.Stages.Vouchers.List(r.Context(), caller, "", id, open, clip(q.Get("after"), 64), pageSize+1)
	if err != nil {
		return err
	}
	more := ""
	if len(list) > pageSize {
		list = list[:pageSize]
		more = "/vouchers?device=" + queryEscape(id) + "&after=" + queryEscape(list[pageSize-1].ID)
		if open {
			more += "&open=1"
		}
	}
	h.render(w, r, http.StatusOK, vouchersPage(h.view(r, caller, "Vouchers", "voucher. device.rekeyed"), id, open, list, more))
	return nil
}

func (h *handler) voucher(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	x, err := h.cfg.Stages.Vouchers.Get(r.Context(), caller, r.PathValue("id"))
	if err != nil {
		return err
	}
	v := h.view(r, caller, "Vouchers", "voucher. device.rekeyed", x.Device)
	h.render(w, r, http.StatusOK, voucherPage(v, x, v.voucherActions(x)))
	return nil
}

// voucherActions ends a voucher that can still be used.
func (v view) voucherActions(x rekey.Voucher) []action {
	if x.State != rekey.Open || !v.may(access.DeviceVoucher, access.Resource{Type: "device", ID: x.Device, Product: x.Product, Group: x.Group}) {
		return nil
	}
	return []action{{
		Label: "Revoke it", Title: "End this voucher before it is used", Path: "/api/v1/vouchers/" + pathEscape(x.ID) + "/revoke", Body: "{}", Field: "reason", Tone: "bad",
		Explain: "Nobody can use it any more. Another can be asked for.",
	}}
}

// vouch asks for new keys for a device that lost its own.
func (v view) vouch(id string, state device.State, res access.Resource) []action {
	res.Grave = true // it always takes two
	if device.Ended(state) || state == device.Suspected || state == device.Lost || !v.may(access.DeviceVoucher, res) {
		return nil
	}
	return []action{{
		Label: "It lost its keys", Title: "Vouch for this device, so that it gets new keys", Path: "/api/v1/devices/" + pathEscape(id) + "/vouchers", Body: "{}", Field: "reason",
		Fields: []field{{Name: "seconds", Label: "Good for", Kind: "count", Value: "86400", Options: []option{
			{"3600", "an hour: the technician stands beside it"}, {"86400", "a day"}, {"604800", "a week"},
		}}},
		Explain: "Only when flash and key store are gone and you hold the device in your hands: who has the voucher and the chip's number gets this device's place. It takes a second person.",
		Reveal:  secretOnce(),
	}}
}

func voucherTone(s rekey.State) string {
	switch s {
	case rekey.Open:
		return "busy"
	case rekey.Used:
		return "good"
	case rekey.Locked:
		return "bad"
	case rekey.Revoked, rekey.Lapsed:
	}
	return ""
}

// voucherNext says what comes next of a voucher.
func voucherNext(x rekey.Voucher) string {
	switch x.State {
	case rekey.Open:
		return "It waits for its use: beside the device, with the voucher that was shown once. If that was lost on the way, ask for another on the device's page; this one ends then."
	case rekey.Used:
		return "The device has new keys, and all that it held before is revoked. It enrols and proves itself when it is started."
	case rekey.Locked:
		return "Somebody tried wrong vouchers until it locked. If the technician mistyped it, ask for another; if nobody did, find out who knows the device's ID."
	case rekey.Revoked:
		return "It was ended before its use, by a person or by a newer one of this device."
	case rekey.Lapsed:
		return "Nobody used it in time. Ask for another on the device's page."
	}
	return "unknown"
}

type makersPageData struct {
	CAs     []foreign.CA
	More    string
	Actions []action
}

func (h *handler) makers(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	all, err := perProduct(r.Context(), caller, h.cfg.Stages.Makers.CAs)
	if err != nil {
		return err
	}
	products, err := h.cfg.Stages.Products.List(r.Context(), caller)
	if unlessDenied(err) != nil {
		return err
	}
	v := h.view(r, caller, "Other makers", "foreign. device.imported")
	p := makersPageData{Actions: v.makersActions(products, all)}
	p.CAs, p.More = cutAfter(all, "/makers?after=", r.URL.Query().Get("after"), func(c foreign.CA) string { return c.ID })
	h.render(w, r, http.StatusOK, makersPage(v, p))
	return nil
}

// cutAfter gives a page of a list that is whole, from behind the one called after, and the address of the next.
func cutAfter[T any](all []T, path, after string, id func(T) string) (page []T, more string) {
	for i, x := range all {
		if after != "" && id(x) == after {
			all = all[i+1:]
			break
		}
	}
	if len(all) <= pageSize {
		return all, ""
	}
	return all[:pageSize], path + queryEscape(id(all[pageSize-1]))
}

func (v view) makersActions(products []product.Product, believed []foreign.CA) []action {
	var trust, take field
	for _, p := range products {
		if v.may(access.ForeignTrust, access.Resource{Type: "product", ID: p.ID, Product: p.ID, Grave: true}) {
			trust.Options = append(trust.Options, option{p.ID, p.ID})
		}
		if v.may(access.DeviceImport, access.Resource{Type: "product", ID: p.ID, Product: p.ID}) {
			take.Options = append(take.Options, option{p.ID, p.ID})
		}
	}
	var out []action
	if trust.Name, trust.Label, trust.Kind = "product", "Its devices are of product", "one"; len(trust.Options) > 0 {
		out = append(out, action{
			Label: "Believe a maker's CA", Title: "Let in devices of another maker, by its CA", Path: "/api/v1/foreign-cas", Body: "{}",
			Explain: "For factory identities of that one product, and for nothing else. It takes two people; ending it takes one.",
			Fields: []field{
				trust,
				{Name: "pem", Label: "Its certificates (PEM), the one that signs devices first", Kind: "long"},
				{Name: "map", Label: "What a device is called in its certificate: serialNumber, cn, hwserial, or a text with them in braces", Kind: "text", Value: "serialNumber"},
				{Name: "any", Label: "Let in", Kind: "json", Value: "false", Options: []option{{"false", "only devices that are on an imported list"}, {"true", "every device that this CA signs"}}},
			},
		})
	}
	for _, o := range take.Options {
		out = append(out, action{
			Label: "Welcome a device of " + o.Value, Title: "Take a device that another instance hands over", Path: "/api/v1/products/" + pathEscape(o.Value) + "/arrivals", Body: "{}",
			Explain: "Registered is only what its chain of custody shows without a gap. The same again changes nothing.",
			Fields: []field{
				{Name: "custody", Label: "Its chain of custody, as the other instance wrote it", Kind: "bytes"},
				{Name: "trust", Label: "Whom that is believed by: the trust file of the other instance's logs, which you have from somewhere that you believe", Kind: "text-of"},
			},
			Reveal: []shown{{At: "device", Label: "Device"}, {At: "outcome", Label: "It is"}, {At: "from", Label: "Shown by the log"}},
		})
		by := field{Name: "ca", Label: "Devices that the list knows by name only are vouched for by", Kind: "one", Options: []option{{"", "nobody: take none of these"}}}
		for _, c := range believed {
			if c.Ended.IsZero() && c.Product == o.Value {
				by.Options = append(by.Options, option{c.ID, clip(c.Subject, 60)})
			}
		}
		by.Optional = true
		out = append(out, action{
			Label: "Import devices of " + o.Value, Title: "Take devices of another maker from a list", Path: "/api/v1/products/" + pathEscape(o.Value) + "/devices", Body: "{}",
			Explain: "Try it first: nothing is written then, and you are told what would be. The same list again changes nothing.",
			Fields: []field{
				{Name: "list", Label: "The list", Kind: "upload"},
				{Name: "format", Label: "It is", Kind: "one", Value: "csv", Options: []option{
					{"csv", "CSV: name, hardware, certificate or digests"}, {"aws", "of AWS IoT, a thing a line"}, {"azure", "of Azure IoT Hub, as exported"},
				}},
				by,
				{Name: "dry_run", Label: "Now", Kind: "one", Value: "true", Options: []option{{"true", "try it"}, {"false", "take them"}}},
			},
			Reveal: []shown{
				{At: "lines", Label: "Lines read"},
				{At: "imported", Label: "Devices that were taken, or would be"},
				{At: "known", Label: "Known before"},
				{At: "refused", Label: "Refused"},
				{At: "errors.*.text", Label: "Not taken"},
			},
		})
	}
	return out
}

// endMaker believes a CA no more.
func (v view) endMaker(c foreign.CA) []action {
	if !c.Ended.IsZero() || !v.may(access.ForeignTrust, access.Resource{Type: "product", ID: c.Product, Product: c.Product}) {
		return nil
	}
	return []action{{
		Label: "Believe no more", Title: "Believe this maker's CA no more", Path: "/api/v1/foreign-cas/" + pathEscape(c.ID) + "/end", Body: "{}", Field: "reason", Tone: "bad", Typed: short(c.ID),
		Explain: "Nobody enrols by it from now on. Devices that did keep their operational certificates until these end: revoke those of which there is doubt.",
	}}
}

// authorityView is a CA as the page shows it.
type authorityView struct {
	ID, Role, Product, Unit, State string
	From, Until                    time.Time
	Lists                          pki.ListsStanding
}

type authoritiesPageData struct {
	List      []authorityView
	Requested []pki.CARequested
	Actions   []action
	Orders    bool // those of production orders are shown, instead of the others
	More      string
}

func (h *handler) authorities(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	ctx, p := r.Context(), authoritiesPageData{Orders: r.URL.Query().Get("of") == "orders"}
	all, asked, err := h.cfg.Stages.Authorities.Authorities(ctx, caller)
	if err != nil {
		return err
	}
	var shownOnes []pki.Standing
	for _, s := range all {
		if (s.Role == profile.Order) == p.Orders {
			shownOnes = append(shownOnes, s)
		}
	}
	path := "/authorities?after="
	if p.Orders {
		path = "/authorities?of=orders&after="
	}
	shownOnes, p.More = cutAfter(shownOnes, path, r.URL.Query().Get("after"), func(s pki.Standing) string { return s.SKI })
	for _, s := range shownOnes {
		a := authorityOf(s)
		if a.Lists, err = h.cfg.Stages.Authorities.ListsOf(ctx, caller, s.SKI); err != nil {
			return err
		}
		p.List = append(p.List, a)
	}
	v := h.view(r, caller, "Authorities", "ca. cert.revoked key.")
	if !p.Orders {
		p.Requested, p.Actions = asked[:min(len(asked), pageSize)], v.authorityActions()
	}
	h.render(w, r, http.StatusOK, authoritiesPage(v, p, time.Now()))
	return nil
}

// authorityActions ask a key ceremony for an authority, and take in its answer. What a ceremony decides, nobody decides here.
func (v view) authorityActions() []action {
	if !v.may(access.InstanceManage, access.Resource{Type: "ca"}) {
		return nil
	}
	return []action{{
		Label: "Ask for an authority", Title: "Ask the next key ceremony for an authority", Path: "/api/v1/issuers/requests", Body: "{}",
		Explain: "Its key is made here, where keys live, and stays here. The file goes to the ceremony; its digest is compared there.",
		Fields: []field{
			{Name: "role", Label: "It signs", Kind: "one", Value: "operational", Options: []option{
				{"operational", "operational certificates of devices"}, {"product", "order CAs of a product"}, {"infra", "certificates of servers and people's tools"},
			}},
			{Name: "product", Label: "Of product, when it signs order CAs", Kind: "text", Optional: true},
			{Name: "unit", Label: "What tells it from others of its kind, such as a year", Kind: "text", Optional: true},
			{Name: "purpose", Label: "Why, for the people at the ceremony", Kind: "text"},
		},
		Reveal: []shown{{At: "request", Label: "Save the request for the ceremony:", File: "ca-request.cose"}, {At: "digest", Label: "SHA-256 of what is asked for, base64"}},
	}, {
		Label: "Install an authority", Title: "Take in what a ceremony granted", Path: "/api/v1/issuers/install", Body: "{}",
		Explain: "It signs from then on. The one before goes on signing its lists until nothing of it is valid.",
		Fields:  []field{{Name: "content", Label: "The grant, as the ceremony wrote it", Kind: "bytes"}},
	}}
}

func authorityOf(s pki.Standing) authorityView {
	a := authorityView{ID: s.SKI, Role: string(s.Role), State: "trusted"}
	if s.Cert != nil {
		_, a.Product = idevid.SubjectOEM(s.Cert)
		a.Unit = strings.TrimSpace(strings.TrimPrefix(s.Cert.Subject.CommonName, a.Role))
		a.From, a.Until = s.Cert.NotBefore, s.Cert.NotAfter
	}
	switch {
	case s.Revoked:
		a.State = "revoked"
	case !s.Ended.IsZero():
		a.State = "ended"
	case s.Issuing:
		a.State = "issuing"
	case s.Held:
		a.State = "held"
	}
	return a
}

func authorityTone(state string) string {
	switch state {
	case "issuing":
		return "good"
	case "revoked":
		return "bad"
	}
	return ""
}

// authorityWords say what a state means.
func authorityWords(state string) string {
	switch state {
	case "issuing":
		return "signs what is new"
	case "held":
		return "signs its lists, and nothing new"
	case "trusted":
		return "its key is elsewhere"
	case "ended":
		return "out of service"
	case "revoked":
		return "nothing it signed counts"
	}
	return ""
}

// listsTone and listsWords say how fresh a CA's lists of revocations are.
func listsTone(l pki.ListsStanding) string {
	switch {
	case l.Lists == 0:
		return ""
	case l.Stale > 0:
		return "bad"
	}
	return "good"
}

func listsWords(l pki.ListsStanding) string {
	switch {
	case l.Lists == 0:
		return "publishes none"
	case l.Stale > 0:
		return number(l.Stale) + " of " + plural(l.Lists, "list") + " missing or run out"
	case l.Lists == 1:
		return "fresh"
	}
	return "all " + number(l.Lists) + " fresh"
}

func voucherLink(id string) templ.SafeURL { return templ.SafeURL("/vouchers/" + pathEscape(id)) }

func currentIf(is bool) string {
	if is {
		return "page"
	}
	return "false"
}
