package est_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"io"
	stdlog "log"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/est"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/pki"
)

// dying is a process that ends between the commit and the answer.
type dying struct{ *onboard.Service }

func (d dying) Enrol(ctx context.Context, caller access.Caller, a onboard.Ask) (*x509.Certificate, error) {
	if _, err := d.Service.Enrol(ctx, caller, a); err != nil {
		return nil, err
	}
	panic(http.ErrAbortHandler) // the connection is gone, and nothing was said
}

// An answer that was lost after the commit is given again by another process, which remembers nothing: the same certificate, one fact.
func TestALostAnswerIsGivenAgain(t *testing.T) {
	w := newWorld(t)
	id, idev := w.made(true)
	serve := func(e est.Enroller) {
		s := httptest.NewUnstartedServer(est.New(est.Config{Onboard: e, CACerts: w.pki.CACerts}))
		s.TLS, s.Config.ErrorLog = w.server.TLS.Clone(), stdlog.New(io.Discard, "", 0)
		s.StartTLS()
		t.Cleanup(s.Close)
		w.server = s
	}
	key := newKey(t)
	serve(dying{w.onboard})
	csr := request(t, idev, key, nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.server.URL+est.Prefix+"simpleenroll", bytes.NewReader(csr))
	must(t, err)
	req.Header.Set("Content-Type", "application/pkcs10")
	if resp, err := w.as(idev).client.Do(req); err == nil {
		_ = resp.Body.Close()
		t.Fatalf("answered %d", resp.StatusCode)
	}
	if n := w.facts("cert.issued", id); n != 1 {
		t.Fatalf("%d facts after the commit", n)
	}
	guard, err := access.NewGuard(noAudit{})
	must(t, err)
	anew, err := pki.New(pki.Config{
		Guard: guard, Store: w.db.PKI(), Trust: w.pki.Trust(), Revocations: pki.NewRevocations(time.Minute), Operational: w.op, Root: w.root.Cert, Now: w.clock.now,
	})
	must(t, err)
	must(t, anew.Refresh(t.Context()))
	other, err := onboard.New(onboard.Config{Guard: guard, PKI: anew, Registry: w.registry, Store: w.db.Onboard(), Now: w.clock.now})
	must(t, err)
	serve(other)
	first := w.as(idev).post("simpleenroll", csr).cert(t)
	second := w.as(idev).post("simpleenroll", request(t, idev, key, nil)).cert(t)
	kept, err := w.db.PKI().Certificates(t.Context(), id, "", 10)
	must(t, err)
	if !first.Equal(second) || len(kept) != 1 || string(kept[0].DER) != string(first.Raw) || w.facts("cert.issued", id) != 1 || w.facts("device.enrolled", id) != 1 {
		t.Errorf("%d certificates, %d facts", len(kept), w.facts("cert.issued", id))
	}
}
