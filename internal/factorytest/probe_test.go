package factorytest_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/wire"
)

const probeDir = "HALLMARK_TEST_PROBE"

// TestMain is also the debug probe of a fixture: a program of its own, which the station starts for each thing that it does to a chip.
func TestMain(m *testing.M) {
	if dir := os.Getenv(probeDir); dir != "" && len(os.Args) > 2 && os.Args[1] == "probe" {
		if err := play(dir, os.Args[2], os.Args[3], os.Args[4:]); err != nil {
			fmt.Fprintln(os.Stderr, "Error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// nest is a place and the chip in it.
type nest struct {
	N         int // pieces that have lain here
	UID       string
	Root      string
	Counter   string
	Lifecycle string
	Debug     string
	Keep      bool // the piece stays when it should be changed
}

// play does one thing to the chip in a place. The file "fault" beside it says at what it goes wrong: "fuse:counter fail" does nothing and fails,
// "cut" does it and fails, as when the power goes behind it, "lie" does nothing and says that all is well, "sleep" does not end, "noise" says too much.
func play(dir, at, what string, args []string) error {
	dir = filepath.Join(dir, at)
	var n nest
	data, err := os.ReadFile(filepath.Join(dir, "nest"))
	if err == nil {
		err = json.Unmarshal(data, &n)
	}
	if err != nil {
		return err
	}
	name := what
	if what == "fuse" {
		name += ":" + args[0]
	}
	wrong, _ := os.ReadFile(filepath.Join(dir, "fault"))
	when, how, _ := strings.Cut(string(wrong), " ")
	if when == name {
		switch how {
		case "fail":
			return fmt.Errorf("%s: the target does not answer", name)
		case "sleep":
			return sleep(filepath.Join(dir, "alive"))
		case "lie":
			fmt.Println("done")
			return nil
		case "noise":
			fmt.Println("hallmark: everything=well")
		}
	}
	fmt.Println("Open Probe 0.1\n** target halted **")
	if n.Debug == "locked" && what != "next" && what != "locked" {
		return fmt.Errorf("the debug port is locked")
	}
	if err := n.do(dir, what, args); err != nil {
		return err
	}
	if data, err = json.Marshal(n); err == nil {
		err = os.WriteFile(filepath.Join(dir, "nest"), data, 0o600)
	}
	if err == nil && when == name && how == "cut" {
		err = fmt.Errorf("%s: the power is gone", name)
	}
	return err
}

// sleep does not end, and neither does what it starts. While either lives, the pipe at path has a writer.
func sleep(path string) error {
	alive, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	child := exec.Command("sleep", "3600")
	child.ExtraFiles = []*os.File{alive}
	if err := child.Start(); err != nil {
		return err
	}
	if _, err := alive.WriteString("x"); err != nil {
		return err
	}
	return child.Wait()
}

func (n *nest) do(dir, what string, args []string) error {
	flash := filepath.Join(dir, "flash")
	switch what {
	case "next":
		if n.Keep {
			return nil
		}
		place := filepath.Base(dir)
		*n = nest{N: n.N + 1, UID: fmt.Sprintf("%x", fmt.Appendf(nil, "%-8.8s%04d", place, n.N)), Root: "blank", Counter: "0", Lifecycle: fmt.Sprint(wire.LifecycleAssembly), Debug: "open"}
		return os.WriteFile(flash, nil, 0o600)
	case "identify":
		fmt.Printf("hallmark: uid=%s\nhallmark: lifecycle=%s\n", n.UID, n.Lifecycle)
	case "erase":
		return os.WriteFile(flash, bytes.Repeat([]byte{0xff}, int(factorytest.Params().Flash.Size)), 0o600)
	case "write", "read":
		at, err := strconv.ParseInt(args[1], 0, 64)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(flash, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if what == "write" {
			data, err := os.ReadFile(args[0])
			if err == nil {
				_, err = f.WriteAt(data, at)
			}
			return err
		}
		size, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		data := make([]byte, size)
		if _, err := f.ReadAt(data, at); err != nil {
			return err
		}
		return os.WriteFile(args[0], data, 0o600)
	case "fuses":
		fmt.Printf("hallmark: root=%s counter=%s lifecycle=%s\n", n.Root, n.Counter, n.Lifecycle)
	case "fuse":
		to := map[string]*string{"root": &n.Root, "counter": &n.Counter, "lifecycle": &n.Lifecycle}[args[0]]
		*to = args[1]
	case "lock":
		n.Debug = "locked"
	case "locked":
		fmt.Printf("hallmark: debug=%s\n", n.Debug)
	default:
		return fmt.Errorf("no command %q", what)
	}
	return nil
}

// fixture makes one with empty places, and the directory of its probes.
func fixture(t *testing.T, places ...string) (f station.Fixture, dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, p := range places {
		if err := os.Mkdir(filepath.Join(dir, p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, p, "nest"), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(probeDir, dir)
	list, err := json.Marshal(places)
	if err != nil {
		t.Fatal(err)
	}
	scratch := t.TempDir()
	t.Cleanup(func() {
		if left, err := os.ReadDir(scratch); err != nil || len(left) > 0 {
			t.Errorf("files are left where keys were handed over: %v, %v", left, err)
		}
	})
	cmd := func(words ...string) string {
		b, _ := json.Marshal(append([]string{os.Args[0], "probe", "{place}"}, words...))
		return string(b)
	}
	text := fmt.Sprintf(`{"places": %s, "hardware": %q, "virtual": true, "timeout": "20s", "scratch": %q,
		"flash": {"size": 4194304, "erase": 4096, "slots": 2, "slot_size": 1048576},
		"area": {"address": 0, "size": 65536}, "components": {"app": {"address": 65536, "size": 1048576}, "assets": {"address": 2097152, "size": 4096}},
		"next": %s, "identify": %s, "erase": %s, "write": %s, "read": %s, "fuses": %s, "fuse": %s, "lock": %s, "locked": %s}`,
		list, factorytest.Hardware, scratch, cmd("next"), cmd("identify"), cmd("erase"), cmd("write", "{file}", "{address}"), cmd("read", "{file}", "{address}", "{size}"),
		cmd("fuses"), cmd("fuse", "{fuse}", "{value}"), cmd("lock"), cmd("locked"))
	if f, err = station.DecodeFixture([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return f, dir
}

func goesWrong(t *testing.T, dir, place, how string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, place, "fault"), []byte(how), 0o600); err != nil {
		t.Fatal(err)
	}
}

// allowing brings an order of n to the station that allows keys to be made by it.
func allowing(t *testing.T, o *factorytest.OEM, s *station.Station, n int, keys string) {
	t.Helper()
	d, err := s.Descriptor(o.ID, o.Now)
	if err != nil {
		t.Fatal(err)
	}
	spec := o.Spec("ord-1", uint32(n), d, s.ID())
	spec.Keys = keys
	file, _, err := o.Service.CreateOrder(t.Context(), o.Caller, spec)
	if err == nil {
		_, err = s.Import(bytes.NewReader(factorytest.Bytes(t, file)), o.Now)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// onFixture makes n pieces at the fixture, and gives their records.
func onFixture(t *testing.T, o *factorytest.OEM, s *station.Station, f station.Fixture, n int, change ...func(*station.RunSpec)) (station.Report, []wire.Record, error) {
	t.Helper()
	var records []wire.Record
	spec := station.RunSpec{
		Order: "ord-1", Devices: n, Parallel: len(f.Places), Gang: true, Line: "line-1", Now: func() time.Time { return o.Now },
		Progress: func(r wire.Record) { records = append(records, r) },
	}
	for _, c := range change {
		c(&spec)
	}
	rep, err := s.Run(t.Context(), spec, station.NewGang(f))
	return rep, records, err
}

// A gang makes chips that run nothing of ours: what was ordered is on each, with keys of its own that sign, the fuses close it, and the OEM takes the
// record and knows where the keys were made.
func TestAGangMakesChipsThatRunNothing(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s := benchStation(t, o)
	allowing(t, o, s, 5, wire.OriginStation)
	f, dir := fixture(t, "a", "b")
	rep, records, err := onFixture(t, o, s, f, 5)
	if err != nil || rep.Made != 5 || rep.Places["a"].Made+rep.Places["b"].Made != 5 {
		t.Fatalf("%+v, %v", rep, err)
	}
	for _, r := range records {
		if r.Keys.Origin != wire.OriginStation || !slices.Contains([]string{"line-1/a", "line-1/b"}, r.Line) {
			t.Errorf("record %d: keys made by %q, on line %q", r.Seq, r.Keys.Origin, r.Line)
		}
	}
	last := records[len(records)-1]
	flash, err := os.ReadFile(filepath.Join(dir, strings.TrimPrefix(last.Line, "line-1/"), "flash"))
	if err != nil {
		t.Fatal(err)
	}
	area, err := wire.DecodeChipArea(flash[:65536])
	if err != nil || area.Install.Device != last.Device || !bytes.Equal(area.Install.Certificate, last.Certificate) || !bytes.Equal(flash[65536:65536+len(o.Payload["app"])], o.Payload["app"]) {
		t.Fatalf("device %s has %q, %v", last.Device, area.Install.Device, err)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), area.Identity)
	if err != nil {
		t.Fatal(err)
	}
	if spki, err := wire.SPKIOf(key.Public()); err != nil || !bytes.Equal(spki, last.Keys.IDevID) {
		t.Errorf("the key on the chip is not the certificate's, %v", err)
	}
	if rep := take(t, o, "ord-1", exported(t, o, s)); rep.Accepted != 5 || len(rep.Alarms) > 0 {
		t.Fatalf("%+v", rep)
	}
	d, err := o.DB.Devices().Device(t.Context(), last.Device)
	if err != nil || d.KeyOrigin != wire.OriginStation {
		t.Errorf("keys made by %q, %v", d.KeyOrigin, err)
	}
}

// Who makes the keys is the OEM's to say: no ticket is spent for an order that does not allow it.
func TestAStationMakesNoKeysThatItsOrderDoesNotAllow(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s := benchStation(t, o)
	allowing(t, o, s, 2, "")
	f, _ := fixture(t, "a")
	rep, records, err := onFixture(t, o, s, f, 1)
	wantCode(t, err, "order.keys")
	if len(records) > 0 || rep.Left != 2 {
		t.Errorf("%+v, %d records", rep, len(records))
	}
}

// One place goes wrong, at each thing that is done to its piece, and the others go on. What became of each piece is on record.
func TestOnePlaceFailsAndTheOthersGoOn(t *testing.T) {
	for wrong, want := range map[string]struct {
		reason  string // in the record; empty: no ticket was spent
		secured bool   // the piece can not come again
	}{
		"next fail":           {},
		"identify fail":       {},
		"identify noise":      {},
		"erase fail":          {reason: "erase"},
		"write fail":          {reason: "write"},
		"write lie":           {reason: "differs"},
		"read lie":            {reason: "read"},
		"fuse:root fail":      {reason: "fuse root"},
		"fuse:root lie":       {reason: "fuse root does not read as it was burnt"},
		"fuse:counter cut":    {reason: "fuse counter"},
		"fuse:lifecycle fail": {reason: "fuse lifecycle"},
		"lock fail":           {reason: "lock", secured: true},
		"lock lie":            {reason: "after it was locked", secured: true},
	} {
		o := factorytest.NewOEM(t, "acme")
		s := benchStation(t, o)
		allowing(t, o, s, 10, wire.OriginStation)
		f, dir := fixture(t, "bad", "good")
		goesWrong(t, dir, "bad", wrong)
		rep, records, err := onFixture(t, o, s, f, 4)
		if err != nil || rep.Places["good"] == nil || rep.Places["good"].Made < 1 || rep.Made+rep.Scrapped != 4 || rep.Places["good"].Made != rep.Made {
			t.Errorf("%s: %+v, %v", wrong, rep, err)
			continue
		}
		for _, r := range records {
			if r.Outcome != wire.Made && (want.reason == "" || !strings.Contains(r.Reason, want.reason) || (r.Fuses != nil) != want.secured || r.Line != "line-1/bad") {
				t.Errorf("%s: record %d at %s: %q, fuses %+v", wrong, r.Seq, r.Line, r.Reason, r.Fuses)
			}
		}
		if rep := take(t, o, "ord-1", exported(t, o, s)); rep.Accepted+rep.NotMade != 4 || len(rep.Alarms) > 0 {
			t.Errorf("%s: the OEM: %+v", wrong, rep)
		}
	}
}

// A piece that lost its power between two fuses comes again, and gets the rest; one whose life cycle is burnt never does.
func TestAPieceThatWasCutBetweenFusesIsMadeAnew(t *testing.T) {
	for wrong, again := range map[string]bool{"fuse:root cut": true, "fuse:counter cut": true, "fuse:lifecycle cut": false, "lock cut": false} {
		o := factorytest.NewOEM(t, "acme")
		s := benchStation(t, o)
		allowing(t, o, s, 10, wire.OriginStation)
		f, dir := fixture(t, "a")
		goesWrong(t, dir, "a", wrong)
		if rep, _, err := onFixture(t, o, s, f, 1); err != nil || rep.Scrapped != 1 {
			t.Fatalf("%s: %+v, %v", wrong, rep, err)
		}
		goesWrong(t, dir, "a", "")
		var n nest
		path := filepath.Join(dir, "a", "nest")
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, &n)
		}
		n.Keep = true
		if data, err2 := json.Marshal(n); err != nil || err2 != nil || os.WriteFile(path, data, 0o600) != nil {
			t.Fatal(err, err2)
		}
		rep, records, err := onFixture(t, o, s, f, 1, func(spec *station.RunSpec) { spec.Rework = true })
		if again && (err != nil || rep.Made != 1 || records[0].Rework != 1) {
			t.Errorf("%s: %+v, %v", wrong, rep, err)
		}
		if !again && (err == nil || rep.Made+rep.Scrapped != 0 || rep.Refused == 0) {
			t.Errorf("%s: %+v, %v", wrong, rep, err)
		}
	}
}

// A command that does not end is ended, with what it started.
func TestAProbeThatHangsIsEnded(t *testing.T) {
	o := factorytest.NewOEM(t, "acme")
	s := benchStation(t, o)
	allowing(t, o, s, 2, wire.OriginStation)
	f, dir := fixture(t, "a")
	goesWrong(t, dir, "a", "erase sleep")
	path := filepath.Join(dir, "a", "alive")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g := station.NewGang(f)
	p, err := g.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	chip, err := p.Identify(ctx)
	if err != nil {
		t.Fatal(err)
	}
	q := wire.KeyRequest{Order: "ord-1", Nonce: make([]byte, 32), Device: strings.Repeat("0", 32)}
	_, _ = rand.Read(q.Nonce)
	keys, err := p.GenerateKeys(ctx, q)
	if err != nil || wire.VerifyPossession(q, chip.ChipUID, keys) != nil {
		t.Fatalf("%+v, %v", keys, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.Install(ctx, wire.Install{}, nil) }()
	alive, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	if _, err := io.ReadFull(alive, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	if rest, err := io.ReadAll(alive); err != nil || len(rest) > 0 { // it ends when nobody is left who holds the other end
		t.Error(rest, err)
	}
	if err := p.Close(false); err != nil {
		t.Error(err)
	}
}
