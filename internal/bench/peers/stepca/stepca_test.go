// Package stepca measures step-ca with what our enrolment is measured with: a certificate for a request over an open TLS connection, durable when it
// is answered. It is a module of its own, so that step-ca is built of exactly the versions that it names itself.
package stepca

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v3"
	"github.com/go-jose/go-jose/v3/jwt"
)

// BenchmarkStepCA is certificates a second of the real server over badger, asked over so many kept connections, one request at a time on each. Keys,
// requests and one-time tokens are made before the clock starts, and the answers are looked at after it has stopped.
func BenchmarkStepCA(b *testing.B) {
	ca := start(b)
	for _, connections := range []int{8, 64} {
		b.Run(fmt.Sprint(connections), func(b *testing.B) { ca.measure(b, connections) })
	}
}

// server is a step-ca that runs, and what a client needs to be believed by it.
type server struct {
	address string
	roots   *x509.CertPool
	tokens  jose.Signer
	issued  atomic.Int64
}

const provisioner = "bench"

type request struct {
	key   *ecdsa.PrivateKey
	bytes []byte // the whole HTTP request
	reply []byte // body of the answer
}

func (s *server) measure(b *testing.B, connections int) {
	requests := make([]request, b.N)
	for i := range requests {
		requests[i] = s.request(b)
	}
	lines := make([]*line, connections)
	for i := range lines {
		lines[i] = s.connect(b)
	}
	var next atomic.Int64
	var all sync.WaitGroup
	b.ResetTimer()
	for _, l := range lines {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				if err := l.call(&requests[i], http.StatusCreated); err != nil {
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
	for i := range requests {
		check(b, &requests[i])
	}
}

// check holds an answer against its request: a certificate for just that key.
func check(b *testing.B, r *request) {
	b.Helper()
	var answer struct {
		Certificate string `json:"crt"`
	}
	if err := json.Unmarshal(r.reply, &answer); err != nil {
		b.Fatalf("%v: %.300s", err, r.reply)
	}
	block, _ := pem.Decode([]byte(answer.Certificate))
	if block == nil {
		b.Fatalf("no certificate: %.300s", r.reply)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !r.key.PublicKey.Equal(cert.PublicKey) {
		b.Fatalf("the certificate is not for its key: %v", err)
	}
}

// request is what `step ca sign` sends: a CSR, and a token of the provisioner that is good once and for that name.
func (s *server) request(b *testing.B) request {
	b.Helper()
	n := s.issued.Add(1)
	name := fmt.Sprintf("device-%08d", n)
	key := newKey(b)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}}, key)
	must(b, err)
	now := time.Now()
	token, err := jwt.Signed(s.tokens).Claims(map[string]any{
		"iss": provisioner, "sub": name, "sans": []string{name}, "aud": "https://" + s.address + "/1.0/sign", "jti": fmt.Sprint(n),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}).CompactSerialize()
	must(b, err)
	body, err := json.Marshal(map[string]string{
		"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), "ott": token,
	})
	must(b, err)
	return request{key: key, bytes: fmt.Appendf(nil,
		"POST /1.0/sign HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", s.address, len(body), body)}
}

// line is a kept connection.
type line struct {
	conn   *tls.Conn
	reader *bufio.Reader
}

func (s *server) connect(b *testing.B) *line {
	b.Helper()
	conn, err := tls.Dial("tcp", s.address, &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS13})
	must(b, err)
	b.Cleanup(func() { _ = conn.Close() })
	l := &line{conn, bufio.NewReader(conn)}
	health := request{bytes: []byte("GET /health HTTP/1.1\r\nHost: " + s.address + "\r\n\r\n")}
	must(b, l.call(&health, http.StatusOK))
	return l
}

func (l *line) call(r *request, want int) error {
	if _, err := l.conn.Write(r.bytes); err != nil {
		return err
	}
	resp, err := http.ReadResponse(l.reader, nil)
	if err != nil {
		return err
	}
	r.reply, err = io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode != want {
		return fmt.Errorf("%s: %.300s", resp.Status, r.reply)
	}
	return nil
}

// start builds the real server, gives it a root, an intermediate CA and a provisioner of the kind JWK, and runs it over a directory until the benchmark
// ends.
func start(b *testing.B) *server {
	b.Helper()
	dir := b.TempDir()
	bin := filepath.Join(dir, "step-ca")
	build := exec.Command("go", "build", "-o", bin, "github.com/smallstep/certificates/cmd/step-ca")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // with cgo it wants a smart card's library
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build step-ca: %v\n%s", err, out)
	}
	s := &server{address: freeAddress(b), roots: x509.NewCertPool()}
	s.configure(b, dir)
	cmd := exec.Command(bin, "--quiet", filepath.Join(dir, "ca.json"))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	must(b, cmd.Start())
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots}}}
	defer client.CloseIdleConnections()
	for range 400 {
		if resp, err := client.Get("https://" + s.address + "/health"); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return s
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	b.Fatalf("step-ca does not answer: %s", said.String())
	return nil
}

// configure writes what step-ca reads: its defaults, but for the log of every request, which goes nowhere.
func (s *server) configure(b *testing.B, dir string) {
	b.Helper()
	rootKey, caKey, tokenKey := newKey(b), newKey(b), newKey(b)
	root := certify(b, "Bench root", rootKey, nil, rootKey)
	ca := certify(b, "Bench CA", caKey, root, rootKey)
	s.roots.AddCert(root)
	signing, err := x509.MarshalPKCS8PrivateKey(caKey)
	must(b, err)
	for name, block := range map[string]*pem.Block{
		"root.crt": {Type: "CERTIFICATE", Bytes: root.Raw},
		"ca.crt":   {Type: "CERTIFICATE", Bytes: ca.Raw},
		"ca.key":   {Type: "PRIVATE KEY", Bytes: signing},
	} {
		must(b, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
	public := jose.JSONWebKey{Key: tokenKey.Public(), KeyID: "bench-1", Algorithm: string(jose.ES256), Use: "sig"}
	s.tokens, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: tokenKey, KeyID: public.KeyID}},
		(&jose.SignerOptions{}).WithType("JWT"))
	must(b, err)
	type object = map[string]any
	config, err := json.Marshal(object{
		"root": filepath.Join(dir, "root.crt"), "crt": filepath.Join(dir, "ca.crt"), "key": filepath.Join(dir, "ca.key"),
		"address": s.address, "dnsNames": []string{"127.0.0.1"},
		"db":        object{"type": "badgerv2", "dataSource": filepath.Join(dir, "db")},
		"authority": object{"provisioners": []object{{"type": "JWK", "name": provisioner, "key": public}}},
	})
	must(b, err)
	must(b, os.WriteFile(filepath.Join(dir, "ca.json"), config, 0o600))
}

// certify makes a CA; with no issuer, a root.
func certify(b *testing.B, name string, key *ecdsa.PrivateKey, issuer *x509.Certificate, by *ecdsa.PrivateKey) *x509.Certificate {
	b.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	must(b, err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if issuer == nil {
		issuer = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), by)
	must(b, err)
	cert, err := x509.ParseCertificate(der)
	must(b, err)
	return cert
}

func newKey(b *testing.B) *ecdsa.PrivateKey {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(b, err)
	return key
}

func freeAddress(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
