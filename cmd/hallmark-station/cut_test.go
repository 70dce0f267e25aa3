package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/station/module"
	"github.com/hallmark-iot/hallmark/station/module/pkcs11"
	"github.com/hallmark-iot/hallmark/station/module/soft"
	"github.com/hallmark-iot/hallmark/wire"
)

const cutPIN = "correct horse"

// lifeWants is how many devices a life makes of an order of lifeQuota.
const (
	lifeWants = 2
	lifeQuota = 6
)

// stationLife is a station's whole work on an order as a process: station-life DIR ORDER-FILE OUT. It does what is not done yet, so that
// it can be killed anywhere and started again.
func stationLife() {
	if err := life(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "station-life:", err)
		os.Exit(1)
	}
}

func openModule(dir string) (module.Module, error) {
	c, err := station.ReadConfig(dir)
	if err != nil {
		return nil, err
	}
	if c.Module != "" {
		return pkcs11.Open(pkcs11.Config{Path: c.Module, Label: c.Token, PIN: []byte(cutPIN)})
	}
	return soft.Open(dir, []byte(cutPIN))
}

func life(dir, orderFile, out string) (err error) {
	m, err := openModule(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	s, err := station.Open(dir, m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	id := strings.TrimSuffix(filepath.Base(orderFile), ".hmo")
	sum, err := s.Show(id)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return err
	}
	if !sum.Closed {
		b, err := os.ReadFile(orderFile)
		if err != nil {
			return err
		}
		if sum, err = s.Import(bytes.NewReader(b), time.Now()); err != nil {
			return err
		}
	}
	seen, err := os.OpenFile(orderFile+".seen", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer seen.Close()
	if n := lifeWants - int(sum.Made); n > 0 && !sum.Closed {
		line := &watched{log: seen}
		_, err := s.Run(context.Background(), station.RunSpec{Order: id, Devices: n, Parallel: 1}, line)
		line.Wait()
		if err != nil {
			return err
		}
	}
	if _, err := s.Export(id, out, 0, time.Now()); err != nil {
		return err
	}
	if _, err := s.CloseOrder(id, time.Now()); err != nil {
		return err
	}
	_, err = s.Export(id, out, 0, time.Now())
	return err
}

// watched is a line that writes down what pieces are told, outside of the station's directory.
type watched struct {
	factorytest.Line
	mu  sync.Mutex // guards log
	log *os.File
}

func (w *watched) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(w.log, format+"\n", args...)
}

// Next implements station.Source.
func (w *watched) Next(ctx context.Context) (station.Programmer, error) {
	p, err := w.Line.Next(ctx)
	return &watchedPiece{Programmer: p, w: w}, err
}

type watchedPiece struct {
	station.Programmer
	w   *watched
	uid []byte
}

func (p *watchedPiece) Identify(ctx context.Context) (wire.ChipHello, error) {
	h, err := p.Programmer.Identify(ctx)
	p.uid = h.ChipUID
	return h, err
}

func (p *watchedPiece) GenerateKeys(ctx context.Context, q wire.KeyRequest) (wire.KeyReply, error) {
	p.w.say("ticket %d %s %x", q.Seq, q.Device, p.uid)
	return p.Programmer.GenerateKeys(ctx, q)
}

func (p *watchedPiece) Fuse(ctx context.Context, f wire.FuseRequest) (wire.FuseState, error) {
	p.w.say("fused %x", p.uid)
	return p.Programmer.Fuse(ctx, f)
}

// centre is a station to be cut, and the OEM it works for.
type centre struct {
	t    *testing.T
	oem  *factorytest.OEM
	dir  string
	desc []byte
	id   [32]byte
	n    int
}

func newCentre(t *testing.T, cfg station.Config, create func(dir string) (module.Module, error)) *centre {
	t.Helper()
	c := &centre{t: t, oem: factorytest.NewOEM(t, "acme"), dir: filepath.Join(t.TempDir(), "st")}
	cfg.Name = "st-1"
	if err := station.WriteConfig(c.dir, cfg); err != nil {
		t.Fatal(err)
	}
	m, err := create(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := station.Open(c.dir, m)
	if err != nil {
		t.Fatal(err)
	}
	f, err := station.DecodeOEM(c.oem.File(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Trust(f); err != nil {
		t.Fatal(err)
	}
	if c.desc, err = s.Descriptor("acme", time.Now()); err != nil {
		t.Fatal(err)
	}
	c.id = s.ID()
	if err := errors.Join(s.Close(), m.Close()); err != nil {
		t.Fatal(err)
	}
	return c
}

// trial is one order.
type trial struct {
	id, file, out string
}

func (c *centre) order() trial {
	c.t.Helper()
	c.n++
	id := fmt.Sprintf("ord-%d", c.n)
	dir := c.t.TempDir()
	o := trial{id: id, file: filepath.Join(dir, id+".hmo"), out: filepath.Join(dir, "out.hmr")}
	w, _, err := c.oem.Service.CreateOrder(c.t.Context(), c.oem.Caller, c.oem.Spec(id, lifeQuota, c.desc, c.id))
	if err == nil {
		err = os.WriteFile(o.file, factorytest.Bytes(c.t, w), 0o600)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return o
}

// live runs a life and says how it ended.
func (c *centre) live(o trial, failpoint string) (done, killed bool, said string) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), "station-life", c.dir, o.file, o.out)
	cmd.Env = append(os.Environ(), "HALLMARK_FAILPOINTS="+failpoint)
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	if exit != nil {
		ws, ok := exit.Sys().(syscall.WaitStatus)
		return false, ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL, string(b)
	}
	return true, false, string(b)
}

// arrived brings the file that is there, if one is, to the OEM: what has the name is whole.
func (c *centre) arrived(o trial) (rep factory.ImportReport, is bool) {
	c.t.Helper()
	b, err := os.ReadFile(o.out)
	if errors.Is(err, os.ErrNotExist) {
		return rep, false
	}
	if err == nil {
		rep, err = c.oem.Service.ImportRecords(c.t.Context(), c.oem.Caller, o.id, b)
	}
	if err != nil {
		c.t.Fatalf("order %s: the OEM on a file that has its name: %v", o.id, err)
	}
	if len(rep.Alarms) > 0 {
		c.t.Fatalf("order %s: alarms: %+v", o.id, rep.Alarms)
	}
	return rep, true
}

// check holds what the OEM took against what the pieces were told.
func (c *centre) check(o trial) {
	c.t.Helper()
	if rep, is := c.arrived(o); !is || !rep.JobEnd {
		c.t.Fatalf("order %s: no records with an end: %+v", o.id, rep)
	}
	r, err := c.oem.Service.CloseOrder(c.t.Context(), c.oem.Caller, o.id)
	if err != nil {
		c.t.Fatalf("order %s: %v", o.id, err)
	}
	tickets, fused := map[string]string{}, map[string]bool{}
	b, err := os.ReadFile(o.file + ".seen")
	if err != nil {
		c.t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		f := strings.Fields(l)
		switch {
		case f[0] == "fused":
			fused[f[1]] = true
		case tickets[f[1]] != "":
			c.t.Errorf("order %s: ticket %s was given to %s and to %s", o.id, f[1], tickets[f[1]], f[3])
		default:
			tickets[f[1]] = f[3]
		}
	}
	if left, err := filepath.Glob(filepath.Join(c.dir, "orders", o.id, ".order.hmo.*")); err != nil || len(left) != 0 {
		c.t.Errorf("order %s: left behind: %q, %v", o.id, left, err)
	}
	if r.Made != lifeWants || len(fused) < lifeWants || int(r.Records) < len(tickets) || r.Records != r.Made+r.Scrapped+r.Interrupted {
		c.t.Errorf("order %s: %d tickets reached pieces, %d were fused; the OEM has %+v", o.id, len(tickets), len(fused), r.Tally)
	}
}

// cuts ends a life at every step, or every one of stride, and lets the next one finish.
func (c *centre) cuts(kind string, stride int) {
	c.t.Helper()
	n := 1
	for ; ; n += stride {
		o := c.order()
		done, killed, said := c.live(o, fmt.Sprintf("station.%s=%d", kind, n))
		if done {
			c.check(o)
			break // there are no more steps
		}
		if killed != (kind == "kill") {
			c.t.Fatalf("step %d: it was to end by %s: %s", n, kind, said)
		}
		if n > 500 {
			c.t.Fatal("no end of steps")
		}
		c.arrived(o)
		if done, _, said := c.live(o, ""); !done {
			c.t.Fatalf("after %s at step %d: %s", kind, n, said)
		}
		c.check(o)
	}
	if n < 10 {
		c.t.Errorf("a life of %d steps: what is cut here?", n)
	}
}

func softCentre(t *testing.T) *centre {
	return newCentre(t, station.Config{}, func(dir string) (module.Module, error) { return soft.Create(dir, []byte(cutPIN)) })
}

// every is a stride: all steps in the long run, else some of them, others in each test.
func every(n int) int {
	if os.Getenv("HALLMARK_LONG") != "" {
		return 1
	}
	return n
}

// A station whose process is killed between any two effects on its disk goes on where it was: no ticket serves twice, no piece is half
// recorded, and the OEM gets all of it.
func TestKilledAnywhereTheStationGoesOn(t *testing.T) { softCentre(t).cuts("kill", every(7)) }

// A disk without space stops the work, and nothing but the work.
func TestADiskThatIsFullStopsTheStation(t *testing.T) { softCentre(t).cuts("full", 1) }

// A disk or a stick that is gone from a step on: what has its name is whole.
func TestADiskThatGoesAwayStopsTheStation(t *testing.T) { softCentre(t).cuts("gone", every(9)) }

// stationHold is a process that has unwrapped an order key and signed with it: station-hold DIR BLOB SPKI, both hex. It stays until its
// input ends, so that its memory can be read.
func stationHold() {
	if err := hold(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "station-hold:", err)
		os.Exit(1)
	}
}

func hold(dir, blob, spki string) error {
	m, err := openModule(dir)
	if err != nil {
		return err
	}
	defer m.Close()
	key := wire.WrappedKey{Role: wire.RoleOrderCA, Alg: m.Info().WrapAlg, Template: wire.SigningTemplate()}
	if key.Blob, err = hex.DecodeString(blob); err != nil {
		return err
	}
	if key.SPKI, err = hex.DecodeString(spki); err != nil {
		return err
	}
	k, err := m.UnwrapSigner("acme", key)
	if err != nil {
		return err
	}
	for range 3 {
		if _, err := k.Sign(rand.Reader, make([]byte, 32), nil); err != nil {
			return err
		}
	}
	fmt.Printf("%p\n", &key) // somewhere in the heap
	_, _ = os.Stdin.Read(make([]byte, 1))
	return k.Destroy()
}
