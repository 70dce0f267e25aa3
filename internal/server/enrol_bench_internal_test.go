package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	agentest "github.com/hallmark-iot/hallmark/agent/est"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/factory"
	"github.com/hallmark-iot/hallmark/internal/door"
	"github.com/hallmark-iot/hallmark/internal/est"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

const (
	benchDevices  = 8192 // at most: provisioned, each with its own IDevID and its own open connection
	benchInFlight = 64   // enrolments asked for at the same time, for each core
)

// BenchmarkEnrol is one enrolment: a request over an open TLS 1.3 connection with a client certificate, answered once certificate,
// row and facts are durable. It is a whole instance, behind its own devices' listener, with all its loops beside it; the devices are played
// on the same cores. Keys and requests are made before the clock starts, and every answer is looked at after it has stopped. Each
// enrolment is another device's first, as long as there are benchDevices; one that comes again pays for the end of its former certificate
// too.
func BenchmarkEnrol(b *testing.B) { enrolMany(b, benchInFlight*runtime.GOMAXPROCS(0)) }

// BenchmarkEnrolInFlight is the same with few enrolments at the same time, as other servers are asked in internal/bench/peers.
func BenchmarkEnrolInFlight(b *testing.B) {
	for _, n := range []int{8, 64} {
		b.Run(strconv.Itoa(n), func(b *testing.B) { enrolMany(b, n) })
	}
}

// BenchmarkEnrolCeiling is the same without anything that makes it an enrolment: the answer is a certificate that was parsed, verified and signed as
// the reference does it. No registry, no lint, no guard, no store: what the line, HTTP and the devices that are played leave for all of that.
func BenchmarkEnrolCeiling(b *testing.B) {
	w := newLoad(b)
	askMany(b, w, w.signingOnly(), benchInFlight*runtime.GOMAXPROCS(0))
}

// signing gives a certificate to whoever asks.
type signing struct {
	est.Enroller
	ca  *x509.Certificate
	key *ecdsa.PrivateKey
}

func (s signing) Enrol(_ context.Context, _ access.Caller, a onboard.Ask) (*x509.Certificate, error) {
	csr, err := x509.ParseCertificateRequest(a.CSR)
	if err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, err
	}
	ca := *s.ca
	ca.PublicKey = s.key.Public()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: csr.Subject, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter}, &ca, csr.PublicKey, s.key)
	return &x509.Certificate{Raw: der}, err
}

// enrolMany has b.N enrolments asked for, so many at the same time.
func enrolMany(b *testing.B, inFlight int) {
	w := newLoad(b)
	asks := askMany(b, w, strings.TrimPrefix(w.url, "https://"), inFlight)
	if b.Failed() {
		return
	}
	for i := range asks {
		asks[i].check(b, w)
	}
	for _, kind := range []ledger.Kind{ledger.KindCertIssued, ledger.KindDeviceEnrolled} {
		var n int
		benchMust(b, w.inst.db.Read().QueryRowContext(b.Context(), `SELECT count(*) FROM entry WHERE kind = $1 AND subject IN (SELECT id FROM device WHERE order_id = 'o-1')`, string(kind)).Scan(&n))
		if n != b.N {
			b.Errorf("%d facts %s, want %d", n, kind, b.N)
		}
	}
}

// askMany has b.N devices ask at address, and gives what they asked with the answers.
func askMany(b *testing.B, w *load, address string, inFlight int) []ask {
	b.Helper()
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
	begun := processorTime(b)
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
	b.ReportMetric(float64((processorTime(b)-begun).Microseconds())/float64(len(asks)), "cpu-µs/op")
	return asks
}

// load is an instance whose order is being made.
type load struct {
	*theft
	b *testing.B
}

func newLoad(b *testing.B) *load {
	b.Helper()
	return &load{newTheft(b), b}
}

// signingOnly opens another listener like the devices', with nothing behind it that makes an answer an enrolment.
func (w *load) signingOnly() (address string) {
	w.b.Helper()
	ca := newKey(w.b)
	issuer := w.inst.pki.CACerts()[0]
	handler := receipts(est.New(est.Config{Onboard: signing{w.inst.onboard, issuer, ca}, CACerts: w.inst.pki.CACerts, Identity: w.inst.auth.trust.Identity, Log: w.inst.log}))
	l, err := new(net.ListenConfig).Listen(w.b.Context(), "tcp", "127.0.0.1:0")
	benchMust(w.b, err)
	before := door.New(l, w.inst.deviceTLS(&ownCertificate{inst: w.inst, now: time.Now}), door.Limits{})
	w.run(w.b, before, before.Server(handler, w.inst.lines.ConnState))
	return l.Addr().String()
}

// made is a device from the factory.
func (w *load) made(id string) tls.Certificate {
	w.b.Helper()
	key := newKey(w.b)
	cert, err := w.order.Device(idevid.Identity{Kind: idevid.IDevID, DeviceID: id, OEM: w.inst.cfg.OEM, Product: "pump", HWRev: "A"}, key.Public(), time.Now(), idevid.NoExpiry(), nil)
	benchMust(w.b, err)
	return tls.Certificate{Certificate: append([][]byte{cert.Raw}, w.chain...), PrivateKey: key}
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
func (w *load) provisioned(n int) []*loadDevice {
	w.b.Helper()
	benchMust(w.b, w.inst.db.CreateOrder(w.b.Context(), factory.Order{ID: "o-1", OEM: w.inst.cfg.OEM, Product: "pump", Hardware: "A", State: factory.Open}))
	prev := wire.RecordHash(nil) // of an order without an envelope
	var batch []factory.Candidate
	out := make([]*loadDevice, n)
	for i := range out {
		id := fmt.Sprintf("%032x", i+1)
		idev := w.made(id)
		leaf, err := x509.ParseCertificate(idev.Certificate[0])
		benchMust(w.b, err)
		out[i] = &loadDevice{id: id, idev: idev, leaf: leaf}
		identity, attest := sha256.Sum256(leaf.RawSubjectPublicKeyInfo), sha256.Sum256([]byte(id))
		c := factory.Candidate{
			Seq: uint32(i + 1), Hash: sha256.Sum256(prev[:]), Prev: prev, Ticket: uint32(i + 1), Serial: id, Outcome: wire.Made,
			Device: device.Device{ID: id, Product: "pump", Hardware: "A", Order: "o-1", Station: "st-1", Made: time.Now(), KeyOrigin: "soft", AttestKey: attest[:], Twin: device.Twin{Bundle: 1}},
			IDevID: leaf.Raw, Identity: identity[:], Attest: attest[:], Envelope: []byte(id),
			Accept: ledger.New(ledger.KindDeviceProvisioned, time.Now(), "bench", id, nil, []byte("{}")),
		}
		batch, prev = append(batch, c), c.Hash
	}
	standings, err := w.inst.db.AddRecords(w.b.Context(), "o-1", batch)
	benchMust(w.b, err)
	for _, s := range standings {
		if s.State != factory.Accepted {
			w.b.Fatalf("record %d: %+v", s.Seq, s)
		}
	}
	return out
}

func (d *loadDevice) connect(b *testing.B, w *load, address string) {
	b.Helper()
	conn, err := (&tls.Dialer{Config: &tls.Config{Certificates: []tls.Certificate{d.idev}, RootCAs: w.roots}}).DialContext(b.Context(), "tcp", address)
	benchMust(b, err)
	b.Cleanup(func() { _ = conn.Close() })
	d.conn, d.reader = conn.(*tls.Conn), bufio.NewReader(conn)
	// TLS 1.3 tells the client of a refused certificate only when it next reads: the first answer shows that it was not.
	resp, err := d.call([]byte("GET " + est.Prefix + "csrattrs HTTP/1.1\r\nHost: bench\r\n\r\n"))
	benchMust(b, err)
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
	benchMust(b, err)
	csr, err := agentest.NewCSR(d.leaf, key)
	benchMust(b, err)
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
func (a *ask) check(b *testing.B, w *load) {
	b.Helper()
	certs, err := agentest.DecodeCerts(a.reply)
	benchMust(b, err)
	if len(certs) != 1 || !bytes.Equal(certs[0].RawSubjectPublicKeyInfo, a.key) {
		b.Fatalf("device %s: the certificate is not for its key", a.device)
	}
	have, err := w.inst.db.PKI().Certificate(b.Context(), pki.CertKey(certs[0]))
	benchMust(b, err)
	if have.Device != a.device || !bytes.Equal(have.DER, certs[0].Raw) {
		b.Fatalf("device %s: the store has another certificate, of %s", a.device, have.Device)
	}
}

func benchMust(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// processorTime is what this process has used: on a busy machine too it says what an enrolment costs, with the device that is played.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	benchMust(b, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
