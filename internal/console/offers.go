package console

import (
	"crypto/rand"
	"net/http"
	"strings"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/telemetry"
	"github.com/hallmark-iot/hallmark/wire"
)

// lifeActions are what a person can say of a device that it does not say itself, as its state and the caller's roles allow.
func (v view) lifeActions(id string, state device.State, legitimacy device.Legitimacy, res access.Resource) []action {
	var out []action
	path := "/api/v1/devices/" + pathEscape(id)
	var events field
	for _, e := range []struct {
		event device.Event
		text  string
	}{
		{device.Maintain, "taken out of service for repair"},
		{device.Resume, "repaired, and back in service"},
		{device.Lose, "nobody knows where it is"},
		{device.Find, "it is back"},
		{device.Clear, "somebody looked into the suspicion of a copy: nobody else has its factory key"},
	} {
		if _, err := device.Next(state, e.event); err == nil && v.may(device.ActionOf(e.event), res) {
			events.Options = append(events.Options, option{string(e.event), e.text})
		}
	}
	if len(events.Options) > 0 {
		events.Name, events.Label, events.Kind = "event", "What happened", "one"
		out = append(out, action{
			Label: "Something happened", Title: "Say what happened to this device", Path: path + "/moves", Body: "{}", Field: "reason", Fields: []field{events},
			Explain: "What the device says itself, and what it is told, need not be said here.",
		})
	}
	if v.may(access.DeviceQuarantine, res) {
		as := field{Name: "legitimacy", Label: "It is", Kind: "one", Value: string(legitimacy)}
		for _, l := range []device.Legitimacy{device.Genuine, device.Recalled, device.Refurbished, device.Resold, device.Stolen, device.Unknown} {
			as.Options = append(as.Options, option{string(l), string(l)})
		}
		out = append(out, action{
			Label: "Judge", Title: "Is this device what it says it is, and whose?", Method: "PUT", Path: path + "/legitimacy", Body: "{}", Field: "reason", Fields: []field{as},
			Explain: "Anybody who asks whether it is genuine is told so.",
		})
	}
	if v.may(access.DeviceGroup, res) {
		out = append(out, action{
			Label: "Move to a group", Title: "Put this device into another group", Path: "/api/v1/groups", Body: body(map[string]any{"devices": []string{id}, "group": ""}), Field: "reason",
			Fields:  []field{{Name: "group", Label: "Group of the product", Kind: "text", Value: res.Group, Optional: true}},
			Explain: "A path, such as eu/berlin/ward-3; empty takes it out of its group. Who is limited to a group acts on what is in it and below.",
		})
	}
	if v.may(access.DeviceForget, res) && device.Ended(state) {
		out = append(out, action{
			Label: "Forget it", Title: "Destroy what is private of this device", Path: path + "/forget", Typed: short(id), Tone: "bad",
			Explain: "Its settings, group, sealed data, and all that was said of it in words. The ledger stays as it is, and verifies. This cannot be undone.",
		})
	}
	out = append(out, v.vouch(id, state, res)...)
	if v.may(access.CertRevoke, res) && !device.Ended(state) {
		out = append(out, action{
			Label: "Revoke its identities", Title: "Take every identity of this device", Path: path + "/revoke", Body: "{}", Fields: []field{revocationCause()}, Typed: short(id), Tone: "bad",
			Explain: "The factory's too: it is out at once, and can never enrol again. This cannot be undone.",
		})
	}
	return out
}

// revocationCause asks why, as RFC 5280 §5.3.1 counts reasons.
func revocationCause() field {
	return field{Name: "reason_code", Label: "Because", Kind: "count", Value: "1", Options: []option{
		{"1", "its key is known to somebody else"}, {"4", "it was replaced"}, {"5", "it is out of use"}, {"9", "it may not be here any more"}, {"0", "of something else"},
	}}
}

// revokeCertificate takes one certificate of a device; it may enrol for another.
func (v view) revokeCertificate(c fleet.Certificate, res access.Resource) []action {
	if !c.Ended.IsZero() || c.Issuer == "" || !v.may(access.CertRevoke, res) {
		return nil
	}
	return []action{{
		Label: "Revoke", Title: "Revoke this certificate", Path: "/api/v1/certificates/" + pathEscape(c.Issuer) + "/" + pathEscape(c.Serial) + "/revoke", Body: "{}",
		Fields: []field{revocationCause()}, Tone: "bad", Typed: short(c.Serial),
		Explain: "Its connections end within a second. The device can enrol for another with its factory identity.",
	}}
}

// caseActions are what a person decides of a device in trouble.
func (v view) caseActions(c remedy.Case) []action {
	res := access.Resource{Type: "device", ID: c.Device, Product: c.Product, Group: c.Group}
	path := "/api/v1/remedies/" + pathEscape(c.Device)
	because := func(verb, label, title, explain, tone string) action {
		return action{Label: label, Title: title, Explain: explain, Path: path + "/" + verb, Body: "{}", Field: "reason", Tone: tone}
	}
	var out []action
	if c.Phase == remedy.Held && v.may(access.DeviceQuarantine, res) {
		out = append(out, because("approve", "Quarantine it", "Quarantine this device after all",
			"So many were contained within the hour that a person has to decide. It ends by itself unless it is renewed.", "bad"))
	}
	if (c.Phase == remedy.Contained || c.Phase == remedy.Remaking) && v.may(access.DeviceReprovide, res) {
		out = append(out, because("reprovision", "Make it anew", "Have this device made anew", "It gets the release it should run, and is released when it has proven itself.", ""))
	}
	if c.Phase != remedy.Closed && c.Phase != remedy.Releasing && v.may(access.DeviceRelease, res) {
		out = append(out, because("dismiss", "Dismiss", "End this case as unfounded", "A contained device is released. The reason is in the ledger for good.", ""))
	}
	return out
}

// grantStream lets somebody read a stream.
func (v view) grantStream(products []string, streams []fleet.Stream) []action {
	of := field{Name: "product", Label: "Product", Kind: "one"}
	for _, p := range products {
		if v.may(access.StreamManage, access.Resource{Type: "stream", Product: p}) {
			of.Options = append(of.Options, option{p, p})
		}
	}
	if len(of.Options) == 0 {
		return nil
	}
	name := field{Name: "stream", Label: "Stream", Kind: "text"}
	if len(streams) > 0 {
		name.Value = streams[0].Name
	}
	return []action{{
		Label: "Let somebody read", Title: "Let somebody read a stream", Path: "/api/v1/streams/grants", Body: body(map[string]string{"id": "g-" + strings.ToLower(rand.Text()[:10])}),
		Explain: "For a purpose, until a day. Each reading is a decision in the ledger.",
		Fields: []field{
			{Name: "reader", Label: "Who, as person:alice", Kind: "text"},
			of, name,
			{Name: "purpose", Label: "For what purpose", Kind: "text"},
			{Name: "until", Label: "Until", Kind: "date"},
		},
	}}
}

func (v view) revokeGrant(g telemetry.Grant) []action {
	if !v.may(access.StreamManage, access.Resource{Type: "stream", ID: g.Stream, Product: g.Product}) {
		return nil
	}
	return []action{{
		Label: "End", Title: "End this grant", Path: "/api/v1/streams/grants/" + pathEscape(g.ID) + "/revoke", Body: body(map[string]string{"product": g.Product}), Field: "reason", Tone: "bad",
		Explain: g.Reader + " reads no more of it. What was read has been read.",
	}}
}

// rollOut makes a rollout of a published release, which goes nowhere before it is started.
func (v view) rollOut(r release.Release) []action {
	if r.Status != release.Published || !v.may(access.RolloutCreate, access.Resource{Type: "rollout", Product: r.Manifest.Product}) {
		return nil
	}
	plans := wavePlans()
	return []action{{
		Label: "Roll out", Title: "Prepare a rollout of " + r.Manifest.Version, Path: "/api/v1/rollouts",
		Explain: "To every device that can take it. A wave goes when the one before has proven itself, and a failure halts all. Nothing is sent before it is started. For other waves: hallmark rollout create.",
		Body:    body(map[string]any{"product": r.Manifest.Product, "release": r.Digest[:], "selection": map[string]any{"all": true}}),
		Fields: []field{
			{Name: "id", Label: "Its name", Kind: "text", Value: r.Manifest.ID},
			{Name: "waves", Label: "How fast", Kind: "json", Options: plans, Value: plans[0].Value},
		}, Field: "reason",
	}}
}

// rollOutTo makes a rollout of one of the product's releases to whom the query of the page selects.
func (v view) rollOutTo(q fleet.Query, all []release.Release) []action {
	if q.Product == "" || !v.may(access.RolloutCreate, access.Resource{Type: "rollout", Product: q.Product, Group: q.Group}) {
		return nil
	}
	var releases []option
	for _, r := range all {
		if r.Status == release.Published {
			releases = append(releases, option{body(r.Digest[:]), r.Manifest.Version})
		}
	}
	sel := rollout.Selection{Group: q.Group, Query: &q.Filter}
	if q.Filter == (device.Filter{}) {
		sel.All, sel.Query = true, nil
	}
	if len(releases) == 0 || !sel.Takes() {
		return nil
	}
	plans := wavePlans()
	return []action{{
		Label: "Roll out to these", Title: "Prepare a rollout to these devices", Path: "/api/v1/rollouts",
		Explain: "To " + sel.Text() + ", as far as they can take it: those that are so when their wave begins. A wave goes when the one before has proven itself, and a failure halts all. " +
			"Nothing is sent before it is started. For other waves: hallmark rollout create --query.",
		Body: body(map[string]any{"product": q.Product, "selection": sel}),
		Fields: []field{
			{Name: "id", Label: "Its name", Kind: "text"},
			{Name: "release", Label: "The release", Kind: "json", Options: releases, Value: releases[0].Value},
			{Name: "waves", Label: "How fast", Kind: "json", Options: plans, Value: plans[0].Value},
		}, Field: "reason",
	}}
}

// bringFix makes a rollout of what mends a release that is closed, for whoever runs that, whenever it comes. all are releases of the product.
func (v view) bringFix(r release.Release, all []release.Release) []action {
	if r.Closed.IsZero() || !v.may(access.RolloutCreate, access.Resource{Type: "rollout", Product: r.Manifest.Product}) {
		return nil
	}
	var fixes []option
	for _, f := range all {
		if f.Status == release.Published && f.Manifest.Counter >= r.Install() {
			fixes = append(fixes, option{body(f.Digest[:]), f.Manifest.Version})
		}
	}
	if len(fixes) == 0 {
		return nil
	}
	day := rollout.Seconds(86400)
	waves := func(soak rollout.Seconds) string {
		wave := rollout.Wave{Soak: soak, Deadline: day, MaxErrorsRate: 2, MaxNoShowsRate: 99}
		first, tenth := wave, wave
		first.Size, tenth.Percent = 1, 10
		return body([]rollout.Wave{first, tenth, wave})
	}
	plans := []option{{waves(3600), "one device, a tenth, the rest; an hour each"}, {waves(day), "one device, a tenth, the rest; a day each"}}
	return []action{{
		Label: "Bring what mends it", Title: "Prepare a rollout for devices that run " + r.Manifest.Version, Path: "/api/v1/rollouts",
		Explain: "It takes the devices that run this release, or what is closed with it, through its waves, and then waits: whoever comes back later is told as soon as it is heard of, " +
			"again each day that it shows itself, ten times at most. Nothing is sent before it is started. It ends when it is shut.",
		Body: body(map[string]any{
			"product": r.Manifest.Product, "selection": map[string]any{"all": true}, "dynamic": true, "below_counter": r.Install(),
			"again": rollout.Again{After: day, Times: 10},
		}),
		Fields: []field{
			{Name: "id", Label: "Its name", Kind: "text", Value: "fix-" + r.Manifest.ID},
			{Name: "release", Label: "What mends it", Kind: "json", Options: fixes, Value: fixes[0].Value},
			{Name: "waves", Label: "How fast", Kind: "json", Options: plans, Value: plans[0].Value},
		}, Field: "reason",
	}}
}

// keepQuery keeps the query of the page, or forgets it when it is one of the caller's own.
func keepQuery(q fleet.Query, own []fleet.Saved) []action {
	at := devicesURL(q, "")
	for _, s := range own {
		if devicesURL(s.Query, "") == at {
			return []action{{Label: "Forget", Title: "Forget the query " + s.Name, Explain: "It is not listed for you any more.", Method: http.MethodDelete, Path: "/api/v1/me/queries/" + pathEscape(s.Name)}}
		}
	}
	for _, s := range savedQueries() {
		if s.Path == at {
			return nil
		}
	}
	return []action{{
		Label: "Keep this query", Title: "Keep this query", Explain: "It is listed above for you alone, and as hallmark query list.", Path: "/api/v1/me/queries",
		Body: body(map[string]any{"query": q}), Fields: []field{{Name: "name", Label: "Under the name", Kind: "text"}},
	}}
}

// wavePlans are the ways through a fleet that are offered, the usual one first.
func wavePlans() []option {
	day := rollout.Seconds(86400)
	three := func(soak rollout.Seconds) string {
		return body([]rollout.Wave{{Size: 1, Soak: soak, Deadline: 2 * day}, {Percent: 10, Soak: soak, Deadline: 2 * day}, {Soak: soak, Deadline: 2 * day}})
	}
	return []option{
		{three(3600), "one device, a tenth, the rest; an hour each"},
		{three(day), "one device, a tenth, the rest; a day each"},
		{body([]rollout.Wave{{Size: 1, Soak: 1, Deadline: day}, {Soak: 1, Deadline: day}}), "one device, and the rest as soon as it is good"},
	}
}

// configure tells a device to take settings: those that what it runs has, or any where that has no schema.
func (v view) configure(d fleet.Device, known []device.Setting) []action {
	if device.Ended(device.State(d.State)) || !v.may(access.DeviceConfigure, access.Resource{Type: "device", ID: d.ID, Product: d.Product, Group: d.Group}) {
		return nil
	}
	var fields []field
	for _, s := range known {
		if s.Parameter != nil {
			fields = append(fields, settingField(s))
		}
	}
	if len(fields) == 0 {
		fields = []field{{Name: "config", Label: "NAME=VALUE, one a line", Kind: "pairs"}}
	}
	return []action{{
		Label: "Change", Title: "Tell this device to take settings", Path: "/api/v1/commands", Field: "reason", Fields: fields,
		Body:    body(map[string]any{"product": d.Product, "act": "configure", "devices": []string{d.ID}}),
		Explain: "They are laid over those it has; what is left empty stays as it is. It takes them when it next asks, and reports what it has from then on.",
	}}
}

// settingField asks for a value of a parameter, as its schema has it.
func settingField(s device.Setting) field {
	p := *s.Parameter
	f := field{Name: p.Name, Label: p.Name + " (" + p.String() + ")", Kind: "setting", Optional: true}
	if p.About != "" {
		f.Label = p.About + ": " + f.Label
	}
	values := p.Values
	if p.Type == wire.TypeBoolean {
		values = []string{"false", "true"}
	}
	if len(values) > 0 {
		f.Options = []option{{"", "as it is"}}
	}
	for _, value := range values {
		f.Options = append(f.Options, option{value, value})
	}
	if p.Secret {
		f.Kind = "secret"
	}
	return f
}
