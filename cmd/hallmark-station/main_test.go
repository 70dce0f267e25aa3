package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hallmark-iot/hallmark/agent/factoryport"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/factorytest"
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

// oem is the other side: oem order ID N DESCRIPTOR FINGERPRINT FILE | import ID FILE | reconcile ID | close ID.
func oem(ts *testscript.TestScript, neg bool, args []string) {
	o, ok := ts.Value("oem").(*factorytest.OEM)
	if !ok || len(args) < 2 {
		ts.Fatalf("usage: oem order|import|reconcile|close ID …")
	}
	ctx := context.Background()
	var err error
	var out any
	switch args[0] {
	case "order", "first-article":
		n, _ := strconv.Atoi(args[2])
		pin, _ := hex.DecodeString(args[4])
		if len(pin) != 32 {
			ts.Fatalf("fingerprint %q", args[4])
		}
		spec := o.Spec(args[1], uint32(n), []byte(ts.ReadFile(args[3])), [32]byte(pin))
		spec.FirstArticle = args[0] == "first-article"
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
