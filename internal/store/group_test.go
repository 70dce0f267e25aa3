package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fleet"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/remedy"
	"github.com/hallmark-iot/hallmark/rollout"
)

func seedGrouped(t *testing.T, db *store.DB) (a, b, valve string) {
	t.Helper()
	a, b, valve = strings.Repeat("a", 32), strings.Repeat("b", 32), strings.Repeat("c", 32)
	for id, product := range map[string]string{a: "pump", b: "pump", valve: "valve"} {
		err := db.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(`INSERT INTO device (id, product, hardware, state, legitimacy, order_id, station, made, key_origin, is_virtual, since, doc)
				VALUES ($1, $2, 'A', 'active', 'genuine', 'o', 's', 1, 'soft', 1, 1, '{}')`, id, product)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return a, b, valve
}

func group(t *testing.T, db *store.DB, id, from, to string) {
	t.Helper()
	f := ledger.New(ledger.KindDeviceGrouped, time.Now(), "test", id, nil, []byte("{}"))
	if err := db.Devices().GroupDevices(t.Context(), []device.Grouping{{Device: id, From: from, To: to}}, to, []ledger.Fact{f}); err != nil {
		t.Fatal(err)
	}
}

// What is seen of a device in a scope: the device itself, and all that is said of it.
func seen(t *testing.T, db *store.DB, scope ...string) string {
	t.Helper()
	var out []string
	ctx := t.Context()
	sorted := func(name string, found []monitor.Finding) {
		slices.SortFunc(found, func(a, b monitor.Finding) int { return strings.Compare(a.Subject, b.Subject) })
		for _, f := range found {
			out = append(out, name+" "+f.Subject[:1]+" "+f.Group)
		}
	}
	devices, e1 := db.FleetDevices(ctx, fleet.Query{Scope: scope, Limit: 10})
	for _, d := range devices {
		out = append(out, "device "+d.ID[:1]+" "+d.Group)
	}
	found, e2 := db.Monitor().Findings(ctx, monitor.Query{Scope: scope, Limit: 10})
	sorted("finding", found)
	found, e3 := db.FleetFindings(ctx, fleet.FindingQuery{Scope: scope, Severity: monitor.High, Limit: 10})
	sorted("open", found)
	cases, e4 := db.Remedies().OpenCases(ctx, scope, "", 10)
	for _, c := range cases {
		out = append(out, "case "+c.Device[:1])
	}
	sum, e5 := db.FleetSummary(ctx, scope)
	out = append(out, fmt.Sprintf("counted %d/%d", sum.Total, sum.Findings))
	if err := errors.Join(e1, e2, e3, e4, e5); err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, ", ")
}

func TestMovingADeviceMovesWhatIsSeenOfIt(t *testing.T) {
	db := storetest.Open(t)
	a, b, valve := seedGrouped(t, db)
	now := time.Now().UTC()
	for i, id := range []string{a, b} {
		f := ledger.New(ledger.KindFindingRaised, now, "test", id, nil, []byte("{}"))
		_, err := db.Monitor().PutFinding(t.Context(), monitor.Finding{ID: id[:4], Dedupe: id, Kind: monitor.Unhealthy, Severity: monitor.High, Product: "pump", Subject: id, Raised: now}, f)
		err = errors.Join(err,
			db.Remedies().OpenCase(t.Context(), remedy.Case{Device: id, Product: "pump", Cause: ledger.Ref{Log: ledger.Events, Index: uint64(i)}, Phase: remedy.Held, Opened: now, Since: now, Rev: 1}, remedy.Limit{Most: 1}))
		if err != nil {
			t.Fatal(err)
		}
	}
	group(t, db, a, "", "eu/berlin")
	group(t, db, b, "", "eu/rome")
	group(t, db, valve, "", "eu/berlin")
	both := "device a eu/berlin, device b eu/rome, finding a eu/berlin, finding b eu/rome, open a eu/berlin, open b eu/rome, case a, case b, counted 2/2"
	for scope, want := range map[string]string{
		"pump/eu/berlin":               "device a eu/berlin, finding a eu/berlin, open a eu/berlin, case a, counted 1/1",
		"pump/eu/rome":                 "device b eu/rome, finding b eu/rome, open b eu/rome, case b, counted 1/1",
		"pump/eu":                      both,
		"pump":                         both,
		"pump/eu/berlin pump/eu/rome":  both,
		"pump/e":                       "counted 0/0",
		"valve/eu":                     "device c eu/berlin, counted 1/0",
		"valve pump/eu/nowhere pump/x": "device c eu/berlin, counted 1/0",
	} {
		if got := seen(t, db, strings.Fields(scope)...); got != want {
			t.Errorf("in %s: %s, want %s", scope, got, want)
		}
	}
	group(t, db, a, "eu/berlin", "us")
	if got := seen(t, db, "pump/eu"); got != "device b eu/rome, finding b eu/rome, open b eu/rome, case b, counted 1/1" {
		t.Errorf("after it moved away: %s", got)
	}
	if got := seen(t, db, "pump/us"); got != "device a us, finding a us, open a us, case a, counted 1/1" {
		t.Errorf("where it moved to: %s", got)
	}
	group(t, db, a, "us", "")
	if got := seen(t, db, "pump/us"); got != "counted 0/0" {
		t.Errorf("after it was taken out: %s", got)
	}
	err := db.Devices().GroupDevices(t.Context(), []device.Grouping{{Device: b, From: "eu/rome", To: "us"}, {Device: a, From: "eu", To: "us"}}, "us", nil)
	if !errors.Is(err, device.ErrChanged) {
		t.Errorf("a device that is elsewhere by now: %v", err)
	}
	if got := seen(t, db, "pump/eu/rome"); !strings.HasPrefix(got, "device b eu/rome") {
		t.Errorf("half a change stands: %s", got)
	}
}

func TestGroupsAreCountedWithThoseBelow(t *testing.T) {
	db := storetest.Open(t)
	a, b, valve := seedGrouped(t, db)
	group(t, db, a, "", "eu/berlin")
	group(t, db, b, "", "eu/rome")
	group(t, db, valve, "", "eu")
	for scope, want := range map[string][]string{
		"":               {"pump/eu 2", "pump/eu/berlin 1", "pump/eu/rome 1", "valve/eu 1"},
		"pump":           {"pump/eu 2", "pump/eu/berlin 1", "pump/eu/rome 1"},
		"pump/eu/berlin": {"pump/eu/berlin 1"},
		"pump/e":         nil,
	} {
		gs, err := db.FleetGroups(t.Context(), fleet.GroupQuery{Scope: strings.Fields(scope), Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, g := range gs {
			got = append(got, fmt.Sprintf("%s %d", g.Path, g.Devices))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", scope, got, want)
		}
	}
}

func TestTheGroupsOfMany(t *testing.T) {
	db := storetest.Open(t)
	a, b, valve := seedGrouped(t, db)
	group(t, db, a, "", "eu/berlin")
	group(t, db, valve, "", "eu/berlin")
	for name, c := range map[string]struct{ ids, want []string }{
		"one":               {[]string{a}, []string{"eu/berlin"}},
		"one in no group":   {[]string{a, b}, []string{"", "eu/berlin"}},
		"another product's": {[]string{a, valve}, []string{"", "eu/berlin"}},
		"one nobody knows":  {[]string{a, "nobody"}, []string{"", "eu/berlin"}},
		"none":              {nil, nil},
	} {
		got, err := db.Devices().GroupsOf(context.WithoutCancel(t.Context()), "pump", c.ids)
		slices.Sort(got)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q %v, want %q", name, got, err, c.want)
		}
	}
}

func TestWhereTheSubjectsOfFactsAre(t *testing.T) {
	db := storetest.Open(t)
	a, b, valve := seedGrouped(t, db)
	group(t, db, a, "", "eu/berlin")
	now := time.Now()
	for id, g := range map[string]string{"part": "eu", "whole": ""} {
		r := rollout.Rollout{Spec: rollout.Spec{ID: id, Product: "pump", Selection: rollout.Selection{Group: g, All: true}}, Created: now, Rev: 1}
		if err := db.Rollouts().PutRollout(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	got, err := db.SubjectPlaces(t.Context(), []string{a, b, valve, "part", "whole", "nobody"})
	want := map[string]string{a: "pump/eu/berlin", b: "pump", valve: "valve", "part": "pump/eu", "whole": "pump"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v %v, want %v", got, err, want)
	}
}

func TestACertificateMovesWithItsDevice(t *testing.T) {
	db := storetest.Open(t)
	a, _, _ := seedGrouped(t, db)
	now := time.Now()
	if _, err := db.PKI().Issue(t.Context(), pki.Issued{Key: "i/1", Device: a, Role: "ldevid", Issuer: "i", Serial: "1", NotBefore: now, NotAfter: now.Add(time.Hour), DER: []byte{1}}, now, now); err != nil {
		t.Fatal(err)
	}
	from := ""
	for _, to := range []string{"", "eu/berlin", "eu/rome"} {
		if to != from {
			group(t, db, a, from, to)
		}
		from = to
		if c, err := db.PKI().Certificate(t.Context(), "i/1"); err != nil || c.Group != to {
			t.Errorf("it is in %q, not %q: %v", c.Group, to, err)
		}
	}
}
