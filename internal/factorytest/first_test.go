package factorytest_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/wire"
)

// reworking runs with the flag for pieces that failed.
func reworking(t *testing.T, o *factorytest.OEM, s *station.Station, pieces ...*factorytest.Piece) (wire.Record, station.Report, error) {
	t.Helper()
	var last wire.Record
	line := &factorytest.Line{Pieces: pieces}
	rep, err := s.Run(t.Context(), station.RunSpec{
		Order: "ord-1", Devices: len(pieces), Rework: true, Now: func() time.Time { return o.Now }, Progress: func(r wire.Record) { last = r },
	}, line)
	line.Wait()
	return last, rep, err
}

// TestAPieceThatFailedIsMadeAnew: only when that is asked for, with another ticket, and the OEM sees it.
func TestAPieceThatFailedIsMadeAnew(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 6)
	bad := factorytest.NewPiece()
	bad.Corrupt = "app"
	if rep, _, err := run(t, o, s, "ord-1", 2, factorytest.NewPiece(), bad); err != nil || rep.Scrapped != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	_, _, err := run(t, o, s, "ord-1", 1, bad)
	wantCode(t, err, "piece.rework")
	if r, rep, err := reworking(t, o, s, bad); err != nil || rep.Scrapped != 1 || r.Rework != 2 {
		t.Fatalf("it fails again: %+v, rework of %d, %v", rep, r.Rework, err)
	}
	bad.Corrupt = ""
	if r, rep, err := reworking(t, o, s, bad); err != nil || rep.Made != 1 || r.Rework != 3 || rep.Left != 2 {
		t.Fatalf("mended: %+v, rework of %d, %v", rep, r.Rework, err)
	}
	bad.Fuses = wire.FuseState{} // it says that it is blank
	_, _, err = reworking(t, o, s, bad)
	wantCode(t, err, "piece.unfit")
	unlocked := factorytest.NewPiece()
	unlocked.NoLock = true // it fails after its fuses were burnt
	if _, rep, err := reworking(t, o, s, unlocked); err != nil || rep.Scrapped != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	unlocked.Fuses = wire.FuseState{}
	_, _, err = reworking(t, o, s, unlocked)
	wantCode(t, err, "piece.unfit")
	got := take(t, o, "ord-1", export(t, o, s, "ord-1"))
	if got.Accepted != 2 || got.NotMade != 3 || len(got.Alarms) != 0 {
		t.Fatalf("%+v", got)
	}
	if r, err := o.Service.Reconcile(t.Context(), o.Caller, "ord-1"); err != nil || r.Reworked != 2 || r.Made != 2 || r.Scrapped != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
}

// TestAReworkThatIsNone: what a station says of rework is held against its own records, whichever comes first.
func TestAReworkThatIsNone(t *testing.T) {
	for name, c := range map[string]struct {
		change func(records []wire.Record)
		order  []int
		reason string
	}{
		"as it was":             {func([]wire.Record) {}, []int{0, 1}, ""},
		"of a device":           {func(r []wire.Record) { r[1].Rework = 1 }, []int{0, 1}, "is made"},
		"of another chip":       {func(r []wire.Record) { r[1].Rework, r[1].Chip.ChipUID = 2, make([]byte, 12) }, []int{0, 1}, "another chip"},
		"of another, told late": {func(r []wire.Record) { r[1].Rework, r[1].Chip.ChipUID = 2, make([]byte, 12) }, []int{1, 0}, "another chip"},
	} {
		t.Run(name, func(t *testing.T) {
			o := factorytest.NewOEM(t, "acme")
			s, dir := softStation(t, "st-1", o)
			imported(t, o, s, "ord-1", 3)
			bad := factorytest.NewPiece()
			bad.Corrupt = "app"
			var made []wire.Record
			line := &factorytest.Line{Pieces: []*factorytest.Piece{factorytest.NewPiece(), bad, bad}}
			if _, err := s.Run(t.Context(), station.RunSpec{
				Order: "ord-1", Devices: 3, Rework: true, Now: func() time.Time { return o.Now }, Progress: func(r wire.Record) { made = append(made, r) },
			}, line); err != nil {
				t.Fatal(err)
			}
			line.Wait()
			r := newRogue(t, o, dir, "ord-1")
			r.take(r.file(nil, made[0]))
			c.change(made[1:])
			made[1].Prev = r.hash(made[0])
			first := r.file(nil, made[1])
			made[2].Prev = r.hash(made[1])
			files := [][]byte{first, r.file(nil, made[2])}
			var alarms []string
			for _, i := range c.order {
				for _, a := range r.take(files[i]).Alarms {
					alarms = append(alarms, a.Reason)
				}
			}
			switch {
			case c.reason == "" && len(alarms) > 0:
				t.Errorf("%q", alarms)
			case c.reason != "" && (len(alarms) != 1 || !strings.Contains(alarms[0], c.reason)):
				t.Errorf("alarms %q, want one of %q", alarms, c.reason)
			}
		})
	}
}

// TestTheFirstArticle: an order that demands one goes on only when somebody said that it is good; what was said comes back.
func TestTheFirstArticle(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "st-1", o)
	d, err := s.Descriptor(o.ID, o.Now)
	if err != nil {
		t.Fatal(err)
	}
	spec := o.Spec("ord-1", 5, d, s.ID())
	spec.FirstArticle = true
	file, _, err := o.Service.CreateOrder(t.Context(), o.Caller, spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(bytes.NewReader(factorytest.Bytes(t, file)), o.Now); err != nil {
		t.Fatal(err)
	}
	first := func(n int) (r wire.Record, err error) {
		line := &factorytest.Line{}
		_, err = s.Run(t.Context(), station.RunSpec{
			Order: "ord-1", Devices: n, First: true, Line: "<b>", Now: func() time.Time { return o.Now }, Progress: func(x wire.Record) { r = x },
		}, line)
		line.Wait()
		return r, err
	}
	inspect := func(passed bool, by, notes string) error {
		_, err := s.Inspect(station.InspectSpec{Order: "ord-1", Passed: passed, By: by, Notes: notes}, o.Now)
		return err
	}
	goOn := func() error {
		_, _, err := run(t, o, s, "ord-1", 1)
		return err
	}
	wantCode(t, goOn(), "order.first-article")
	wantCode(t, inspect(true, "ola", ""), "inspection.nothing")
	_, err = first(2)
	wantCode(t, err, "run.invalid")
	one, err := first(1)
	if err != nil || !one.First {
		t.Fatalf("%+v, %v", one, err)
	}
	wantCode(t, goOn(), "order.inspection")
	_, err = first(1)
	wantCode(t, err, "order.inspection")
	wantCode(t, inspect(true, "", ""), "inspection.invalid")
	wantCode(t, inspect(false, "ola", ""), "inspection.invalid")
	if err := inspect(false, "ola", "the label is upside down"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, inspect(true, "ola", ""), "inspection.nothing")
	wantCode(t, goOn(), "order.first-article")
	two, err := first(1)
	if err != nil {
		t.Fatal(err)
	}
	blocked := func() []string {
		take(t, o, "ord-1", export(t, o, s, "ord-1"))
		r, err := o.Service.Reconcile(t.Context(), o.Caller, "ord-1")
		if err != nil || !r.FirstArticle {
			t.Fatalf("%+v, %v", r, err)
		}
		if len(r.Inspections) > 0 && (r.Inspections[0].Passed || r.Inspections[0].Device != one.Device || r.Inspections[0].Notes != "the label is upside down") {
			t.Errorf("%+v", r.Inspections)
		}
		return r.Blocked
	}
	blocked()
	if err := inspect(true, "ola", ""); err != nil {
		t.Fatal(err)
	}
	if err := goOn(); err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	if err := s.ReportFirst(&page, two); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{two.Device, "hallmark:" + two.Device + ":", "&lt;b&gt;", `<rect x="4" y="4"`} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the report has no %q", want)
		}
	}
	if _, err := s.CloseOrder("ord-1", o.Now); err != nil {
		t.Fatal(err)
	}
	wantCode(t, inspect(true, "ola", ""), "order.closed")
	if b := blocked(); len(b) != 0 {
		t.Errorf("blocked: %q", b)
	}
	if r, err := o.Service.CloseOrder(t.Context(), o.Caller, "ord-1"); err != nil || len(r.Inspections) != 2 || !r.Inspections[1].Passed {
		t.Fatalf("%+v, %v", r, err)
	}
}

// TestAnOrderWithoutItsFirstArticleStaysOpen: a station that is changed makes devices without one; what it sends does not close.
func TestAnOrderWithoutItsFirstArticleStaysOpen(t *testing.T) {
	for _, forged := range []bool{false, true} {
		o := factorytest.NewOEM(t, "acme")
		s, dir := softStation(t, "st-1", o)
		d, err := s.Descriptor(o.ID, o.Now)
		if err != nil {
			t.Fatal(err)
		}
		spec := o.Spec("ord-1", 2, d, s.ID())
		spec.FirstArticle = true
		file, _, err := o.Service.CreateOrder(t.Context(), o.Caller, spec)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Import(bytes.NewReader(factorytest.Bytes(t, file)), o.Now); err != nil {
			t.Fatal(err)
		}
		line := &factorytest.Line{}
		if _, err := s.Run(t.Context(), station.RunSpec{Order: "ord-1", Devices: 1, First: true, Now: func() time.Time { return o.Now }}, line); err != nil {
			t.Fatal(err)
		}
		line.Wait()
		if _, err := s.CloseOrder("ord-1", o.Now); err != nil {
			t.Fatal(err)
		}
		take(t, o, "ord-1", export(t, o, s, "ord-1"))
		if forged { // it passed, says the station, and names a record that is none
			r := newRogue(t, o, dir, "ord-1")
			r.take(r.inspected(wire.Inspection{
				Order: "ord-1", Station: r.ord.Header.Station, Device: "00112233445566778899aabbccddeeff", Record: make([]byte, 32), Passed: true, By: "nobody", Seq: 1,
			}))
		}
		_, err = o.Service.CloseOrder(t.Context(), o.Caller, "ord-1")
		wantCode(t, err, "order.running")
		if f := (&fault.Fault{}); !errors.As(err, &f) || !strings.Contains(f.Remedy, "first article") {
			t.Errorf("what is said to do: %v", err)
		}
	}
}

// A changed station makes the others first, and has its first article inspected then: by its own times the order does not close.
func TestTheOthersAreMadeAfterTheFirstArticle(t *testing.T) {
	for late, closes := range map[time.Duration]bool{0: true, -time.Minute: true, time.Second: false} {
		o := factorytest.NewOEM(t, "acme")
		s, dir := softStation(t, "st-1", o)
		d, err := s.Descriptor(o.ID, o.Now)
		if err != nil {
			t.Fatal(err)
		}
		spec := o.Spec("ord-1", 2, d, s.ID())
		spec.FirstArticle = true
		file, _, err := o.Service.CreateOrder(t.Context(), o.Caller, spec)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Import(bytes.NewReader(factorytest.Bytes(t, file)), o.Now); err != nil {
			t.Fatal(err)
		}
		made := func(first bool) (r wire.Record) {
			line := &factorytest.Line{}
			if _, err := s.Run(t.Context(), station.RunSpec{
				Order: "ord-1", Devices: 1, First: first, Now: func() time.Time { return o.Now }, Progress: func(x wire.Record) { r = x },
			}, line); err != nil {
				t.Fatal(err)
			}
			line.Wait()
			return r
		}
		one := made(true)
		if _, err := s.Inspect(station.InspectSpec{Order: "ord-1", Passed: true, By: "ola"}, o.Now); err != nil {
			t.Fatal(err)
		}
		two := made(false)
		r := newRogue(t, o, dir, "ord-1")
		two.Prev = r.hash(one)
		var tree wire.RecordTree
		tree.Add(r.sign(one))
		tree.Add(r.sign(two))
		root := tree.Root()
		end, err := wire.EncodeJobEnd(wire.JobEnd{
			Order: "ord-1", Station: r.ord.Header.Station, Records: 2, Made: 2, Last: r.hash(two), Root: root[:], KeyDestroyed: true, Time: two.Time,
		})
		if err != nil {
			t.Fatal(err)
		}
		key, err := r.m.RecordKey()
		if err != nil {
			t.Fatal(err)
		}
		signed, err := wire.Sign1(wire.TypeJobEnd, end, key)
		if err != nil {
			t.Fatal(err)
		}
		if rep := r.take(r.file(signed, one, two)); rep.Accepted != 2 || len(rep.Alarms) > 0 {
			t.Fatalf("%+v", rep)
		}
		r.take(r.inspected(wire.Inspection{
			Order: "ord-1", Station: r.ord.Header.Station, Device: one.Device, Record: r.hash(one), Passed: true, By: "ola", Seq: 1, Time: uint64(int64(two.Time) + int64(late/time.Second)),
		}))
		got, err := o.Service.Reconcile(t.Context(), o.Caller, "ord-1")
		if err != nil || (len(got.Blocked) == 0) != closes {
			t.Errorf("inspected %s after the second was made: %q, %v", late, got.Blocked, err)
		}
		if !closes && (len(got.Blocked) != 1 || !strings.Contains(got.Blocked[0], "record 2 is of a device that was made before")) {
			t.Errorf("%q", got.Blocked)
		}
	}
}

// A clock that is set back behind an inspection stops the run, as one behind a record does.
func TestNothingIsMadeBeforeTheInspectionByItsClock(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 3)
	line := &factorytest.Line{}
	if _, err := s.Run(t.Context(), station.RunSpec{Order: "ord-1", Devices: 1, First: true, Now: func() time.Time { return o.Now }}, line); err != nil {
		t.Fatal(err)
	}
	line.Wait()
	if _, err := s.Inspect(station.InspectSpec{Order: "ord-1", Passed: true, By: "ola"}, o.Now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	_, _, err := run(t, o, s, "ord-1", 1)
	wantCode(t, err, "station.clock")
	o.Now = o.Now.Add(time.Hour)
	if _, _, err := run(t, o, s, "ord-1", 1); err != nil {
		t.Fatal(err)
	}
}
