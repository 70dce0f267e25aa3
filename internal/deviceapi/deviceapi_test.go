package deviceapi_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/deviceapi"
	"github.com/hallmark-iot/hallmark/wire"
)

const me = "00112233445566778899aabbccddeeff"

// world is the listener on loopback TLS, and who calls it.
type world struct {
	t      *testing.T
	server *httptest.Server
	peer   deviceapi.Peer
	nobody error // of Identify
	fails  error // of each verb
	took   [][]byte
}

// take is a verb.
func (w *world) take(_ context.Context, caller access.Caller, device string, body []byte) error {
	if caller.ID != access.DeviceCaller(me).ID || device != me {
		w.t.Errorf("%s calls as %q", device, caller.ID)
	}
	if w.fails == nil {
		w.took = append(w.took, body)
	}
	return w.fails
}

type file struct{ *bytes.Reader }

func (file) Close() error { return nil }

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, peer: deviceapi.Peer{Device: me, Operational: true}}
	take := w.take
	w.server = httptest.NewUnstartedServer(deviceapi.Handler(deviceapi.Config{
		Identify: func([]*x509.Certificate) (deviceapi.Peer, error) { return w.peer, w.nobody },
		Checkin: func(ctx context.Context, caller access.Caller, device string, body []byte) ([]byte, error) {
			out, err := wire.EncodeCheckinReply(wire.CheckinReply{Time: 1, NextPoll: 1000})
			return out, errors.Join(err, take(ctx, caller, device, body))
		},
		Telemetry: take, Receipt: take,
		Artifact: func(_ context.Context, _ access.Caller, _ string, digest [32]byte) (io.ReadSeekCloser, error) {
			if digest != sha256.Sum256(firmware) {
				return nil, fault.New(fault.NotFound, "release.artifact", "no release has it", "")
			}
			return file{bytes.NewReader(firmware)}, nil
		},
		EST: http.NotFoundHandler(), Logger: slog.New(slog.DiscardHandler),
	}))
	w.server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert}
	w.server.StartTLS()
	t.Cleanup(w.server.Close)
	return w
}

var firmware = []byte("what a device runs")

// config is of a device that shows a certificate. Whose it is, Identify says.
func (w *world) config() *tls.Config {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{SerialNumber: me}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(w.server.Certificate())
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: "example.com",
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}
}

func (w *world) call(method, path string, body []byte, header ...string) (*http.Response, string) {
	w.t.Helper()
	return w.callAs(w.config(), method, path, body, header...)
}

func (w *world) callAs(as *tls.Config, method, path string, body []byte, header ...string) (*http.Response, string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.server.URL+path, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: as}}
	defer c.CloseIdleConnections()
	resp, err := c.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, string(text)
}

func TestWhoIsLetIn(t *testing.T) {
	gone := deviceapi.Peer{Device: me, Operational: true, Ended: true}
	for name, c := range map[string]struct {
		peer   deviceapi.Peer
		err    error
		path   string
		status int
	}{
		"an LDevID":                     {deviceapi.Peer{Device: me, Operational: true}, nil, "telemetry", http.StatusNoContent},
		"an IDevID":                     {deviceapi.Peer{Device: me}, nil, "telemetry", http.StatusForbidden},
		"a stranger":                    {deviceapi.Peer{}, errors.New("x509: certificate signed by unknown authority"), "telemetry", http.StatusForbidden},
		"revoked":                       {deviceapi.Peer{}, fault.New(fault.Denied, "cert.revoked", "it is revoked", ""), "telemetry", http.StatusForbidden},
		"nobody can tell":               {deviceapi.Peer{}, fault.New(fault.Unavailable, "cert.revocation-unknown", "the list is old", ""), "telemetry", http.StatusServiceUnavailable},
		"at the end of its life":        {gone, nil, "telemetry", http.StatusGone},
		"at the end, with its receipt":  {gone, nil, "receipt", http.StatusNoContent},
		"nobody can tell of a receipt":  {gone, fault.New(fault.Unavailable, "cert.revocation-unknown", "the list is old", ""), "receipt", http.StatusServiceUnavailable},
		"revoked, with another receipt": {gone, fault.New(fault.Denied, "cert.revoked", "it is revoked", ""), "receipt", http.StatusForbidden},
	} {
		w := newWorld(t)
		w.peer, w.nobody = c.peer, c.err
		resp, text := w.call("POST", "/d/v1/"+c.path, []byte("x"))
		if resp.StatusCode != c.status || (len(w.took) == 1) != (c.status == http.StatusNoContent) || (resp.Header.Get("Retry-After") != "") != (c.status == http.StatusServiceUnavailable) {
			t.Errorf("%s: %d %s, %d taken", name, resp.StatusCode, text, len(w.took))
		}
	}
	w := newWorld(t)
	bare := w.config()
	bare.Certificates = nil
	if resp, _ := w.callAs(bare, "POST", "/d/v1/telemetry", []byte("x")); resp.StatusCode != http.StatusUnauthorized || len(w.took) != 0 {
		t.Errorf("without a certificate: %d", resp.StatusCode)
	}
}

// A body that breaks off is no success: an answer that still arrives says so, and nothing was taken.
func TestABodyThatBreaksOffIsNotAnswered200(t *testing.T) {
	w := newWorld(t)
	conn, err := tls.Dial("tcp", w.server.Listener.Addr().String(), w.config())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /d/v1/telemetry HTTP/1.1\r\nHost: example.com\r\nContent-Length: 100\r\n\r\nhalf of it")
	if err := conn.CloseWrite(); err != nil { // it still reads
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestTimeout || len(w.took) != 0 {
		t.Errorf("%s, %d taken", resp.Status, len(w.took))
	}
}

func TestABodyIsBounded(t *testing.T) {
	w := newWorld(t)
	if resp, text := w.call("POST", "/d/v1/receipt", make([]byte, 8<<10)); resp.StatusCode != http.StatusNoContent {
		t.Errorf("the longest: %d %s", resp.StatusCode, text)
	}
	if resp, text := w.call("POST", "/d/v1/receipt", make([]byte, 8<<10+1)); resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(text, "8192") || len(w.took) != 1 {
		t.Errorf("one byte more: %d %s", resp.StatusCode, text)
	}
}

func TestFaultsHaveTheirStatus(t *testing.T) {
	for kind, status := range map[fault.Kind]int{
		fault.Invalid: 400, fault.NotFound: 404, fault.Conflict: 409, fault.Denied: 403, fault.Unavailable: 503, fault.Exhausted: 429, fault.Internal: 500,
	} {
		w := newWorld(t)
		w.fails = fault.New(kind, "a.code", "what went wrong", "what to do")
		resp, text := w.call("POST", "/d/v1/telemetry", []byte("x"))
		if resp.StatusCode != status || strings.Contains(text, "what went wrong") != (status != 500) {
			t.Errorf("%s: %d %s", kind, resp.StatusCode, text)
		}
	}
	w := newWorld(t)
	w.fails = errors.New("table device has no column secret")
	if resp, text := w.call("POST", "/d/v1/telemetry", []byte("x")); resp.StatusCode != 500 || strings.Contains(text, "secret") {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
}

func TestACheckinIsHandedOnAndAnswered(t *testing.T) {
	w := newWorld(t)
	body, err := wire.EncodeCheckin(wire.Checkin{Version: "1.2.3", State: "active", Nonce: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	resp, text := w.call("POST", "/d/v1/checkin", body)
	if reply, err := wire.DecodeCheckinReply([]byte(text)); err != nil || resp.StatusCode != 200 || reply.NextPoll != 1000 || len(w.took) != 1 || !bytes.Equal(w.took[0], body) {
		t.Errorf("%d %x: %v, took %q", resp.StatusCode, text, err, w.took)
	}
	w.fails = fault.New(fault.Invalid, "checkin.malformed", "it is none", "")
	if resp, text := w.call("POST", "/d/v1/checkin", []byte("nonsense")); resp.StatusCode != 400 || len(w.took) != 1 {
		t.Errorf("nonsense: %d %s", resp.StatusCode, text)
	}
}

func TestAnArtifactIsServedByItsDigestAlone(t *testing.T) {
	w := newWorld(t)
	digest := fmt.Sprintf("%x", sha256.Sum256(firmware))
	resp, text := w.call("GET", "/d/v1/artifact/"+digest, nil)
	if resp.StatusCode != 200 || text != string(firmware) || resp.Header.Get("ETag") != `"`+digest+`"` {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	if resp, text := w.call("GET", "/d/v1/artifact/"+digest, nil, "Range", "bytes=5-"); resp.StatusCode != http.StatusPartialContent || text != string(firmware[5:]) {
		t.Errorf("from byte 5: %d %s", resp.StatusCode, text)
	}
	for path, status := range map[string]int{strings.Repeat("0", 64): 404, digest[1:]: 400, digest + "0": 400, strings.Repeat("x", 64): 400, strings.ToUpper(digest): 400} {
		if resp, text := w.call("GET", "/d/v1/artifact/"+path, nil); resp.StatusCode != status {
			t.Errorf("%s: %d %s", path, resp.StatusCode, text)
		}
	}
	w.peer = deviceapi.Peer{Device: me}
	if resp, _ := w.call("GET", "/d/v1/artifact/"+digest, nil); resp.StatusCode != http.StatusForbidden {
		t.Errorf("to an IDevID: %d", resp.StatusCode)
	}
}
