package cli_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hallmark-iot/hallmark/internal/factorytest"
	"github.com/hallmark-iot/hallmark/station"
	"github.com/hallmark-iot/hallmark/station/module/soft"
)

const pin = "12345678"

// stationBegin begins a station that trusts a maker: station-begin DIR OEMFILE OEM DESCRIPTOR. $STATION is its fingerprint, $OEM the maker's
// as the station computes it.
func stationBegin(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: station-begin DIR OEMFILE OEM DESCRIPTOR")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.Mkdir(dir, 0o700))
	ts.Check(station.WriteConfig(dir, station.Config{Name: "centre-1"}))
	m, err := soft.Create(dir, []byte(pin))
	ts.Check(err)
	s, err := station.Open(dir, m)
	ts.Check(err)
	defer s.Close()
	oem, err := station.DecodeOEM([]byte(ts.ReadFile(args[1])))
	ts.Check(err)
	ts.Check(s.Trust(oem))
	d, err := s.Descriptor(args[2], time.Now())
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), d, 0o600))
	id := s.ID()
	ts.Setenv("STATION", hex.EncodeToString(id[:]))
	ts.Setenv("OEM", oem.Fingerprint())
}

// stationMake makes devices from an order: station-make DIR ORDER ORDERFILE N RECORDS. $DEVICE is one of them.
func stationMake(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 5 {
		ts.Fatalf("usage: station-make DIR ORDER ORDERFILE N RECORDS")
	}
	m, err := soft.Open(ts.MkAbs(args[0]), []byte(pin))
	ts.Check(err)
	s, err := station.Open(ts.MkAbs(args[0]), m)
	ts.Check(err)
	defer s.Close()
	n, err := strconv.Atoi(args[3])
	ts.Check(err)
	_, err = s.Import(bytes.NewReader([]byte(ts.ReadFile(args[2]))), time.Now())
	ts.Check(err)
	line := &factorytest.Line{}
	for range n {
		line.Pieces = append(line.Pieces, factorytest.NewPiece())
	}
	rep, err := s.Run(context.Background(), station.RunSpec{Order: args[1], Devices: n, Operator: "ola", Line: "L1", Now: time.Now}, line)
	line.Wait()
	ts.Check(err)
	_, err = s.Export(args[1], ts.MkAbs(args[4]), 0, time.Now())
	ts.Check(err)
	ts.Setenv("DEVICE", rep.Devices[0])
}

// field sets a variable to a member of a JSON document: field NAME FILE MEMBER…, of lists the first.
func field(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: field NAME FILE MEMBER…")
	}
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &v))
	for _, member := range args[2:] {
		if list, ok := v.([]any); ok && len(list) > 0 {
			v = list[0]
		}
		m, ok := v.(map[string]any)
		if !ok || m[member] == nil {
			ts.Fatalf("%s has no member %q: %v", args[1], member, v)
		}
		v = m[member]
	}
	s, ok := v.(string)
	if !ok {
		ts.Fatalf("%v of %s is no text", args[2:], args[1])
	}
	ts.Setenv(args[0], s)
}

// madeFleet makes an instance in d, runs it, and has two devices made there: $DEVICE is one of them, rita, alice, bob and frank are files
// with people's tokens.
func madeFleet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: fleet")
	}
	ts.Setenv("HALLMARK_PASSPHRASE", "pass")
	hallmark := func(line string) { ts.Check(ts.Exec("hallmark", strings.Fields(line)...)) }
	hallmark("init --dir d --kdf-iterations 1000 --oem acme --product pump --hardware rev-b --api 127.0.0.1:0 --devices 127.0.0.1:0 --allow-virtual")
	serve(ts, false, []string{"d"})
	for _, name := range []string{"rita", "alice", "bob", "frank"} {
		hallmark("token create person:" + name + " --role release-manager,factory --out " + name)
	}
	ts.Check(os.WriteFile(ts.MkAbs("app.sh"), []byte("#!/bin/sh\nsleep 1\n"), 0o600))
	hallmark("release create --token-file rita --product pump --version 1.0.0 --counter 3 --file app=app.sh:exec")
	for _, name := range []string{"alice", "bob"} {
		hallmark("release approve pump@1.0.0 --token-file " + name + " --key d/offline/approver-" + name + ".key")
	}
	hallmark("release publish pump@1.0.0 --token-file rita")
	hallmark("order oem --out oem.json")
	stationBegin(ts, false, []string{"st", "oem.json", "acme", "st.hmd"})
	hallmark("order create --token-file frank --product pump --hardware rev-b --quota 2 --release pump@1.0.0 --descriptor st.hmd --station " +
		ts.Getenv("STATION") + " --server https://localhost:8443 --slot-size 2097152 --erase-size 4096 --id order-7 --out order.hmo")
	stationMake(ts, false, []string{"st", "order-7", "order.hmo", "2", "records.hmr"})
	hallmark("order import order-7 records.hmr --token-file frank")
	hallmark("event watch --after events:0 --kind device.provisioned --count 2")
}
