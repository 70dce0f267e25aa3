package witnessd_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/internal/witnessd"
)

// certificate writes a certificate for 127.0.0.1 with a serial number, and its key.
func certificate(t *testing.T, dir string, serial int64) witnessd.Listen {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	at := witnessd.Listen{Address: "127.0.0.1:0", Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	for path, block := range map[string]*pem.Block{at.Cert: {Type: "CERTIFICATE", Bytes: cert}, at.Key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return at
}

// serial asks once, on a connection of its own, and gives the serial number of the certificate it was shown.
func serial(t *testing.T, url string) int64 {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "here" {
		t.Errorf("%q, %v", body, err)
	}
	return resp.TLS.PeerCertificates[0].SerialNumber.Int64()
}

func TestARenewedCertificateIsTakenUp(t *testing.T) {
	dir := t.TempDir()
	at := certificate(t, dir, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan string, 1), make(chan error, 1)
	here := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here") })
	go func() {
		done <- witnessd.Serve(ctx, at, here, slog.New(slog.DiscardHandler), func(url string) { ready <- url })
	}()
	var url string
	select {
	case url = <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	if got := serial(t, url); got != 1 || !strings.HasPrefix(url, "https://") {
		t.Errorf("%s shows certificate %d", url, got)
	}
	certificate(t, dir, 2)
	if got := serial(t, url); got != 2 {
		t.Errorf("renewed, and it shows certificate %d", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("at the end: %v", err)
	}
	at.Cert = filepath.Join(dir, "none.pem")
	if err := witnessd.Serve(t.Context(), at, here, slog.New(slog.DiscardHandler), func(string) {}); err == nil || !strings.Contains(err.Error(), "none.pem") {
		t.Errorf("without its certificate: %v", err)
	}
}
