package est

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/hallmark-iot/hallmark/wire"
)

// Rekeyer gives new identities to devices that show a voucher; rekey.Service is one.
type Rekeyer interface {
	Kit(ctx context.Context, device, voucher string) (wire.RecoveryKit, error)
	Recover(ctx context.Context, device, voucher string, csr []byte) (*x509.Certificate, error)
}

// VoucherPrefix is where devices without a key show a voucher: by HTTP Basic authentication (RFC 7030 §3.2.3), their ID as the user and the voucher as the
// password. It is the only path on which that counts for anything; no product's name has an underscore, so that it is nobody's label.
const VoucherPrefix = Prefix + "_rekey/"

// NewVoucher makes the handler for VoucherPrefix. It is for the devices' listener, inside TLS.
func NewVoucher(r Rekeyer, log *slog.Logger) http.Handler {
	h := &handler{Config{Log: log}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+VoucherPrefix+"kit", func(w http.ResponseWriter, req *http.Request) {
		device, voucher, ok := h.shown(w, req)
		if !ok {
			return
		}
		k, err := r.Kit(req.Context(), device, voucher)
		if err != nil {
			h.fail(w, req, err)
			return
		}
		b, err := wire.EncodeRecoveryKit(k)
		if err != nil {
			h.fail(w, req, err)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Type", "application/cbor")
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		_, _ = w.Write(b) //nolint:gosec // CBOR is no markup; and the device's line is the device's
	})
	mux.HandleFunc("POST "+VoucherPrefix+"simpleenroll", func(w http.ResponseWriter, req *http.Request) {
		device, voucher, ok := h.shown(w, req)
		if !ok {
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			h.text(w, http.StatusRequestEntityTooLarge, "the request's body is more than 32 KiB: send the certificate request alone")
			return
		}
		if err != nil {
			h.text(w, http.StatusBadRequest, "the request's body is not whole: send it again")
			return
		}
		csr, err := DecodeCSR(body)
		if err != nil {
			h.fail(w, req, err)
			return
		}
		cert, err := r.Recover(req.Context(), device, voucher, csr)
		if err != nil {
			h.fail(w, req, err)
			return
		}
		h.certs(w, certsOnly, cert)
	})
	return mux
}

// shown reads what the device shows. Without ok it has been answered.
func (h *handler) shown(w http.ResponseWriter, r *http.Request) (device, voucher string, ok bool) {
	if r.TLS == nil {
		h.text(w, http.StatusForbidden, "a voucher is shown inside TLS only")
		return "", "", false
	}
	device, voucher, ok = r.BasicAuth()
	if !ok || len(device) > 64 || len(voucher) > 128 {
		w.Header().Set("WWW-Authenticate", `Basic realm="hallmark voucher", charset="UTF-8"`)
		h.text(w, http.StatusUnauthorized, "no voucher: show the device's ID as the user and the voucher as the password")
		return "", "", false
	}
	return device, voucher, true
}
