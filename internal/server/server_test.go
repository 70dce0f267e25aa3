package server_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/keys/soft"
	"github.com/hallmark-iot/hallmark/internal/server"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/product"
)

const quick = 1000 // PBKDF2 iterations

func initialise(t *testing.T) server.Layout { return initialiseAt(t, time.Now()) }

func initialiseAt(t *testing.T, now time.Time) server.Layout {
	t.Helper()
	l, err := initialiseIn(t, now, "")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// initialiseIn makes an instance that keeps what it knows in a database; empty: in a file.
func initialiseIn(t *testing.T, now time.Time, db string) (server.Layout, error) {
	t.Helper()
	l := server.Layout{Dir: filepath.Join(t.TempDir(), "inst")}
	online, err := soft.Create(l.Keys(), "pass", quick)
	if err != nil {
		t.Fatal(err)
	}
	offline, err := soft.Create(l.Offline(), "pass", quick)
	if err != nil {
		t.Fatal(err)
	}
	cfg := server.DefaultConfig()
	cfg.API, cfg.Devices, cfg.Virtual, cfg.DB = "127.0.0.1:0", "127.0.0.1:0", true, db
	_, err = server.Init(t.Context(), l, server.InitOptions{
		Config: cfg, Approvers: []string{"alice", "bob", "carol"}, Threshold: 2, Online: online, Offline: offline, Now: now.UTC(),
		Product: product.Product{
			ID: "pump", OEM: cfg.OEM, Name: "Pump", Hardware: []string{"A"}, Model: "blob", Suite: "HM-P256-1", EndOfSupport: now.AddDate(5, 0, 0),
		},
	})
	return l, err
}

func open(t *testing.T, l server.Layout) (*server.Instance, error) {
	t.Helper()
	keys, err := soft.Open(l.Keys(), "pass")
	if err != nil {
		t.Fatal(err)
	}
	return server.Open(t.Context(), l, keys, slog.New(slog.DiscardHandler))
}

// start runs the instance until the test ends.
func start(t *testing.T, l server.Layout) (api, devices string) {
	t.Helper()
	api, devices, _ = startAndStop(t, l)
	return api, devices
}

// startAndStop runs the instance until it is stopped, or the test ends.
func startAndStop(t *testing.T, l server.Layout) (api, devices string, stop func()) {
	t.Helper()
	inst, err := open(t, l)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, ready := make(chan error, 1), make(chan struct{})
	go func() {
		done <- inst.Run(ctx, func(a, d string) { api, devices = a, d; close(ready) })
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, inst.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	return api, devices, stop
}

func TestAnInstanceServesAfterInit(t *testing.T) {
	l := initialise(t)
	api, devices := start(t, l)
	token, err := os.ReadFile(l.AdminToken())
	if err != nil {
		t.Fatal(err)
	}
	c := client.New(api, strings.TrimSpace(string(token)), nil)
	if s, err := c.Summary(t.Context()); err != nil || s.Total != 0 {
		t.Errorf("summary %+v, %v", s, err)
	}
	if _, err := client.New(api, "hmk_wrong", nil).Summary(t.Context()); err == nil {
		t.Error("an unknown token was let in")
	}
	e, err := c.Entry(t.Context(), "control", 0)
	if err != nil || e.Fact.Kind != string(ledger.KindGenesis) || e.Proof.Size == 0 {
		t.Errorf("entry %+v, %v", e.Fact, err)
	}
	if _, err := c.Entry(t.Context(), "control", 1<<40); client.Code(err) == "" {
		t.Errorf("an entry that is not there: %v", err)
	}
	for path, want := range map[string]int{
		"/healthz": 200, "/log/control/checkpoint": 200, "/log/events/checkpoint": 200, "/log/trust.json": 404, "/log/control/": 404,
		"/log/control/../trust.json": 404, "/.well-known/est/cacerts": 200, "/login": 200, "/openapi.json": 200,
	} {
		if got := status(t, http.DefaultClient, api+path); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	bare := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for path, want := range map[string]int{ // without a certificate there is nothing but the devices' way back
		"/d/v1/artifact/" + strings.Repeat("ab", 32): 401, "/.well-known/est/cacerts": 200, "/d/v1/checkin": 405,
		"/trust/v1/pump": 200, "/trust/v1/pump/1": 200, "/trust/v1/pump/2": 404, "/trust/v1/pump/0": 404, "/trust/v1/pump/01": 400,
		"/trust/v1/pump/devices/" + strings.Repeat("ab", 16): 404, "/trust/v1/pump/devices/x": 400, "/trust/v1/other": 404, "/trust/v1/P": 400, "/trust/v1/": 404, "/healthz": 404, "/api/v1/devices": 404,
	} {
		if got := status(t, bare, devices+path); got != want {
			t.Errorf("devices' listener answered %d at %s to a client without a certificate, want %d", got, path, want)
		}
	}
	if got := status(t, http.DefaultClient, api+"/trust/v1/pump/1"); got != 200 {
		t.Errorf("the history under the API's listener: %d", got)
	}
}

// status gives an answer's status, 0 when there was none.
func status(t *testing.T, c *http.Client, url string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

func TestWhatIsWrongWithADataDirectoryIsNamed(t *testing.T) {
	l := initialise(t)
	damage := func(path string, f func([]byte) []byte) (restore func()) {
		t.Helper()
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f(append([]byte(nil), good...)), 0o600); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := os.WriteFile(path, good, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	cut := func(b []byte) []byte { return b[:len(b)/2] }
	flip := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	for _, c := range []struct {
		path  string
		how   func([]byte) []byte
		names string
	}{
		{l.Config(), cut, "config.json"},
		{l.Config(), func(b []byte) []byte { return []byte(strings.Replace(string(b), `"oem"`, `"unknown_member"`, 1)) }, "config.json"},
		{filepath.Join(l.Keys(), "directive.key"), flip, "directive.key"},
		{filepath.Join(l.Keys(), "log-events.key"), cut, "log-events.key"},
		{l.Cert("operational-ca"), cut, "operational-ca.der"},
		{filepath.Join(l.Logs(), "control", "checkpoint"), flip, "checkpoint"},
		{l.Witness("witness-1", "events"), cut, "witness-1"},
		{l.Database(), func([]byte) []byte { return []byte(strings.Repeat("not a database ", 300)) }, "hallmark.db"},
	} {
		restore := damage(c.path, c.how)
		inst, err := open(t, l)
		if err == nil {
			err = inst.Close()
			t.Errorf("%s damaged, and opened (%v)", c.path, err)
		} else if !strings.Contains(err.Error(), c.names) {
			t.Errorf("%s damaged: %q does not name it", c.path, err)
		}
		restore()
	}
	if _, err := soft.Open(l.Keys(), "wrong"); !errors.Is(err, soft.ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
	start(t, l)
}

func TestAPortInUseIsNamed(t *testing.T) {
	l := initialise(t)
	api, _ := start(t, l)
	other := initialise(t)
	address := strings.TrimPrefix(api, "http://")
	data, err := os.ReadFile(other.Config())
	if err != nil {
		t.Fatal(err)
	}
	data = []byte(strings.Replace(string(data), `"api": "127.0.0.1:0"`, `"api": "`+address+`"`, 1))
	if err := os.WriteFile(other.Config(), data, 0o600); err != nil {
		t.Fatal(err)
	}
	inst, err := open(t, other)
	if err != nil {
		t.Fatal(err)
	}
	defer inst.Close()
	if err := inst.Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), address) {
		t.Errorf("port in use: %v", err)
	}
}

func TestAClockOffByAYear(t *testing.T) {
	behind := initialiseAt(t, time.Now().AddDate(1, 0, 0)) // that is: the clock was set back since
	if inst, err := open(t, behind); err == nil {
		t.Errorf("a clock that is behind the ledger, and opened (%v)", inst.Close())
	} else if !strings.Contains(err.Error(), "set the clock") {
		t.Errorf("%v", err)
	}
	start(t, initialiseAt(t, time.Now().AddDate(-1, 0, 0))) // it was switched off for a year
}

// Whatever is thrown at the listeners, nothing falls over, nobody is let in, and the next who asks is served.
func TestGarbageOnEveryListener(t *testing.T) {
	api, devices := start(t, initialise(t))
	plain := strings.TrimPrefix(api, "http://")
	rng := rand.New(rand.NewPCG(7, 7))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	for _, g := range [][]byte{
		noise(1), noise(4096),
		{0x16, 3, 1, 0xff, 0xff},
		[]byte("GET / HTTP/1.1\r\n\r\n"), []byte("GET /" + strings.Repeat("a", 100_000) + " HTTP/1.1\r\nHost: x\r\n\r\n"),
		[]byte("POST /api/v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n{"),
		[]byte("POST /api/v1/releases HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
		[]byte("GET /api/v1/devices HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + strings.Repeat("h", 5000) + "\r\n\r\n"),
		[]byte("GET /log/control/..%2f..%2fhallmark.db HTTP/1.1\r\nHost: x\r\n\r\n"), []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
	} {
		for _, addr := range []string{plain, strings.TrimPrefix(devices, "https://")} {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write(g) // it may be cut off
			if err := conn.(*net.TCPConn).CloseWrite(); err == nil {
				answer, _ := io.ReadAll(io.LimitReader(conn, 1<<20))
				if strings.Contains(string(answer), "HTTP/1.1 2") && !strings.Contains(string(g), "GET / ") {
					t.Errorf("%.40q to %s: %.80q", g, addr, answer)
				}
				if strings.Contains(string(answer), " 500 ") {
					t.Errorf("%.40q to %s: %.200q", g, addr, answer)
				}
			}
			_ = conn.Close()
		}
	}
	resp, err := http.Get(api + "/healthz")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("afterwards: %v, %v", resp, err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	c, err := tls.Dial("tcp", strings.TrimPrefix(devices, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err == nil {
		err = c.Close()
	}
	if err != nil {
		t.Errorf("the devices' listener afterwards: %v", err)
	}
}
