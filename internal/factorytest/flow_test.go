package factorytest_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/station/module"
	"github.com/hallmark-iot/hallmark/station/module/soft"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

const pin = "correct horse"

// softStation makes a station with the soft module that trusts oems.
func softStation(t *testing.T, name string, oems ...*factorytest.OEM) (*station.Station, string) {
	t.Helper()
	dir := t.TempDir()
	if err := station.WriteConfig(dir, station.Config{Name: name}); err != nil {
		t.Fatal(err)
	}
	m, err := soft.Create(dir, []byte(pin))
	if err != nil {
		t.Fatal(err)
	}
	return openStation(t, dir, m, oems...), dir
}

func openStation(t *testing.T, dir string, m module.Module, oems ...*factorytest.OEM) *station.Station {
	t.Helper()
	s, err := station.Open(dir, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for _, o := range oems {
		f, err := station.DecodeOEM(o.File(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Trust(f); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func order(t *testing.T, o *factorytest.OEM, s *station.Station, id string, n uint32) []byte {
	t.Helper()
	d, err := s.Descriptor(o.ID, o.Now)
	if err != nil {
		t.Fatal(err)
	}
	file, created, err := o.Service.CreateOrder(t.Context(), o.Caller, o.Spec(id, n, d, s.ID()))
	if err != nil {
		t.Fatal(err)
	}
	got, err := o.Service.Get(t.Context(), o.Caller, id)
	if err != nil {
		t.Fatal(err)
	}
	list, err := o.Service.List(t.Context(), o.Caller, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range append(list, created, got) {
		if len(x.Secret) != 0 { // sealed, and still nobody's business
			t.Fatalf("order %s is shown with its secret", x.ID)
		}
	}
	return factorytest.Bytes(t, file)
}

func imported(t *testing.T, o *factorytest.OEM, s *station.Station, id string, n uint32) []byte {
	t.Helper()
	file := order(t, o, s, id, n)
	if _, err := s.Import(bytes.NewReader(file), o.Now); err != nil {
		t.Fatal(err)
	}
	return file
}

func run(t *testing.T, o *factorytest.OEM, s *station.Station, id string, n int, pieces ...*factorytest.Piece) (station.Report, *factorytest.Line, error) {
	t.Helper()
	line := &factorytest.Line{Pieces: pieces}
	rep, err := s.Run(t.Context(), station.RunSpec{Order: id, Devices: n, Operator: "ola", Line: "L1", Now: func() time.Time { return o.Now }, Progress: func(r wire.Record) { t.Log(r.Ticket, r.Outcome, r.Reason) }}, line)
	line.Wait()
	return rep, line, err
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var f *fault.Fault
	if !errors.As(err, &f) || f.Code != code {
		t.Fatalf("got %v, want code %s", err, code)
	}
}

func export(t *testing.T, o *factorytest.OEM, s *station.Station, id string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "records")
	_, err := s.Export(id, path, 0, o.Now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func take(t *testing.T, o *factorytest.OEM, id string, file []byte) factory.ImportReport {
	t.Helper()
	rep, err := o.Service.ImportRecords(t.Context(), o.Caller, id, file)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func registered(t *testing.T, o *factorytest.OEM) []device.Device {
	t.Helper()
	d, err := o.DB.Devices().Devices(t.Context(), device.Query{Product: factorytest.Product})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// wholeFlow takes an order from the OEM to closed, with what a device got at the end.
func wholeFlow(t *testing.T, o *factorytest.OEM, s *station.Station) {
	imported(t, o, s, "ord-1", 4)
	bad := factorytest.NewPiece()
	bad.Corrupt = "app"
	rep, line, err := run(t, o, s, "ord-1", 3, factorytest.NewPiece(), bad, factorytest.NewPiece())
	if err != nil || rep.Made != 2 || rep.Scrapped != 1 || rep.Left != 1 {
		t.Fatalf("run: %+v, %v", rep, err)
	}
	if bad.Fuses.Lifecycle != 0 {
		t.Error("the fuses of a piece that read back wrong were burnt")
	}
	checkPiece(t, o, line.Done[0], rep.Devices[0])

	_, _, err = run(t, o, s, "ord-1", 2)
	wantCode(t, err, "order.quota")
	first := take(t, o, "ord-1", export(t, o, s, "ord-1"))
	if first.Accepted != 2 || first.NotMade != 1 || len(first.Alarms) != 0 {
		t.Fatalf("import: %+v", first)
	}
	if again := take(t, o, "ord-1", export(t, o, s, "ord-1")); again.Known != 3 || again.Accepted != 0 || len(again.Alarms) != 0 {
		t.Fatalf("import again: %+v", again)
	}
	_, err = o.Service.CloseOrder(t.Context(), o.Caller, "ord-1")
	wantCode(t, err, "order.running")

	sum, err := s.CloseOrder("ord-1", o.Now)
	if err != nil || !sum.Closed || sum.Made != 2 || sum.Scrapped != 1 {
		t.Fatalf("close: %+v, %v", sum, err)
	}
	_, _, err = run(t, o, s, "ord-1", 1)
	wantCode(t, err, "order.unknown")
	if last := take(t, o, "ord-1", export(t, o, s, "ord-1")); !last.JobEnd {
		t.Fatalf("import after close: %+v", last)
	}
	r, err := o.Service.CloseOrder(t.Context(), o.Caller, "ord-1")
	if err != nil || r.Made != 2 || r.Scrapped != 1 || r.Unused != 1 || r.Missing != 0 {
		t.Fatalf("close at the OEM: %+v, %v", r, err)
	}
	got := registered(t, o)
	if len(got) != 2 || !got[0].Virtual || got[0].State != device.Provisioned || got[0].Order != "ord-1" || got[0].Twin.Version != "1.0.0" {
		t.Fatalf("registry: %+v", got)
	}
}

func checkPiece(t *testing.T, o *factorytest.OEM, p *factorytest.Piece, id string) {
	t.Helper()
	cert, err := x509.ParseCertificate(p.Got.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	name, err := idevid.Parse(cert)
	if err != nil || name.DeviceID != id || name.OEM != o.ID || name.Kind != idevid.IDevID {
		t.Fatalf("identity: %+v, %v", name, err)
	}
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(o.Root)
	for _, der := range p.Got.Chain[:2] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		inter.AddCert(c)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Errorf("chain: %v", err)
	}
	for n, want := range o.Payload {
		if !bytes.Equal(p.Part(n), want) {
			t.Errorf("component %s on the device differs", n)
		}
	}
	if p.Fuses.Lifecycle != wire.LifecycleSecured || p.Fuses.Counter != 3 || len(p.Fuses.Root) != 32 {
		t.Errorf("fuses: %+v", p.Fuses)
	}
}

func TestFlowSoft(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "st-1", o)
	wholeFlow(t, o, s)
}

// TestRefusedOrders changes an order in every way that matters and expects the station to say no, each time with the reason.
func TestRefusedOrders(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "st-1", o)
	other, _ := softStation(t, "st-2", o)
	file := order(t, o, s, "ord-1", 2)

	t.Run("bit flips", func(t *testing.T) {
		step := max(len(file)/400, 1)
		for i := 0; i < len(file); i += step {
			b := bytes.Clone(file)
			b[i] ^= 1 << (i % 8)
			if _, err := s.Import(bytes.NewReader(b), o.Now); err == nil {
				t.Fatalf("accepted with byte %d changed", i)
			}
		}
	})
	t.Run("other station", func(t *testing.T) {
		_, err := other.Import(bytes.NewReader(file), o.Now)
		wantCode(t, err, "order.station")
	})
	t.Run("expired", func(t *testing.T) {
		_, err := s.Import(bytes.NewReader(file), o.Now.Add(49*time.Hour))
		wantCode(t, err, "order.expired")
	})
	t.Run("early", func(t *testing.T) {
		_, err := s.Import(bytes.NewReader(file), o.Now.Add(-time.Hour))
		wantCode(t, err, "order.early")
	})
	t.Run("unknown OEM", func(t *testing.T) {
		lonely, _ := softStation(t, "st-3")
		_, err := lonely.Import(bytes.NewReader(file), o.Now)
		wantCode(t, err, "oem.unknown")
	})
	if _, err := s.Import(bytes.NewReader(file), o.Now); err != nil {
		t.Fatalf("the unchanged file: %v", err)
	}
	if _, err := s.Import(bytes.NewReader(file), o.Now); err != nil {
		t.Fatalf("the same file again: %v", err)
	}
	if _, err := s.CloseOrder("ord-1", o.Now); err != nil {
		t.Fatal(err)
	}
	_, err := s.Import(bytes.NewReader(file), o.Now)
	wantCode(t, err, "order.closed")
}

// resign makes a file of another order with parts exchanged, properly signed by o.
func resign(t *testing.T, o *factorytest.OEM, file []byte, change func(*wire.Order, *wire.OrderFile)) []byte {
	t.Helper()
	f, err := wire.DecodeOrderFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ord, err := wire.VerifyOrder(f.Order, o.OrderKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	change(&ord, &f)
	sum := f.SealedDigest()
	ord.Sealed = sum[:]
	payload, err := wire.EncodeOrder(ord)
	if err != nil {
		t.Fatal(err)
	}
	if f.Order, err = wire.Sign1(wire.TypeOrder, payload, o.OrderKey); err != nil {
		t.Fatal(err)
	}
	out, err := wire.EncodeOrderFile(f)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTransplant: another OEM, honestly trusted by the same station, puts the first OEM's wrapped key into its own order.
func TestTransplant(t *testing.T) {
	a, b := factorytest.NewOEM(t, "acme"), factorytest.NewOEM(t, "evil")
	s, _ := softStation(t, "st-1", a, b)
	fa, err := wire.DecodeOrderFile(order(t, a, s, "ord-a", 2))
	if err != nil {
		t.Fatal(err)
	}
	oa, err := wire.VerifyOrder(fa.Order, a.OrderKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	mine := order(t, b, s, "ord-b", 2)
	for name, c := range map[string]struct {
		code   string
		change func(*wire.Order, *wire.OrderFile)
	}{
		"key":               {"order.chain", func(o *wire.Order, _ *wire.OrderFile) { o.Key = oa.Key }},
		"blob only":         {"order.unwrap", func(o *wire.Order, _ *wire.OrderFile) { o.Key.Blob = oa.Key.Blob }},
		"key and chain":     {"order.chain", func(o *wire.Order, _ *wire.OrderFile) { o.Key, o.Header.Chain = oa.Key, oa.Header.Chain }},
		"content":           {"order.unwrap", func(o *wire.Order, f *wire.OrderFile) { o.Content, f.Content = oa.Content, fa.Content }},
		"quota, old secret": {"order.unwrap", func(o *wire.Order, _ *wire.OrderFile) { o.Header.Quota = 9 }},
		"chain, own root": {"order.chain", func(o *wire.Order, _ *wire.OrderFile) {
			o.Key, o.Header.Chain = oa.Key, [][]byte{oa.Header.Chain[0], oa.Header.Chain[1], b.Root.Raw}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Import(bytes.NewReader(resign(t, b, mine, c.change)), b.Now)
			wantCode(t, err, c.code)
		})
	}
	if _, err := s.Import(bytes.NewReader(resign(t, b, mine, func(*wire.Order, *wire.OrderFile) {})), b.Now); err != nil {
		t.Fatalf("signed again without a change: %v", err)
	}
}

// TestRollback restores the station's disk after a run, over-produces, and brings both histories to the OEM.
func TestRollback(t *testing.T) {
	for _, firstFork := range []bool{false, true} {
		o := factorytest.NewOEM(t, "acme")
		s, dir := softStation(t, "st-1", o)
		imported(t, o, s, "ord-1", 3)
		if _, _, err := run(t, o, s, "ord-1", 1); err != nil {
			t.Fatal(err)
		}
		snapshot := t.TempDir()
		if err := os.CopyFS(filepath.Join(snapshot, "d"), os.DirFS(filepath.Join(dir, "orders"))); err != nil {
			t.Fatal(err)
		}
		if rep, _, err := run(t, o, s, "ord-1", 2); err != nil || rep.Made != 2 {
			t.Fatalf("%+v, %v", rep, err)
		}
		history := export(t, o, s, "ord-1")
		if err := os.RemoveAll(filepath.Join(dir, "orders")); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(filepath.Join(dir, "orders"), os.DirFS(filepath.Join(snapshot, "d"))); err != nil {
			t.Fatal(err)
		}
		if rep, _, err := run(t, o, s, "ord-1", 2); err != nil || rep.Made != 2 {
			t.Fatalf("the rolled-back station: %+v, %v", rep, err)
		}
		fork := export(t, o, s, "ord-1")
		if firstFork {
			history, fork = fork, history
		}
		if rep := take(t, o, "ord-1", history); rep.Accepted != 3 || len(rep.Alarms) != 0 {
			t.Fatalf("first history: %+v", rep)
		}
		if rep := take(t, o, "ord-1", fork); rep.Accepted != 0 || rep.Known != 1 || len(rep.Alarms) != 2 {
			t.Fatalf("second history: %+v", rep)
		}
		if rep := take(t, o, "ord-1", fork); len(rep.Alarms) != 0 || rep.Known != 3 {
			t.Fatalf("second history again: %+v", rep)
		}
		if got := registered(t, o); len(got) != 3 {
			t.Fatalf("%d devices registered, ordered 3", len(got))
		}
		r, err := o.Service.Reconcile(t.Context(), o.Caller, "ord-1")
		if err != nil || r.Made != 3 || r.Alarms != 2 {
			t.Fatalf("reconcile: %+v, %v", r, err)
		}
	}
}

// TestClone makes two devices with one chip UID, in two orders: the second is a clone.
func TestClone(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "st-1", o)
	original, clone := factorytest.NewPiece(), factorytest.NewPiece()
	clone.UID = original.UID
	imported(t, o, s, "ord-1", 2)
	if _, _, err := run(t, o, s, "ord-1", 1, original); err != nil {
		t.Fatal(err)
	}
	_, _, err := run(t, o, s, "ord-1", 1, clone)
	wantCode(t, err, "piece.unfit") // the station sees it within an order
	imported(t, o, s, "ord-2", 1)
	if _, _, err := run(t, o, s, "ord-2", 1, clone); err != nil {
		t.Fatal(err)
	}
	take(t, o, "ord-1", export(t, o, s, "ord-1"))
	rep := take(t, o, "ord-2", export(t, o, s, "ord-2"))
	if rep.Accepted != 0 || len(rep.Alarms) != 1 || !strings.Contains(rep.Alarms[0].Reason, "chip UID") {
		t.Fatalf("the OEM on the clone: %+v", rep)
	}
}

// TestGap brings the job end before the records.
func TestGap(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, dir := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 2)
	if _, _, err := run(t, o, s, "ord-1", 2); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CloseOrder("ord-1", o.Now); err != nil {
		t.Fatal(err)
	}
	whole := export(t, o, s, "ord-1")
	env, err := os.ReadFile(filepath.Join(dir, "orders", "ord-1", "order.cose"))
	if err != nil {
		t.Fatal(err)
	}
	ord, err := wire.VerifyOrder(env, o.OrderKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	end, err := os.ReadFile(filepath.Join(dir, "orders", "ord-1", "end"))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := wire.SealBatch(wire.RecordBatch{Order: "ord-1", Records: [][]byte{}, JobEnd: end}, ord.Header.ReturnKey)
	if err != nil {
		t.Fatal(err)
	}
	short, err := wire.Marshal(wire.RecordFile{Order: "ord-1", Batches: [][]byte{sealed}})
	if err != nil {
		t.Fatal(err)
	}
	if rep := take(t, o, "ord-1", short); !rep.JobEnd {
		t.Fatalf("%+v", rep)
	}
	_, err = o.Service.CloseOrder(t.Context(), o.Caller, "ord-1")
	wantCode(t, err, "order.gap")
	take(t, o, "ord-1", whole)
	if _, err = o.Service.CloseOrder(t.Context(), o.Caller, "ord-1"); err != nil {
		t.Fatal(err)
	}
	_, err = o.Service.CloseOrder(t.Context(), o.Caller, "ord-1")
	wantCode(t, err, "order.closed")
}

// TestForged: a station's records are nobody else's, and a changed record file is refused.
func TestForged(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 2)
	if _, _, err := run(t, o, s, "ord-1", 1); err != nil {
		t.Fatal(err)
	}
	file := export(t, o, s, "ord-1")
	file[len(file)-5] ^= 1
	_, err := o.Service.ImportRecords(t.Context(), o.Caller, "ord-1", file)
	wantCode(t, err, "records.invalid")
	nobody := o.Caller
	nobody.Roles = nil
	_, err = o.Service.ImportRecords(t.Context(), nobody, "ord-1", file)
	wantCode(t, err, "access.denied")
}

// TestInterrupted cuts a device off after its ticket and expects the ticket to be spent and told of.
func TestInterrupted(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, dir := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 3)
	if _, _, err := run(t, o, s, "ord-1", 2); err != nil {
		t.Fatal(err)
	}
	// The power went before the second record was durable: its frame is torn.
	path := filepath.Join(dir, "orders", "ord-1", "records")
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, st.Size()-9); err != nil {
		t.Fatal(err)
	}
	if rep, _, err := run(t, o, s, "ord-1", 1); err != nil || rep.Made != 1 || rep.Left != 0 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if rep := take(t, o, "ord-1", export(t, o, s, "ord-1")); rep.Accepted != 2 || rep.NotMade != 1 || len(rep.Alarms) != 0 {
		t.Fatalf("%+v", rep)
	}
}

// TestUnfit: what is refused before a ticket is spent, and what stops a run.
func TestUnfit(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 5)
	wrong := factorytest.NewPiece()
	wrong.Hardware = "rev-a"
	_, _, err := run(t, o, s, "ord-1", 1, wrong)
	wantCode(t, err, "piece.unfit")
	var bad []*factorytest.Piece
	for range 3 {
		p := factorytest.NewPiece()
		p.NoLock = true
		bad = append(bad, p)
	}
	rep, _, err := run(t, o, s, "ord-1", 5, bad...)
	wantCode(t, err, "run.scrap")
	if rep.Scrapped != 3 || rep.Left != 2 {
		t.Fatalf("%+v", rep)
	}
	o.Now = o.Now.Add(-time.Minute)
	_, _, err = run(t, o, s, "ord-1", 1)
	wantCode(t, err, "order.early")
}

// TestHangUp: a device that goes away after its ticket was spent is a scrap record, and the run goes on.
func TestHangUp(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 2)
	gone := factorytest.NewPiece()
	gone.Leave = true
	rep, _, err := run(t, o, s, "ord-1", 2, gone)
	if err != nil || rep.Made != 1 || rep.Scrapped != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	if got := take(t, o, "ord-1", export(t, o, s, "ord-1")); got.Accepted != 1 || got.NotMade != 1 {
		t.Fatalf("%+v", got)
	}
}

// TestOffline: a station that never exports has to stop, and may go on when it has.
func TestOffline(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "st-1", o)
	d, err := s.Descriptor(o.ID, o.Now)
	if err != nil {
		t.Fatal(err)
	}
	spec := o.Spec("ord-1", 3, d, s.ID())
	spec.NotAfter, spec.MaxOfflineDays = o.Now.Add(90*24*time.Hour), 2
	file, _, err := o.Service.CreateOrder(t.Context(), o.Caller, spec)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(bytes.NewReader(factorytest.Bytes(t, file)), o.Now); err != nil {
		t.Fatal(err)
	}
	if _, _, err := run(t, o, s, "ord-1", 1); err != nil {
		t.Fatal(err)
	}
	o.Now = o.Now.Add(49 * time.Hour)
	_, _, err = run(t, o, s, "ord-1", 1)
	wantCode(t, err, "order.offline")
	export(t, o, s, "ord-1")
	if _, _, err = run(t, o, s, "ord-1", 1); err != nil {
		t.Fatal(err)
	}
	o.Now = o.Now.Add(-time.Hour)
	_, _, err = run(t, o, s, "ord-1", 1)
	wantCode(t, err, "station.clock")
}

// TestTheClockIsSetDuringARun: back, or past the order's end, no further ticket is spent; and what was made is told of.
func TestTheClockIsSetDuringARun(t *testing.T) {
	for name, c := range map[string]struct {
		by   time.Duration
		code string
	}{
		"back":                    {-time.Second, "station.clock"},
		"before the order":        {-time.Hour, "order.early"},
		"past the order's end":    {49 * time.Hour, "order.expired"},
		"a little and on it goes": {time.Minute, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := factorytest.NewOEM(t, "acme")
			s, _ := softStation(t, "st-1", o)
			imported(t, o, s, "ord-1", 3)
			now, line := o.Now.Add(time.Second), &factorytest.Line{}
			rep, err := s.Run(t.Context(), station.RunSpec{
				Order: "ord-1", Devices: 2, Now: func() time.Time { return now },
				Progress: func(r wire.Record) { now = now.Add(c.by) },
			}, line)
			line.Wait()
			want := 1
			if c.code == "" {
				want = 2
				if err != nil {
					t.Fatal(err)
				}
			} else {
				wantCode(t, err, c.code)
			}
			if rep.Made != want || rep.Left != uint32(3-want) {
				t.Fatalf("%+v", rep)
			}
			if got := take(t, o, "ord-1", export(t, o, s, "ord-1")); got.Accepted != want || len(got.Alarms) != 0 {
				t.Fatalf("%+v", got)
			}
		})
	}
}

// TestTwoPiecesWithOneChipAtOnce: on a gang the second is refused before a ticket is spent on it.
func TestTwoPiecesWithOneChipAtOnce(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 3)
	one, two := factorytest.NewPiece(), factorytest.NewPiece()
	two.UID = one.UID
	line := &factorytest.Line{Pieces: []*factorytest.Piece{one, two}}
	rep, err := s.Run(t.Context(), station.RunSpec{Order: "ord-1", Devices: 2, Parallel: 2, Now: func() time.Time { return o.Now }}, line)
	line.Wait()
	wantCode(t, err, "piece.unfit")
	if rep.Made > 1 || rep.Left < 2 {
		t.Fatalf("%+v", rep)
	}
	if got := take(t, o, "ord-1", export(t, o, s, "ord-1")); len(got.Alarms) != 0 {
		t.Fatalf("%+v", got)
	}
}

// TestRecordsGoInParts: a file of what came after is as good as the whole.
func TestRecordsGoInParts(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "st-1", o)
	imported(t, o, s, "ord-1", 3)
	part := func(after uint32) []byte {
		path := filepath.Join(t.TempDir(), "part")
		e, err := s.Export("ord-1", path, after, o.Now)
		if err != nil || e.From != after+1 || e.More {
			t.Fatalf("%+v, %v", e, err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	_, err := s.Export("ord-1", filepath.Join(t.TempDir(), "none"), 0, o.Now)
	wantCode(t, err, "order.empty")
	if _, _, err := run(t, o, s, "ord-1", 2); err != nil {
		t.Fatal(err)
	}
	if rep := take(t, o, "ord-1", part(0)); rep.Accepted != 2 {
		t.Fatalf("%+v", rep)
	}
	if _, _, err := run(t, o, s, "ord-1", 1); err != nil {
		t.Fatal(err)
	}
	if rep := take(t, o, "ord-1", part(2)); rep.Accepted != 1 || rep.Known != 0 {
		t.Fatalf("%+v", rep)
	}
	if _, err := s.CloseOrder("ord-1", o.Now); err != nil {
		t.Fatal(err)
	}
	if rep := take(t, o, "ord-1", part(3)); !rep.JobEnd || rep.Known != 0 {
		t.Fatalf("%+v", rep)
	}
	if _, err := o.Service.CloseOrder(t.Context(), o.Caller, "ord-1"); err != nil {
		t.Fatal(err)
	}
}

// TestCreateOrderRefuses: the OEM wraps nothing for a station, or of a content, that it did not mean.
func TestCreateOrderRefuses(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s, _ := softStation(t, "st-1", o, factorytest.NewOEM(t, "evil"))
	good, err := s.Descriptor("acme", o.Now)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := s.Descriptor("evil", o.Now)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		code   string
		change func(*factory.OrderSpec)
	}{
		"no pin":    {"order.invalid", func(p *factory.OrderSpec) { p.StationPin = nil }},
		"other pin": {"order.station", func(p *factory.OrderSpec) { p.StationPin = make([]byte, 32) }},
		"other OEM": {"order.invalid", func(p *factory.OrderSpec) { p.Descriptor = foreign }},
		"changed": {"order.station", func(p *factory.OrderSpec) {
			p.Descriptor = append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]^1)
		}},
		"no payload": {"order.invalid", func(p *factory.OrderSpec) { p.Payload = nil }},
		"wrong payload": {"order.invalid", func(p *factory.OrderSpec) {
			p.Payload = factory.InMemory(map[string][]byte{"app": {1}, "assets": {2}})
		}},
		"hardware":        {"order.invalid", func(p *factory.OrderSpec) { p.Hardware = "rev-z" }},
		"product":         {"order.invalid", func(p *factory.OrderSpec) { p.Product = "toaster" }},
		"no quota":        {"order.invalid", func(p *factory.OrderSpec) { p.Quota = 0 }},
		"over":            {"order.invalid", func(p *factory.OrderSpec) { p.NotAfter = o.Now }},
		"bad name":        {"order.invalid", func(p *factory.OrderSpec) { p.ID = "../x" }},
		"unsigned bundle": {"order.invalid", func(p *factory.OrderSpec) { p.Bundle = []byte{1} }},
		"17 slots":        {"order.invalid", func(p *factory.OrderSpec) { p.Params.Flash.Slots = 17 }},
		"long config":     {"order.invalid", func(p *factory.OrderSpec) { p.Params.Config = make([]byte, 16<<10+1) }},
		"much":            {"order.invalid", func(p *factory.OrderSpec) { p.Quota = wire.MaxQuota + 1 }},
		"capitals":        {"order.invalid", func(p *factory.OrderSpec) { p.ID = "Order-7" }},
		"long name":       {"order.invalid", func(p *factory.OrderSpec) { p.ID = strings.Repeat("o", wire.MaxOrderID+1) }},
		"keys twice":      {"order.invalid", func(p *factory.OrderSpec) { p.Chips, p.Keys = "chipco", wire.OriginStation }},
	} {
		t.Run(name, func(t *testing.T) {
			spec := o.Spec("ord-1", 2, good, s.ID())
			c.change(&spec)
			_, _, err := o.Service.CreateOrder(t.Context(), o.Caller, spec)
			wantCode(t, err, c.code)
		})
	}
	if all, err := o.Service.List(t.Context(), o.Caller, ""); err != nil || len(all) != 0 || o.CA.Orders != 0 {
		t.Fatalf("orders: %+v, %d CAs, %v", all, o.CA.Orders, err)
	}
	order(t, o, s, "ord-1", 2)
	made := o.CA.Orders
	_, _, err = o.Service.CreateOrder(t.Context(), o.Caller, o.Spec("ord-1", 2, good, s.ID()))
	wantCode(t, err, "order.exists")
	if o.CA.Orders != made {
		t.Error("a CA was made for an order that is refused")
	}
}
