// Package est is Enrolment over Secure Transport (RFC 7030, with RFC 8951 and RFC 9908) in front of onboarding.
//
// Stage 3, an edge. Strict in what it sends (the strictest clients want 64-column base64 with newlines, an exact content type, a
// Content-Length and one certificate only), tolerant in what it takes (any white space, PEM armour, raw DER). It decides nothing:
// who asks is what TLS showed, and whether that is good is for package onboard. Whatever is refused is refused in one line of plain
// text that says what is wrong and what to do.
package est

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/smallstep/pkcs7"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/failpoint"
	"github.com/hallmark-iot/hallmark/onboard"
	"github.com/hallmark-iot/hallmark/wire/idevid"
)

// maxBody bounds a request's body: the largest CSR in base64 with room for white space.
const maxBody = 32 << 10

// Enroller is what EST stands in front of; onboard.Service is one.
type Enroller interface {
	Enrol(ctx context.Context, caller access.Caller, a onboard.Ask) (*x509.Certificate, error)
	Reenrol(ctx context.Context, caller access.Caller, a onboard.Ask) (*x509.Certificate, error)
	Generate(ctx context.Context, caller access.Caller, a onboard.Ask) (*x509.Certificate, crypto.PrivateKey, error)
	Wanted(ctx context.Context, presented []*x509.Certificate, label string) (onboard.Wanted, error)
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

// New makes the handler for Prefix. The listener asks for client certificates without demanding them (/cacerts and /csrattrs are for
// everybody) and checks them with pki.VerifyConnection. Each call may have a label before it, the device's product (RFC 7030 §3.2.2).
func New(c Config) http.Handler {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Identity == nil {
		c.Identity = idevid.Parse
	}
	h := &handler{c}
	mux := http.NewServeMux()
	for _, at := range []string{Prefix, Prefix + "{label}/"} {
		mux.HandleFunc("GET "+at+"cacerts", h.cacerts)
		mux.HandleFunc("GET "+at+"csrattrs", h.csrattrs)
		mux.HandleFunc("POST "+at+"simpleenroll", h.enrol(c.Onboard.Enrol))
		mux.HandleFunc("POST "+at+"simplereenroll", h.enrol(c.Onboard.Reenrol))
		mux.HandleFunc("POST "+at+"serverkeygen", h.serverkeygen)
	}
	mux.HandleFunc("POST "+Prefix+"fullcmc", func(w http.ResponseWriter, _ *http.Request) {
		h.text(w, http.StatusNotImplemented, "full CMC is not done here: use simpleenroll")
	})
	return mux
}

func (h *handler) enrol(do func(context.Context, access.Caller, onboard.Ask) (*x509.Certificate, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a, caller, ok := h.ask(w, r)
		if !ok {
			return
		}
		cert, err := do(r.Context(), caller, a)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		failpoint.Hit("est.before-answer")
		h.certs(w, certsOnly, cert)
	}
}

const certsOnly = "application/pkcs7-mime; smime-type=certs-only"

// ask reads a request, and who makes it. Without ok it has been answered.
func (h *handler) ask(w http.ResponseWriter, r *http.Request) (a onboard.Ask, caller access.Caller, ok bool) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		h.text(w, http.StatusUnauthorized, "no client certificate: enrol with the certificate from the factory")
		return a, caller, false
	}
	if ct := r.Header.Get("Content-Type"); ct != "" {
		if m, _, err := mime.ParseMediaType(ct); err != nil || m != "application/pkcs10" {
			h.text(w, http.StatusUnsupportedMediaType, "want Content-Type application/pkcs10")
			return a, caller, false
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		h.text(w, http.StatusRequestEntityTooLarge, "the request's body is more than 32 KiB: send the certificate request alone")
		return a, caller, false
	}
	if err != nil {
		h.text(w, http.StatusBadRequest, "the request's body is not whole: send it again")
		return a, caller, false
	}
	a = onboard.Ask{Presented: r.TLS.PeerCertificates, Label: r.PathValue("label"), Bindings: bindings(r.TLS)}
	if a.CSR, err = DecodeCSR(body); err != nil {
		h.fail(w, r, err)
		return a, caller, false
	}
	id, err := h.c.Identity(a.Presented[0])
	if err != nil {
		h.text(w, http.StatusForbidden, "the client certificate is not a device's: use that from the factory, or that which enrolment gave")
		return a, caller, false
	}
	return a, access.DeviceCaller(id.DeviceID), true
}

func (h *handler) cacerts(w http.ResponseWriter, _ *http.Request) {
	h.certs(w, "application/pkcs7-mime", h.c.CACerts()...)
}

func (h *handler) csrattrs(w http.ResponseWriter, r *http.Request) {
	var presented []*x509.Certificate
	if r.TLS != nil {
		presented = r.TLS.PeerCertificates
	}
	wanted, err := h.c.Onboard.Wanted(r.Context(), presented, r.PathValue("label"))
	if err != nil {
		h.fail(w, r, err)
		return
	}
	der, err := csrAttrs(wanted)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.base64(w, "application/csrattrs", der)
}

// boundary parts what serverkeygen answers; base64 has no '-'.
const boundary = "hallmark-est"

// serverkeygen answers with the key (PKCS #8), then its certificate (RFC 7030 §4.4.2).
func (h *handler) serverkeygen(w http.ResponseWriter, r *http.Request) {
	a, caller, ok := h.ask(w, r)
	if !ok {
		return
	}
	cert, key, err := h.c.Onboard.Generate(r.Context(), caller, a)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	certs, err := pkcs7.DegenerateCertificate(cert.Raw)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	var body []byte
	for _, part := range []struct {
		contentType string
		der         []byte
	}{{"application/pkcs8", pkcs8}, {certsOnly, certs}} {
		body = append(body, "--"+boundary+"\r\nContent-Type: "+part.contentType+"\r\nContent-Transfer-Encoding: base64\r\n\r\n"...)
		body = append(appendBase64(body, part.der), "\r\n"...)
	}
	body = append(body, "--"+boundary+"--\r\n"...)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "multipart/mixed; boundary="+boundary)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client's line is the client's
}

func (h *handler) certs(w http.ResponseWriter, contentType string, certs ...*x509.Certificate) {
	var all []byte
	for _, c := range certs {
		all = append(all, c.Raw...)
	}
	der, err := pkcs7.DegenerateCertificate(all)
	if err != nil {
		h.c.Log.Error("est: certs-only", "error", err)
		h.text(w, http.StatusInternalServerError, internal)
		return
	}
	h.base64(w, contentType, der)
}

// base64 writes 64 columns to a line. The header names are set in the map so that their form is exactly the RFC's.
func (h *handler) base64(w http.ResponseWriter, contentType string, der []byte) {
	body := appendBase64(nil, der)
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Transfer-Encoding", "base64")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) //nolint:gosec // base64 is no markup; and the client's line is the client's
}

func appendBase64(to, der []byte) []byte {
	const bytes = 48 // 64 columns
	to = slices.Grow(to, base64.StdEncoding.EncodedLen(len(der))+len(der)/bytes+1)
	for len(der) > 0 {
		n := min(len(der), bytes)
		to = append(base64.StdEncoding.AppendEncode(to, der[:n]), '\n')
		der = der[n:]
	}
	return to
}

const internal = "something went wrong on the server; its log says what"

func (h *handler) text(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)+1))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") //nolint:gosec // plain text, which no browser may take for anything else
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
		w.Header().Set("Retry-After", "1800")
	case fault.Unavailable:
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "30")
	case fault.Internal:
		h.c.Log.ErrorContext(r.Context(), "est: enrolment failed", "path", r.URL.Path, "error", err)
		h.text(w, status, internal)
		return
	}
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		h.c.Log.InfoContext(r.Context(), "est: refused", "path", r.URL.Path, "code", f.Code, "text", f.Text)
		h.text(w, status, f.Code+": "+f.Error())
	}
}
