package est_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/door"
	"github.com/hallmark-iot/hallmark/internal/est"
)

// guarded opens the listener with a door before it, and gives its address.
func (w *world) guarded(limits door.Limits) (*door.Door, string) {
	w.t.Helper()
	l, err := new(net.ListenConfig).Listen(w.t.Context(), "tcp", "0.0.0.0:0")
	must(w.t, err)
	d := door.New(l, w.server.TLS, limits)
	s := d.Server(est.New(est.Config{Onboard: w.onboard, CACerts: w.pki.CACerts, Log: slog.New(slog.DiscardHandler)}), nil)
	s.ErrorLog = stdlog.New(io.Discard, "", 0)
	done := make(chan error, 1)
	go func() { done <- s.Serve(d) }()
	w.t.Cleanup(func() {
		if err := errors.Join(s.Close(), <-done); !errors.Is(err, http.ErrServerClosed) {
			w.t.Error(err)
		}
	})
	return d, fmt.Sprintf("127.0.0.1:%d", l.Addr().(*net.TCPAddr).Port)
}

// from dials as if from another machine: each address of 127/8 is this one.
func from(ctx context.Context, address, source string) (net.Conn, error) {
	return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}).DialContext(ctx, "tcp", address)
}

// enrols is one device's whole way through the door: connect, enrol, go.
func (w *world) enrols(address string) error {
	_, idev := w.made(true)
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	raw, err := (&tls.Dialer{Config: &tls.Config{Certificates: []tls.Certificate{idev}, RootCAs: w.roots}}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer raw.Close()
	deadline, _ := ctx.Deadline()
	must(w.t, raw.SetDeadline(deadline))
	csr := request(w.t, idev, newKey(w.t), nil)
	if _, err := fmt.Fprintf(raw, "POST %ssimpleenroll HTTP/1.1\r\nHost: x\r\nContent-Type: application/pkcs10\r\nContent-Length: %d\r\n\r\n%s", est.Prefix, len(csr), csr); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(raw), nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	return errors.Join(err, resp.Body.Close())
}

func memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// Ten thousand who begin a handshake and say no more: memory is bounded, and devices get in meanwhile.
func TestTenThousandHalfOpenHandshakes(t *testing.T) {
	var files syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files))
	flood := 10_000
	if most := int(min(files.Cur, 1<<20)) - 5000; most < flood { // one for each here, 4096 on the other side
		flood = max(most, 100)
		t.Logf("%d files may be open: %d connections, not 10000", files.Cur, flood)
	}
	w := newWorld(t)
	d, address := w.guarded(door.Limits{Header: time.Hour}) // nobody goes by himself
	before := memory()
	hello := []byte{22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3} // of a ClientHello that is to be 512 bytes
	conns := make([]net.Conn, 0, flood)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for i := range flood {
		c, err := from(t.Context(), address, fmt.Sprintf("127.1.%d.1", i%40))
		must(t, err)
		conns = append(conns, c)
		_, _ = c.Write(hello) // it may be closed already
		if i%500 == 499 {
			if err := w.enrols(address); err != nil {
				t.Errorf("a device, after %d: %v", i+1, err)
			}
		}
	}
	held, turned := d.Held()
	if held > 4096 || flood == 10_000 && turned < 10_000-4096-100 {
		t.Errorf("%d strangers are held, %d were turned away", held, turned)
	}
	if more := memory() - before; more > 200<<20 {
		t.Errorf("%d connections take %d MB", flood, more>>20)
	} else {
		t.Logf("%d connections, %d held, %d turned away: %d kB more", flood, held, turned, more>>10)
	}
}

// One address has its number, and no more; the others do not notice.
func TestOneAddressTakesItsShareOnly(t *testing.T) {
	w := newWorld(t)
	d, address := w.guarded(door.Limits{Address: 20, Header: time.Hour})
	for range 100 {
		if c, err := from(t.Context(), address, "127.2.0.1"); err == nil { // turned away so soon that it notices, otherwise
			defer c.Close()
		}
	}
	if err := w.enrols(address); err != nil {
		t.Error(err)
	}
	if held, turned := d.Held(); held != 20 || turned != 80 {
		t.Errorf("%d are held, %d were turned away", held, turned)
	}
}

// A line on which a device has shown who it is does not count, and is not taken for a newcomer.
func TestWhoIsKnownStays(t *testing.T) {
	w := newWorld(t)
	d, address := w.guarded(door.Limits{Strangers: 4, Header: time.Hour})
	_, idev := w.made(true)
	raw, err := (&tls.Dialer{Config: &tls.Config{Certificates: []tls.Certificate{idev}, RootCAs: w.roots}}).DialContext(t.Context(), "tcp", address)
	must(t, err)
	defer raw.Close()
	lines := bufio.NewReader(raw)
	ask := func() error {
		if _, err := fmt.Fprintf(raw, "GET %scacerts HTTP/1.1\r\nHost: x\r\n\r\n", est.Prefix); err != nil {
			return err
		}
		resp, err := http.ReadResponse(lines, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return errors.Join(err, resp.Body.Close())
	}
	must(t, ask())
	for i := range 50 {
		c, err := from(t.Context(), address, fmt.Sprintf("127.3.0.%d", i+1))
		must(t, err)
		defer c.Close()
	}
	must(t, ask())
	for _, suite := range []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA} {
		weak := &tls.Config{RootCAs: w.roots, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}}
		if c, err := (&tls.Dialer{Config: weak}).DialContext(t.Context(), "tcp", address); err == nil {
			t.Errorf("a session with %s", tls.CipherSuiteName(suite))
			_ = c.Close()
		}
	}
	if held, _ := d.Held(); held > 4 {
		t.Errorf("%d strangers", held)
	}
	// Who shows no certificate gets an answer, and goes.
	l := w.line(&tls.Config{})
	l.w.server.URL = "https://" + address
	if a := l.call(http.MethodGet, "cacerts", nil); a.status != http.StatusOK || !a.last {
		t.Errorf("%d, and it may go on: %v", a.status, !a.last)
	}
}

// Who gives header or body by drops is cut off when his time is over, and others are served meanwhile.
func TestSlowSendersAreCutOff(t *testing.T) {
	w := newWorld(t)
	_, address := w.guarded(door.Limits{Header: 500 * time.Millisecond, Body: 500 * time.Millisecond})
	_, idev := w.made(true)
	var slow sync.WaitGroup
	for name, c := range map[string]struct {
		certs []tls.Certificate
		begin string
	}{
		"header":              {[]tls.Certificate{idev}, "POST " + est.Prefix + "simpleenroll HTTP/1.1\r\nHost: x\r\nX: "},
		"a stranger's header": {nil, "GET " + est.Prefix + "cacerts HTTP/1.1\r\nHost: x\r\nX: "},
		"body":                {[]tls.Certificate{idev}, "POST " + est.Prefix + "simpleenroll HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n"},
	} {
		for range 10 {
			slow.Go(func() {
				raw, err := (&tls.Dialer{Config: &tls.Config{Certificates: c.certs, RootCAs: w.roots}}).DialContext(t.Context(), "tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				defer raw.Close()
				if _, err := io.WriteString(raw, c.begin); err != nil {
					t.Error(err)
					return
				}
				ended := make(chan string, 1)
				go func() {
					b, _ := io.ReadAll(raw) // ends when the server has had enough
					ended <- string(b)
				}()
				drops := time.NewTicker(50 * time.Millisecond)
				defer drops.Stop()
				for {
					select {
					case said := <-ended:
						if strings.Contains(said, "200 OK") {
							t.Errorf("%s: %s", name, said)
						}
						return
					case <-drops.C:
						_, _ = raw.Write([]byte("A")) // a drop; it may be closed already
					}
				}
			})
		}
	}
	if err := w.enrols(address); err != nil {
		t.Errorf("a device meanwhile: %v", err)
	}
	slow.Wait()
}
