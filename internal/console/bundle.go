package console

import (
	"fmt"
	"net/http"

	"github.com/a-h/templ"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/product"
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
	Actions []action
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
	v := h.view(r, caller, "Trust bundles", "bundle. device. finding. product.")
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

func bundleLink(product string) templ.SafeURL {
	return templ.SafeURL("/bundles/" + pathEscape(product))
}

// behindLink leads to the devices of a product with a version of its bundle.
func behindLink(product string, version uint64) templ.SafeURL {
	return templ.SafeURL(devicesURL(fleet.Query{Product: product, Bundle: fmt.Sprint(version)}, ""))
}

func versionTone(c device.BundleCount, s device.BundleStatus) string {
	if c.Version < s.Current {
		return "warn"
	}
	return "good"
}

// thresholdOf says how many of how many have to sign.
func thresholdOf(k wire.KeySet) string { return fmt.Sprintf("%d of %d keys", k.Threshold, len(k.Keys)) }
