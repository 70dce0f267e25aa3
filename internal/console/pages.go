package console

import (
	"context"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/release"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/rollout"
	"github.com/hallmark-iot/hallmark/wire"
)

// pageSize is how many rows a list shows.
const pageSize = 50

func (h *handler) overview(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	ctx := r.Context()
	var o overview
	var counted bool
	var err error
	if o.Summary, counted, err = h.cfg.Fleet.SummaryAt(ctx, caller); err != nil {
		return err
	}
	if !counted {
		h.counting(w, r, caller, "Overview")
		return nil
	}
	if o.Findings, err = h.worst(ctx, caller, 8); err != nil {
		return err
	}
	if o.Rollouts, err = h.underWay(ctx, caller); err != nil {
		return err
	}
	if o.Cases, err = h.openCases(ctx, caller, 6); err != nil {
		return err
	}
	e, _, counted, err := h.cfg.Fleet.Expiry(ctx, caller, time.Now(), 0)
	if unlessDenied(err) != nil {
		return err
	}
	if err == nil && !counted {
		h.counting(w, r, caller, "Overview")
		return nil
	}
	o.Overdue = e.Overdue
	h.render(w, r, http.StatusOK, overviewPage(h.view(r, caller, "Overview", "*"), o))
	return nil
}

// counting is shown in the place of a page whose numbers nobody knows yet, since the server started: not known is not none. The browser
// asks again by itself.
func (h *handler) counting(w http.ResponseWriter, r *http.Request, caller access.Caller, page string) {
	w.Header().Set("Refresh", "2")
	h.render(w, r, http.StatusOK, countingPage(h.view(r, caller, page, "")))
}

// worst gives the open findings, the worst first, those of one kind together.
func (h *handler) worst(ctx context.Context, caller access.Caller, limit int) (out []sameFindings, err error) {
	for _, s := range severities() {
		page, more, err := h.cfg.Fleet.Findings(ctx, caller, fleet.FindingQuery{Severity: s, Limit: pageSize})
		if err != nil {
			return nil, unlessDenied(err)
		}
		for _, f := range page {
			i := slices.IndexFunc(out, func(o sameFindings) bool { return o.Kind == f.Kind && o.Severity == f.Severity })
			if i < 0 {
				out = append(out, sameFindings{Finding: f, More: more})
				i = len(out) - 1
			}
			out[i].N++
		}
	}
	return out[:min(len(out), limit)], nil
}

// underWay gives the rollouts that go on, and the newest of the others, up to some.
func (h *handler) underWay(ctx context.Context, caller access.Caller) (out []rollout.Rollout, err error) {
	list := func(open bool, limit int) ([]rollout.Rollout, error) {
		rs, err := perProduct(ctx, caller, func(ctx context.Context, caller access.Caller, product string) ([]rollout.Rollout, error) {
			return h.cfg.Stages.Rollouts.Page(ctx, caller, product, open, "", limit)
		})
		return rs, unlessDenied(err)
	}
	if out, err = list(true, pageSize); err != nil || len(out) >= 4 {
		return out, err
	}
	newest, err := list(false, pageSize)
	for _, r := range newest {
		if r.Phase.Ended() && len(out) < 4 {
			out = append(out, r)
		}
	}
	return out, err
}

func (h *handler) openCases(ctx context.Context, caller access.Caller, limit int) ([]remedy.Case, error) {
	cases, err := perProduct(ctx, caller, func(ctx context.Context, caller access.Caller, product string) ([]remedy.Case, error) {
		return h.cfg.Stages.Cases.Page(ctx, caller, product, "", limit)
	})
	return cases, unlessDenied(err)
}

// deviceQuery reads a query from a page's address.
func deviceQuery(r *http.Request) fleet.Query {
	v := r.URL.Query()
	return fleet.Query{
		Product: v.Get("product"), Group: strings.TrimSpace(v.Get("group")), After: v.Get("after"), Limit: pageSize,
		Filter: device.Filter{
			State: v.Get("state"), Verdict: v.Get("verdict"), Assurance: v.Get("assurance"), Version: strings.TrimSpace(v.Get("version")), Release: v.Get("release"),
			Bundle: clip(strings.TrimSpace(v.Get("bundle")), 20), Prefix: strings.ToLower(strings.TrimSpace(v.Get("q"))), Findings: v.Get("findings") != "",
		},
	}
}

// devicesPageData is a page of the list, and what can be done with whom it lists.
type devicesPageData struct {
	Query    fleet.Query
	Own      []fleet.Saved
	Products []product.Product
	Devices  []fleet.Device
	Next     string
	Actions  []action
}

func (h *handler) devices(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	q := deviceQuery(r)
	if isDevice(q.Prefix) {
		http.Redirect(w, r, "/devices/"+q.Prefix, http.StatusSeeOther)
		return nil
	}
	devices, next, err := h.cfg.Fleet.Devices(r.Context(), caller, q)
	if err != nil {
		return err
	}
	products, err := h.cfg.Stages.Products.List(r.Context(), caller)
	if unlessDenied(err) != nil {
		return err
	}
	own, err := h.cfg.Fleet.Saved(r.Context(), caller)
	if err != nil {
		return err
	}
	v := h.view(r, caller, "Devices", "device. attest. finding.")
	p := devicesPageData{Query: q, Own: own, Products: products, Devices: devices, Next: next, Actions: keepQuery(q, own)}
	if q.Product != "" {
		releases, err := h.cfg.Stages.Releases.List(r.Context(), caller, q.Product)
		if unlessDenied(err) != nil {
			return err
		}
		p.Actions = append(p.Actions, v.rollOutTo(q, releases)...)
	}
	h.render(w, r, http.StatusOK, devicesPage(v, p))
	return nil
}

func (h *handler) device(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	ctx, id := r.Context(), r.PathValue("id")
	d, lines, err := h.cfg.Fleet.Device(ctx, caller, id)
	if err != nil {
		return err
	}
	v := h.view(r, caller, "Devices", "*", d.ID)
	p := devicePageData{
		Device: d, Lines: lines, Now: time.Now(),
		Custody: h.cfg.Allowed(ctx, caller, access.LedgerRead, access.Resource{Type: "ledger", ID: d.ID, Product: d.Product}),
	}
	if p.Row, err = h.cfg.Stages.Devices.Get(ctx, caller, d.ID); unlessDenied(err) != nil {
		return err
	}
	verdict, err := h.cfg.Stages.Evidence.Current(ctx, caller, d.ID)
	if err == nil {
		p.Evidence = &verdict
	} else if fault.KindOf(err) != fault.NotFound && unlessDenied(err) != nil {
		return err
	}
	if p.Findings, _, err = h.cfg.Fleet.Findings(ctx, caller, fleet.FindingQuery{Subject: d.ID, Limit: 20}); unlessDenied(err) != nil {
		return err
	}
	if d.Release != "" {
		if p.Inside, _, err = h.cfg.Fleet.Findings(ctx, caller, fleet.FindingQuery{Subject: d.Release, Limit: 20}); unlessDenied(err) != nil {
			return err
		}
	}
	if p.Lots, err = h.cfg.Stages.Parts.OfDevice(ctx, caller, d.ID); unlessDenied(err) != nil {
		return err
	}
	if p.Commands, err = h.cfg.Stages.Devices.DeviceCommands(ctx, caller, d.ID); unlessDenied(err) != nil {
		return err
	}
	p.Commands = p.Commands[:min(len(p.Commands), 20)]
	if p.Certs, err = h.cfg.Fleet.Certificates(ctx, caller, d.Device); unlessDenied(err) != nil {
		return err
	}
	p.Certs = p.Certs[:min(len(p.Certs), 12)]
	if !p.Row.Rekeyed.IsZero() {
		if p.Former, err = h.cfg.Stages.Vouchers.Lineage(ctx, caller, d.ID); unlessDenied(err) != nil {
			return err
		}
	}
	retired, err := h.cfg.Stages.Retirements.Get(ctx, caller, d.ID)
	if err == nil {
		p.Retired = &retired
	} else if fault.KindOf(err) != fault.NotFound && unlessDenied(err) != nil {
		return err
	}
	if p.Ownership, err = h.ownership(ctx, caller, v, d); err != nil {
		return err
	}
	if p.Twin, err = h.cfg.Stages.Devices.Settings(ctx, caller, d.ID); unlessDenied(err) != nil {
		return err
	}
	p.Configure = v.configure(d.Device, p.Twin)
	p.Actions = v.deviceActions(d.ID, d.Product, d.Group, device.State(d.State))
	p.Life = v.lifeActions(d.ID, device.State(d.State), device.Legitimacy(d.Legitimacy), access.Resource{Type: "device", ID: d.ID, Product: d.Product, Group: d.Group})
	h.render(w, r, http.StatusOK, devicePage(v, p))
	return nil
}

func (h *handler) findings(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	ctx := r.Context()
	only := monitor.Severity(r.URL.Query().Get("severity"))
	var before time.Time
	if ms, err := strconv.ParseInt(r.URL.Query().Get("before"), 10, 64); err == nil {
		before = time.UnixMilli(ms)
	}
	var parts []findingsPart
	for _, s := range severities() {
		if only != "" && only != s {
			continue
		}
		page, more, err := h.cfg.Fleet.Findings(ctx, caller, fleet.FindingQuery{Severity: s, Before: before, Limit: pageSize})
		if err != nil {
			return err
		}
		part := findingsPart{Severity: s, Findings: page}
		if more {
			part.More = "/findings?severity=" + string(s) + "&before=" + strconv.FormatInt(page[len(page)-1].Raised.UnixMilli(), 10)
		}
		if len(page) > 0 {
			parts = append(parts, part)
		}
	}
	s, _, err := h.cfg.Fleet.SummaryAt(ctx, caller)
	if unlessDenied(err) != nil {
		return err
	}
	h.render(w, r, http.StatusOK, findingsPage(h.view(r, caller, "Findings", "finding."), parts, s.Severity))
	return nil
}

func (h *handler) cases(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	cases, err := perProduct(r.Context(), caller, func(ctx context.Context, caller access.Caller, product string) ([]remedy.Case, error) {
		return h.cfg.Stages.Cases.Page(ctx, caller, product, "", fleet.MaxPage)
	})
	if err != nil {
		return err
	}
	h.render(w, r, http.StatusOK, casesPage(h.view(r, caller, "Quarantine", "remedy. device."), cases))
	return nil
}

func (h *handler) releases(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	list, err := perProduct(r.Context(), caller, h.cfg.Stages.Releases.List)
	if err != nil {
		return err
	}
	h.render(w, r, http.StatusOK, releasesPage(h.view(r, caller, "Releases", "release."), list))
	return nil
}

func (h *handler) release(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	ctx := r.Context()
	raw, err := hex.DecodeString(r.PathValue("digest"))
	if err != nil || len(raw) != 32 {
		return fault.New(fault.NotFound, "release.unknown", "a release is named by its digest: 64 hex digits", "choose it from the list of releases")
	}
	var p releasePageData
	if p.Release, err = h.cfg.Stages.Releases.Get(ctx, caller, [32]byte(raw)); err != nil {
		return err
	}
	productID := p.Release.Manifest.Product
	if b, err := h.cfg.Stages.Devices.CurrentBundle(ctx, productID); err == nil {
		p.Bundle = &b.Wire
	} else if fault.KindOf(err) != fault.NotFound {
		h.cfg.Log.WarnContext(ctx, "console: no trust bundle to count approvals with", "product", productID, "error", err)
	}
	if p.Runs, p.Counted, err = h.cfg.Fleet.Runs(ctx, caller, productID, raw); unlessDenied(err) != nil {
		return err
	}
	if len(p.Release.Manifest.SBOM) > 0 {
		if p.Assessed, err = h.cfg.Stages.Supply.Assessed(ctx, caller, p.Release.Digest); err != nil {
			return err
		}
	}
	if p.Found, err = foundOf(p.Release); err != nil {
		return err
	}
	if p.Findings, _, err = h.cfg.Fleet.Findings(ctx, caller, fleet.FindingQuery{Subject: hexOf(raw), Limit: 50}); unlessDenied(err) != nil {
		return err
	}
	if p.Deltas, err = h.cfg.Stages.Releases.ListDeltas(ctx, caller, p.Release.Digest); unlessDenied(err) != nil {
		return err
	}
	all, err := h.cfg.Stages.Rollouts.List(ctx, caller, productID)
	if unlessDenied(err) != nil {
		return err
	}
	for _, o := range all {
		if slices.Equal(o.Spec.Release, raw) {
			p.Rollouts = append(p.Rollouts, o)
		}
		if o.Spec.Again != nil && o.Spec.Below > p.Release.Manifest.Counter && !p.Release.Closed.IsZero() {
			p.Mending = append(p.Mending, o)
		}
	}
	var fixes []release.Release
	if !p.Release.Closed.IsZero() {
		if fixes, err = h.cfg.Stages.Releases.List(ctx, caller, productID); unlessDenied(err) != nil {
			return err
		}
	}
	v := h.view(r, caller, "Releases", "release. rollout.", hexOf(raw), p.Release.Manifest.ID)
	v.Subjects = "" // rollouts of it have names of their own
	p.Actions = append(append(slices.Concat(v.rollOut(p.Release), v.bringFix(p.Release, fixes)), v.orderOfRelease(p.Release, time.Now())...), v.releaseActions(p.Release, missing(p.Release, p.Bundle))...)
	h.render(w, r, http.StatusOK, releasePage(v, p))
	return nil
}

// missing counts the approvals that are still needed; -1: nobody knows.
func missing(r release.Release, b *wire.Bundle) int {
	if b == nil {
		return -1
	}
	return max(0, int(b.Release.Threshold)-len(r.Approvals))
}

func (h *handler) rollouts(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	list, more, err := onePage(r, caller, func(ctx context.Context, place, after string, limit int) ([]rollout.Rollout, error) {
		return h.cfg.Stages.Rollouts.Page(ctx, caller, place, false, after, limit)
	}, func(x rollout.Rollout) string { return x.Spec.ID })
	if err != nil {
		return err
	}
	h.render(w, r, http.StatusOK, rolloutsPage(h.view(r, caller, "Rollouts", "rollout."), list, more))
	return nil
}

type rolloutPageData struct {
	Rollout rollout.Rollout
	Which   rollout.Which // of its devices are listed
	Devices []rollout.DeviceView
	More    string
	Deltas  []release.Delta // to its release
	Chart   []byte          // of how it went; nil: nothing to be seen yet
	Actions []action
}

func (h *handler) rollout(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	ctx := r.Context()
	o, _, err := h.cfg.Stages.Rollouts.Get(ctx, caller, r.PathValue("id"))
	if err != nil {
		return err
	}
	v := h.view(r, caller, "Rollouts", "rollout. device. attest.")
	p := rolloutPageData{Rollout: o, Which: whichOf(r, o), Actions: v.rolloutActions(o)}
	if p.Devices, p.More, err = paged(r, func(after string, limit int) ([]rollout.DeviceView, error) {
		return h.cfg.Stages.Rollouts.Devices(ctx, caller, o.Spec.ID, p.Which, after, limit)
	}, func(d rollout.DeviceView) string { return d.Device }); err != nil {
		return err
	}
	if p.More != "" {
		p.More += "&list=" + listed(p.Which)
	}
	if p.Deltas, err = h.cfg.Stages.Releases.ListDeltas(ctx, caller, [32]byte(o.Spec.Release)); unlessDenied(err) != nil {
		return err
	}
	points, err := h.cfg.Stages.Rollouts.Progress(ctx, caller, o.Spec.ID)
	if err != nil {
		return err
	}
	p.Chart = progressChart(o, points, time.Now())
	h.render(w, r, http.StatusOK, rolloutPage(v, p))
	return nil
}

func (h *handler) orders(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	list, more, err := onePage(r, caller, func(ctx context.Context, place, after string, limit int) ([]factory.Order, error) {
		return h.cfg.Stages.Orders.Page(ctx, caller, place, after, limit)
	}, func(o factory.Order) string { return o.ID })
	if err != nil {
		return err
	}
	h.render(w, r, http.StatusOK, ordersPage(h.view(r, caller, "Orders", "order."), list, more))
	return nil
}

func (h *handler) order(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	o, err := h.cfg.Stages.Orders.Get(r.Context(), caller, r.PathValue("id"))
	if err != nil {
		return err
	}
	var rec *factory.Reconciliation
	if got, err := h.cfg.Stages.Orders.Reconcile(r.Context(), caller, o.ID); err == nil {
		rec = &got
	} else if unlessDenied(err) != nil {
		return err
	}
	made, err := h.cfg.Stages.Parts.OfOrder(r.Context(), caller, o.ID)
	if err != nil {
		return err
	}
	v := h.view(r, caller, "Orders", "order. lot. device.provisioned device.onboarded")
	h.render(w, r, http.StatusOK, orderPage(v, o, rec, made, v.orderActions(o, rec)))
	return nil
}

func (h *handler) certificates(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	after := time.UnixMilli(0)
	if ms, err := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64); err == nil {
		after = time.UnixMilli(ms)
	}
	e, next, counted, err := h.cfg.Fleet.Expiry(r.Context(), caller, after, pageSize)
	if err != nil {
		return err
	}
	if !counted {
		h.counting(w, r, caller, "Certificates")
		return nil
	}
	held, more, err := h.ceremonies(r.Context(), caller, clip(r.URL.Query().Get("held"), 64))
	if err != nil {
		return err
	}
	h.render(w, r, http.StatusOK, certificatesPage(h.view(r, caller, "Certificates", "cert. ca. ceremony."), e, next, held, more, time.Now()))
	return nil
}

func (h *handler) streams(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	streams, grants, counted, err := h.cfg.Fleet.Streams(r.Context(), caller)
	if err != nil {
		return err
	}
	if !counted {
		h.counting(w, r, caller, "Data")
		return nil
	}
	reads, _, err := h.cfg.Fleet.Facts(r.Context(), caller, fleet.FactQuery{Log: "events", Kind: "telemetry.read.decided", Limit: 20})
	if unlessDenied(err) != nil {
		return err
	}
	products, err := h.cfg.Stages.Products.List(r.Context(), caller)
	if unlessDenied(err) != nil {
		return err
	}
	var names []string
	for _, p := range products {
		names = append(names, p.ID)
	}
	h.render(w, r, http.StatusOK, streamsPage(h.view(r, caller, "Data", "telemetry. access."), names, streams, grants, reads, time.Now()))
	return nil
}

func (h *handler) platform(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	b, counted, err := h.cfg.Fleet.Backlog(r.Context(), caller)
	if err != nil {
		return err
	}
	if !counted {
		h.counting(w, r, caller, "Platform")
		return nil
	}
	p := platformPageData{Loops: loops(h.cfg.Pulse(), time.Now()), Backlog: b, Versions: versionsOfProgram()}
	h.render(w, r, http.StatusOK, platformPage(h.view(r, caller, "Platform", "*"), p))
	return nil
}

// account shows what the caller is. It needs no right but to be signed in.
func (h *handler) account(w http.ResponseWriter, r *http.Request, caller access.Caller) error {
	var roles []string
	for _, role := range caller.Roles {
		roles = append(roles, string(role))
	}
	scope := "everywhere"
	if len(caller.Scope) > 0 {
		scope = joined(caller.Scope)
	}
	h.render(w, r, http.StatusOK, accountPage(h.view(r, caller, "Account", ""), orNone(roles), scope))
	return nil
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none: ask an administrator for one"
	}
	return joined(list)
}
