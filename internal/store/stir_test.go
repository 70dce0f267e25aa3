package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/ledger"
)

func TestWhatChangesOfADeviceIsToBeFollowed(t *testing.T) {
	ctx := t.Context()
	db := storetest.Open(t)
	a, b, _ := seedGrouped(t, db)
	var at int64
	now := time.UnixMilli(1_700_000_000_000).UTC()
	fact := func(id string) ledger.Fact {
		return ledger.New(ledger.KindDeviceState, now, "test", id, nil, []byte("{}"))
	}
	report := func(change func(*device.Report)) func() error {
		return func() error {
			d, err := db.Devices().Device(ctx, a)
			if err != nil {
				return err
			}
			now = now.Add(time.Second)
			r := device.Report{From: d, State: d.State, Twin: d.Twin, AckedSeq: d.AckedSeq, Token: d.Token, At: now}
			change(&r)
			return db.Devices().ApplyReport(ctx, r)
		}
	}
	for _, c := range []struct {
		what string
		do   func() error
		want []string
	}{
		{"made", func() error {
			return db.Write(ctx, func(tx *store.Tx) error {
				return store.PutProvisioned(tx, store.ProvisionedRow{ID: "made", Product: "pump", Hardware: "A", At: now, AttestKey: []byte{1}})
			})
		}, []string{"made"}},
		{"grouped", func() error {
			f := fact(a)
			return db.Devices().GroupDevices(ctx, []device.Grouping{{Device: a, To: "x"}, {Device: b, To: "x"}}, "x", []ledger.Fact{f})
		}, []string{a, b}},
		{"moved", func() error {
			return db.Devices().MoveDevice(ctx, device.Change{Device: b, From: device.Active, To: device.Quarantined, At: now, Fact: fact(b)})
		}, []string{b}},
		{"moved by who was late", func() error {
			err := db.Devices().MoveDevice(ctx, device.Change{Device: b, From: device.Active, To: device.Quarantined, At: now, Fact: fact(b)})
			if err == nil {
				t.Error("a state that it had not was left")
			}
			return nil
		}, nil},
		{"judged", func() error { return db.Devices().JudgeDevice(ctx, b, device.Genuine, device.Refurbished, fact(b)) }, []string{b}},
		{"well, and where it is", report(func(r *device.Report) { r.Twin.Healthy, r.Twin.BootCount = true, 7 }), nil},
		{"runs another release", report(func(r *device.Report) { r.Twin.Release, r.Twin.Trial = make([]byte, 32), true }), []string{a}},
		{"confirms it", report(func(r *device.Report) { r.Twin.Trial = false }), []string{a}},
		{"the same again", report(func(*device.Report) {}), nil},
		{"seen", func() error { return db.Devices().MarkSeen(ctx, map[string]time.Time{a: now}) }, nil},
	} {
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		some, err := db.Stirs(ctx, at, 100)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range some {
			if s.Seq <= at {
				t.Errorf("%s: %d comes after %d", c.what, s.Seq, at)
			}
			at = s.Seq
			got = append(got, s.Device)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: changed are %q, want %q", c.what, got, c.want)
		}
	}
	if last, err := db.LastStir(ctx); err != nil || last != at {
		t.Errorf("the last change is %d (%v), want %d", last, err, at)
	}
	if err := db.PruneStirs(ctx, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if all, err := db.Stirs(ctx, 0, 100); err != nil || len(all) != 7 {
		t.Errorf("%d changes are left of an hour, want 7 (%v)", len(all), err)
	}
	if err := db.PruneStirs(ctx, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if all, err := db.Stirs(ctx, 0, 100); err != nil || len(all) != 1 || all[0].Seq != at {
		t.Errorf("left is %v, want the last (%v)", all, err)
	}
}
