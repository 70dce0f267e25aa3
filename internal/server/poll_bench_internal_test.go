package server

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/attest"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/internal/store"
	"github.com/hallmark-iot/hallmark/wire"
)

// pollers is how many devices ask, each over a TLS 1.3 connection that it keeps, one request at a time.
const pollers = 64

// BenchmarkPoll is one check-in of a device that has no news and for which there are none, with another nonce each time. Ours is a whole
// instance behind its own devices' listener, with all its loops beside it. Bare is net/http with TLS and client certificates, whose handler reads
// a body and writes one, of the same sizes. The same devices are played, on the same cores as the server.
func BenchmarkPoll(b *testing.B) {
	w := newLoad(b)
	devices := w.atWork(pollers)
	b.Run("ours", func(b *testing.B) { pollMany(b, w, devices, strings.TrimPrefix(w.url, "https://")) })
	b.Run("bare", func(b *testing.B) { pollMany(b, w, devices, w.bare(b)) })
}

// atWork makes devices that have enrolled, are active, and whose evidence is good.
func (w *load) atWork(n int) []*loadDevice {
	w.b.Helper()
	devices := w.provisioned(n)
	for i, d := range devices {
		ldev, err := w.enrol(w.b, d.idev)
		benchMust(w.b, err)
		d.idev = ldev
		for {
			_, err := w.inst.device.Move(w.b.Context(), access.Internal("bench"), d.id, device.Activate, nil, "bench")
			if err == nil {
				break
			}
			if w.b.Context().Err() != nil {
				w.b.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond) // until the reaction has it on board
		}
		v := attest.Verdict{UID: [16]byte{byte(i), byte(i >> 8), 1}, Device: d.id, At: time.Now(), Status: attest.Affirming, BootCount: 1}
		benchMust(w.b, w.inst.db.Write(w.b.Context(), func(tx *store.Tx) error { return store.PutVerdict(tx, v) }))
	}
	return devices
}

// said is what the device says at each check-in, but for the nonce.
func said() wire.Checkin {
	return wire.Checkin{
		Nonce: make([]byte, 32), State: "active", Version: "1.0.0", Bundle: 1, BootCount: 1, Healthy: true, Health: "ok",
		Token:    &wire.Token{Next: bytes.Repeat([]byte{1}, wire.TokenSize)},
		Reported: []wire.ConfigEntry{{Name: "interval", Value: "60"}, {Name: "region", Value: "eu"}},
	}
}

func pollRequest(b *testing.B, nonce uint64) []byte {
	b.Helper()
	in := said()
	binary.BigEndian.PutUint64(in.Nonce, nonce)
	body, err := wire.EncodeCheckin(in)
	benchMust(b, err)
	return fmt.Appendf(nil, "POST /d/v1/checkin HTTP/1.1\r\nHost: bench\r\nContent-Type: application/cbor\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// poll is one check-in; it gives the body of the answer.
func (d *loadDevice) poll(b *testing.B) []byte {
	b.Helper()
	r, err := d.call(pollRequest(b, 0))
	benchMust(b, err)
	if r.status != http.StatusOK {
		b.Fatalf("device %s: %d %s", d.id, r.status, r.body)
	}
	return r.body
}

// bare serves the devices with answers of the size of ours, and nothing behind them.
func (w *load) bare(b *testing.B) (address string) {
	b.Helper()
	in := said()
	answer, err := wire.EncodeCheckinReply(wire.CheckinReply{Time: 1 << 30, NextPoll: 300_000, Standing: "active", Token: in.Token.Next, Roll: 43200})
	benchMust(b, err)
	return w.beside(b, true, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/cbor")
		_, _ = w.Write(answer) // the device went away
	})
}

// beside opens a listener of net/http's own with the instance's certificate, or without TLS, that takes whatever certificate a client shows.
func (w *load) beside(b *testing.B, secure bool, h http.HandlerFunc) (address string) {
	b.Helper()
	l, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	benchMust(b, err)
	address = l.Addr().String()
	if secure {
		certificate := &ownCertificate{inst: w.inst, now: time.Now}
		l = tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: certificate.get, ClientAuth: tls.RequestClientCert})
	}
	w.run(b, l, &http.Server{ReadHeaderTimeout: time.Minute, Handler: h})
	return address
}

// run serves until the benchmark ends.
func (w *load) run(b *testing.B, l net.Listener, s *http.Server) {
	b.Helper()
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	b.Cleanup(func() { _ = s.Close(); <-done })
}

func pollMany(b *testing.B, w *load, devices []*loadDevice, address string) {
	for _, d := range devices {
		conn, err := (&tls.Dialer{Config: &tls.Config{Certificates: []tls.Certificate{d.idev}, RootCAs: w.roots}}).DialContext(b.Context(), "tcp", address)
		benchMust(b, err)
		b.Cleanup(func() { _ = conn.Close() })
		d.conn, d.reader = conn.(*tls.Conn), bufio.NewReader(conn)
		for range 2 { // the first has news: that it is there
			d.poll(b)
		}
	}
	request := pollRequest(b, 0)
	at := bytes.Index(request, make([]byte, 32))
	var next atomic.Uint64
	var all sync.WaitGroup
	begun := processorTime(b)
	b.ResetTimer()
	for _, d := range devices {
		all.Go(func() {
			mine := bytes.Clone(request)
			for n := next.Add(1); n <= uint64(b.N); n = next.Add(1) {
				binary.BigEndian.PutUint64(mine[at:], n)
				if r, err := d.call(mine); err != nil || r.status != http.StatusOK {
					b.Errorf("device %s: %d %s %v", d.id, r.status, r.body, err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	b.ReportMetric(float64((processorTime(b)-begun).Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
}
