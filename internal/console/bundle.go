package console

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/a-h/templ"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

// bundleRow is a product with the trust bundle that is in force.
type bundleRow struct {
	Product product.Product
	Bundle  *wire.Bundle // nil: none was published
}

func (h *handler) bundles(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	ctx := r.Context()
	products, err := h.cfg.Stages.Products.List(ctx, caller)
	if err != nil {
		return err
	}
	products, more := cutAfter(products, "/bundles?after=", r.URL.Query().Get("after"), func(p product.Product) string { return p.ID })
	rows := make([]bundleRow, 0, len(products))
	for _, p := range products {
		row := bundleRow{Product: p}
		b, err := h.cfg.Stages.Devices.CurrentBundle(ctx, p.ID)
		if err == nil {
			row.Bundle = &b.Wire
		} else if fault.KindOf(err) != fault.NotFound {
			return err
		}
		rows = append(rows, row)
	}
	h.render(w, r, http.StatusOK, bundlesPage(h.view(r, caller, "Trust bundles", "bundle."), rows, more))
	return nil
}

type bundlePageData struct {
	Product product.Product
	Bundle  wire.Bundle
	Status  device.BundleStatus
	Signers []signer // of software
	People  bool     // whose the keys of software are may be seen
	Bound   bool     // one of them is somebody's, or was: the others approve nothing
	Actions []action
}

// signer is a key that approves software, with whose it is.
type signer struct {
	Key    string // ID, hex
	Suite  string
	Member string // empty: nobody's
}

// signers are the keys of the release role, with what was said of them.
func signers(b wire.Bundle, bound []release.Approver) (out []signer) {
	for _, spki := range b.Release.Keys {
		s := signer{Key: keyName(spki), Suite: suiteName(spki)}
		if i := slices.IndexFunc(bound, func(a release.Approver) bool { return a.Key == s.Key }); i >= 0 {
			s.Member = bound[i].Member
		}
		out = append(out, s)
	}
	return out
}

func suiteName(spki []byte) string {
	pub, err := suite.ParsePublic(spki)
	if err != nil {
		return "unknown"
	}
	s, err := suite.Of(pub)
	if err != nil {
		return "unknown"
	}
	return string(s.ID)
}

// persons counts the people whose the keys are.
func (p bundlePageData) persons() int {
	people := map[string]bool{}
	for _, s := range p.Signers {
		if s.Member != "" {
			people[s.Member] = true
		}
	}
	return len(people)
}

// keysTone and keysWords say whether a threshold of keys is one of people.
func (p bundlePageData) keysTone() string {
	switch n := p.persons(); {
	case !p.Bound:
		return "warn"
	case n < int(p.Bundle.Release.Threshold):
		return "bad"
	}
	return "good"
}

func (p bundlePageData) keysWords() string {
	switch n := p.persons(); {
	case !p.Bound:
		return fmt.Sprintf("Nobody says whose these keys are: %d signatures are asked for, and not %d people. One person with two of the keys, and two accounts, can approve alone.", p.Bundle.Release.Threshold, p.Bundle.Release.Threshold)
	case n < int(p.Bundle.Release.Threshold):
		return fmt.Sprintf("No release can be approved: the keys are those of %s, and %d are asked for. Say whose the others are.", persons(n), p.Bundle.Release.Threshold)
	case slices.ContainsFunc(p.Signers, func(s signer) bool { return s.Member == "" }):
		return "An approval counts only by a key that is its sender's. Keys that are nobody's approve nothing."
	}
	return "An approval counts only by a key that is its sender's: a threshold of keys is one of people."
}

func persons(n int) string {
	if n == 1 {
		return "1 person"
	}
	return number(n) + " people"
}

// all are the devices that are counted.
func (p bundlePageData) all() (n int) {
	for _, c := range p.Status.Counts {
		n += c.Devices
	}
	return n
}

func (p bundlePageData) tone() string {
	if p.Status.Behind > 0 {
		return "warn"
	}
	return "good"
}

func (p bundlePageData) words() string {
	switch {
	case p.all() == 0:
		return "No device is in the field yet. Each gets the newest bundle in the factory."
	case p.Status.Behind == 0:
		return "Every device believes the newest bundle."
	}
	return fmt.Sprintf("%s of %s %s an older bundle. Each takes the newer one when it calls; whoever was away follows the history.",
		number(p.Status.Behind), plural(p.all(), "device"), has(p.Status.Behind))
}

func has(n int) string {
	if n == 1 {
		return "has"
	}
	return "have"
}

func (h *handler) bundle(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	ctx, id := r.Context(), r.PathValue("product")
	status, err := h.cfg.Stages.Devices.BundleStatus(ctx, caller, id)
	if err != nil {
		return err
	}
	p := bundlePageData{Status: status}
	products, err := h.cfg.Stages.Products.List(ctx, caller)
	if err != nil {
		return err
	}
	for _, x := range products {
		if x.ID == id {
			p.Product = x
		}
	}
	b, err := h.cfg.Stages.Devices.CurrentBundle(ctx, id)
	if err != nil {
		return err
	}
	p.Bundle = b.Wire
	bound, err := h.cfg.Stages.Releases.Approvers(ctx, caller, id)
	if unlessDenied(err) != nil {
		return err
	}
	p.Signers, p.People, p.Bound = signers(p.Bundle, bound), err == nil, len(bound) > 0
	v := h.view(r, caller, "Trust bundles", "bundle. device. finding. product. approver.")
	p.Actions = v.bundleActions(p.Product)
	h.render(w, r, http.StatusOK, bundlePage(v, p))
	return nil
}

// bundleActions changes how long a device may stay behind.
func (v view) bundleActions(p product.Product) []action {
	if p.ID == "" || !v.may(access.BundlePublish, access.Resource{Type: "product", ID: p.ID, Product: p.ID}) {
		return nil
	}
	return []action{{
		Label: "How long may one stay behind?", Title: "When a device of " + p.ID + " that stays behind is a finding", Method: http.MethodPut,
		Path: "/api/v1/products/" + pathEscape(p.ID) + "/bundle/due", Body: "{}",
		Fields:  []field{{Name: "days", Label: "Days after a trust bundle was published", Kind: "number", Value: fmt.Sprint(p.BundleDays())}},
		Explain: "A device that is heard of, and still believes an older bundle after these, raises a finding. One that is not heard of is a finding of its own.",
	}}
}

// bindKey says whose a key of the release role is, or that it is nobody's any more.
func (v view) bindKey(product string, s signer) []action {
	if !v.may(access.ApproverBind, access.Resource{Type: "product", ID: product, Product: product, Grave: true}) {
		return nil
	}
	path := "/api/v1/products/" + pathEscape(product) + "/approvers/" + s.Key
	if s.Member != "" {
		return []action{{
			Label: "Nobody's", Title: "Say that key " + short(s.Key) + " is nobody's any more", Method: http.MethodDelete, Path: path, Tone: "bad", Typed: short(s.Key),
			Explain: "For the key of who left, or one that was lost. Approvals by it count no more, also those of releases that are under way. It takes two people.",
		}}
	}
	return []action{{
		Label: "Say whose it is", Title: "Whose is key " + short(s.Key) + "?", Method: http.MethodPut, Path: path, Body: "{}",
		Explain: "From the first key on that is somebody's, approvals count only by keys that are their sender's: do this for all of them at once. It takes two people.",
		Fields:  []field{{Name: "member", Label: "Member, as person:NAME", Kind: "text"}},
	}}
}

func bundleLink(product string) templ.SafeURL {
	return templ.SafeURL("/bundles/" + pathEscape(product))
}

// behindLink leads to the devices of a product with a version of its bundle.
func behindLink(product string, version uint64) templ.SafeURL {
	return templ.SafeURL(devicesURL(fleet.Query{Product: product, Filter: device.Filter{Bundle: fmt.Sprint(version)}}, ""))
}

func versionTone(c device.BundleCount, s device.BundleStatus) string {
	if c.Version < s.Current {
		return "warn"
	}
	return "good"
}

// thresholdOf says how many of how many have to sign.
func thresholdOf(k wire.KeySet) string { return fmt.Sprintf("%d of %d keys", k.Threshold, len(k.Keys)) }
