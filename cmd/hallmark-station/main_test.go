package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hallmark-iot/hallmark/agent/factoryport"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/wire"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"hallmark-station": func() { os.Exit(Main()) },
		"testdevice":       testDevice,
		"station-life":     stationLife,
		"station-hold":     stationHold,
	})
}

// testDevice is a virtual device as a process: it connects to the socket and is made.
func testDevice() {
	dir, socket := flag.String("dir", "", ""), flag.String("socket", "", "")
	flag.Parse()
	conn, err := net.Dial("unix", *socket)
	if err == nil {
		p := factorytest.NewPiece()
		if err = factoryport.Serve(context.Background(), conn, p); err == nil {
			err = os.WriteFile(*dir+"/id", []byte(p.Got.Device+"\n"), 0o600)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testdevice:", err)
		os.Exit(1)
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			o := factorytest.NewOEM(t, "acme")
			e.Values["oem"] = o
			return os.WriteFile(e.WorkDir+"/acme.json", o.File(t), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"oem": oem, "flip": flip, "env-from": envFrom},
	})
}

// oem is the other side: oem order|first-article|station-keys ID N DESCRIPTOR FINGERPRINT FILE | import ID FILE | reconcile ID | close ID.
func oem(ts *testscript.TestScript, neg bool, args []string) {
	o, ok := ts.Value("oem").(*factorytest.OEM)
	if !ok || len(args) < 2 {
		ts.Fatalf("usage: oem order|import|reconcile|close ID …")
	}
	ctx := context.Background()
	var err error
	var out any
	switch args[0] {
	case "order", "first-article", "station-keys":
		n, _ := strconv.Atoi(args[2])
		pin, _ := hex.DecodeString(args[4])
		if len(pin) != 32 {
			ts.Fatalf("fingerprint %q", args[4])
		}
		spec := o.Spec(args[1], uint32(n), []byte(ts.ReadFile(args[3])), [32]byte(pin))
		if spec.FirstArticle = args[0] == "first-article"; args[0] == "station-keys" {
			spec.Keys = wire.OriginStation
		}
		var file *factory.Wrapped
		file, _, err = o.Service.CreateOrder(ctx, o.Caller, spec)
		if err == nil {
			var b bytes.Buffer
			err = errors.Join(file.WriteFile(ctx, &b), os.WriteFile(ts.MkAbs(args[5]), b.Bytes(), 0o600))
		}
	case "import":
		out, err = o.Service.ImportRecords(ctx, o.Caller, args[1], []byte(ts.ReadFile(args[2])))
	case "reconcile":
		out, err = o.Service.Reconcile(ctx, o.Caller, args[1])
	case "close":
		out, err = o.Service.CloseOrder(ctx, o.Caller, args[1])
	}
	if (err != nil) != neg {
		ts.Fatalf("oem %v: %v", args, err)
	}
	fmt.Fprintf(ts.Stdout(), "%+v %v\n", out, err)
}

// envFrom sets variables from lines NAME=value of a file.
func envFrom(ts *testscript.TestScript, _ bool, args []string) {
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		ts.Setenv(k, v)
	}
}

// flip changes one bit in the middle of a file.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	b := []byte(ts.ReadFile(args[0]))
	b[len(b)/2] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o600))
}

// zeros is a component of n bytes that is nowhere.
type zeros struct{ n int64 }

func (z *zeros) Read(b []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(b)), z.n)
	clear(b[:n])
	z.n -= n
	return int(n), nil
}

func (z *zeros) Close() error { return nil }

// The whole program takes a large order in with less memory than the order has.
func TestImportTakesLessMemoryThanTheOrder(t *testing.T) {
	const size, most = 192 << 20, 96 << 20
	c := softCentre(t)
	sum := sha256.New()
	if _, err := io.Copy(sum, &zeros{size}); err != nil {
		t.Fatal(err)
	}
	c.oem.Publish(t, wire.Component{Name: "app", Kind: wire.KindExec, Version: "2.0.0", Size: size, Digest: sum.Sum(nil), Health: wire.HealthAlive})
	spec := c.oem.Spec("ord-1", 1, c.desc, c.id)
	spec.Params.Flash = wire.Flash{Size: 1 << 30, Erase: 4096, Slots: 2, SlotSize: 512 << 20}
	spec.Payload = func(context.Context, string) (io.ReadCloser, error) { return &zeros{size}, nil }
	w, _, err := c.oem.Service.CreateOrder(t.Context(), c.oem.Caller, spec)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ord-1.hmo")
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(w.WriteFile(t.Context(), f), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	pin := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(pin, []byte(cutPIN), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(pin)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd := exec.CommandContext(t.Context(), "hallmark-station", "--dir", c.dir, "--pin-fd", "3", "import", path)
	cmd.ExtraFiles = []*os.File{in}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	used, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok || used.Maxrss == 0 {
		t.Skip("how much memory a process had is not told here")
	}
	if rss := used.Maxrss << 10; rss > most {
		t.Errorf("the program had %d MiB for an order of %d", rss>>20, size>>20)
	} else {
		t.Logf("%d MiB of memory for an order of %d", rss>>20, size>>20)
	}
}
