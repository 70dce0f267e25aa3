package factorytest_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/station/module/soft"
	"github.com/hallmark-iot/hallmark/wire"
)

// kept copies a station's disk, and gives what puts it back.
func kept(t *testing.T, dir string) (restore func()) {
	t.Helper()
	snapshot, orders := filepath.Join(t.TempDir(), "orders"), filepath.Join(dir, "orders")
	if err := os.CopyFS(snapshot, os.DirFS(orders)); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.RemoveAll(orders); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(orders, os.DirFS(snapshot)); err != nil {
			t.Fatal(err)
		}
	}
}

// findings counts the order.record.refused facts of records.
func findings(t *testing.T, o *factorytest.OEM) (n int) {
	t.Helper()
	rows, err := o.DB.Read().QueryContext(t.Context(), `SELECT count(*) FROM entry WHERE kind = $1`, string(ledger.KindRecordRefused))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestNothingIsMadeAfterTheEnd: once a station has ended an order, what its disk makes when it is put back is evidence, no device.
func TestNothingIsMadeAfterTheEnd(t *testing.T) {
	for _, closed := range []bool{true, false} { // at the OEM too, or at the station only
		o := factorytest.NewOEM(t, "acme")
		s, dir := softStation(t, "st-1", o)
		imported(t, o, s, "ord-1", 3)
		if _, _, err := run(t, o, s, "ord-1", 1); err != nil {
			t.Fatal(err)
		}
		restore := kept(t, dir)
		if _, err := s.CloseOrder("ord-1", o.Now); err != nil {
			t.Fatal(err)
		}
		if rep := take(t, o, "ord-1", export(t, o, s, "ord-1")); rep.Accepted != 1 || !rep.JobEnd {
			t.Fatalf("%+v", rep)
		}
		if closed {
			if _, err := o.Service.CloseOrder(t.Context(), o.Caller, "ord-1"); err != nil {
				t.Fatal(err)
			}
		}
		restore()
		if rep, _, err := run(t, o, s, "ord-1", 2); err != nil || rep.Made != 2 {
			t.Fatalf("the rolled-back station: %+v, %v", rep, err)
		}
		fork := export(t, o, s, "ord-1")
		rep := take(t, o, "ord-1", fork)
		if rep.Accepted != 0 || rep.Known != 1 || len(rep.Alarms) != 2 || !strings.Contains(rep.Alarms[0].Reason, "ended the order with 1 record") {
			t.Fatalf("records after the end, closed %v: %+v", closed, rep)
		}
		if rep := take(t, o, "ord-1", fork); rep.Known != 3 || len(rep.Alarms) != 0 {
			t.Fatalf("again: %+v", rep)
		}
		if n := findings(t, o); n != 2 {
			t.Errorf("%d findings in the ledger, want 2", n)
		}
		if got := registered(t, o); len(got) != 1 {
			t.Fatalf("%d devices registered, want 1", len(got))
		}
		if !closed { // the alarms do not keep an honest order from being closed
			if r, err := o.Service.CloseOrder(t.Context(), o.Caller, "ord-1"); err != nil || r.Made != 1 || r.Alarms != 2 {
				t.Fatalf("%+v, %v", r, err)
			}
		}
	}
}

// TestTheLastRecordIsTheOneTheStationEndedWith: a rolled-back station makes its last record anew, after the job end went out.
func TestTheLastRecordIsTheOneTheStationEndedWith(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, dir := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 3)
	if _, _, err := run(t, o, s, "ord-1", 1); err != nil {
		t.Fatal(err)
	}
	restore := kept(t, dir)
	if _, _, err := run(t, o, s, "ord-1", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CloseOrder("ord-1", o.Now); err != nil {
		t.Fatal(err)
	}
	honest := export(t, o, s, "ord-1")
	r := newRogue(t, o, dir, "ord-1")
	r.take(r.file(r.stored("end")))
	restore()
	if _, _, err := run(t, o, s, "ord-1", 1); err != nil {
		t.Fatal(err)
	}
	if rep := take(t, o, "ord-1", export(t, o, s, "ord-1")); rep.Accepted != 1 || len(rep.Alarms) != 1 {
		t.Fatalf("the second record, made anew: %+v", rep)
	}
	if rep := take(t, o, "ord-1", honest); rep.Accepted != 1 || rep.Known != 1 || len(rep.Alarms) != 0 {
		t.Fatalf("the late, honest one: %+v", rep)
	}
	if _, err := o.Service.CloseOrder(t.Context(), o.Caller, "ord-1"); err != nil {
		t.Fatal(err)
	}
}

// TestARolledBackStationEndsTwice: a second job end is refused, and hides none of the records that came with it.
func TestARolledBackStationEndsTwice(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, dir := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 3)
	if _, _, err := run(t, o, s, "ord-1", 1); err != nil {
		t.Fatal(err)
	}
	restore := kept(t, dir)
	end := func() []byte {
		if _, err := s.CloseOrder("ord-1", o.Now); err != nil {
			t.Fatal(err)
		}
		return export(t, o, s, "ord-1")
	}
	take(t, o, "ord-1", end())
	restore()
	if _, _, err := run(t, o, s, "ord-1", 2); err != nil {
		t.Fatal(err)
	}
	rep, err := o.Service.ImportRecords(t.Context(), o.Caller, "ord-1", end())
	wantCode(t, err, "order.ended")
	if rep.Accepted != 0 || len(rep.Alarms) != 2 || rep.JobEnd || len(registered(t, o)) != 1 {
		t.Fatalf("%+v, %d registered", rep, len(registered(t, o)))
	}
}

// TestTheEndComesAfterWhatItDenies: a rolled-back station's records were taken before its honest end was here. They are devices, with
// an alarm now, and the order stays open.
func TestTheEndComesAfterWhatItDenies(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, dir := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 3)
	if _, _, err := run(t, o, s, "ord-1", 1); err != nil {
		t.Fatal(err)
	}
	restore := kept(t, dir)
	if _, err := s.CloseOrder("ord-1", o.Now); err != nil {
		t.Fatal(err)
	}
	honest := export(t, o, s, "ord-1")
	restore()
	var made []wire.Record
	line := &factorytest.Line{}
	if _, err := s.Run(t.Context(), station.RunSpec{
		Order: "ord-1", Devices: 2, Operator: "ola", Line: "L1", Now: func() time.Time { return o.Now },
		Progress: func(r wire.Record) { made = append(made, r) },
	}, line); err != nil {
		t.Fatal(err)
	}
	line.Wait()
	made[1].Time = uint64(o.Now.Add(1000 * time.Hour).Unix()) // this one has an alarm as it comes
	r := newRogue(t, o, dir, "ord-1")
	if rep := r.take(r.file(nil, made[0])); rep.Accepted != 1 || len(rep.Alarms) != 0 {
		t.Fatalf("before anybody can know: %+v", rep)
	}
	made[1].Prev = last(t, o, "ord-1")
	if rep := r.take(r.file(nil, made[1])); rep.Accepted != 0 || len(rep.Alarms) != 1 {
		t.Fatalf("and one that is wrong anyhow: %+v", rep)
	}
	for range 2 {
		if rep := take(t, o, "ord-1", honest); !rep.JobEnd {
			t.Fatalf("%+v", rep)
		}
	}
	got, err := o.Service.Reconcile(t.Context(), o.Caller, "ord-1")
	if n := findings(t, o); err != nil || n != 2 || got.Alarms != 2 || len(got.Blocked) != 1 {
		t.Fatalf("%d findings, %+v, %v", n, got, err)
	}
	_, err = o.Service.CloseOrder(t.Context(), o.Caller, "ord-1")
	wantCode(t, err, "order.running")
}

// TestTheEndSaysWhatTheRecordsSay: a certificate with other numbers, or another tree over the records, closes nothing.
func TestTheEndSaysWhatTheRecordsSay(t *testing.T) {
	for name, change := range map[string]func(*wire.JobEnd){
		"as it is":     func(*wire.JobEnd) {},
		"another made": func(e *wire.JobEnd) { e.Made, e.Scrapped = e.Made-1, e.Scrapped+1 },
		"another tree": func(e *wire.JobEnd) { e.Root = bytes.Repeat([]byte{7}, 32) },
	} {
		o := factorytest.NewOEM(t, "acme")
		s, dir := softStation(t, "st-1", o)
		imported(t, o, s, "ord-1", 3)
		if _, _, err := run(t, o, s, "ord-1", 3); err != nil {
			t.Fatal(err)
		}
		take(t, o, "ord-1", export(t, o, s, "ord-1"))
		r := newRogue(t, o, dir, "ord-1")
		end := wire.JobEnd{
			Order: "ord-1", Station: r.ord.Header.Station, Records: 3, Made: 3, Last: last(t, o, "ord-1"), KeyDestroyed: true, Statement: "destroyed", Time: uint64(o.Now.Unix()),
		}
		var tree wire.RecordTree
		all, err := o.DB.RecordsOf(t.Context(), "ord-1", factory.Every, 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range all {
			tree.Add(k.Envelope)
		}
		root := tree.Root()
		end.Root = root[:]
		change(&end)
		payload, err := wire.EncodeJobEnd(end)
		if err != nil {
			t.Fatal(err)
		}
		key, err := r.m.RecordKey()
		if err != nil {
			t.Fatal(err)
		}
		env, err := wire.Sign1(wire.TypeJobEnd, payload, key)
		if err != nil {
			t.Fatal(err)
		}
		if rep, err := o.Service.ImportRecords(t.Context(), o.Caller, "ord-1", r.file(env)); err != nil || !rep.JobEnd {
			t.Fatalf("%s: %+v %v", name, rep, err)
		}
		_, err = o.Service.CloseOrder(t.Context(), o.Caller, "ord-1")
		if (name == "as it is") != (err == nil) {
			t.Errorf("%s: closed with %v", name, err)
		}
	}
}

// last gives the hash of the last record of an order that is here.
func last(t *testing.T, o *factorytest.OEM, id string) []byte {
	t.Helper()
	tally, err := o.DB.Tally(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return tally.Last
}

// TestTheEndHoldsForWhatComesWithIt: one file says that there is one record, and brings two.
func TestTheEndHoldsForWhatComesWithIt(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, dir := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 3)
	var made []wire.Record
	run := func(n int) {
		line := &factorytest.Line{}
		if _, err := s.Run(t.Context(), station.RunSpec{
			Order: "ord-1", Devices: n, Operator: "ola", Line: "L1", Now: func() time.Time { return o.Now },
			Progress: func(r wire.Record) { made = append(made, r) },
		}, line); err != nil {
			t.Fatal(err)
		}
		line.Wait()
	}
	run(1)
	restore := kept(t, dir)
	if _, err := s.CloseOrder("ord-1", o.Now); err != nil {
		t.Fatal(err)
	}
	honest := export(t, o, s, "ord-1")
	r := newRogue(t, o, dir, "ord-1")
	end := r.stored("end")
	restore()
	run(1)
	if rep := r.take(r.file(end, made[1])); rep.Accepted != 0 || len(rep.Alarms) != 1 || !rep.JobEnd {
		t.Fatalf("%+v", rep)
	}
	if rep := take(t, o, "ord-1", honest); rep.Accepted != 1 || len(registered(t, o)) != 1 {
		t.Fatalf("%+v", rep)
	}
}

// rogue holds a station's record key, and says what it likes with it.
type rogue struct {
	t   *testing.T
	o   *factorytest.OEM
	dir string
	id  string
	m   *soft.Module
	ord wire.Order

	signed map[string][]byte // by payload
}

func newRogue(t *testing.T, o *factorytest.OEM, dir, id string) *rogue {
	t.Helper()
	m, err := soft.Open(dir, []byte(pin))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	r := &rogue{t: t, o: o, dir: dir, id: id, m: m, signed: map[string][]byte{}}
	if r.ord, err = wire.VerifyOrder(r.stored("order.cose"), o.OrderKey.Public()); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rogue) stored(name string) []byte {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, "orders", r.id, name))
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

// file makes a record file of records, signed, and a job end, if any.
func (r *rogue) file(end []byte, records ...wire.Record) []byte {
	r.t.Helper()
	b := wire.RecordBatch{Order: r.id, Records: [][]byte{}, JobEnd: end}
	for _, rec := range records {
		b.Records = append(b.Records, r.sign(rec))
	}
	return r.sealed(b)
}

// sign gives the envelope of a record, the same each time: signatures differ.
func (r *rogue) sign(rec wire.Record) []byte {
	r.t.Helper()
	payload, err := wire.EncodeRecord(rec)
	if err != nil {
		r.t.Fatal(err)
	}
	if env, ok := r.signed[string(payload)]; ok {
		return env
	}
	key, err := r.m.RecordKey()
	if err != nil {
		r.t.Fatal(err)
	}
	env, err := wire.Sign1(wire.TypeRecord, payload, key)
	if err != nil {
		r.t.Fatal(err)
	}
	r.signed[string(payload)] = env
	return env
}

func (r *rogue) sealed(b wire.RecordBatch) []byte {
	r.t.Helper()
	sealed, err := wire.SealBatch(b, r.ord.Header.ReturnKey)
	if err != nil {
		r.t.Fatal(err)
	}
	out, err := wire.Marshal(wire.RecordFile{Order: r.id, Batches: [][]byte{sealed}})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// hash names a record as it is signed.
func (r *rogue) hash(rec wire.Record) []byte {
	sum := wire.RecordHash(r.sign(rec))
	return sum[:]
}

func (r *rogue) inspected(i wire.Inspection) []byte {
	r.t.Helper()
	payload, err := wire.EncodeInspection(i)
	if err != nil {
		r.t.Fatal(err)
	}
	key, err := r.m.RecordKey()
	if err != nil {
		r.t.Fatal(err)
	}
	env, err := wire.Sign1(wire.TypeInspection, payload, key)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.sealed(wire.RecordBatch{Order: r.id, Records: [][]byte{}, Inspections: [][]byte{env}})
}

func (r *rogue) take(file []byte) factory.ImportReport { return take(r.t, r.o, r.id, file) }

// TestARecordFromAfterTheOrdersTime: what says it was made after the order's end is no device; what was made in time may come late.
func TestARecordFromAfterTheOrdersTime(t *testing.T) {
	for name, c := range map[string]struct {
		late     time.Duration
		accepted int
	}{
		"in time":           {-time.Second, 1},
		"a clock that errs": {factory.ClockSkew, 1},
		"too late":          {factory.ClockSkew + time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			o := factorytest.NewOEM(t, "acme")
			s, dir := softStation(t, "st-1", o)
			imported(t, o, s, "ord-1", 1)
			var made []wire.Record
			line := &factorytest.Line{}
			if _, err := s.Run(t.Context(), station.RunSpec{
				Order: "ord-1", Devices: 1, Operator: "ola", Line: "L1", Now: func() time.Time { return o.Now },
				Progress: func(r wire.Record) { made = append(made, r) },
			}, line); err != nil || len(made) != 1 {
				t.Fatalf("%d records, %v", len(made), err)
			}
			line.Wait()
			r := newRogue(t, o, dir, "ord-1")
			made[0].Time = uint64(int64(r.ord.Header.NotAfter) + int64(c.late/time.Second))
			o.Now = o.Now.Add(30 * 24 * time.Hour) // records may come whenever they like
			rep := r.take(r.file(nil, made...))
			if rep.Accepted != c.accepted || len(rep.Alarms) != 1-c.accepted || len(registered(t, o)) != c.accepted {
				t.Fatalf("%+v, %d registered", rep, len(registered(t, o)))
			}
			if c.accepted == 0 && !strings.Contains(rep.Alarms[0].Reason, "after the order") {
				t.Errorf("the reason: %s", rep.Alarms[0].Reason)
			}
		})
	}
}

// TestARunEndsWithItsOrder: an honest station stops by itself, before a ticket is spent.
func TestARunEndsWithItsOrder(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 3)
	now := o.Now
	line := &factorytest.Line{}
	rep, err := s.Run(t.Context(), station.RunSpec{
		Order: "ord-1", Devices: 3, Operator: "ola", Line: "L1", Parallel: 1, Now: func() time.Time { return now },
		Progress: func(wire.Record) { now = now.Add(49 * time.Hour) },
	}, line)
	line.Wait()
	wantCode(t, err, "order.expired")
	if rep.Made != 1 || rep.Left != 2 {
		t.Fatalf("%+v", rep)
	}
	got := take(t, o, "ord-1", export(t, o, s, "ord-1"))
	if devs := registered(t, o); got.Accepted != 1 || len(got.Alarms) != 0 || len(devs) != 1 || devs[0].State != device.Provisioned {
		t.Fatalf("%+v, %+v", got, devs)
	}
}

// TestTheFirstRecordFollowsTheOrder: a chain that begins elsewhere is no chain of this order, and makes no device.
func TestTheFirstRecordFollowsTheOrder(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, dir := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 1)
	var made wire.Record
	line := &factorytest.Line{}
	if _, err := s.Run(t.Context(), station.RunSpec{
		Order: "ord-1", Devices: 1, Now: func() time.Time { return o.Now }, Progress: func(r wire.Record) { made = r },
	}, line); err != nil {
		t.Fatal(err)
	}
	line.Wait()
	r := newRogue(t, o, dir, "ord-1")
	other := made
	other.Prev = bytes.Repeat([]byte{7}, 32)
	rep := r.take(r.file(nil, other))
	if rep.Accepted != 0 || len(rep.Alarms) != 1 || len(registered(t, o)) != 0 {
		t.Fatalf("%+v, %d registered", rep, len(registered(t, o)))
	}
	if !strings.Contains(rep.Alarms[0].Reason, "does not follow the order") {
		t.Errorf("the reason: %s", rep.Alarms[0].Reason)
	}
	if rep := r.take(r.file(nil, made)); rep.Accepted != 1 {
		t.Errorf("the one that does follow: %+v", rep)
	}
}

// TestAnEndWithTheKeyStillThereIsNone: only a station that says that it destroyed the order's key has ended the order.
func TestAnEndWithTheKeyStillThereIsNone(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, dir := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 1)
	r := newRogue(t, o, dir, "ord-1")
	payload, err := wire.Marshal(wire.JobEnd{Order: "ord-1", Station: r.ord.Header.Station, Last: make([]byte, 32), Root: make([]byte, 32), Time: uint64(o.Now.Unix())})
	if err != nil {
		t.Fatal(err)
	}
	key, err := r.m.RecordKey()
	if err != nil {
		t.Fatal(err)
	}
	end, err := wire.Sign1(wire.TypeJobEnd, payload, key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Service.ImportRecords(t.Context(), o.Caller, "ord-1", r.file(end))
	wantCode(t, err, "records.forged")
	if got, err := o.Service.Reconcile(t.Context(), o.Caller, "ord-1"); err != nil || got.JobEnd {
		t.Errorf("%+v, %v", got, err)
	}
}
