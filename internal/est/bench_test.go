package est_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	agentest "github.com/hallmark-iot/hallmark/agent/est"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/est"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/wire"
)

const (
	benchDevices  = 8192 // at most: provisioned, each with its own IDevID and its own open connection
	benchInFlight = 64   // enrolments asked for at the same time, for each core
)

// BenchmarkEnrol is one enrolment: a request over an open TLS 1.3 connection with a client certificate, answered once certificate,
// row and facts are durable. Everything is what the server has, the sequencer and the refresh of the revocations running beside
// it; the devices are played on the same cores. Keys and requests are made before the clock starts, and every answer is looked
// at after it has stopped. Each enrolment is another device's first, as long as there are benchDevices; one that comes again pays for
// the end of its former certificate too.
func BenchmarkEnrol(b *testing.B) { enrolMany(b, benchInFlight*runtime.GOMAXPROCS(0)) }

// BenchmarkEnrolInFlight is the same with few enrolments at the same time, as other servers are asked in internal/bench/peers.
func BenchmarkEnrolInFlight(b *testing.B) {
	for _, n := range []int{8, 64} {
		b.Run(strconv.Itoa(n), func(b *testing.B) { enrolMany(b, n) })
	}
}

// enrolMany has b.N enrolments asked for, so many at the same time.
func enrolMany(b *testing.B, inFlight int) {
	w := newWorld(b)
	address := w.serveDevices()
	devices := w.provisioned(min(b.N, benchDevices))
	asks := make([]ask, b.N)
	for i := range asks {
		asks[i] = devices[i%len(devices)].ask(b)
	}
	for _, d := range devices {
		d.connect(b, w, address)
	}
	var next atomic.Int64
	var all sync.WaitGroup
	b.ResetTimer()
	for range inFlight {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(asks); i = int(next.Add(1)) - 1 {
				if err := devices[i%len(devices)].enrol(&asks[i]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	if b.Failed() {
		return
	}
	for i := range asks {
		asks[i].check(b, w)
	}
	for kind, want := range map[ledger.Kind]int{ledger.KindCertIssued: b.N, ledger.KindDeviceEnrolled: b.N} {
		var n int
		must(b, w.db.Read().QueryRowContext(b.Context(), `SELECT count(*) FROM entry WHERE kind = $1`, string(kind)).Scan(&n))
		if n != want {
			b.Errorf("%d facts %s, want %d", n, kind, want)
		}
	}
}

// serveDevices opens the listener for devices as the server does, with the real guard and registry, and gives its address.
func (w *world) serveDevices() string {
	w.t.Helper()
	guard, err := access.NewGuard(w.db)
	must(w.t, err)
	trust, revoked := w.pki.Trust(), w.pki.Revocations()
	service, err := pki.New(pki.Config{Guard: guard, Store: w.db.PKI(), Trust: trust, Revocations: revoked, Operational: w.op, Root: w.root.Cert, Burst: 1 << 30})
	must(w.t, err)
	enroller, err := onboard.New(onboard.Config{Guard: guard, PKI: service, Registry: w.db.Onboard(), Store: w.db.Onboard()})
	must(w.t, err)

	log := slog.New(slog.DiscardHandler)
	sequencer := ledger.NewSequencer(w.db, ledger.Events, nil, log)
	w.db.OnAppend(sequencer.Wake)
	ctx, stop := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { _ = sequencer.Run(ctx) })
	loops.Go(func() {
		for tick := time.NewTicker(time.Second); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				if err := service.Refresh(ctx); err != nil && ctx.Err() == nil {
					w.t.Error(err)
				}
			}
		}
	})

	listener, err := new(net.ListenConfig).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	must(w.t, err)
	server := &http.Server{Handler: est.New(est.Config{Onboard: enroller, CACerts: service.CACerts, Identity: trust.Identity, Log: log}), ReadHeaderTimeout: 10 * time.Second}
	loops.Go(func() {
		_ = server.Serve(tls.NewListener(listener, &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: w.server.TLS.Certificates,
			ClientAuth: tls.RequireAnyClientCert, VerifyConnection: pki.VerifyConnection(trust, revoked, time.Now),
		}))
	})
	w.t.Cleanup(func() {
		stop()
		_ = server.Close()
		loops.Wait()
	})
	return listener.Addr().String()
}

// loadDevice is a device that asks over one connection, one enrolment at a time.
type loadDevice struct {
	id     string
	idev   tls.Certificate
	leaf   *x509.Certificate
	mu     sync.Mutex // guards the connection
	conn   *tls.Conn
	reader *bufio.Reader
}

// provisioned makes devices and puts them on record as the factory's import does.
func (w *world) provisioned(n int) []*loadDevice {
	w.t.Helper()
	p := product.Product{ID: "thermo", OEM: "acme", Name: "Thermo", Hardware: []string{"B"}, Model: wire.ModelBlob, Suite: "HM-P256-1", Enrolment: product.Enrolment{Mode: product.Automatic}}
	must(w.t, w.db.PutProduct(w.t.Context(), p, ledger.New(ledger.Control, ledger.KindProductCreated, w.clock.now(), "bench", p.ID, nil, []byte("{}"))))
	must(w.t, w.db.CreateOrder(w.t.Context(), factory.Order{ID: "o-1", OEM: "acme", Product: "thermo", Hardware: "B", State: factory.Open}))
	var prev [32]byte
	var batch []factory.Candidate
	out := make([]*loadDevice, n)
	for i := range out {
		id, idev := w.made(false)
		leaf, err := x509.ParseCertificate(idev.Certificate[0])
		must(w.t, err)
		out[i] = &loadDevice{id: id, idev: idev, leaf: leaf}
		attest := sha256.Sum256([]byte(id))
		c := factory.Candidate{
			Seq: uint32(i + 1), Hash: sha256.Sum256(prev[:]), Prev: prev, Ticket: uint32(i + 1), Serial: id, Outcome: wire.Made,
			Device: device.Device{ID: id, Product: "thermo", Hardware: "B", Order: "o-1", Station: "st-1", Made: w.clock.now(), KeyOrigin: "soft", AttestKey: attest[:]},
			IDevID: leaf.Raw, Identity: identity(w.t, idev.PrivateKey.(*ecdsa.PrivateKey)), Attest: attest[:], Envelope: []byte(id),
			Accept: ledger.New(ledger.Events, ledger.KindDeviceProvisioned, w.clock.now(), "bench", id, nil, []byte("{}")),
		}
		batch, prev = append(batch, c), c.Hash
	}
	standings, err := w.db.AddRecords(w.t.Context(), "o-1", batch)
	must(w.t, err)
	for _, s := range standings {
		if s.State != factory.Accepted {
			w.t.Fatalf("record %d: %+v", s.Seq, s)
		}
	}
	return out
}

func (d *loadDevice) connect(b *testing.B, w *world, address string) {
	b.Helper()
	conn, err := (&tls.Dialer{Config: &tls.Config{Certificates: []tls.Certificate{d.idev}, RootCAs: w.roots}}).DialContext(b.Context(), "tcp", address)
	must(b, err)
	b.Cleanup(func() { _ = conn.Close() })
	d.conn, d.reader = conn.(*tls.Conn), bufio.NewReader(conn)
	// TLS 1.3 tells the client of a refused certificate only when it next reads: the first answer shows that it was not.
	resp, err := d.call([]byte("GET " + est.Prefix + "csrattrs HTTP/1.1\r\nHost: bench\r\n\r\n"))
	must(b, err)
	if resp.status != http.StatusOK || d.conn.ConnectionState().Version != tls.VersionTLS13 {
		b.Fatalf("device %s: status %d, TLS %x", d.id, resp.status, d.conn.ConnectionState().Version)
	}
}

// ask is a request made ready, and what came of it.
type ask struct {
	device string
	key    []byte // SubjectPublicKeyInfo it is for
	bytes  []byte // the whole HTTP request
	reply  []byte // body of the answer
}

func (d *loadDevice) ask(b *testing.B) ask {
	b.Helper()
	key := newKey(b)
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	must(b, err)
	csr, err := agentest.NewCSR(d.leaf, key)
	must(b, err)
	body := base64.StdEncoding.EncodeToString(csr)
	return ask{device: d.id, key: spki, bytes: fmt.Appendf(nil,
		"POST %ssimpleenroll HTTP/1.1\r\nHost: bench\r\nContent-Type: application/pkcs10\r\nContent-Length: %d\r\n\r\n%s", est.Prefix, len(body), body)}
}

func (d *loadDevice) enrol(a *ask) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, err := d.call(a.bytes)
	if err == nil && r.status != http.StatusOK {
		err = fmt.Errorf("device %s: %d %s", d.id, r.status, r.body)
	}
	a.reply = r.body
	return err
}

type answer struct {
	status int
	body   []byte
}

func (d *loadDevice) call(request []byte) (answer, error) {
	if _, err := d.conn.Write(request); err != nil {
		return answer{}, err
	}
	resp, err := http.ReadResponse(d.reader, nil)
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, body}, errors.Join(err, resp.Body.Close())
}

// check holds the answer against the request, and against what the store has.
func (a *ask) check(b *testing.B, w *world) {
	b.Helper()
	certs, err := agentest.DecodeCerts(a.reply)
	must(b, err)
	if len(certs) != 1 || !bytes.Equal(certs[0].RawSubjectPublicKeyInfo, a.key) {
		b.Fatalf("device %s: the certificate is not for its key", a.device)
	}
	have, err := w.db.PKI().Certificate(b.Context(), pki.CertKey(certs[0]))
	must(b, err)
	if have.Device != a.device || !bytes.Equal(have.DER, certs[0].Raw) {
		b.Fatalf("device %s: the store has another certificate, of %s", a.device, have.Device)
	}
}
