package store_test

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
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

// counted counts the signatures of a CA.
type counted struct {
	crypto.Signer
	n atomic.Int64
}

func (c *counted) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	c.n.Add(1)
	return c.Signer.Sign(r, digest, o)
}

// What is revoked is answered for by what was signed before anybody asked, on each node, after a start too, and anew when it gets old.
func TestTheStatusOfARevokedCertificateIsMadeAhead(t *testing.T) {
	w := newAuthorityWorld(t)
	key := &counted{Signer: newKey(t)}
	cert, err := w.root.Sub(profile.Operational, pki.Name{OEM: "acme"}, key.Public(), w.now)
	if err != nil {
		t.Fatal(err)
	}
	if w.operational, err = pki.NewAuthority(profile.Operational, cert, key); err != nil {
		t.Fatal(err)
	}
	w.service = w.node()
	bad, replaced, good := w.issue(w.service, deviceID(1)), w.issue(w.service, deviceID(2)), w.issue(w.service, deviceID(3))
	w.issue(w.service, deviceID(2)) // the one before is superseded: nobody waits for that
	if err := w.service.RevokeDevice(t.Context(), access.Internal("test"), deviceID(1), "pump", pki.KeyCompromise); err != nil {
		t.Fatal(err)
	}
	keep := func() (made int64) {
		t.Helper()
		before := key.n.Load()
		for range 3 {
			if err := errors.Join(w.service.Refresh(t.Context()), w.service.KeepStatuses(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
		return key.n.Load() - before
	}
	if n := keep(); n != 2 { // by SHA-1 and by SHA-256
		t.Fatalf("%d answers were signed ahead, want 2", n)
	}
	ask := func(c *x509.Certificate, by crypto.Hash) (*ocsp.Response, int64) {
		t.Helper()
		req, err := ocsp.CreateRequest(c, w.operational.Cert, &ocsp.RequestOptions{Hash: by})
		if err != nil {
			t.Fatal(err)
		}
		before := key.n.Load()
		st, err := w.service.OCSP(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		out, err := ocsp.ParseResponse(st.DER, w.operational.Cert)
		if err != nil {
			t.Fatal(err)
		}
		return out, key.n.Load() - before
	}
	for _, by := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		if st, signed := ask(bad, by); st.Status != ocsp.Revoked || st.RevocationReason != pki.KeyCompromise || signed != 0 {
			t.Errorf("%v: status %d, %d signatures when it was asked for", by, st.Status, signed)
		}
	}
	for name, c := range map[string]*x509.Certificate{"good": good, "replaced, with time left": replaced} {
		if st, signed := ask(c, crypto.SHA1); st.Status != ocsp.Good || signed != 1 {
			t.Errorf("%s: status %d, %d signatures", name, st.Status, signed)
		}
	}
	w.now = w.now.Add(13 * time.Hour)
	if n := keep(); n != 2 {
		t.Errorf("half a day later %d were signed, want 2", n)
	}
	if n := keep(); n != 0 {
		t.Errorf("for nothing %d were signed", n)
	}
	w.service = w.node() // the next start
	if n := keep(); n != 2 {
		t.Errorf("after a start %d were signed, want 2", n)
	}
}

// A product that asks no more is answered for as long as its certificates say that it is; its new ones say it no more.
func TestAProductsStatusIsAsItAsks(t *testing.T) {
	w := newAuthorityWorld(t)
	named := w.issue(w.service, deviceID(1))
	w.silent = true
	silent := w.issue(w.service, deviceID(2))
	if len(named.OCSPServer) != 1 || len(silent.OCSPServer) != 0 {
		t.Errorf("certificates name %v and %v", named.OCSPServer, silent.OCSPServer)
	}
	if st := w.asked(named.SerialNumber); st.Status != ocsp.Good {
		t.Errorf("a certificate that names the responder: %d", st.Status)
	}
	req, err := ocsp.CreateRequest(silent, w.operational.Cert, nil)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := w.service.OCSP(t.Context(), req); err != nil || string(st.DER) != string(ocsp.UnauthorizedErrorResponse) {
		t.Errorf("of one that does not: %x, %v", st.DER, err)
	}
	w.silent = false
	if st := w.asked(silent.SerialNumber); st.Status != ocsp.Good {
		t.Errorf("when the product asks later: %d", st.Status)
	}
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
