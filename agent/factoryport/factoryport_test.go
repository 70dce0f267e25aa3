package factoryport_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hallmark-iot/hallmark/agent/boot"
	"github.com/hallmark-iot/hallmark/agent/factoryport"
	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/virtual"
	"github.com/hallmark-iot/hallmark/agent/machine"
	"github.com/hallmark-iot/hallmark/wire"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	device = "00112233445566778899aabbccddeeff"
	sector = 32 << 10
	page   = 512
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// station makes one kind of device, and can be told to lie.
type station struct {
	caKey, oem *ecdsa.PrivateKey
	ca         *x509.Certificate
	bundle     wire.Bundle
	envelope   []byte
	rel        wire.Release
	release    []byte
	code       []byte

	request func(q *wire.KeyRequest)
	install func(s *station, in *wire.Install)
	chunk   func(k *wire.Chunk)
	fuse    func(q *wire.FuseRequest)
	kind    map[string]string // a frame's kind, and what is said in its place
	hangUp  string            // before this frame
	back    wire.ReadBack
	state   wire.FuseState
}

func newStation() *station {
	s := &station{caKey: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), oem: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "order CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: idevid.NoExpiry(),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	s.ca = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, t, t, s.caKey.Public(), s.caKey))))
	role := wire.KeySet{Keys: [][]byte{must(wire.SPKIOf(s.oem.Public()))}, Threshold: 1}
	log := bytes.Repeat([]byte{1}, 32)
	s.bundle = wire.Bundle{
		Version: 3, Product: "pump", Root: role, Release: role, Warrant: role, Directive: role, Control: wire.LogTrust{Origin: "c", Key: log},
		Events: wire.LogTrust{Origin: "e", Key: log}, Witnesses: []wire.NamedKey{{Name: "w", Key: log}}, Quorum: 1, MaxAge: 1, Issued: 1,
		Anchors: [][]byte{s.ca.Raw}, Suites: []string{"HM-P256-1"}, Telemetry: []wire.StreamKey{},
	}
	s.envelope = must(wire.NewThreshold(wire.TypeBundle, must(wire.EncodeBundle(s.bundle)), s.oem))
	s.code = bytes.Repeat([]byte("program "), (wire.PortChunkSize+5000)/8) // more than one chunk
	sum := sha256.Sum256(s.code)
	s.rel = wire.Release{
		ID: "r1", Product: "pump", Hardware: []string{"A"}, Model: wire.ModelBlob, Version: "1.0.0", Counter: 4, Created: 1,
		Components: []wire.Component{{Name: "app", Kind: wire.KindData, Version: "1.0.0", Size: uint64(len(s.code)), Digest: sum[:], Health: wire.HealthNone}},
	}
	s.release = s.signed(s.rel)
	return s
}

func (s *station) signed(r wire.Release) []byte {
	return must(wire.NewThreshold(wire.TypeRelease, must(wire.EncodeRelease(r)), s.oem))
}

func (s *station) certify(kind idevid.Kind, id, hwRev string, pub any) []byte {
	until := idevid.NoExpiry()
	if kind == idevid.LDevID {
		until = time.Now().Add(time.Hour)
	}
	t := must(idevid.Template(idevid.Identity{Kind: kind, DeviceID: id, OEM: "acme", Product: "pump", HWRev: hwRev}, big.NewInt(2), time.Now().Add(-time.Hour), until))
	return must(x509.CreateCertificate(rand.Reader, t, s.ca, pub, s.caKey))
}

var errHangUp = errors.New("the station hangs up")

func (s *station) say(conn net.Conn, kind string, body any) error {
	if s.hangUp == kind {
		return errHangUp
	}
	if other, ok := s.kind[kind]; ok {
		kind = other
	}
	_, err := conn.Write(must(wire.EncodePortFrame(kind, body)))
	return err
}

func hear[T wire.PortBody](conn net.Conn, kind string) (v T, err error) {
	var head [4]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return v, err
	}
	n, err := wire.PortFrameLen(head)
	if err != nil {
		return v, err
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(conn, buf); err != nil {
		return v, err
	}
	f, err := wire.DecodePortFrame(buf)
	if err != nil {
		return v, err
	}
	if f.Kind == wire.PortError {
		fault, err := wire.DecodePortBody[wire.PortFault](f)
		return v, errors.Join(fault, err)
	}
	if f.Kind != kind {
		return v, fmt.Errorf("the device says %s, want %s", f.Kind, kind)
	}
	if kind == wire.PortOK {
		return v, nil
	}
	return wire.DecodePortBody[T](f)
}

// make is the station's side of a birth.
func (s *station) make(conn net.Conn) error {
	hello, err := hear[wire.ChipHello](conn, wire.PortHello)
	if err != nil {
		return err
	}
	q := wire.KeyRequest{Order: "order-1", Seq: 1, Nonce: make([]byte, 32), Device: device}
	if s.request != nil {
		s.request(&q)
	}
	if err := s.say(conn, wire.PortKeys, q); err != nil {
		return err
	}
	keys, err := hear[wire.KeyReply](conn, wire.PortKeys)
	if err != nil {
		return err
	}
	if err := wire.VerifyPossession(q, hello.ChipUID, keys); err != nil {
		return err
	}
	pub := must(x509.ParsePKIXPublicKey(keys.IDevID))
	in := wire.Install{
		Certificate: s.certify(idevid.IDevID, device, "A", pub), Chain: [][]byte{s.ca.Raw}, Bundle: s.envelope, Release: s.release,
		Params: wire.DeviceParams{Flash: hello.Flash, Servers: wire.Servers{Device: "https://server"}}, Product: "pump", Hardware: "A", Device: device,
	}
	if s.install != nil {
		s.install(s, &in)
	}
	if err := s.say(conn, wire.PortInstall, in); err != nil {
		return err
	}
	if _, err := hear[wire.ChipHello](conn, wire.PortOK); err != nil {
		return err
	}
	for at := 0; at < len(s.code); at += wire.PortChunkSize {
		k := wire.Chunk{Component: "app", Offset: uint64(at), Data: s.code[at:min(at+wire.PortChunkSize, len(s.code))]}
		if s.chunk != nil {
			s.chunk(&k)
		}
		if err := s.say(conn, wire.PortChunk, k); err != nil {
			return err
		}
	}
	return s.close(conn)
}

func (s *station) close(conn net.Conn) (err error) {
	if err := s.say(conn, wire.PortReadBack, nil); err != nil {
		return err
	}
	if s.back, err = hear[wire.ReadBack](conn, wire.PortReadBack); err != nil {
		return err
	}
	root := must(wire.RootDigest(s.bundle))
	q := wire.FuseRequest{Root: root[:], Counter: s.rel.Counter}
	if s.fuse != nil {
		s.fuse(&q)
	}
	if err := s.say(conn, wire.PortFuse, q); err != nil {
		return err
	}
	if s.state, err = hear[wire.FuseState](conn, wire.PortFused); err != nil {
		return err
	}
	return s.say(conn, wire.PortDone, nil)
}

// birth runs a birth to its end on both sides.
func birth(s *station, b *virtual.Board) (theDevice, theStation error) {
	near, far := pair()
	served := make(chan error, 1)
	go func() {
		err := factoryport.Serve(context.Background(), far, &machine.Piece{Board: &b.Board, UID: []byte("chip-uid")})
		far.Close()
		served <- err
	}()
	heard := make(chan error, 1)
	go func() { // an error frame comes while the station still speaks
		err := s.make(near)
		near.Close()
		heard <- err
	}()
	return <-served, <-heard
}

// pair is a connection as between a station and a device: the kernel holds what is not read yet.
func pair() (near, far net.Conn) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	near = must(net.Dial("tcp", l.Addr().String()))
	far = must(l.Accept())
	return near, far
}

func blank(t testing.TB) *virtual.Board {
	t.Helper()
	b, err := virtual.New(virtual.Spec{Revision: "A", ChipUID: "00", Flash: hw.Geometry{
		Size: boot.FlashFor(128<<10, sector, page), Sector: sector, Page: page,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// born checks a device that was made: it starts what was laid down, and is closed.
func born(s *station, b *virtual.Board) error {
	b.Reset()
	m, err := boot.Start(&b.Board, [32]byte{})
	if err != nil {
		return err
	}
	r := m.Report()
	if r.Release == nil || r.Release.Version != "1.0.0" || r.Lifecycle != hw.Secured || !r.Debug || r.Counter != 4 || r.Identity.Device != device || r.Bundle.Version != 3 {
		return fmt.Errorf("born as %+v: %v", r.Identity, r.Notes)
	}
	least, err := b.Trust.Value()
	if err != nil || least != 3 {
		return fmt.Errorf("trust counter %d, %w", least, err)
	}
	code, _, err := m.Component("app")
	if err != nil {
		return err
	}
	got, err := io.ReadAll(code)
	if err != nil || !bytes.Equal(got, s.code) {
		return fmt.Errorf("%d bytes of the program, %w", len(got), err)
	}
	if _, err := boot.NewBirth(&b.Board); err == nil {
		return errors.New("it could be made again")
	}
	return nil
}

func TestADeviceIsMadeOnce(t *testing.T) {
	s, b := newStation(), blank(t)
	if dev, st := birth(s, b); dev != nil || st != nil {
		t.Fatalf("device: %v; station: %v", dev, st)
	}
	if err := born(s, b); err != nil {
		t.Error(err)
	}
	digest := func(b []byte) []byte { d := sha256.Sum256(b); return d[:] }
	if len(s.back.Components) != 1 || !bytes.Equal(s.back.Components[0].Digest, digest(s.code)) || !bytes.Equal(s.back.Bundle, digest(s.envelope)) ||
		!bytes.Equal(s.back.Release, digest(s.release)) {
		t.Errorf("read back %+v", s.back)
	}
	if s.state.Counter != 4 || s.state.Lifecycle != wire.LifecycleSecured || !s.state.DebugLocked {
		t.Errorf("fuses %+v", s.state)
	}
	if dev, _ := birth(newStation(), b); dev == nil || !strings.Contains(dev.Error(), "made already") {
		t.Errorf("made a second time: %v", dev)
	}
}

// Whatever the station gets wrong, or lies about: the device says what, to the station too, and its fuses are as they were.
func TestWhatDoesNotHoldTogetherIsNotBurned(t *testing.T) {
	foreign := newStation()
	for name, c := range map[string]struct {
		lie  func(s *station)
		says string
	}{
		"device ID":      {func(s *station) { s.request = func(q *wire.KeyRequest) { q.Device = "D" } }, "device ID wanted"},
		"nonce":          {func(s *station) { s.request = func(q *wire.KeyRequest) { q.Nonce = q.Nonce[1:] } }, "32-byte nonce"},
		"order of steps": {func(s *station) { s.kind = map[string]string{wire.PortKeys: wire.PortInstall} }, `says "install", want "keys"`},
		"burn first":     {func(s *station) { s.kind = map[string]string{wire.PortReadBack: wire.PortFuse} }, `says "fuse", want "readback"`},
		"done first":     {func(s *station) { s.kind = map[string]string{wire.PortFuse: wire.PortDone} }, `says "done", want "fuse"`},
		"another device": {func(s *station) {
			s.install = func(_ *station, in *wire.Install) { in.Device = strings.Repeat("a", 32) }
		}, "this piece is to be"},
		"another product": {func(s *station) { s.install = func(_ *station, in *wire.Install) { in.Product = "valve" } }, "certificate: it names"},
		"other hardware":  {func(s *station) { s.install = func(_ *station, in *wire.Install) { in.Hardware = "B" } }, "certificate: it names"},
		"another key": {func(s *station) {
			s.install = func(s *station, in *wire.Install) {
				in.Certificate = s.certify(idevid.IDevID, device, "A", s.oem.Public())
			}
		}, "not for this piece's key"},
		"operational identity": {func(s *station) { s.install = func(s *station, in *wire.Install) { in.Certificate = relabel(s, in) } }, "certificate: it names"},
		"no certificate":       {func(s *station) { s.install = func(_ *station, in *wire.Install) { in.Certificate = []byte{1} } }, "certificate: "},
		"another CA": {func(s *station) {
			s.install = func(_ *station, in *wire.Install) { in.Chain = [][]byte{foreign.ca.Raw} }
		}, "certificate: "},
		"no CA":             {func(s *station) { s.install = func(_ *station, in *wire.Install) { in.Chain = nil } }, "chain"},
		"bundle":            {func(s *station) { s.install = func(_ *station, in *wire.Install) { in.Bundle = in.Release } }, "trust bundle: "},
		"another's release": {func(s *station) { s.install = func(_ *station, in *wire.Install) { in.Release = foreign.release } }, "release: "},
		"release for B": {func(s *station) {
			s.install = func(s *station, in *wire.Install) { r := s.rel; r.Hardware = []string{"B"}; in.Release = s.signed(r) }
		}, "not for hardware"},
		"too large": {func(s *station) {
			s.install = func(s *station, in *wire.Install) {
				r := s.rel
				r.Components = []wire.Component{r.Components[0]}
				r.Components[0].Size = 1 << 30
				in.Release = s.signed(r)
			}
		}, "install: "},
		"another component": {func(s *station) { s.chunk = func(k *wire.Chunk) { k.Component = "data" } }, `chunk of "data"`},
		"a gap":             {func(s *station) { s.chunk = func(k *wire.Chunk) { k.Offset++ } }, "at 1, want"},
		"a changed byte":    {func(s *station) { s.chunk = func(k *wire.Chunk) { k.Data = bytes.Clone(k.Data); k.Data[9] ^= 1 } }, "is not the release's"},
		"another root":      {func(s *station) { s.fuse = func(q *wire.FuseRequest) { q.Root = make([]byte, 32) } }, "do not belong"},
		"a higher counter":  {func(s *station) { s.fuse = func(q *wire.FuseRequest) { q.Counter++ } }, "do not belong"},
		"hung up early":     {func(s *station) { s.hangUp = wire.PortInstall }, "hung up while install was awaited"},
		"hung up late":      {func(s *station) { s.hangUp = wire.PortFuse }, "hung up while fuse was awaited"},
	} {
		s, b := newStation(), blank(t)
		c.lie(s)
		dev, st := birth(s, b)
		if dev == nil || !strings.Contains(dev.Error(), c.says) {
			t.Errorf("%s: the device: %v, want %q", name, dev, c.says)
		}
		if st == nil {
			t.Errorf("%s: the station believes it made a device", name)
		}
		life, err := b.Fuses.Lifecycle()
		if _, rerr := b.Fuses.Root(); err != nil || life != hw.Assembly || !errors.Is(rerr, hw.ErrNotBurned) {
			t.Errorf("%s: life cycle %s, root %v", name, life, rerr)
		}
		if dev, st := birth(newStation(), b); dev != nil || st != nil {
			t.Errorf("%s: the piece is scrap afterwards: %v; %v", name, dev, st)
		}
	}
}

// relabel certifies the piece's own key as an operational identity.
func relabel(s *station, in *wire.Install) []byte {
	return s.certify(idevid.LDevID, device, "A", must(x509.ParseCertificate(in.Certificate)).PublicKey)
}

// The power fails in each operation of a birth, in every way. Until the life cycle is burned the piece can be made again, by
// the same maker; from then on it is a device, and nothing in between.
func TestAPowerCutAnywhereInABirth(t *testing.T) {
	s := newStation()
	whole := blank(t)
	if dev, st := birth(s, whole); dev != nil || st != nil {
		t.Fatalf("device: %v; station: %v", dev, st)
	}
	total := whole.Power.Ops()
	for n := uint64(1); n <= total; n++ {
		mode := virtual.Modes()[n%4]
		if n+60 < total && n%5 != 0 { // every one of the fuses, some of the flash
			continue
		}
		b := blank(t)
		b.Power.CutAt(n, mode, n)
		if dev, _ := birth(s, b); !errors.Is(dev, hw.ErrPowerCut) {
			t.Fatalf("cut %d of %d %s: the power was to fail: %v", n, total, mode, dev)
		}
		b.Reset()
		life, err := b.Fuses.Lifecycle()
		if err != nil {
			t.Fatal(err)
		}
		if life == hw.Assembly {
			if dev, st := birth(s, b); dev != nil || st != nil {
				t.Fatalf("cut %d of %d %s: it cannot be made again: %v; %v", n, total, mode, dev, st)
			}
		} else if dev, _ := birth(s, b); dev == nil {
			t.Fatalf("cut %d %s: it was made twice", n, mode)
		}
		if err := born(s, b); err != nil {
			t.Fatalf("cut %d of %d %s: %v", n, total, mode, err)
		}
	}
}
