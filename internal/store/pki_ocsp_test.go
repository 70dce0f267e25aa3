package store_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/pki"
)

// asked is what the service answers about a serial number.
func (w *authorityWorld) asked(number *big.Int) *ocsp.Response {
	w.t.Helper()
	req, err := ocsp.CreateRequest(&x509.Certificate{SerialNumber: number}, w.operational.Cert, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	st, err := w.service.OCSP(w.t.Context(), req)
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := ocsp.ParseResponse(st.DER, w.operational.Cert)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func TestAStatusIsGoodOnlyOfWhatWasIssued(t *testing.T) {
	w := newAuthorityWorld(t)
	good, bad := w.issue(w.service, deviceID(1)), w.issue(w.service, deviceID(2))
	if len(good.OCSPServer) != 1 || good.OCSPServer[0] != crlBase+"/ocsp" {
		t.Errorf("the certificate names %v", good.OCSPServer)
	}
	if st := w.asked(bad.SerialNumber); st.Status != ocsp.Good {
		t.Errorf("before: %d", st.Status)
	}
	if err := w.service.RevokeDevice(t.Context(), access.Internal("test"), deviceID(2), "pump", pki.KeyCompromise); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		number *big.Int
		want   int
	}{"good": {good.SerialNumber, ocsp.Good}, "revoked": {bad.SerialNumber, ocsp.Revoked}, "issued by nobody": {big.NewInt(4711), ocsp.Unknown}} {
		st := w.asked(c.number)
		if st.Status != c.want || c.want == ocsp.Revoked && st.RevocationReason != pki.KeyCompromise || st.NextUpdate.Sub(st.ThisUpdate) > 25*time.Hour {
			t.Errorf("%s: status %d, reason %d, until %s", name, st.Status, st.RevocationReason, st.NextUpdate)
		}
	}
	for name, request := range map[string][]byte{"no request": []byte("x"), "nothing": nil, "too much": make([]byte, 1<<16)} {
		if st, err := w.service.OCSP(t.Context(), request); err != nil || string(st.DER) != string(ocsp.MalformedRequestErrorResponse) {
			t.Errorf("%s: %x, %v", name, st.DER, err)
		}
	}
	foreign, err := ocsp.CreateRequest(good, w.infra.Cert, nil)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := w.service.OCSP(t.Context(), foreign); err != nil || string(st.DER) != string(ocsp.UnauthorizedErrorResponse) {
		t.Errorf("of another CA: %x, %v", st.DER, err)
	}
	w.opensslAsks(good, bad)
}

// opensslAsks has openssl write requests, and judge the answers.
func (w *authorityWorld) opensslAsks(good, bad *x509.Certificate) {
	w.t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		w.t.Skip("openssl is not installed")
	}
	dir := w.t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, data []byte) {
		if err := os.WriteFile(in(name), data, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	cert := func(name string, c *x509.Certificate) {
		write(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	cert("root.pem", w.root.Cert)
	cert("ca.pem", w.operational.Cert)
	run := func(args ...string) string {
		out, err := exec.CommandContext(w.t.Context(), "openssl", append([]string{"ocsp"}, args...)...).CombinedOutput()
		return fmt.Sprint(string(out), err)
	}
	for name, c := range map[string]struct {
		cert *x509.Certificate
		want string
	}{"good": {good, ": good"}, "revoked": {bad, ": revoked"}} {
		cert("cert.pem", c.cert)
		if out := run("-issuer", in("ca.pem"), "-cert", in("cert.pem"), "-reqout", in("req.der")); !strings.HasSuffix(out, "<nil>") {
			w.t.Fatal(out)
		}
		req, err := os.ReadFile(in("req.der"))
		if err != nil {
			w.t.Fatal(err)
		}
		st, err := w.service.OCSP(w.t.Context(), req)
		if err != nil {
			w.t.Fatal(err)
		}
		write("resp.der", st.DER)
		out := run("-issuer", in("ca.pem"), "-cert", in("cert.pem"), "-respin", in("resp.der"), "-CAfile", in("root.pem"), "-verify_other", in("ca.pem"))
		if !strings.Contains(out, c.want) || !strings.Contains(out, "Response verify OK") {
			w.t.Errorf("%s, by openssl:\n%s", name, out)
		}
	}
}
