package server

import (
	"bytes"
	"context"
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
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/store/storetest"
)

// BenchmarkPollHawkBit is what BenchmarkPollDDI is, of hawkBit's own server: the same clients, with a token each, over TLS and connections that they keep. H2 in memory is its
// default. It runs as a process of its own beside its clients, and is asked for some seconds before it is measured: its programs are compiled as they run.
func BenchmarkPollHawkBit(b *testing.B) {
	program := builtHawkBit(b)
	for name, database := range map[string]func() []string{
		"h2": func() []string {
			return []string{
				"--spring.jpa.database=H2", "--spring.datasource.driverClassName=org.h2.Driver", "--spring.datasource.username=sa", "--spring.datasource.password=",
				"--spring.datasource.url=jdbc:h2:mem:sp-db;DB_CLOSE_DELAY=-1;MODE=MySQL",
			}
		},
		"postgres": func() []string {
			c := storetest.Shared(b)
			url, err := url.Parse(c.URL(c.Create(b, false)))
			benchMust(b, err)
			return []string{
				"--spring.jpa.database=POSTGRESQL", "--spring.datasource.driverClassName=org.postgresql.Driver", "--spring.datasource.username=" + url.User.Username(),
				"--spring.datasource.url=jdbc:postgresql://localhost" + url.Path + "?socketFactory=org.newsclub.net.unix.AFUNIXSocketFactory$FactoryArg&socketFactoryArg=" + c.Dir + "/.s.PGSQL.5432",
			}
		},
	} {
		var clients []*ddiClient
		b.Run(name, func(sub *testing.B) {
			if clients == nil { // once, and not again for each number of polls
				clients = startHawkBit(b, program, database()...).clients(b)
			}
			pollDDI(sub, clients)
		})
	}
}

// builtHawkBit gives hawkBit's server as one program; Maven brings its parts.
func builtHawkBit(b *testing.B) string {
	b.Helper()
	for _, tool := range []string{"java", "mvn"} {
		if _, err := exec.LookPath(tool); err != nil {
			b.Skipf("apt-get install default-jre-headless maven: %v", err)
		}
	}
	at, err := filepath.Abs("../bench/peers/hawkbit")
	benchMust(b, err)
	cache, err := os.UserCacheDir()
	benchMust(b, err)
	out := filepath.Join(cache, "hallmark", "hawkbit")
	cmd := exec.CommandContext(b.Context(), "mvn", "-q", "-B", "-f", at, "-Dout="+out, "package")
	if said, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("mvn: %v\n%s", err, said)
	}
	return filepath.Join(out, "hawkbit-1.jar")
}

// hawkBit is one that runs.
type hawkBit struct {
	address string
	roots   *x509.CertPool
}

func startHawkBit(b *testing.B, program string, database ...string) *hawkBit {
	b.Helper()
	h, dir := &hawkBit{roots: x509.NewCertPool()}, b.TempDir()
	l, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	benchMust(b, err)
	h.address = l.Addr().String()
	benchMust(b, l.Close())
	_, port, err := net.SplitHostPort(h.address)
	benchMust(b, err)
	settings, err := filepath.Abs("../bench/peers/hawkbit/application.properties")
	benchMust(b, err)
	args := append([]string{
		"--add-opens", "java.base/java.lang=ALL-UNNAMED", "--add-opens", "java.base/java.util=ALL-UNNAMED", "-jar", program, // its Spring is older than the platform's modules
		"--spring.config.location=" + settings, "--server.port=" + port,
		"--server.ssl.key-store=" + h.keyStore(b, dir), "--server.ssl.key-store-type=PKCS12", "--server.ssl.key-store-password=secret",
	}, database...)
	cmd := exec.CommandContext(context.WithoutCancel(b.Context()), "java", args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &said, &said, dir
	benchMust(b, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	b.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	for begun := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		if _, err := h.manage(b, http.MethodGet, "/rest/v1/targets", nil); err == nil {
			return h
		} else if time.Since(begun) > 2*time.Minute {
			_ = cmd.Process.Kill()
			ended <- <-ended
			b.Fatalf("hawkBit does not come up: %v\n%s", err, said.String())
		}
	}
}

// keyStore makes a certificate of its own, in the form that Java reads.
func (h *hawkBit) keyStore(b *testing.B, dir string) string {
	b.Helper()
	key := newKey(b)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hawkbit"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hawkbit"}}, key.Public(), key)
	benchMust(b, err)
	cert, err := x509.ParseCertificate(der)
	benchMust(b, err)
	h.roots.AddCert(cert)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	benchMust(b, err)
	both := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	store := filepath.Join(dir, "own.p12")
	cmd := exec.CommandContext(b.Context(), "openssl", "pkcs12", "-export", "-passout", "pass:secret", "-out", store)
	cmd.Stdin = bytes.NewReader(both)
	if said, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("openssl: %v\n%s", err, said)
	}
	return store
}

// manage asks its Management API.
func (h *hawkBit) manage(b *testing.B, method, path string, body any) ([]byte, error) {
	b.Helper()
	sent, err := json.Marshal(body)
	benchMust(b, err)
	r, err := http.NewRequestWithContext(b.Context(), method, "https://"+h.address+path, bytes.NewReader(sent))
	benchMust(b, err)
	r.SetBasicAuth("admin", "admin")
	r.Header.Set("Content-Type", "application/json")
	c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: h.roots}, DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, got)
	}
	return got, errors.Join(err, resp.Body.Close())
}

// warm is how long it is asked before it is measured.
const warm = 10 * time.Second

// clients are some that it knows, and that it has answered often.
func (h *hawkBit) clients(b *testing.B) []*ddiClient {
	b.Helper()
	clients := make([]*ddiClient, pollers)
	for i := range clients {
		name := fmt.Sprintf("press-%d", i)
		_, err := h.manage(b, http.MethodPost, "/rest/v1/targets", []map[string]string{{"controllerId": name, "name": name, "securityToken": "secret-" + name}})
		benchMust(b, err)
		clients[i] = &ddiClient{address: "/DEFAULT/controller/v1/" + name, token: "secret-" + name}
		if told := clients[i].begin(b, h.roots, h.address); !strings.Contains(string(told), `"sleep"`) {
			b.Fatalf("told %s", told)
		}
	}
	for begun := time.Now(); time.Since(begun) < warm; {
		askDDI(b, clients, 1000)
	}
	return clients
}
