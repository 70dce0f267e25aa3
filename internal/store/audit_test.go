package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
)

func TestWhoWasRefusedWhat(t *testing.T) {
	db, _, admin := credentials(t)
	guard, err := access.NewGuard(db)
	if err != nil {
		t.Fatal(err)
	}
	trail := access.NewAuditTrail(db, guard)
	viewer := access.Caller{ID: "person:vera", Kind: access.Person, Roles: []access.Role{access.Viewer}}
	for i := range 3 {
		for _, action := range []access.Action{access.CertRevoke, access.AccessManage} {
			if guard.Check(t.Context(), viewer, action, access.Resource{Type: "member", ID: fmt.Sprint(i)}) == nil {
				t.Fatal("allowed")
			}
		}
	}
	first, err := trail.List(t.Context(), admin, access.RecordedFilter{Denied: true}, 0, 4)
	if err != nil || len(first) != 4 || first[0].Resource != "member/2" || first[0].Allowed || first[0].Caller != viewer.ID {
		t.Fatalf("the newest: %+v, %v", first, err)
	}
	rest, err := trail.List(t.Context(), admin, access.RecordedFilter{}, first[3].ID, 4)
	if err != nil || len(rest) != 2 || rest[0].ID >= first[3].ID {
		t.Errorf("behind them: %+v, %v", rest, err)
	}
	for f, want := range map[access.RecordedFilter]int{
		{Action: access.CertRevoke}: 3, {Caller: viewer.ID}: 6, {Caller: "person:nobody"}: 0, {Caller: viewer.ID, Action: access.AccessManage, Denied: true}: 3,
	} {
		if got, err := trail.List(t.Context(), admin, f, 0, 0); err != nil || len(got) != want {
			t.Errorf("%+v: %d, %v; want %d", f, len(got), err, want)
		}
	}
	if _, err := trail.List(t.Context(), viewer, access.RecordedFilter{}, 0, 0); err == nil {
		t.Error("a viewer reads who was refused what")
	}
}

// Who floods the record pushes out only what they did themselves; and it does not grow beyond its bound, whoever writes.
func TestAFloodOfDenialsHidesNobodyElses(t *testing.T) {
	db, _, _ := credentials(t)
	now := time.Now()
	record := func(caller string, at time.Time) {
		t.Helper()
		if err := db.Record(t.Context(), access.Decision{At: at, Caller: caller, Action: access.CertRevoke, Resource: access.Resource{Type: "device", ID: "d"}}); err != nil {
			t.Fatal(err)
		}
	}
	count := func(caller string) int {
		t.Helper()
		got, err := db.Recorded(t.Context(), access.RecordedFilter{Caller: caller}, 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		return len(got)
	}
	record("person:old", now.AddDate(0, 0, -91))
	record("person:mallory", now)
	for range 100 {
		record("machine:flood", now)
	}
	if err := db.PruneAudit(t.Context(), now.AddDate(0, 0, -90), 50); err != nil {
		t.Fatal(err)
	}
	if o, m, f := count("person:old"), count("person:mallory"), count("machine:flood"); o != 0 || m != 1 || f != 5 {
		t.Errorf("left: %d old, %d before the flood, %d of the flood", o, m, f)
	}
	for i := range 80 {
		record(fmt.Sprintf("device:%d", i), now)
	}
	if err := db.PruneAudit(t.Context(), now.AddDate(0, 0, -90), 50); err != nil {
		t.Fatal(err)
	}
	if n := count(""); n != 50 {
		t.Errorf("%d are left of many callers', 50 are the bound", n)
	}
}
