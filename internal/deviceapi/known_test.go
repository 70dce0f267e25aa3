package deviceapi_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/hallmark-iot/hallmark/internal/deviceapi"
)

// Who calls is verified once on a connection, again as soon as anything changes that tells, and at each call where it was not let in.
func TestWhoCallsIsRememberedWhileNothingChanges(t *testing.T) {
	w := newWorld(t)
	var asked, epoch atomic.Uint64
	peer, nobody := deviceapi.Peer{Device: me, Operational: true}, error(nil)
	server := httptest.NewUnstartedServer(deviceapi.Handler(deviceapi.Config{
		Identify: func([]*x509.Certificate) (deviceapi.Peer, error) {
			asked.Add(1)
			return peer, nobody
		},
		Epoch: epoch.Load, Telemetry: w.take, EST: http.NotFoundHandler(), Logger: slog.New(slog.DiscardHandler),
	}))
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert}
	server.Config.ConnContext = deviceapi.ConnContext
	server.StartTLS()
	defer server.Close()
	conf := w.config()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	conf.RootCAs = roots
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: conf}}
	defer c.CloseIdleConnections()
	call := func(status int, verified bool) {
		t.Helper()
		before := asked.Load()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/d/v1/telemetry", bytes.NewReader([]byte("x")))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != status || verified && asked.Load() == before {
			t.Errorf("%d, verified %d times; want %d, %v", resp.StatusCode, asked.Load()-before, status, verified)
		}
	}
	call(http.StatusNoContent, true)
	for range 200 {
		call(http.StatusNoContent, false)
	}
	if n := asked.Load(); n > 100 {
		t.Errorf("verified %d times in 201 calls", n)
	}
	epoch.Add(1)
	call(http.StatusNoContent, true)
	nobody = errors.New("revoked")
	epoch.Add(1)
	call(http.StatusForbidden, true)
	call(http.StatusForbidden, true)
	nobody, peer.Ended = nil, true
	call(http.StatusGone, true)
	call(http.StatusGone, true)
	peer = deviceapi.Peer{Device: me}
	call(http.StatusForbidden, true)
	call(http.StatusForbidden, true)
}
