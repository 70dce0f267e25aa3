package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/bench/crowd"
	"github.com/hallmark-iot/hallmark/internal/store"
)

// filters of the devices, as pages and the API both name them: each alone, and the usual pairs.
func filters(release string) []url.Values {
	var out []url.Values
	for _, f := range []string{
		"", "state=active", "state=quarantined", "verdict=affirming", "verdict=warning", "verdict=contraindicated", "verdict=unknown",
		"version=2.4.0", "version=" + crowd.RareVersion, "release=" + release, "findings=true",
		"state=quarantined&findings=true", "state=active&verdict=unknown", "state=active&version=" + crowd.RareVersion, "verdict=contraindicated&version=2.4.0",
		"verdict=unknown&findings=true", "release=" + release + "&state=quarantined",
		"product=meter", "product=meter&state=quarantined", "product=meter&verdict=unknown", "product=meter&version=" + crowd.RareVersion, "product=meter&findings=true",
	} {
		v, err := url.ParseQuery(f)
		if err != nil {
			panic(err) // the list above is constant
		}
		out = append(out, v)
	}
	return out
}

// behind is a filter's page from behind an ID on.
func behind(v url.Values, id string) url.Values {
	out := maps.Clone(v)
	out.Set("after", id)
	return out
}

// things are what pages of one thing are shown of.
type things struct {
	n               int
	release, device string
}

func find(ctx context.Context, db *store.DB, n int) (t things, err error) {
	t.n = n
	page, err := db.FleetDevices(ctx, fleet.Query{Scope: []string{crowd.Group}, Limit: 1, Filter: device.Filter{State: "active"}})
	if err != nil || len(page) == 0 {
		return t, fmt.Errorf("no device is in %s: %w", crowd.Group, err)
	}
	t.device, t.release = page[0].ID, page[0].Release
	if _, err := hex.DecodeString(t.release); err != nil {
		return t, err
	}
	return t, nil
}

// pages are all of the console's.
func (t things) pages() (out []ask) {
	for _, who := range []string{everybody, ofProduct, ofGroup} {
		add := func(path string) { out = append(out, ask{who, path}) }
		add("/")
		for _, f := range filters(t.release) {
			if who != everybody && f.Get("product") != "" {
				continue
			}
			add("/devices?" + f.Encode())
			add("/devices?" + behind(f, crowd.ID(t.n/2, t.n)).Encode())
			add("/devices?" + behind(f, crowd.ID(t.n-t.n/50, t.n)).Encode())
		}
		add("/devices?q=00a")
		add("/devices/" + t.device)
		for _, path := range []string{
			"/findings", "/findings?severity=medium", fmt.Sprintf("/findings?severity=medium&before=%d", time.Now().AddDate(0, -2, 0).UnixMilli()),
			"/cases", "/releases", "/releases/" + t.release, "/rollouts", "/account",
		} {
			add(path)
		}
		if who == ofGroup {
			continue
		}
		for _, path := range []string{
			"/rollouts/" + crowd.Rollout, "/orders", "/orders/" + crowd.Order, "/compliance?product=" + crowd.Products()[0], "/compliance/etsi-en-303-645/5.12-1?product=" + crowd.Products()[0],
		} {
			add(path)
		}
		if who == ofProduct {
			continue
		}
		for _, path := range []string{
			"/devices?group=eu&product=pump", "/devices?group=eu&product=pump&state=quarantined", "/devices?group=site/007&product=pump", "/devices?group=site/007&product=pump&verdict=unknown",
			"/certificates", fmt.Sprintf("/certificates?after=%d", time.Now().AddDate(0, 1, 0).UnixMilli()), "/streams", "/ledger", "/ledger/events/0",
			"/ledger?log=events&kind=attest.verdict", "/ledger?log=events&subject=" + t.device,
			"/platform", "/proposals", "/members", "/members/person:one-product", "/audit", "/audit?denied=true", "/compliance?product=meter",
		} {
			add(path)
		}
	}
	return out
}

// lists are the list operations of the API.
func (t things) lists() (out []ask) {
	const api = "/api/v1"
	for _, who := range []string{everybody, ofProduct, ofGroup} {
		add := func(path string) { out = append(out, ask{who, api + path}) }
		add("/fleet")
		for _, f := range filters(t.release) {
			if who != everybody && f.Get("product") != "" {
				continue
			}
			add("/devices?" + f.Encode())
			add("/devices?" + behind(f, crowd.ID(t.n/2, t.n)).Encode())
			add("/devices?" + behind(f, crowd.ID(t.n-t.n/50, t.n)).Encode())
		}
		of := "product=" + crowd.Products()[0]
		if who == ofGroup {
			of += "&group=eu/berlin"
		}
		for _, path := range []string{
			"/findings?" + of, "/findings?open=true&" + of, "/findings?kind=update.failed&" + of, "/findings?kind=update.failed&open=true&" + of, "/findings?kind=clone.suspected&" + of,
			"/findings?" + of + "&subject=" + t.device, "/remedies?" + of, "/retirements?" + of, "/rollouts?" + of, "/rollouts?open=true&" + of,
			"/groups?" + of, "/devices/" + t.device, "/devices/" + t.device + "/commands", "/devices/" + t.device + "/certificates",
		} {
			add(path)
		}
		if who == ofGroup {
			continue
		}
		for _, path := range []string{
			"/rollouts/" + crowd.Rollout, "/rollouts/" + crowd.Rollout + "/devices", "/rollouts/" + crowd.Rollout + "/devices?stuck=true",
			"/rollouts/" + crowd.Rollout + "/devices?after=" + crowd.ID(t.n/2, t.n), "/commands/" + crowd.Command, "/commands/" + crowd.Command + "/devices",
			"/commands/" + crowd.Command + "/devices?after=" + crowd.ID(t.n/2, t.n), "/orders?" + of, "/orders/" + crowd.Order, "/releases?" + of,
			"/compliance?" + of, "/warrants?" + of, "/proposals?" + of, "/streams/grants?" + of,
		} {
			add(path)
		}
		if who == ofProduct {
			continue
		}
		for _, path := range []string{
			"/findings", "/findings?open=true", "/remedies", "/retirements", "/groups", "/rollouts", "/orders", "/warrants", "/proposals", "/streams/grants",
			"/log/events/facts", "/log/events/facts?kind=attest.verdict", "/log/events/facts?kind=device.state.changed", "/log/events/facts?subject=" + t.device,
			fmt.Sprintf("/log/events/facts?kind=attest.verdict&before=%d", t.n/3), "/log/events/entries/5", "/audit", "/audit?denied=true", "/audit?action=device.read", "/audit?action=device.move",
			"/members", "/products", "/issuers", "/revocations", "/me", "/me/queries",
		} {
			add(path)
		}
	}
	return out
}
