// Package est is Enrolment over Secure Transport (RFC 7030, with the clarifications of RFC 8951) in front of onboarding.
//
// Stage 3, an edge. Strict in what it sends (the strictest clients want 64-column base64 with newlines, an exact content type, a
// Content-Length and one certificate only), tolerant in what it takes (any white space, PEM armour, raw DER). It decides nothing:
// who asks is what TLS showed, and whether that is good is for package onboard.
package est

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/smallstep/pkcs7"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// maxBody bounds a request's body: the largest CSR in base64 with room for white space.
const maxBody = 32 << 10

// Enroller is what EST stands in front of; onboard.Service is one.
type Enroller interface {
	Enrol(ctx context.Context, caller access.Caller, presented []*x509.Certificate, csr []byte) (*x509.Certificate, error)
	Reenrol(ctx context.Context, caller access.Caller, presented []*x509.Certificate, csr []byte) (*x509.Certificate, error)
}

// Config is what the handler works with.
type Config struct {
	Onboard  Enroller
	CACerts  func() []*x509.Certificate                       // issuing CA first
	Identity func(*x509.Certificate) (idevid.Identity, error) // nil: idevid.Parse
	Log      *slog.Logger                                     // nil: slog.Default
}

// Prefix is where the handler belongs.
const Prefix = "/.well-known/est/"

type handler struct{ c Config }

// New makes the handler for Prefix. The listener asks for client certificates without demanding them (/cacerts is for everybody)
// and checks them with pki.VerifyConnection.
func New(c Config) http.Handler {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Identity == nil {
		c.Identity = idevid.Parse
	}
	h := &handler{c}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Prefix+"cacerts", h.cacerts)
	mux.HandleFunc("GET "+Prefix+"csrattrs", h.csrattrs)
	mux.HandleFunc("POST "+Prefix+"simpleenroll", func(w http.ResponseWriter, r *http.Request) { h.enrol(w, r, c.Onboard.Enrol) })
	mux.HandleFunc("POST "+Prefix+"simplereenroll", func(w http.ResponseWriter, r *http.Request) { h.enrol(w, r, c.Onboard.Reenrol) })
	return mux
}

type verb func(ctx context.Context, caller access.Caller, presented []*x509.Certificate, csr []byte) (*x509.Certificate, error)

func (h *handler) enrol(w http.ResponseWriter, r *http.Request, do verb) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		h.text(w, http.StatusUnauthorized, "no client certificate: enrol with the certificate from the factory")
		return
	}
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if m, _, err := mime.ParseMediaType(ct); err != nil || m != "application/pkcs10" {
			h.text(w, http.StatusUnsupportedMediaType, "want Content-Type application/pkcs10")
			return
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		h.text(w, http.StatusRequestEntityTooLarge, "the request's body is not whole, or more than 32 KiB")
		return
	}
	csr, err := DecodeCSR(body)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	id, err := h.c.Identity(r.TLS.PeerCertificates[0])
	if err != nil {
		h.text(w, http.StatusForbidden, "the client certificate is not a device's")
		return
	}
	cert, err := do(r.Context(), access.DeviceCaller(id.DeviceID), r.TLS.PeerCertificates, csr)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.certs(w, "application/pkcs7-mime; smime-type=certs-only", cert)
}

func (h *handler) cacerts(w http.ResponseWriter, _ *http.Request) {
	h.certs(w, "application/pkcs7-mime", h.c.CACerts()...)
}

// csrattrs asks for an ECDSA key on P-256 (RFC 7030 §4.5.2): the pair {id-ecPublicKey, {secp256r1}}, then ecdsa-with-SHA256.
func (h *handler) csrattrs(w http.ResponseWriter, _ *http.Request) {
	der, err := asn1.Marshal(struct {
		Key struct {
			ID     asn1.ObjectIdentifier
			Values []asn1.ObjectIdentifier `asn1:"set"`
		}
		Sign asn1.ObjectIdentifier
	}{
		Key: struct {
			ID     asn1.ObjectIdentifier
			Values []asn1.ObjectIdentifier `asn1:"set"`
		}{asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, []asn1.ObjectIdentifier{{1, 2, 840, 10045, 3, 1, 7}}},
		Sign: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2},
	})
	if err != nil {
		h.c.Log.Error("est: csrattrs", "error", err)
		h.text(w, http.StatusInternalServerError, "internal error")
		return
	}
	h.base64(w, "application/csrattrs", der)
}

func (h *handler) certs(w http.ResponseWriter, contentType string, certs ...*x509.Certificate) {
	var all []byte
	for _, c := range certs {
		all = append(all, c.Raw...)
	}
	der, err := pkcs7.DegenerateCertificate(all)
	if err != nil {
		h.c.Log.Error("est: certs-only", "error", err)
		h.text(w, http.StatusInternalServerError, "internal error")
		return
	}
	h.base64(w, contentType, der)
}

// base64 writes 64 columns to a line. The header names are set in the map so that their form is exactly the RFC's.
func (h *handler) base64(w http.ResponseWriter, contentType string, der []byte) {
	flat := base64.StdEncoding.EncodeToString(der)
	body := make([]byte, 0, len(flat)+len(flat)/64+1)
	for len(flat) > 64 {
		body = append(append(body, flat[:64]...), '\n')
		flat = flat[64:]
	}
	body = append(append(body, flat...), '\n')
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Transfer-Encoding", "base64")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client's line is the client's
}

func (h *handler) text(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)+1))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}

func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	if p, ok := errors.AsType[*onboard.Pending](err); ok {
		w.Header().Set("Retry-After", strconv.Itoa(int((p.After+time.Second-1)/time.Second)))
		h.text(w, http.StatusAccepted, p.Error())
		return
	}
	status := http.StatusInternalServerError
	switch fault.KindOf(err) {
	case fault.Invalid:
		status = http.StatusBadRequest
	case fault.NotFound:
		status = http.StatusNotFound
	case fault.Conflict:
		status = http.StatusConflict
	case fault.Denied:
		status = http.StatusForbidden
	case fault.Exhausted:
		status = http.StatusTooManyRequests
	case fault.Unavailable:
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "30")
	case fault.Internal:
		h.c.Log.ErrorContext(r.Context(), "est: enrolment failed", "path", r.URL.Path, "error", err)
		h.text(w, status, "internal error")
		return
	}
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		h.c.Log.InfoContext(r.Context(), "est: refused", "path", r.URL.Path, "code", f.Code, "text", f.Text)
		h.text(w, status, f.Code+": "+f.Error())
	}
}
