package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/bench/crowd"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
)

// Whatever the walk is along, a list is those devices that have all that is asked for, each once and in order, and the summary counts the same.
func TestListsOfACrowdAreWhatIsAskedFor(t *testing.T) {
	const n = 1500
	db := storetest.Open(t)
	if err := crowd.Fill(t.Context(), db, n, time.Now(), func(int) {}); err != nil {
		t.Fatal(err)
	}
	list := func(q fleet.Query) (out []fleet.Device) {
		for q.Limit = 97; ; q.After = out[len(out)-1].ID {
			page, err := db.FleetDevices(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if out = append(out, page...); len(page) < q.Limit {
				return out
			}
		}
	}
	all := list(fleet.Query{})
	if len(all) != n {
		t.Fatalf("%d devices", len(all))
	}
	release := all[0].Release
	at := func(d fleet.Device, place string) bool {
		path := d.Product + "/" + d.Group
		return place == d.Product || path == place || strings.HasPrefix(path, place+"/")
	}
	found := 0
	for _, scope := range [][]string{nil, {"pump"}, {"pump/eu"}, {crowd.Group}, {"meter", "pump/us"}} {
		for _, q := range []fleet.Query{
			{},
			{Filter: device.Filter{State: "active"}},
			{Filter: device.Filter{State: "quarantined"}},
			{Filter: device.Filter{Verdict: "unknown"}},
			{Filter: device.Filter{Verdict: "warning"}},
			{Filter: device.Filter{Version: "2.4.0"}},
			{Filter: device.Filter{Release: release}},
			{Filter: device.Filter{Findings: true}},
			{Filter: device.Filter{Prefix: "0"}},
			{Filter: device.Filter{State: "active", Verdict: "unknown"}},
			{Filter: device.Filter{State: "quarantined", Findings: true}},
			{Filter: device.Filter{Verdict: "affirming", Version: "2.3.1"}},
			{Filter: device.Filter{Findings: true, Verdict: "unknown", State: "active"}},
			{Filter: device.Filter{Release: release, State: "dormant"}},
			{Filter: device.Filter{Version: "2.4.0", State: "provisioned", Verdict: "unknown", Prefix: "00"}},
		} {
			q.Scope = scope
			var want []string
			for _, d := range all {
				if (len(scope) == 0 || slices.ContainsFunc(scope, func(p string) bool { return at(d, p) })) && (q.State == "" || d.State == q.State) && (q.Verdict == "" || d.Verdict == q.Verdict) &&
					(q.Version == "" || d.Version == q.Version) && (q.Release == "" || d.Release == q.Release) && (!q.Findings || d.Findings > 0) && strings.HasPrefix(d.ID, q.Prefix) {
					want = append(want, d.ID)
				}
			}
			if got := ids(list(q)); !slices.Equal(got, want) {
				t.Errorf("%+v: %d devices, want %d", q, len(got), len(want))
			}
			found += len(want)
		}
		s, err := db.FleetSummary(t.Context(), scope)
		if err != nil {
			t.Fatal(err)
		}
		unknown, heard := list(fleet.Query{Scope: scope, Filter: device.Filter{Verdict: "unknown"}}), 0
		for _, a := range s.Seen {
			heard += a.Devices
		}
		reporting := len(list(fleet.Query{Scope: scope, Filter: device.Filter{State: "active"}})) + len(list(fleet.Query{Scope: scope, Filter: device.Filter{State: "onboarded"}})) + len(list(fleet.Query{Scope: scope, Filter: device.Filter{State: "quarantined"}}))
		if s.Total != len(list(fleet.Query{Scope: scope})) || s.Verdicts["unknown"] != len(unknown) || heard != reporting {
			t.Errorf("summary of %v: %+v", scope, s)
		}
	}
	if found < 1000 {
		t.Errorf("only %d devices were found: the crowd has too little of what is asked for", found)
	}
}

// Those that a rollout is measured with are as many as were asked for, beyond those that are imagined one by one, too.
func TestAUniformCrowdIsOfItsSize(t *testing.T) {
	const n = 50_000
	db := storetest.Open(t)
	if storetest.OnPostgres() {
		if err := db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(crowd.BlobIsBytea)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := crowd.Uniform(t.Context(), db, "pump", device.Twin{Version: "1.0.0"}, n, time.Now()); err != nil {
		t.Fatal(err)
	}
	of, err := db.FleetSummary(t.Context(), []string{"pump"})
	if err != nil {
		t.Fatal(err)
	}
	if of.States["active"] != n {
		t.Fatalf("%d devices are active, of %d", of.States["active"], n)
	}
	for _, i := range []int{0, n/2 - 1, n / 2, n - 1} {
		if _, err := db.Devices().Device(t.Context(), crowd.ID(i, n)); err != nil {
			t.Errorf("the device of place %d: %v", i, err)
		}
	}
}
