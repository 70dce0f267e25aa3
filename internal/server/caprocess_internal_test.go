package server

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/cad"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/pki"
)

// The keys of the CAs are moved to a process of their own; the instance issues by it, and while the process is dead devices are told to come
// again, and do.
func TestTheCAMayDieWhileDevicesEnrol(t *testing.T) {
	dir, socket := t.TempDir(), ""
	sockets, err := os.MkdirTemp("", "ca") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(sockets) })
	socket = filepath.Join(sockets, "s")
	var keys *soft.Store
	run := func() (stop func()) {
		settings, err := LoadCASettings(dir)
		if err != nil {
			t.Fatal(err)
		}
		s, err := cad.New(cad.Config{
			Dir: dir, Keys: keys, Hosts: settings.Hosts, Orders: settings.Orders, Life: time.Duration(settings.LifeH) * time.Hour,
			PerMinute: settings.PerMinute, PerHour: settings.PerHour, UID: os.Getuid(), Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(socket)
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx, l) }()
		stop = sync.OnceFunc(func() {
			cancel()
			if err := errors.Join(<-done, s.Close()); err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(stop)
		return stop
	}
	var stop func()
	x := newTheftAfter(t, func(l Layout, online *soft.Store) {
		if keys, err = soft.Create(filepath.Join(dir, "keys"), "other", 1000); err != nil {
			t.Fatal(err)
		}
		moved, err := Separate(t.Context(), l, online, keys, dir, socket)
		if err != nil || len(moved) != 3 {
			t.Fatalf("%v, %v", moved, err)
		}
		for _, name := range moved {
			if _, err := online.Signer(name); err == nil {
				t.Errorf("key %q is still with the server", name)
			}
		}
		stop = run()
	})
	if _, err := x.enrol(t, x.idevid(t, x.key)); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := x.enrol(t, x.idevid(t, x.key)); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("without its CA: %v, want 503", err)
	}
	run()
	if _, err := x.enrol(t, x.idevid(t, x.key)); err != nil {
		t.Errorf("after the CA came back: %v", err)
	}
}

// The lists are for everybody, and caches are told what they need.
func TestListsAreServedToEverybody(t *testing.T) {
	x := newTheft(t)
	x.inst.cfg.CRL = "http://crl.test"
	certs := x.inst.auth.operational
	if err := x.inst.db.PKI().PutLists(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	service, err := pki.New(pki.Config{
		Guard: x.inst.guard, Store: x.inst.db.PKI(), Trust: x.inst.auth.trust, Revocations: x.inst.pki.Revocations(), Held: x.inst.auth.held,
		Lists: x.inst.db.PKI(), CRLBase: "http://crl.test",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(service.RevokeDevice(t.Context(), access.Internal("test"), x.device, "pump", pki.KeyCompromise), service.Refresh(t.Context()), service.KeepLists(t.Context())); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(x.inst.public())
	defer s.Close()
	get := func(path, tag string) (*http.Response, []byte) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tag != "" {
			req.Header.Set("If-None-Match", tag)
		}
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return resp, data
	}
	path := "/crl/" + certs.SKI() + "/17.crl"
	resp, der := get(path, "")
	list, err := x509.ParseRevocationList(der)
	if err != nil || list.CheckSignatureFrom(certs.Cert) != nil {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	tag := resp.Header.Get("ETag")
	if resp.Header.Get("Content-Type") != "application/pkix-crl" || tag == "" || !strings.Contains(resp.Header.Get("Cache-Control"), "public") || resp.Header.Get("Expires") == "" {
		t.Errorf("headers %v", resp.Header)
	}
	if resp, body := get(path, tag); resp.StatusCode != http.StatusNotModified || len(body) != 0 {
		t.Errorf("unchanged: %s, %d bytes", resp.Status, len(body))
	}
	for _, path := range []string{"/crl/" + certs.SKI() + "/256.crl", "/crl/" + certs.SKI() + "/017.crl", "/crl/zz/0.crl", "/crl/" + certs.SKI() + "/0.crl.bak", "/crl/" + certs.SKI() + "/-1.crl"} {
		if resp, _ := get(path, ""); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	if _, again := get(path, `"x"`); !bytes.Equal(again, der) {
		t.Error("the list changed without a cause")
	}
}
