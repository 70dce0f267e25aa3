package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// runNode opens the instance in l as a node of its own, and runs it until the test ends.
func runNode(t *testing.T, l Layout) (inst *Instance, devices string) {
	t.Helper()
	keys, err := soft.Open(l.Keys(), "pass")
	if err != nil {
		t.Fatal(err)
	}
	if inst, err = Open(t.Context(), l, keys, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() { done <- inst.Run(ctx, func(_, d string) { ready <- d }) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, inst.Close()); err != nil {
			t.Error(err)
		}
	})
	select {
	case devices = <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	return inst, devices
}

// twoNodes makes an instance in one database, with two nodes that serve it.
func twoNodes(t *testing.T) (one, two *Instance, devices string) {
	t.Helper()
	c := storetest.Shared(t)
	cfg := DefaultConfig()
	cfg.API, cfg.Devices, cfg.Virtual, cfg.DB = "127.0.0.1:0", "127.0.0.1:0", true, c.URL(c.Create(t, false))
	l := Layout{Dir: filepath.Join(t.TempDir(), "one")}
	online, err := soft.Create(l.Keys(), "pass", 1000)
	if err != nil {
		t.Fatal(err)
	}
	offline, err := soft.Create(l.Offline(), "pass", 1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), l, InitOptions{
		Config: cfg, Approvers: []string{"a", "b", "c"}, Threshold: 2, Online: online, Offline: offline, Now: time.Now().UTC(),
		Product: product.Product{
			ID: "pump", OEM: cfg.OEM, Name: "Pump", Hardware: []string{"A"}, Model: "blob", Suite: "HM-P256-1", EndOfSupport: time.Now().AddDate(5, 0, 0),
		},
	}); err != nil {
		t.Fatal(err)
	}
	second := Layout{Dir: filepath.Join(t.TempDir(), "two")}
	if err := os.CopyFS(second.Dir, os.DirFS(l.Dir)); err != nil {
		t.Fatal(err)
	}
	one, _ = runNode(t, l)
	two, devices = runNode(t, second)
	return one, two, devices
}

// Who is revoked at one node is cut off at the other: the line that is idle, and the call under way.
func TestARevocationCutsLinesOnEveryNode(t *testing.T) {
	one, two, devices := twoNodes(t)
	ca := newKey(t)
	chain, err := one.pki.IssueOrderCA(t.Context(), access.Internal("factory"), pki.Name{OEM: one.cfg.OEM, Product: "pump", Unit: "ord-1"}, ca.Public())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	order, err := pki.NewAuthority(profile.Order, cert, ca)
	if err != nil {
		t.Fatal(err)
	}
	dial := func(id string) *tls.Conn {
		t.Helper()
		key := newKey(t)
		leaf, err := order.Device(idevid.Identity{Kind: idevid.IDevID, DeviceID: id, OEM: one.cfg.OEM, Product: "pump", HWRev: "A"}, key.Public(), time.Now(), idevid.NoExpiry(), nil)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(two.auth.root)
		d := tls.Dialer{Config: &tls.Config{
			RootCAs: roots, ServerName: "localhost", Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw, chain[0]}, PrivateKey: key}},
		}}
		c, err := d.DialContext(t.Context(), "tcp", devices[len("https://"):])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		asks(t, c.(*tls.Conn))
		return c.(*tls.Conn)
	}
	const other = "ffeeddccbbaa99887766554433221100"
	idle, busy, stays := dial(victim), dial(victim), dial(other)
	// A call whose body never comes: it is under way until somebody ends it.
	if _, err := fmt.Fprint(busy, "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: x\r\nContent-Type: application/pkcs10\r\nContent-Length: 1000\r\n\r\nMII"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := one.pki.RevokeDevice(t.Context(), access.Internal("test"), victim, "pump", pki.KeyCompromise); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]*tls.Conn{"an idle line": idle, "a call under way": busy} {
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		_, err := io.Copy(io.Discard, c)
		if e, ok := err.(interface{ Timeout() bool }); ok && e.Timeout() {
			t.Errorf("%s of a revoked device was not cut at the other node", what)
		}
		t.Logf("%s was cut after %s", what, time.Since(began))
	}
	asks(t, stays)
}

// asks makes a call on a line that is kept.
func asks(t *testing.T, c *tls.Conn) {
	t.Helper()
	if _, err := fmt.Fprint(c, "GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	_ = resp.Body.Close()
}
