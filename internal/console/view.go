package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// view is what every page needs.
type view struct {
	Caller   string
	Page     string // its name in the navigation
	Kinds    string // how the facts begin that change what it shows, separated by spaces; * is all
	Subjects string // and whom they are about; empty: anything
	Since    string // where the logs were before it was read: what is placed from there on, it may not show
	Verify   bool   // it needs the script that verifies proofs
	// Organisation is what the organisation's sign-in is called; empty when there is none.
	Organisation string

	may func(action access.Action, res access.Resource) bool
}

func (v view) current(page string) string {
	if v.Page == page {
		return "page"
	}
	return "false"
}

// view makes one for a page that changes with facts of these kinds.
func (h *handler) view(r *http.Request, caller access.Caller, page, kinds string, subjects ...string) view {
	ctx := r.Context()
	since, _ := ctx.Value(positionKey{}).(string)
	return view{
		Caller: caller.ID, Organisation: h.cfg.Organisation, Page: page, Kinds: kinds, Subjects: strings.Join(subjects, " "), Since: since,
		may: func(action access.Action, res access.Resource) bool { return h.cfg.Allowed(ctx, caller, action, res) },
	}
}

type navGroup struct {
	Name  string
	Links []navLink
}

type navLink struct{ Name, Path string }

// navigation is the way through the pages; later capabilities take their place in it.
func navigation() []navGroup {
	return []navGroup{
		{"Fleet", []navLink{{"Overview", "/"}, {"Devices", "/devices"}, {"Findings", "/findings"}, {"Quarantine", "/cases"}, {"Owners", "/owners"}}},
		{"Change", []navLink{{"Releases", "/releases"}, {"Components", "/components"}, {"Supply gate", "/supply"}, {"Rollouts", "/rollouts"}, {"Approvals", "/proposals"}}},
		{"Birth", []navLink{{"Orders", "/orders"}, {"Suppliers", "/suppliers"}, {"Masters", "/masters"}, {"Enrolments", "/enrolments"}, {"Desks", "/desks"}, {"Chips", "/chips"}, {"Vouchers", "/vouchers"}, {"Other makers", "/makers"}, {"Other clients", "/clients"}}},
		{"Identity", []navLink{{"Certificates", "/certificates"}, {"Authorities", "/authorities"}, {"Trust bundles", "/bundles"}}},
		{"Trust", []navLink{{"Compliance", "/compliance"}, {"Data", "/streams"}, {"Ledger", "/ledger"}, {"Members", "/members"}, {"Denials", "/audit"}, {"Platform", "/platform"}}},
	}
}

// action is a button that calls the API.
type action struct {
	Label   string
	Title   string  // of the dialog
	Explain string  // what it does, and whether it can be undone
	Method  string  // empty: POST
	Path    string  // {name} in it takes the field of that name
	Body    string  // JSON; empty: none
	Fields  []field // what the person fills in: members of Body
	Reveal  []shown // of the answer, what the person has to see: it is told this once
	Field   string  // member of Body that takes what the person gives as reason; empty: none is asked
	Typed   string  // what the person has to type first; empty: nothing
	Tone    string  // bad: it takes something away
}

// shown is a part of an answer: At has names with dots between, * for each of a list.
type shown struct {
	At    string `json:"at"`
	Label string `json:"label"`
	File  string `json:"file,omitempty"` // what it is called as a file, which the person saves; it is base64 then
}

// revealOf is what script shows of the answer; empty: nothing.
func (a action) revealOf() string {
	if len(a.Reveal) == 0 {
		return ""
	}
	return body(a.Reveal)
}

// field is one thing to fill in before an action.
type field struct {
	Name     string   `json:"name"` // the member of the body; with dots between for one in it
	Label    string   `json:"label"`
	Kind     string   `json:"kind"`              // text, long, date, number, decimal, list (words), pairs (NAME=VALUE, a line each), lines (the same, each on a line), pem (public keys, base64 of each), file (a list of one, base64), bytes (one, base64), text-of (one, as the text that it is), begin (how one begins, base64), hex (base64 of what is typed in hex), setting (one of the list config, where something is chosen or filled in) and secret (the same, not to be seen), upload (the whole body; the others are its query); of Options: one, many, count: one that is a number, or json: one that is JSON
	Options  []option `json:"options,omitempty"` // of one and many
	Value    string   `json:"value,omitempty"`   // to begin with; of list and many: separated by spaces, of lines by their ends
	Optional bool     `json:"optional,omitempty"`
}

type option struct {
	Value string `json:"value"`
	Text  string `json:"text"`
}

// fieldsOf is what script makes the dialog's inputs of; empty: there are none.
func (a action) fieldsOf() string {
	if len(a.Fields) == 0 {
		return ""
	}
	return body(a.Fields)
}

// body writes an action's body. Its parts are strings and numbers, so that it cannot fail.
func body(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}

// deviceActions are what can be asked of a device now.
func (v view) deviceActions(id, product, group string, state device.State) []action {
	var out []action
	res := access.Resource{Type: "device", ID: id, Product: product, Group: group}
	add := func(act wire.Act, label, title, explain, tone string, in ...device.State) {
		if !slices.Contains(in, state) || !v.may(device.ActionFor(act), res) {
			return
		}
		a := action{Label: label, Title: title, Explain: explain, Path: "/api/v1/commands", Field: "reason", Tone: tone, Body: body(map[string]any{
			"product": product, "act": string(act), "devices": []string{id},
		})}
		if tone == "bad" {
			a.Typed = short(id)
		}
		out = append(out, a)
	}
	works := []device.State{device.Onboarded, device.Active, device.Quarantined, device.Maintenance, device.Dormant}
	add(wire.ActAttest, "Ask for evidence", "Ask the device to prove its state", "Routine: it attests at its next check-in.", "", works...)
	add(wire.ActRelease, "Release", "End the quarantine", "It works again, once it has proven itself.", "", device.Quarantined)
	add(wire.ActWake, "Wake", "Wake the device", "It works again, once it has proven itself.", "", device.Dormant)
	add(wire.ActReset, "Restart", "Restart the device", "It is away while it boots.", "", works...)
	add(wire.ActQuarantine, "Quarantine", "Quarantine this device",
		"It talks to nobody but Hallmark. Reversible: it ends this by itself after 24 hours unless it is renewed.", "bad",
		device.Onboarded, device.Active, device.Maintenance)
	add(wire.ActDormant, "Put to sleep", "Make this device dormant",
		"It stops working until it is woken. Reversible: it ends this by itself after 24 hours unless it is renewed.", "bad", device.Onboarded, device.Active)
	return out
}

func (v view) cancelCommand(product, group string, c device.CommandDevice) []action {
	if !v.may(device.ActionFor(c.Act), access.Resource{Type: "device", ID: c.Device, Product: product, Group: group}) {
		return nil
	}
	return []action{{
		Label: "Cancel", Title: "Withdraw this command", Explain: "For every device it has not reached. One that was told already may still act.",
		Path: "/api/v1/commands/" + pathEscape(c.Command) + "/cancel", Body: "{}", Field: "reason",
	}}
}

func (v view) closeFinding(f monitor.Finding) []action {
	if !v.may(access.FindingClose, access.Resource{Type: "finding", ID: f.ID, Product: f.Product, Group: f.Group}) {
		return nil
	}
	return []action{{
		Label: "Close", Title: "Close this finding", Explain: "It stays in the ledger with your reason, and is raised again if the trouble shows again.",
		Path: "/api/v1/findings/" + pathEscape(f.ID) + "/close", Body: "{}", Field: "reason",
	}}
}

func (v view) rolloutActions(r rollout.Rollout) []action {
	if !v.may(access.RolloutControl, access.Resource{Type: "rollout", ID: r.Spec.ID, Product: r.Spec.Product, Group: r.Spec.Selection.Group}) {
		return nil
	}
	do := func(verb, label, title, explain, tone string) action {
		a := action{Label: label, Title: title, Explain: explain, Path: "/api/v1/rollouts/" + pathEscape(r.Spec.ID) + "/" + verb, Body: "{}", Field: "reason", Tone: tone}
		if tone == "bad" {
			a.Typed = r.Spec.ID
		}
		return a
	}
	halt := do("halt", "Halt and roll back", "Halt this rollout", "The wave ends, and the devices that confirmed the release are sent back to what its approvers allowed.", "bad")
	abort := do("abort", "Abort", "Stop where it is", "Who was not told is not told any more; nobody is sent back. It cannot go on afterwards.", "bad")
	var shut []action
	if r.Joins() {
		shut = []action{do("shut", "Let nobody join", "Let no further device join", "It completes when the waves that there are have passed.", "")}
	}
	switch r.Phase {
	case rollout.Created:
		start := do("start", "Start", "Start this rollout", "The devices are selected, and the first wave goes at once. The later ones go by themselves when the one before has proven itself.", "")
		start.Body, start.Field, start.Typed = "", "", r.Spec.ID
		return []action{start, abort}
	case rollout.Running:
		return append(shut, do("pause", "Pause", "Let no further wave go", "Devices that were told go on; their failures still halt it.", ""), halt, abort)
	case rollout.Paused:
		return append(shut, do("resume", "Resume", "Go on", "The next wave goes when the one before has proven itself.", ""), halt, abort)
	case rollout.Halted, rollout.Aborting, rollout.RolledBack, rollout.Aborted, rollout.Completed:
	}
	return nil
}

func (v view) releaseActions(r release.Release, missing int) []action {
	res := access.Resource{Type: "release", ID: r.Manifest.ID, Product: r.Manifest.Product}
	if !v.may(access.ReleasePublish, res) {
		return nil
	}
	base := "/api/v1/releases/" + hexOf(r.Digest[:])
	switch {
	case r.Status == release.Proposed && missing == 0:
		return []action{{
			Label: "Publish", Title: "Publish this release", Path: base + "/publish",
			Explain: "It may be rolled out from then on. What is published stays in the ledger.", Typed: r.Manifest.Version,
		}}
	case r.Status == release.Published:
		return []action{{
			Label: "Withdraw", Title: "Withdraw this release", Path: base + "/withdraw", Body: "{}", Field: "reason", Typed: r.Manifest.Version, Tone: "bad",
			Explain: "No further device gets it, and it does not come back. Devices that run it are for a rollout to move.",
		}, v.closing(r, base)}
	case r.Status == release.Withdrawn && r.Closed.IsZero():
		return []action{v.closing(r, base)}
	}
	return nil
}

func (v view) closing(r release.Release, base string) action {
	return action{
		Label: "Close", Title: "Close this release", Path: base + "/close", Body: "{}", Field: "reason", Typed: r.Manifest.Version, Tone: "bad",
		Explain: fmt.Sprintf("It is withdrawn, and commands that bring it are cancelled. Devices that run it go on. No device installs it again once the next trust bundle says so: "+
			"have the root keys' holders sign what hallmark bundle payload %s --install %d --out FILE writes.", r.Manifest.Product, r.Install()),
	}
}

func (v view) orderActions(o factory.Order, r *factory.Reconciliation) []action {
	if o.State != factory.Open || r == nil || !v.may(access.OrderClose, access.Resource{Type: "order", ID: o.ID, Product: o.Product}) {
		return nil
	}
	path := "/api/v1/orders/" + pathEscape(o.ID)
	switch {
	case len(r.Blocked) == 0:
		return []action{{
			Label: "Close the order", Title: "Close this order", Path: path + "/close",
			Explain: "No record of it becomes a device any more. It cannot be opened again.", Typed: o.ID, Tone: "bad",
		}}
	case r.Records == 0 && !r.JobEnd:
		return []action{{
			Label: "Cancel the order", Title: "Cancel this order", Path: path + "/cancel", Field: "reason",
			Explain: "For a file that was lost or is not wanted. A record that comes later is an alarm, and its piece never becomes a device.", Typed: o.ID, Tone: "bad",
		}}
	}
	grave := access.Resource{Type: "order", ID: o.ID, Product: o.Product, Grave: true}
	if !v.may(access.OrderClose, grave) {
		return nil
	}
	return []action{{
		Label: "Abandon the order", Title: "Abandon this order", Path: path + "/abandon", Field: "reason", Body: "{}",
		Explain: "For a station that is gone. Devices that are on record stay; whatever else it made never becomes one. It takes two people, and cannot be undone.", Typed: o.ID, Tone: "bad",
	}}
}

// scopes are the products to ask for one by one: all at once for who is not limited.
func scopes(caller access.Caller) []string {
	if len(caller.Scope) == 0 {
		return []string{""}
	}
	var out []string
	for _, s := range caller.Scope {
		if p := access.In("", s).Product; !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// onePage gives the page that was asked for of a list that is one for each of the caller's products, product after product; more is where to go on.
func onePage[T any](r *http.Request, caller access.Caller, list func(ctx context.Context, place, after string, limit int) ([]T, error), id func(T) string) (page []T, more string, err error) {
	places, q := scopes(caller), r.URL.Query()
	after := clip(q.Get("after"), 128)
	from := max(0, slices.Index(places, q.Get("of")))
	for _, place := range places[from:] {
		rest, err := list(r.Context(), place, after, pageSize+1-len(page))
		if err != nil {
			return nil, "", err
		}
		if len(page)+len(rest) > pageSize {
			rest = rest[:len(rest)-1]
			if len(rest) == 0 { // the page is full, and this product begins the next
				return page, r.URL.Path + "?of=" + queryEscape(place), nil
			}
			return append(page, rest...), r.URL.Path + "?of=" + queryEscape(place) + "&after=" + queryEscape(id(rest[len(rest)-1])), nil
		}
		page, after = append(page, rest...), ""
	}
	return page, "", nil
}

// perProduct joins the lists of the caller's products.
func perProduct[T any](ctx context.Context, caller access.Caller, list func(context.Context, access.Caller, string) ([]T, error)) ([]T, error) {
	var out []T
	for _, p := range scopes(caller) {
		page, err := list(ctx, caller, p)
		if err != nil {
			return nil, err
		}
		out = append(out, page...)
	}
	return out, nil
}

// unlessDenied leaves out a part of a page that the caller may not see; the rest is shown.
func unlessDenied(err error) error {
	if fault.KindOf(err) == fault.Denied {
		return nil
	}
	return err
}
