package agent_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/agent"
	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/devlog"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/agent/line"
	"github.com/hallmark-iot/hallmark/agent/link"
	"github.com/hallmark-iot/hallmark/agent/machine"
	"github.com/hallmark-iot/hallmark/suite"
	"github.com/hallmark-iot/hallmark/wire"
)

const (
	sector = 32 << 10
	page   = 512
)

// born makes a virtual board that runs f.
func born(t testing.TB, w *world, f firmware) *virtual.Board {
	t.Helper()
	b, err := virtual.New(virtual.Spec{Revision: "A", ChipUID: "00", Flash: hw.Geometry{
		Size: boot.FlashFor(16<<10, sector, page), Sector: sector, Page: page,
	}})
	if err != nil {
		t.Fatal(err)
	}
	idevid, err := b.Keys.Generate(hw.KeyIDevID, suite.P256)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Keys.Generate(hw.KeyAttest, suite.P256); err != nil {
		t.Fatal(err)
	}
	n, err := boot.NewBirth(&b.Board)
	if err != nil {
		t.Fatal(err)
	}
	id := boot.Identity{Device: me, Product: product, Hardware: "A", Model: f.rel.Model, Chain: [][]byte{w.certify(t, idevid, 900*time.Hour)}}
	if err := n.Install(id, w.envelope, f.envelope, f.rel); err != nil {
		t.Fatal(err)
	}
	for _, c := range f.rel.Components {
		if err := n.Write(c.Name, 0, w.bytes[string(c.Digest)]); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Fuse(must(wire.RootDigest(w.bundle)), [32]byte{1}, f.rel.Counter, 1); err != nil {
		t.Fatal(err)
	}
	return b
}

// server is the other end of the device API: it tells a device its command at each check-in until the device says what became
// of it, challenges a release on trial, and takes what comes. Its state lasts while the device restarts.
type server struct {
	mu      sync.Mutex // a call at a time: downloads run beside the loop
	t       testing.TB
	w       *world
	tell    *command
	counter uint64
	verdict string
	down    atomic.Bool   // nothing answers
	falls   time.Duration // for how long nothing answers once the bytes of a release are on the device
	busy    int           // times that it has no bytes to give
	lose    string        // the next answer to this call is lost on its way
	sealed  int           // status answered to sealed data
	receipt int           // status answered to a receipt; 0: taken
	poll    time.Duration // asked of the device
	leaf    time.Duration // life of an operational certificate
	strict  bool          // certificates that have run out, or of another CA, are to be expected, and are not let in
	history *history      // nil: there is none
	thief   *world        // whose orders it brings; nil: its own
	disown  time.Time     // certificates from before then are let in no more: at the handshake, or, with a status, by the server
	status  int           // 0: at the handshake
	refused int           // calls for that
	hook    func(call string)
	asks    func(key crypto.PublicKey) error // is told for which key a device enrols; an error: not now
	saw     func(in wire.Checkin) bool       // true: enough was seen

	calls    []string
	results  map[uint64]wire.Result // by number
	last     wire.Checkin
	receipts [][]byte
	copy     []byte // of the device's trust record
	nonce    []byte
	enrolled int

	anchors bool                     // answers to the device's log are proven
	events  map[uint64]wire.LogEvent // that came
	batch   wire.LogBatch            // the last that was taken
	logSeq  uint64
	logHead []byte
	anchor  int // entry
	attest  crypto.PublicKey
}

func newServer(t testing.TB, w *world, b *virtual.Board) *server {
	t.Helper()
	k, err := b.Keys.Signer(hw.KeyAttest)
	if err != nil {
		t.Fatal(err)
	}
	return &server{t: t, w: w, verdict: "warning", poll: time.Second, leaf: 500 * time.Hour, results: map[uint64]wire.Result{}, attest: k.Public()}
}

// enrolments is how often a device got a certificate.
func (s *server) enrolments() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.enrolled
}

// refusals is how often it was refused by its certificate.
func (s *server) refusals() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

// outcomes are the results of the command, oldest first.
func (s *server) outcomes(c *command) []wire.Result {
	var out []wire.Result
	for _, r := range s.results {
		if bytes.Equal(r.Command, c.digest[:]) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b wire.Result) int { return int(a.Seq) - int(b.Seq) })
	return out
}

func (s *server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	call := strings.TrimPrefix(r.URL.Path, "/d/v1/")
	s.calls = append(s.calls, call)
	if s.hook != nil {
		s.hook(call)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Errorf("%s: %v", call, err)
	}
	if digest, ok := strings.CutPrefix(call, "artifact/"); ok && r.Method == http.MethodGet {
		s.artifact(rw, r, digest)
		return
	}
	var reply []byte
	switch {
	case r.Method != http.MethodPost:
		err = errors.New("want POST")
	case call == "checkin":
		reply, err = s.checkin(body)
	case call == "attest":
		reply, err = s.evidence(body)
	case call == "attest-key":
		err = s.changed(body)
	case call == "trust":
		s.copy = body
	case call == "log":
		reply, err = s.log(body)
	case call == "telemetry":
		http.Error(rw, "not this", s.sealed)
		return
	case call == "receipt":
		s.receipts = append(s.receipts, body)
		if s.receipt != 0 {
			http.Error(rw, "no", s.receipt)
			return
		}
	default:
		err = errors.New("no such call")
	}
	if err != nil {
		s.t.Errorf("the device called %s %s, which the server refuses: %v", r.Method, call, err)
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	if reply == nil {
		rw.WriteHeader(http.StatusNoContent)
		return
	}
	_, _ = rw.Write(reply)
}

func (s *server) checkin(body []byte) ([]byte, error) {
	in, err := wire.DecodeCheckin(body)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(in.Nonce, s.last.Nonce) {
		return nil, errors.New("the nonce came before")
	}
	s.last = in
	out := wire.CheckinReply{Time: uint64(s.w.now().Unix()), NextPoll: uint64(s.poll / time.Millisecond), Standing: "active"}
	for _, r := range in.Results {
		if have, ok := s.results[r.Seq]; ok && !bytes.Equal(must(wire.Marshal(have)), must(wire.Marshal(r))) {
			return nil, fmt.Errorf("result %d was %+v and is now %+v", r.Seq, have, r)
		}
		s.results[r.Seq] = r
		out.AckedSeq = max(out.AckedSeq, r.Seq)
	}
	if s.history != nil && in.Bundle < s.w.bundle.Version {
		out.Bundle = s.w.bundle.Version
		return wire.EncodeCheckinReply(out)
	}
	// As the fleet's server does: what is on trial already is not told again.
	trying := s.tell != nil && s.tell.release != nil && in.Trial && bytes.Equal(in.Release, s.tell.release.digest[:])
	// And what it waits with is told again when it waits no more.
	waits := s.tell != nil && in.Waits != nil && bytes.Equal(in.Waits.Command, s.tell.digest[:])
	if s.tell != nil && len(s.outcomes(s.tell)) == 0 && !trying && !waits {
		s.counter = max(s.counter, in.Counter) + 1
		w := s.w
		if s.thief != nil {
			w = s.thief
		}
		out.Delivery = w.deliver(s.tell, in.Nonce, s.counter)
	}
	if in.Trial {
		s.nonce = bytes.Repeat([]byte{byte(len(s.calls))}, 32)
		out.Challenge = s.nonce
	}
	return wire.EncodeCheckinReply(out)
}

func (s *server) evidence(body []byte) ([]byte, error) {
	payload, err := wire.Verify1(wire.TypeEvidence, body, s.attest)
	if err != nil {
		return nil, err
	}
	e, err := wire.DecodeEvidence(payload)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(e.Nonce, s.nonce) || e.Device != me || !e.Virtual {
		return nil, fmt.Errorf("evidence of %s for another challenge", e.Device)
	}
	return wire.EncodeAttestReply(wire.AttestReply{Status: s.verdict, Signed: s.w.judged(body, s.verdict)})
}

// changed takes a new attestation key, as the fleet's server does.
func (s *server) changed(body []byte) error {
	n, err := wire.OpenNewAttestKey(body, must(wire.SPKIOf(s.attest)))
	if err != nil {
		return err
	}
	pub := must(wire.ParseKey(n.New))
	if set := must(suite.Of(pub)); n.Device != me || !s.w.bundle.Accepts(string(set.ID)) {
		return fmt.Errorf("a key of %s for device %s", set.ID, n.Device)
	}
	s.attest = pub
	return nil
}

func (s *server) log(body []byte) ([]byte, error) {
	payload, err := wire.Verify1(wire.TypeDeviceLog, body, s.attest)
	if err != nil {
		return nil, err
	}
	b, err := wire.DecodeLogBatch(payload)
	if err != nil {
		return nil, err
	}
	if s.anchors {
		return wire.EncodeLogReply(s.keep(b, body))
	}
	s.told(b)
	return wire.EncodeLogReply(wire.LogReply{Acked: b.Last})
}

func (s *server) told(b wire.LogBatch) {
	if s.events == nil {
		s.events = map[uint64]wire.LogEvent{}
	}
	for _, e := range b.Events {
		s.events[e.Seq] = e
	}
	s.batch = b
}

// keep takes a batch as the ledger does: only what follows, and proves the newest.
func (s *server) keep(b wire.LogBatch, envelope []byte) wire.LogReply {
	r := wire.LogReply{Acked: s.logSeq}
	switch {
	case b.First != s.logSeq+1:
		r.Need = s.logSeq + 1
	case s.logSeq > 0 && !bytes.Equal(b.Prev, s.logHead):
		r.Fork = true
	case b.Last >= b.First:
		s.told(b)
		s.logSeq, s.logHead, r.Acked = b.Last, b.Head, b.Last
		s.anchor = s.w.append("device.log.anchored", envelope)
	}
	if s.anchor > 0 {
		r.Anchor = s.w.logged(s.anchor)
	}
	return r
}

func (s *server) artifact(rw http.ResponseWriter, r *http.Request, digest string) {
	d, err := hex.DecodeString(digest)
	code, ok := s.w.bytes[string(d)]
	if err != nil || !ok {
		http.NotFound(rw, r)
		return
	}
	if s.busy > 0 {
		s.busy--
		http.Error(rw, "later", http.StatusServiceUnavailable)
		return
	}
	if s.falls > 0 {
		s.down.Store(true)
		time.AfterFunc(s.falls, func() { s.down.Store(false) })
	}
	http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(code))
}

// inMemory carries calls to the server, each whole or not at all; who calls is the certificate that a handshake would show.
type inMemory struct {
	s    *server
	conf *tls.Config
}

var errNoNetwork = errors.New("no route to host")

func (l inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if l.s.down.Load() {
		return nil, errNoNetwork
	}
	if err := l.conf.VerifyConnection(tls.ConnectionState{PeerCertificates: []*x509.Certificate{l.s.w.leaf()}}); err != nil {
		return nil, err
	}
	cert, err := l.conf.GetClientCertificate(nil)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return nil, err
	}
	if l.s.strict && (leaf.CheckSignatureFrom(l.s.w.ca) != nil || !l.s.w.now().Before(leaf.NotAfter)) {
		return nil, &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")} // as crypto/tls tells of it
	}
	if err := leaf.CheckSignatureFrom(l.s.w.ca); err != nil || leaf.Subject.SerialNumber != me || !l.s.w.now().Before(leaf.NotAfter) {
		l.s.t.Errorf("the device shows a certificate of %q: %v", leaf.Subject.SerialNumber, err)
	}
	l.s.mu.Lock()
	disown, status := l.s.disown, l.s.status
	if leaf.NotBefore.Before(disown) {
		l.s.refused++
	}
	l.s.mu.Unlock()
	if leaf.NotBefore.Before(disown) {
		if status == 0 {
			return nil, &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")} // as crypto/tls tells of it
		}
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
	}
	if r.Body == nil {
		r.Body = http.NoBody
	}
	rec := httptest.NewRecorder()
	l.s.ServeHTTP(rec, r)
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if call := strings.TrimPrefix(r.URL.Path, "/d/v1/"); l.s.lose != "" && strings.HasPrefix(call, l.s.lose) {
		l.s.lose = ""
		return nil, errNoNetwork
	}
	return rec.Result(), nil
}

// program is the application, as the device's owner would see it.
type program struct {
	health     agent.Health
	isolated   atomic.Bool
	configured [][]wire.ConfigEntry

	spell time.Duration // a release on trial is sick for as long at first
	trial func() bool
	since time.Time // it is on trial
}

func (p *program) Health() (agent.Health, string) {
	if p.spell > 0 && p.trial() {
		if p.since.IsZero() {
			p.since = time.Now()
		}
		if time.Since(p.since) < p.spell {
			return agent.HealthSick, "not yet"
		}
	}
	return p.health, "as told"
}

func (p *program) Isolate(on bool) error { p.isolated.Store(on); return nil }

func (p *program) Configure(entries []wire.ConfigEntry) error {
	if len(entries) > 0 {
		p.configured = append(p.configured, entries)
	}
	return nil
}

func (p *program) Told() []wire.ProgramTold { return nil }

// device is a board with everything that lasts longer than one start of it.
type device struct {
	board *virtual.Board
	s     *server
	away  *server // where it calls once it was handed over; nil: nowhere
	prog  *program
	local *pipes // its local socket
	runs  []run  // each start
	data  *data  // it has something to upload
	kept  string // where its programs keep what they do; empty: nowhere

	network *line.Process // by which it calls, at url; nil: by this process
	url     string
	trial   time.Duration // how long one may take; 0: as long as any
	zone    string        // of the clock on its wall
	busy    atomic.Bool   // it is at something
}

// keeping is the machine of a device whose programs keep something.
type keeping struct {
	*machine.Machine
	d *device
}

func (k keeping) Clear() error { return launch.Erase(k.d.kept) }

// keep writes what a program keeps.
func (d *device) keep(t testing.TB) {
	t.Helper()
	if d.kept == "" {
		d.kept = t.TempDir()
	}
	path := filepath.Join(d.kept, "programs", "app")
	if err := errors.Join(os.MkdirAll(path, 0o700), os.WriteFile(filepath.Join(path, "diary"), []byte("what my owner did"), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// keeps reports whether it is there.
func (d *device) keeps() bool {
	_, err := os.Stat(filepath.Join(d.kept, "programs", "app", "diary"))
	return err == nil
}

// data has an upload each time, and counts what it is asked for.
type data struct{ samples, ends atomic.Int64 }

func (d *data) Sample(context.Context, time.Time, crypto.Signer, uint64) error {
	d.samples.Add(1)
	return nil
}

func (*data) Next(time.Time, crypto.Signer) ([]byte, func(bool), error) {
	return []byte{0xa0}, func(bool) {}, nil
}

func (d *data) End() { d.ends.Add(1) }

// run is what one start of the device ran.
type run struct {
	version string
	at      time.Time
}

func newDevice(t testing.TB, w *world, b *virtual.Board) *device {
	t.Helper()
	return &device{board: b, s: newServer(t, w, b), prog: &program{health: agent.HealthGood}, local: newPipes()}
}

// power is one start of the device, from ROM to whatever ends it.
func (d *device) power(ctx context.Context) error {
	d.board.Reset()
	m, err := machine.Start(&d.board.Board, [32]byte{9})
	if err != nil {
		return err
	}
	version := "recovery"
	if c := m.Facts().Current; c != nil {
		version = c.Release.Version
	}
	d.runs = append(d.runs, run{version, time.Now()})
	a, err := d.join(m)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- a.ServeLocal(ctx, d.local) }()
	err = a.Run(ctx)
	d.local.hangUp()
	return errors.Join(err, <-served)
}

func (d *device) join(m *machine.Machine) (*agent.Agent, error) {
	f := m.Facts()
	log, err := devlog.Open(devlog.Config{
		Region: m.Boot().Flash().LogRegion(), Device: me, Origin: [32]byte{7}, Counter: d.board.Log, Epoch: f.BootCount, Now: time.Now(),
	})
	if err != nil {
		return nil, err
	}
	p, err := m.Params()
	if err != nil {
		return nil, err
	}
	c := agent.Config{
		Machine: m, Eraser: m, Store: m, Params: p, Keys: d.board.Keys, Log: log, IDevID: m.Boot().Report().Identity.Chain, Logger: slog.New(slog.DiscardHandler),
		TrialTime: d.trial, Zone: d.zone, Busy: d.busy.Load,
		Enrol: func(ctx context.Context, e agent.Enrolment) ([][]byte, error) {
			if d.away != nil && m.Facts().Home != nil {
				return d.enrolAt(d.away, e)
			}
			if d.s.strict && !bytes.Equal(m.Facts().Bundle.Anchors[0], d.s.w.ca.Raw) {
				return nil, &tls.CertificateVerificationError{Err: errors.New("not by the device's anchors")}
			}
			return d.enrol(ctx, e)
		},
		Dial: func(certificate func() (*tls.Certificate, error), anchors [][]byte, now func() time.Time) (agent.Server, error) {
			if d.network != nil {
				return &link.Client{Line: d.network.Line(line.Server{URL: d.url, Anchors: anchors, Certificate: certificate, Now: now})}, nil
			}
			roots := x509.NewCertPool()
			roots.AddCert(must(x509.ParseCertificate(anchors[0])))
			s := d.s
			if d.away != nil && m.Facts().Home != nil {
				s = d.away
			}
			return link.New(link.Config{
				Server: "https://server", Roots: roots, Certificate: certificate, Now: now,
				Transport: func(conf *tls.Config) http.RoundTripper { return inMemory{s, conf} },
			})
		},
	}
	if d.s.history != nil {
		c.History = func(server string) (agent.History, error) {
			if server == "https://own" {
				return d.away.history, nil
			}
			return d.s.history, nil
		}
	}
	if f.Current != nil {
		c.Program = d.prog
		d.prog.trial = func() bool { return m.Facts().Trial }
	}
	if d.data != nil {
		c.Telemetry = d.data
	}
	if d.kept != "" {
		c.Eraser = keeping{m, d}
	}
	return agent.New(c)
}

func (d *device) enrol(_ context.Context, e agent.Enrolment) ([][]byte, error) {
	return d.enrolAt(d.s, e)
}

func (d *device) enrolAt(s *server, e agent.Enrolment) ([][]byte, error) {
	if s.down.Load() {
		return nil, errNoNetwork
	}
	if s.asks != nil {
		if err := s.asks(e.Key.Public()); err != nil {
			return nil, err
		}
	}
	as, err := x509.ParseCertificate(e.As.Certificate[0])
	if err != nil {
		return nil, err
	}
	signer, ok := e.As.PrivateKey.(crypto.Signer)
	if k, ok2 := as.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !ok2 || !k.Equal(signer.Public()) {
		s.t.Error("the device asks with a certificate whose key it does not hold")
	}
	s.mu.Lock()
	s.enrolled++
	s.mu.Unlock()
	return [][]byte{s.w.certify(s.t, e.Key.Public(), s.leaf)}, nil
}

// live powers the device on, and on again after each reset and each power cut, until the server has seen enough or the device
// does not start any more.
func (d *device) live(t testing.TB) error {
	t.Helper()
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		seen := false
		d.s.hook = func(call string) {
			if call == "checkin" && d.s.saw != nil && d.s.last.Nonce != nil && d.s.saw(d.s.last) {
				seen = true
				cancel()
			}
		}
		err := d.power(ctx)
		cancel()
		switch {
		case seen, err != nil && !errors.Is(err, agent.ErrReset) && !errors.Is(err, hw.ErrPowerCut):
			return err
		}
	}
	t.Fatalf("not settled after 20 starts; last check-in %+v", d.s.last)
	return nil
}

// pipes is a listener in memory that can be closed again and again.
type pipes struct {
	conns chan net.Conn
	over  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), over: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case p.over <- struct{}{}:
		return nil, net.ErrClosed
	}
}

func (p *pipes) hangUp()        { <-p.over }
func (p *pipes) Close() error   { return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

// dial is somebody beside the device.
func (p *pipes) dial() net.Conn {
	near, far := net.Pipe()
	p.conns <- far
	return near
}

// heard is the last check-in.
func (s *server) heard() wire.Checkin {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}
