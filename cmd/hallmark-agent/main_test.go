package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/agent/line"
	"github.com/hallmark-iot/hallmark/agent/rom"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

func TestMain(m *testing.M) {
	launch.Confine()
	line.Become()
	testscript.Main(m, map[string]func(){
		"hallmark-agent": sooner,
		"testfactory":    program(testFactory),
		"teststation":    program(testStation),
	})
}

// sooner is the program; with LATER in its environment, as the first stage, that of a later release, whose run has flags that this one does not have.
func sooner() {
	if os.Getenv("LATER") == "" || rom.Handed() {
		main()
		return
	}
	p := newPlug()
	root := newRoot(new(bool), p)
	run, _, err := root.Find([]string{"run"})
	if err == nil {
		run.Flags().String("later", "", "")
		run.Flags().Bool("and-more", false, "")
		err = root.ExecuteContext(p.ctx)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func program(run func() error) func() {
	return func() {
		if err := run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"await":      await,
			"await-free": awaitSocket,
			"damage":     damage,
			"burn":       burn,
			"lose":       lose,
		},
	})
}

// await waits until a file is there, or until the script's time is up.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await FILE")
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("unix", ts.MkAbs(args[0])); err == nil {
			ts.Check(conn.Close())
			return
		}
	}
	ts.Fatalf("nobody listens on %s", args[0])
}

// damage flips a byte of a file: damage FILE OFFSET.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: damage FILE OFFSET")
	}
	off, err := strconv.Atoi(args[1])
	ts.Check(err)
	data, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	data[off] ^= 0x55
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o600))
}

// burn ends a device's life in its fuses: burn DIR.
func burn(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: burn DIR")
	}
	b, err := virtual.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(errors.Join(b.Fuses.Advance(hw.Decommissioned), b.Close()))
}

// lose has a device lose its trust bundle: lose DIR.
func lose(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: lose DIR")
	}
	b, err := virtual.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	flash, err := boot.Arrange(b.Flash)
	ts.Check(err)
	ts.Check(errors.Join(flash.Lose(false), b.Close()))
}

// testStation listens on a socket, and hangs up on the first who comes.
func testStation() error {
	l, err := net.Listen("unix", os.Args[1])
	if err != nil {
		return err
	}
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	return errors.Join(conn.Close(), l.Close())
}

// testFactory makes the blank board in a directory into a device that runs /bin/sleep, with a server that is not there.
func testFactory() error {
	dir := flag.String("dir", "", "")
	manager := flag.String("boot-manager", "", "")
	flag.Parse()
	b, err := virtual.Open(*dir)
	if err != nil {
		return err
	}
	var managers []wire.BootManager
	if *manager != "" {
		code, err := os.ReadFile(*manager)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(code)
		managers = []wire.BootManager{{Digest: sum[:], Hardware: []string{"A"}}}
	}
	return errors.Join(birth(&b.Board, managers...), b.Close())
}

func birth(b *hw.Board, managers ...wire.BootManager) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	idevid, err := b.Keys.Generate(hw.KeyIDevID, suite.P256)
	if err != nil {
		return err
	}
	if _, err := b.Keys.Generate(hw.KeyAttest, suite.P256); err != nil {
		return err
	}
	cert, err := certificate(key, idevid)
	if err != nil {
		return err
	}
	bundle, env, err := trust(key, cert, managers)
	if err != nil {
		return err
	}
	code, err := os.ReadFile("/bin/sleep")
	if err != nil {
		return err
	}
	sum := sha256.Sum256(code)
	rel := wire.Release{
		ID: "r1", Product: "pump", Hardware: []string{"A"}, Model: wire.ModelBlob, Version: "1.0.0", Counter: 1, Created: 1,
		Components: []wire.Component{{
			Name: "app", Kind: wire.KindExec, Version: "1.0.0", Size: uint64(len(code)), Digest: sum[:], Health: wire.HealthAlive, Args: []string{"600"},
			Capabilities: &wire.Capabilities{Read: []string{"/etc/ld.so.cache", "/lib", "/lib64", "/usr/lib"}}, // it is linked with libraries
		}},
	}
	payload, err := wire.EncodeRelease(rel)
	if err != nil {
		return err
	}
	signed, err := wire.NewThreshold(wire.TypeRelease, payload, key)
	if err != nil {
		return err
	}
	n, err := boot.NewBirth(b)
	if err != nil {
		return err
	}
	id := boot.Identity{
		Device: "00112233445566778899aabbccddeeff", Product: "pump", Hardware: "A", Chain: [][]byte{cert},
		Params: wire.DeviceParams{Servers: wire.Servers{Device: "https://127.0.0.1:1"}, Extra: map[string]string{"calibration": "-17"}},
	}
	if err := n.Install(id, env, signed, rel); err != nil {
		return err
	}
	if err := n.Write("app", 0, code); err != nil {
		return err
	}
	root, err := wire.RootDigest(bundle)
	if err != nil {
		return err
	}
	return n.Fuse(root, [32]byte{1}, 1, 1)
}

func certificate(key *ecdsa.PrivateKey, pub crypto.PublicKey) ([]byte, error) {
	t, err := idevid.Template(idevid.Identity{
		Kind: idevid.IDevID, DeviceID: "00112233445566778899aabbccddeeff", OEM: "acme", Product: "pump", HWRev: "A",
	}, big.NewInt(1), time.Now().Add(-time.Hour), idevid.NoExpiry())
	if err != nil {
		return nil, err
	}
	return x509.CreateCertificate(rand.Reader, t, t, pub, key)
}

func trust(key *ecdsa.PrivateKey, anchor []byte, managers []wire.BootManager) (wire.Bundle, []byte, error) {
	spki, err := wire.SPKIOf(key.Public())
	if err != nil {
		return wire.Bundle{}, nil, err
	}
	role := wire.KeySet{Keys: [][]byte{spki}, Threshold: 1}
	log := make([]byte, 32)
	b := wire.Bundle{
		Version: 1, Product: "pump", Root: role, Release: role, Warrant: role, Directive: role, Control: wire.LogTrust{Origin: "c", Key: log},
		Events: wire.LogTrust{Origin: "e", Key: log}, Witnesses: []wire.NamedKey{{Name: "w", Key: log}}, Quorum: 1, MaxAge: 1, Issued: 1,
		Anchors: [][]byte{anchor}, Suites: []string{"HM-P256-1"}, Telemetry: []wire.StreamKey{}, BootManagers: managers,
	}
	payload, err := wire.EncodeBundle(b)
	if err != nil {
		return wire.Bundle{}, nil, err
	}
	env, err := wire.NewThreshold(wire.TypeBundle, payload, key)
	return b, env, err
}

// awaitSocket waits until a socket is there, without calling: the first who calls is the device.
func awaitSocket(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await-free SOCKET")
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
	}
	ts.Fatalf("%s is not there", args[0])
}
