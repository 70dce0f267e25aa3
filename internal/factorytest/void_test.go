package factorytest_test

import (
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/factorytest"
)

// An order whose file is said to be lost makes no devices: what comes of it all the same is an alarm.
func TestRecordsOfACancelledOrderAreAlarms(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 3)
	_, err := o.Service.Cancel(t.Context(), o.Caller, "ord-1", " ")
	wantCode(t, err, "order.reason")
	_, err = o.Service.Cancel(t.Context(), o.Caller, "ord-9", "lost")
	wantCode(t, err, "order.unknown")
	if _, _, err := run(t, o, s, "ord-1", 2); err != nil { // it was not lost
		t.Fatal(err)
	}
	row, err := o.Service.Cancel(t.Context(), o.Caller, "ord-1", "the mail was lost")
	if err != nil || row.State != factory.Cancelled || row.Closed.IsZero() || len(row.Secret) != 0 {
		t.Fatalf("%+v, %v", row, err)
	}
	if rep := take(t, o, "ord-1", export(t, o, s, "ord-1")); rep.Accepted != 0 || len(rep.Alarms) != 2 || !strings.Contains(rep.Alarms[0].Reason, "after the order was cancelled") {
		t.Fatalf("%+v", rep)
	}
	if _, err := s.CloseOrder("ord-1", o.Now); err != nil {
		t.Fatal(err)
	}
	if rep := take(t, o, "ord-1", export(t, o, s, "ord-1")); rep.Accepted != 0 || !rep.JobEnd { // the end lets none in
		t.Fatalf("%+v", rep)
	}
	if got := registered(t, o); len(got) != 0 {
		t.Fatalf("%d devices of a cancelled order", len(got))
	}
	for _, again := range []func() error{
		func() error { _, err := o.Service.Cancel(t.Context(), o.Caller, "ord-1", "again"); return err },
		func() error { _, err := o.Service.CloseOrder(t.Context(), o.Caller, "ord-1"); return err },
	} {
		wantCode(t, again(), "order.closed")
	}
	if r, err := o.Service.Reconcile(t.Context(), o.Caller, "ord-1"); err != nil || r.State != factory.Cancelled || len(r.Blocked) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// An order that has devices is not cancelled. When its station is gone it is abandoned, by two people, and its devices stay.
func TestDevicesOfAnAbandonedOrderStay(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 3)
	if _, _, err := run(t, o, s, "ord-1", 1); err != nil {
		t.Fatal(err)
	}
	take(t, o, "ord-1", export(t, o, s, "ord-1"))
	_, err := o.Service.Cancel(t.Context(), o.Caller, "ord-1", "lost")
	wantCode(t, err, "order.used")
	_, err = o.Service.Abandon(t.Context(), o.Caller, "ord-1", "burnt")
	wantCode(t, err, "access.four-eyes")
	both := o.Caller
	both.Seconded = "person:other"
	row, err := o.Service.Abandon(t.Context(), both, "ord-1", "burnt")
	if err != nil || row.State != factory.Abandoned {
		t.Fatalf("%+v, %v", row, err)
	}
	if _, _, err := run(t, o, s, "ord-1", 2); err != nil { // it was saved from the fire
		t.Fatal(err)
	}
	if _, err := s.CloseOrder("ord-1", o.Now); err != nil {
		t.Fatal(err)
	}
	if rep := take(t, o, "ord-1", export(t, o, s, "ord-1")); rep.Accepted != 0 || rep.Known != 1 || len(rep.Alarms) != 2 {
		t.Fatalf("%+v", rep)
	}
	if got := registered(t, o); len(got) != 1 {
		t.Fatalf("%d devices, one was on record", len(got))
	}
}
