package est_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	agentest "github.com/hallmark-iot/hallmark/agent/est"
	"github.com/hallmark-iot/hallmark/internal/est"
	"github.com/hallmark-iot/hallmark/product"
	"github.com/hallmark-iot/hallmark/suite"
)

// strict is a client that is as strict as libest, and reads bytes as it does: TLS 1.2 at the most, header names by their letters, a length
// that has to be there, no chunks, and base64 that has to have its lines.
type strict struct {
	t    testing.TB
	conn *tls.Conn
	in   *bufio.Reader
}

func (w *world) strict(c ...tls.Certificate) *strict {
	w.t.Helper()
	conn, err := (&tls.Dialer{Config: &tls.Config{Certificates: c, RootCAs: w.roots, MaxVersion: tls.VersionTLS12}}).DialContext(
		w.t.Context(), "tcp", strings.TrimPrefix(w.server.URL, "https://"))
	must(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return &strict{w.t, conn.(*tls.Conn), bufio.NewReader(conn)}
}

func (s *strict) call(method, path string, body []byte) (status int, header map[string]string, answer string) {
	s.t.Helper()
	lines := ""
	for flat := base64.StdEncoding.EncodeToString(body); flat != ""; {
		n := min(64, len(flat))
		lines, flat = lines+flat[:n]+"\n", flat[n:]
	}
	head := fmt.Sprintf("%s %s%s HTTP/1.1\r\nUser-Agent: strict\r\nConnection: close\r\nHost: 127.0.0.1\r\nAccept: */*\r\n", method, est.Prefix, path)
	if method == "POST" {
		head += fmt.Sprintf("Content-Type: application/pkcs10\r\nContent-Transfer-Encoding: base64\r\nContent-Length: %d\r\n", len(lines))
	} else {
		lines = ""
	}
	_, err := io.WriteString(s.conn, head+"\r\n"+lines)
	must(s.t, err)
	line := func() string {
		l, err := s.in.ReadString('\n')
		must(s.t, err)
		if !strings.HasSuffix(l, "\r\n") {
			s.t.Fatalf("line %q", l)
		}
		return strings.TrimSuffix(l, "\r\n")
	}
	first := line()
	if _, err := fmt.Sscanf(first, "HTTP/1.1 %d ", &status); err != nil {
		s.t.Fatalf("status line %q", first)
	}
	header = map[string]string{}
	for l := line(); l != ""; l = line() {
		name, value, ok := strings.Cut(l, ": ")
		if !ok {
			s.t.Fatalf("header %q", l)
		}
		header[name] = value
	}
	if _, chunked := header["Transfer-Encoding"]; chunked {
		s.t.Fatalf("%s: chunks", path)
	}
	n, err := strconv.Atoi(header["Content-Length"])
	must(s.t, err)
	b := make([]byte, n)
	_, err = io.ReadFull(s.in, b)
	must(s.t, err)
	return status, header, string(b)
}

// der reads base64 as OpenSSL's filter does: it gives up on a line that has no end.
func (s *strict) der(text string) []byte {
	s.t.Helper()
	if !strings.HasSuffix(text, "\n") {
		s.t.Fatalf("base64 without its last newline: %q", text)
	}
	flat := ""
	for l := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		if len(l) == 0 || len(l) > 76 {
			s.t.Fatalf("a line of %d", len(l))
		}
		flat += l
	}
	der, err := base64.StdEncoding.Strict().DecodeString(flat)
	must(s.t, err)
	return der
}

func TestInteropStrictClientOfTLS12(t *testing.T) {
	w := newWorld(t)
	w.registry.rule(suite.P256, product.Enrolment{Mode: product.Automatic, Binding: true, ServerKeys: true})
	_, idev := w.made(true)
	status, h, body := w.strict().call("GET", "cacerts", nil)
	s := w.strict(idev)
	if certs, err := agentest.ParseCertsOnly(s.der(body)); status != 200 || h["Content-Type"] != "application/pkcs7-mime" || err != nil || len(certs) != 2 {
		t.Errorf("cacerts: %d %v: %v", status, h, err)
	}
	if status, h, body := s.call("GET", "csrattrs", nil); status != 200 || h["Content-Type"] != "application/csrattrs" || len(s.der(body)) == 0 {
		t.Errorf("csrattrs: %d %v", status, h)
	}
	key := newKey(t)
	s = w.strict(idev)
	if v := s.conn.ConnectionState().Version; v != tls.VersionTLS12 {
		t.Fatalf("TLS %x", v)
	}
	unique := func(s *strict) string { return base64.StdEncoding.EncodeToString(s.conn.ConnectionState().TLSUnique) }
	const certsOnly = "application/pkcs7-mime; smime-type=certs-only"
	status, h, body = s.call("POST", "simpleenroll", bound(t, idev, key, unique(s), nil))
	if status != 200 || h["Content-Type"] != certsOnly || h["Content-Transfer-Encoding"] != "base64" {
		t.Fatalf("simpleenroll: %d %v %s", status, h, body)
	}
	certs, err := agentest.ParseCertsOnly(s.der(body))
	if err != nil || len(certs) != 1 {
		t.Fatalf("%d certificates: %v", len(certs), err)
	}
	ldev := tls.Certificate{Certificate: [][]byte{certs[0].Raw}, PrivateKey: key}
	for what, k := range map[string]bool{"renewal": false, "re-key": true} {
		next := key
		if k {
			next = newKey(t)
		}
		s := w.strict(ldev)
		status, h, body := s.call("POST", "simplereenroll", bound(t, idev, next, unique(s), nil))
		if status != 200 || h["Content-Type"] != certsOnly {
			t.Fatalf("%s: %d %v %s", what, status, h, body)
		}
		if got, err := agentest.ParseCertsOnly(s.der(body)); err != nil || len(got) != 1 || got[0].SerialNumber.Cmp(certs[0].SerialNumber) == 0 {
			t.Errorf("%s: %d certificates, or the one it had: %v", what, len(got), err)
		}
	}
	s = w.strict(idev)
	if status, h, body := s.call("POST", "serverkeygen", bound(t, idev, newKey(t), unique(s), nil)); status != 200 || !strings.HasPrefix(h["Content-Type"], "multipart/mixed; boundary=") ||
		!strings.Contains(body, "Content-Type: application/pkcs8\r\nContent-Transfer-Encoding: base64\r\n\r\n") {
		t.Errorf("serverkeygen: %d %v %s", status, h, body)
	}
	w.registry.rule(suite.P256, product.Enrolment{Mode: product.Approved})
	if status, h, _ := w.strict(idev).call("POST", "simpleenroll", request(t, idev, newKey(t), nil)); status != 202 || h["Retry-After"] != "600" {
		t.Errorf("one that waits: %d %v", status, h)
	}
	if status, h, body := w.strict(idev).call("POST", "simpleenroll", []byte("x")); status != 400 || h["Content-Type"] != "text/plain; charset=utf-8" || strings.Count(body, "\n") != 1 {
		t.Errorf("nonsense: %d %v %q", status, h, body)
	}
}

// files writes the anchor, and a device's chain and key, where programs look for them.
func (w *world) files(dir string, c tls.Certificate) {
	w.t.Helper()
	write := func(name, typ string, ders ...[]byte) {
		var b []byte
		for _, d := range ders {
			b = append(b, pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: d})...)
		}
		must(w.t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	must(w.t, err)
	write("root.pem", "CERTIFICATE", w.root.Cert.Raw)
	write("idevid.pem", "CERTIFICATE", c.Certificate...)
	write("idevid.key", "PRIVATE KEY", pkcs8)
}

// GlobalSign's client, built from its own module, does each call against ours.
func TestInteropGlobalSign(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "estclient")
	build := exec.CommandContext(t.Context(), "go", "-C", filepath.Join("..", "..", "tools", "estclient"), "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("tools/estclient: %v\n%s", err, out)
	}
	w := newWorld(t)
	w.registry.rule(suite.P256, product.Enrolment{Mode: product.Automatic, ServerKeys: true})
	id, idev := w.made(true)
	w.files(dir, idev)
	run := func(cert, kind, call string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, strings.TrimPrefix(w.server.URL, "https://"), "thermo", "root.pem", cert+".pem", cert+".key", kind, call)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", call, err, out)
		}
		return string(out)
	}
	for _, c := range []struct{ cert, kind, call, want string }{
		{"idevid", "plain", "cacerts", "CA CN=operational"},
		{"idevid", "plain", "csrattrs", "attribute " + oidTemplate + " 1"},
		{"idevid", "bare", "enroll", "SERIALNUMBER=" + id},
		{"out", "plain", "reenroll", "SERIALNUMBER=" + id},
		{"idevid", "plain", "keygen", "SERIALNUMBER=" + id},
		{"out", "plain", "reenroll", "SERIALNUMBER=" + id}, // with the key that was made here
		{"out", "bare", "reenroll", "status 400"},
		{"idevid", "plain", "reenroll", "status 403"},
	} {
		if out := run(c.cert, c.kind, c.call); !strings.Contains(out, c.want) {
			t.Errorf("%s with %s: no %q in\n%s", c.call, c.cert, c.want, out)
		}
	}
	w.registry.rule(suite.P256, product.Enrolment{Mode: product.Approved})
	if out := run("idevid", "plain", "enroll"); !strings.Contains(out, "status 202, retry after 600") {
		t.Errorf("one that waits: %s", out)
	}
}
