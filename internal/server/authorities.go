package server

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/lines"
	"github.com/hallmark-iot/hallmark/pki"
)

// adoptCAs has the CAs that init made stand with the others, so that there is one list of them.
func (i *Instance) adoptCAs(ctx context.Context) error {
	cas := i.db.PKI()
	var errs []error
	for _, c := range []struct {
		role pki.Role
		cert *x509.Certificate
	}{{pki.Root, i.auth.root}, {pki.Product, i.auth.product.Cert}, {pki.Operational, i.auth.operational.Cert}, {pki.Infra, i.auth.infra.Cert}} {
		errs = append(errs, cas.AdoptCA(ctx, pki.CA{SKI: pki.SKIOf(c.cert), Role: c.role, DER: c.cert.Raw}))
	}
	return errors.Join(errs...)
}

// public serves what is signed anyhow, to everybody, and over plain HTTP: who checks a certificate by it cannot check another one first.
func (i *Instance) public() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /crl/{issuer}/{file}", i.serveList)
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
