package line_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hallmark-iot/hallmark/agent/launch"
	"github.com/hallmark-iot/hallmark/agent/line"
	"github.com/hallmark-iot/hallmark/agent/link"
	"github.com/hallmark-iot/hallmark/wire"
)

func TestMain(m *testing.M) {
	launch.Confine()
	line.Become()
	goleak.VerifyTestMain(m)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// party is somebody with a certificate.
type party struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func issue(by *party, edit func(c *x509.Certificate)) *party {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true,
	}
	edit(c)
	signer, parent := key, c
	if by != nil {
		signer, parent = by.key, by.cert
	}
	return &party{must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)))), key}
}

// world is a server that knows one CA's devices, over TCP and TLS.
type world struct {
	ca, device *party
	server     *httptest.Server
	shakes     atomic.Int32 // connections
}

func newWorld(t *testing.T, h http.HandlerFunc) *world {
	t.Helper()
	w := &world{}
	w.ca = issue(nil, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign })
	w.device = issue(w.ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	s := issue(w.ca, func(c *x509.Certificate) {
		c.ExtKeyUsage, c.IPAddresses = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []net.IP{net.IPv4(127, 0, 0, 1)}
	})
	pool := x509.NewCertPool()
	pool.AddCert(w.ca.cert)
	w.server = httptest.NewUnstartedServer(h)
	w.server.EnableHTTP2 = true
	w.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	w.server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			w.shakes.Add(1)
		}
	}
	w.server.TLS = &tls.Config{
		MinVersion: tls.VersionTLS13, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{s.cert.Raw}, PrivateKey: s.key}},
	}
	w.server.StartTLS()
	t.Cleanup(w.server.Close)
	return w
}

// open has a process for the server.
func (w *world) open(t *testing.T, door *net.TCPListener) *line.Process {
	t.Helper()
	p := line.Open(line.Options{
		Server: w.server.URL, Door: door, Dir: t.TempDir(), Device: t.Name(), Self: "/proc/self/exe", Output: os.Stderr, Logger: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(p.Close)
	return p
}

// to is the server as its device calls it.
func (w *world) to(p *line.Process, edit func(s *line.Server)) link.Line {
	s := line.Server{
		URL: w.server.URL, Anchors: [][]byte{w.ca.cert.Raw}, Now: time.Now,
		Certificate: func() (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: [][]byte{w.device.cert.Raw}, PrivateKey: w.device.key}, nil
		},
	}
	if edit != nil {
		edit(&s)
	}
	return p.Line(s)
}

// Calls go by the process as they would by this one, over one connection, with a key that the process does not have.
func TestCalls(t *testing.T) {
	artifact := bytes.Repeat([]byte("0123456789abcdef"), 50_000)
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case len(r.TLS.PeerCertificates) == 0:
			t.Error("somebody without a certificate is let in")
		case strings.HasPrefix(r.URL.Path, "/d/v1/artifact/"):
			http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(artifact))
		case r.URL.Path == "/d/v1/receipt":
			rw.Header().Set("Retry-After", "7")
			http.Error(rw, "not now", http.StatusTooManyRequests)
		default:
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			_, _ = rw.Write(append([]byte(r.URL.Path+" "), body...))
		}
	})
	p := w.open(t, nil)
	l := w.to(p, nil)
	for range 3 {
		got, err := l.Post(t.Context(), "checkin", []byte("hello"))
		if err != nil || string(got) != "/d/v1/checkin hello" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if n := w.shakes.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	_, err := l.Post(t.Context(), "receipt", nil)
	if s, ok := errors.AsType[*link.Status](err); !ok || s.Code != http.StatusTooManyRequests || s.After != 7*time.Second || !strings.Contains(s.Text, "not now") {
		t.Errorf("%v", err)
	}
	if _, err := l.Post(t.Context(), "../../secret", nil); err == nil {
		t.Error("a call that the device API has not is made")
	}
	for _, offset := range []int64{0, 100_000} {
		r, err := l.Artifact(t.Context(), []byte{1}, offset)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, artifact[offset:]) {
			t.Errorf("from %d: %d bytes, %v", offset, len(got), err)
		}
	}
	s := p.State()
	for _, l := range []wire.Layer{wire.LayerFiles, wire.LayerCalls, wire.LayerPrivileges} {
		if !slices.Contains(s.Layers.InForce, l) {
			t.Errorf("%s is not in force: %+v", l, s.Layers)
		}
	}
	if !p.Alive(t.Context()) || s.Starts != 1 || s.Pid == 0 || s.Pid == os.Getpid() {
		t.Errorf("%+v", s)
	}
}

// What goes wrong with a line is told as the agent tells it apart.
func TestFaultsAreToldApart(t *testing.T) {
	w := newWorld(t, func(http.ResponseWriter, *http.Request) {})
	p := w.open(t, nil)
	stranger := issue(nil, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	for name, c := range map[string]struct {
		edit func(s *line.Server)
		is   func(err error) bool
	}{
		"a server of another CA": {func(s *line.Server) { s.Anchors = [][]byte{stranger.cert.Raw} }, func(err error) bool {
			return errors.As(err, new(*tls.CertificateVerificationError))
		}},
		"a device that the server does not know": {func(s *line.Server) {
			s.Certificate = func() (*tls.Certificate, error) {
				return &tls.Certificate{Certificate: [][]byte{stranger.cert.Raw}, PrivateKey: stranger.key}, nil
			}
		}, func(err error) bool {
			op, ok := errors.AsType[*net.OpError](err)
			return ok && op.Op == "remote error"
		}},
		"a port that it may not call": {func(s *line.Server) { s.URL = "https://127.0.0.1:1" }, func(err error) bool {
			return strings.Contains(err.Error(), "permission denied")
		}},
		"no address": {func(s *line.Server) { s.URL = "server" }, func(err error) bool { return strings.Contains(err.Error(), "want https://") }},
		"the device's time is over": {func(s *line.Server) {
			s.Now = func() time.Time { return time.Now().Add(100 * 24 * time.Hour) }
		}, func(err error) bool {
			return errors.As(err, new(*tls.CertificateVerificationError))
		}},
	} {
		var err error
		for range 5 { // a server's alert comes behind the handshake (TLS 1.3): now and then HTTP has another word for the line that ended first
			if _, err = w.to(p, c.edit).Post(t.Context(), "checkin", nil); err != nil && c.is(err) {
				break
			}
		}
		if err == nil || !c.is(err) {
			t.Errorf("%s: %T %v", name, err, err)
		}
	}
	if s := p.State(); s.Starts != 1 {
		t.Errorf("it was started %d times", s.Starts)
	}
}

// Who gives up waiting has nothing signed any more, and the process goes on.
func TestACallThatIsGivenUp(t *testing.T) {
	asked := make(chan bool, 1)
	w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/d/v1/checkin" {
			asked <- true
			<-r.Context().Done()
		}
	})
	p := w.open(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := w.to(p, nil).Post(ctx, "checkin", nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := w.to(p, nil).Post(t.Context(), "log", nil); err != nil {
		t.Error(err)
	}
	if s := p.State(); s.Starts != 1 {
		t.Errorf("it was started %d times", s.Starts)
	}
}

// A stranger at the door has the device prove itself, by way of the process.
func TestStrangersAtTheDoor(t *testing.T) {
	w := newWorld(t, func(http.ResponseWriter, *http.Request) {})
	l := must(new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0"))
	defer l.Close()
	p := w.open(t, l.(*net.TCPListener))
	p.Answer(func(_ context.Context, challenge []byte) ([]byte, string) {
		return append([]byte("proof of "), challenge...), ""
	})
	c := must(net.Dial("tcp", l.Addr().String()))
	defer c.Close()
	_, err := io.WriteString(c, `{"op":"prove","challenge":"Y2hhbGxlbmdl"}`+"\n")
	said, err2 := io.ReadAll(c)
	if err := errors.Join(err, err2); err != nil || string(said) != `{"proof":"cHJvb2Ygb2YgY2hhbGxlbmdl"}`+"\n" {
		t.Errorf("%q, %v", said, err)
	}
}

// Whatever the process says where it has things signed, it has the signatures that a call is worth, by that call's key, and no others; the trusted side
// answers or hangs up.
func FuzzAsks(f *testing.F) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	as, digest := sha256.Sum256([]byte("certificate")), sha256.Sum256([]byte("words"))
	good := line.Signing(as, digest[:], crypto.SHA256)
	f.Add(good)
	f.Add(bytes.Repeat(good, 20))
	f.Add(line.Signing(digest, digest[:], crypto.SHA256))
	f.Add(line.Signing(as, digest[:5], crypto.SHA256))
	f.Add(line.Signing(as, digest[:], 0))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, said []byte) {
		counting := &counter{Signer: key}
		answers := line.Ask(said, as, counting)
		if counting.n > 4 {
			t.Errorf("%d signatures", counting.n)
		}
		for len(answers) > 0 {
			n := binary.BigEndian.Uint32(answers)
			answers = answers[4+n:]
		}
	})
}

// counter counts signatures, and refuses what is no digest.
type counter struct {
	crypto.Signer
	n int
}

func (c *counter) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	c.n++
	if len(digest) != opts.HashFunc().Size() {
		panic("no digest")
	}
	return c.Signer.Sign(r, digest, opts)
}

// Whatever comes as an answer is an answer, or an error that ends nothing but the call: none is one of the device itself.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0xa0})
	f.Add(append([]byte{0, 0, 0, 8}, "\xa1\x01\x66status"...))
	f.Add(append([]byte{0, 0, 0, 9}, "\xa1\x01\x67pending"...))
	f.Add(append([]byte{0, 0, 0, 6}, "\xa1\x01\x64name"...))
	f.Fuzz(func(t *testing.T, said []byte) {
		if err := line.Answer(said); err != nil && len(err.Error()) > 4<<10 {
			t.Errorf("%d bytes of words", len(err.Error()))
		}
		_ = line.Question(said)
	})
}
