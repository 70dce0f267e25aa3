package server

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/lines"
	"github.com/hallmark-iot/hallmark/monitor"
	"github.com/hallmark-iot/hallmark/pki"
	"github.com/hallmark-iot/hallmark/pki/profile"
	"github.com/hallmark-iot/hallmark/product"
)

// adoptCAs has the CAs that init made stand with the others, so that there is one list of them.
func (i *Instance) adoptCAs(ctx context.Context) error {
	cas := i.db.PKI()
	var errs []error
	for _, c := range []struct {
		role profile.Role
		cert *x509.Certificate
	}{{profile.Root, i.auth.root}, {profile.Product, i.auth.product.Cert}, {profile.Operational, i.auth.operational.Cert}, {profile.Infra, i.auth.infra.Cert}} {
		errs = append(errs, cas.AdoptCA(ctx, pki.CA{SKI: pki.SKIOf(c.cert), Role: c.role, DER: c.cert.Raw}))
	}
	return errors.Join(errs...)
}

// public serves what is signed anyhow, to everybody, and over plain HTTP: who checks a certificate by it cannot check another one first.
func (i *Instance) public() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /crl/{issuer}/{file}", i.serveList)
	mux.HandleFunc("POST /ocsp", i.serveStatus)
	mux.HandleFunc("GET /ocsp/{request...}", i.serveStatus)
	return mux
}

// serveList serves a list of revocations (RFC 5280), with what caches between need to know: it may be kept until it has run out, and asked for
// again by its number.
func (i *Instance) serveList(w http.ResponseWriter, r *http.Request) {
	id, ok := pki.ParseListFile(r.PathValue("issuer"), r.PathValue("file"))
	if !ok {
		http.Error(w, pki.ErrNoList.Error(), http.StatusNotFound)
		return
	}
	l, err := i.pki.List(r.Context(), id)
	if err != nil {
		status := http.StatusInternalServerError
		if f, ok := errors.AsType[*fault.Fault](err); ok {
			status = f.Kind.Status()
		}
		if status >= http.StatusInternalServerError {
			i.log.WarnContext(r.Context(), "list of revocations", "list", id.Issuer+"/"+id.File(), "error", err)
		}
		if status == http.StatusInternalServerError {
			http.Error(w, "internal error", status)
			return
		}
		http.Error(w, err.Error(), status)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/pkix-crl")
	h.Set("ETag", `"`+strconv.FormatInt(l.Number, 10)+`"`)
	h.Set("Cache-Control", "public, max-age=60, must-revalidate")
	h.Set("Expires", l.Next.UTC().Format(http.TimeFormat))
	http.ServeContent(w, r, "", l.Made, bytes.NewReader(l.DER))
}

// listenPublic opens the listener of what is public, where one is configured.
func (i *Instance) listenPublic(ctx context.Context) ([]net.Listener, error) {
	if i.cfg.Public == "" {
		return nil, nil
	}
	l, err := listen(ctx, i.cfg.Public)
	return []net.Listener{l}, err
}

// judgeLine says whether a device may stay connected. That nobody can tell cuts no line: each call on it asks again, and is refused.
func (i *Instance) judgeLine(chain []*x509.Certificate) (string, lines.Verdict) {
	now := time.Now()
	d, err := i.auth.trust.VerifyDevice(chain, now)
	if err != nil {
		return "", lines.Cut
	}
	err = i.pki.Revocations().CheckConnection(d.Cert, d.Identity.DeviceID, now)
	if f, ok := errors.AsType[*fault.Fault](err); ok && f.Kind == fault.Denied {
		return d.Identity.DeviceID, lines.Cut
	}
	return d.Identity.DeviceID, lines.Stay
}

// maxStatusRequest bounds what is read of a request for one certificate's status.
const maxStatusRequest = 4 << 10

// serveStatus is OCSP over HTTP (RFC 6960 appendix A).
func (i *Instance) serveStatus(w http.ResponseWriter, r *http.Request) {
	var der []byte
	var err error
	if r.Method == http.MethodPost {
		der, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxStatusRequest))
	} else {
		der, err = base64.StdEncoding.DecodeString(r.PathValue("request"))
	}
	if err != nil {
		http.Error(w, "no request for a certificate's status", http.StatusBadRequest)
		return
	}
	st, err := i.pki.OCSP(r.Context(), der)
	if err != nil {
		i.log.WarnContext(r.Context(), "status of a certificate", "error", err)
		http.Error(w, "the status cannot be told now", http.StatusServiceUnavailable)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/ocsp-response")
	h.Set("Content-Length", strconv.Itoa(len(st.DER)))
	if !st.Until.IsZero() && r.Method == http.MethodGet {
		h.Set("Cache-Control", "public, max-age=60, must-revalidate")
		h.Set("Expires", st.Until.UTC().Format(http.TimeFormat))
	}
	_, _ = w.Write(st.DER) // who asked went away
}

// statusKnown is how long a product's setting is believed before it is read again: each certificate that is issued asks.
const statusKnown = 2 * time.Second

// askedForStatus says whether a product's certificates are to name this instance as their OCSP responder.
func (i *Instance) askedForStatus() func(context.Context, string) (bool, error) {
	type known struct {
		asks  bool
		until time.Time
	}
	var mu sync.Mutex
	read := map[string]known{} // guarded by mu; a product's ID stands in a certificate of ours, so there are few
	return func(ctx context.Context, id string) (bool, error) {
		mu.Lock()
		k, ok := read[id]
		mu.Unlock()
		if ok && time.Now().Before(k.until) {
			return k.asks, nil
		}
		p, err := i.db.Product(ctx, id)
		if err != nil && !errors.Is(err, product.ErrNotFound) {
			return false, err
		}
		mu.Lock()
		defer mu.Unlock()
		read[id] = known{p.Enrolment.OCSP, time.Now().Add(statusKnown)}
		return p.Enrolment.OCSP, nil
	}
}

// endingBefore is how long before the end of a CA that signs what is new a person is told: people have to come together for the next one.
const endingBefore = 365 * 24 * time.Hour

// watchCAs keeps the findings about CAs that end.
func (i *Instance) watchCAs(ctx context.Context, now time.Time) error {
	caller := access.Internal("pki")
	var errs []error
	for _, a := range i.auth.held.All() {
		issuing, err := i.auth.held.Issuing(a.Role, a.Product(), now)
		signs := err != nil || issuing.SKI() == a.SKI() // with none that is valid, the last one is what is missed
		left := a.Cert.NotAfter.Sub(now)
		f := monitor.Finding{Kind: monitor.CAEnding, Severity: monitor.Medium, Subject: a.SKI(), Product: a.Product(), Text: clip(fmt.Sprintf(
			"the %s CA %q ends on %s; nothing it signs is valid after that", a.Role, a.Cert.Subject, a.Cert.NotAfter.UTC().Format(time.DateOnly)))}
		if left < endingBefore/6 {
			f.Severity = monitor.High
		}
		lasts := signs && left < min(endingBefore, a.Cert.NotAfter.Sub(a.Cert.NotBefore)/4)
		errs = append(errs, i.monitor.Keep(ctx, caller, f, lasts, "another has taken over"))
	}
	return errors.Join(errs...)
}
