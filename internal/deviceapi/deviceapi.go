// Package deviceapi is the listener that devices call: CBOR over HTTP inside mutual TLS.
//
// Stage 3, field, an adapter. Who calls is the certificate of the connection, nothing in a body. An IDevID may only enrol; an
// LDevID may do the rest. Bodies are bounded before they are read; what a handler answers with success is durable.
package deviceapi

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/device"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/content"
	"github.com/hallmark-iot/hallmark/wire"
)

// Config is what the listener hands its calls to. Each function is a stage's verb.
type Config struct {
	// Identify names the device of a verified chain. It fails with fault.Unavailable where nobody can tell now whether it is revoked.
	Identify func(chain []*x509.Certificate) (Peer, error)
	// Epoch is another whenever Identify might say something else for another reason than that time has passed; nil: it is asked at each call.
	Epoch     func() uint64
	Checkin   func(ctx context.Context, caller access.Caller, device string, body []byte) ([]byte, error) // both encoded
	Attest    func(ctx context.Context, caller access.Caller, device string, evidence []byte) (wire.AttestReply, error)
	AttestKey func(ctx context.Context, caller access.Caller, device string, change []byte) error
	Trust     func(ctx context.Context, caller access.Caller, device string, record []byte) error
	Log       func(ctx context.Context, caller access.Caller, device string, batch []byte) (wire.LogReply, error)
	Telemetry func(ctx context.Context, caller access.Caller, device string, upload []byte) error
	Receipt   func(ctx context.Context, caller access.Caller, device string, receipt []byte) error
	// Artifact opens a component that a published release of the device's product has.
	Artifact func(ctx context.Context, caller access.Caller, device string, digest [32]byte) (io.ReadSeekCloser, error)
	EST      http.Handler
	Vouchers http.Handler // of devices without keys; nil: none
	History  http.Handler // the signed history of trust bundles, for anybody
	Logger   *slog.Logger
}

// Peer is whose certificate a connection has.
type Peer struct {
	Device      string
	Operational bool // an LDevID
	Ended       bool // its life is over: it may bring its receipt, and is told 410 Gone otherwise
}

// maxReceipt bounds a signed wipe receipt.
const maxReceipt = 8 << 10

const receiptPath = "/d/v1/receipt"

type handler struct{ cfg Config }

// Handler serves the device API and EST.
func Handler(cfg Config) http.Handler {
	h := &handler{cfg: cfg}
	mux := http.NewServeMux()
	mux.Handle("/.well-known/est/", cfg.EST)
	if cfg.Vouchers != nil {
		mux.Handle("/.well-known/est/_rekey/", cfg.Vouchers)
	}
	if cfg.History != nil {
		mux.Handle(TrustPrefix, cfg.History)
	}
	mux.HandleFunc("POST /d/v1/checkin", h.on(wire.MaxCheckin, h.checkin))
	mux.HandleFunc("POST /d/v1/attest", h.on(wire.MaxEvidence+wire.MaxSign1, h.attest))
	mux.HandleFunc("POST /d/v1/attest-key", h.on(wire.MaxNewAttestKey+3*wire.MaxSign1, h.attestKey))
	mux.HandleFunc("POST /d/v1/trust", h.on(wire.MaxTrust, h.trust))
	mux.HandleFunc("POST /d/v1/log", h.on(wire.MaxLogBatch+wire.MaxSign1, h.log))
	mux.HandleFunc("POST /d/v1/telemetry", h.on(wire.MaxUpload, h.telemetry))
	mux.HandleFunc("POST "+receiptPath, h.on(maxReceipt, h.receipt))
	mux.HandleFunc("GET /d/v1/artifact/{digest}", h.artifact)
	return mux
}

// call is one request of an identified device.
type call struct {
	device string
	caller access.Caller
	body   []byte
}

// on identifies the device, reads its body, and sends what serve returns; nil is 204.
func (h *handler) on(limit int64, serve func(ctx context.Context, c call) ([]byte, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, ok := h.identify(w, r)
		if !ok {
			return
		}
		var err error
		if c.body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, limit)); err != nil {
			if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
				http.Error(w, "body too large: at most "+strconv.FormatInt(limit, 10)+" bytes", http.StatusRequestEntityTooLarge)
				return
			}
			http.Error(w, "the body is not whole: send it again", http.StatusRequestTimeout) // the device went away, or is too slow; a proxy may still listen
			return
		}
		reply, err := serve(device.WithLine(r.Context(), r.RemoteAddr), c)
		if err != nil {
			h.fail(w, r, c.device, err)
			return
		}
		if reply == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Type", "application/cbor")
		w.Header().Set("Content-Length", strconv.Itoa(len(reply)))
		_, _ = w.Write(reply) // the device went away: it will ask again
	}
}

func (h *handler) identify(w http.ResponseWriter, r *http.Request) (call, bool) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		http.Error(w, "a client certificate is needed", http.StatusUnauthorized)
		return call{}, false
	}
	p, err := h.peer(r)
	switch {
	case fault.KindOf(err) == fault.Unavailable: // nobody can tell, which is no answer about the device
		h.fail(w, r, p.Device, err)
		return call{}, false
	case err != nil:
		http.Error(w, "not a device that is let in: "+err.Error(), http.StatusForbidden)
		return call{}, false
	case !p.Operational:
		http.Error(w, "the factory's identity (IDevID) may only enrol: get an operational one (LDevID) by EST first", http.StatusForbidden)
		return call{}, false
	case p.Ended && r.URL.Path != receiptPath:
		http.Error(w, "the life of device "+p.Device+" is over", http.StatusGone)
		return call{}, false
	}
	return call{device: p.Device, caller: access.DeviceCaller(p.Device)}, true
}

func (h *handler) checkin(ctx context.Context, c call) ([]byte, error) {
	return h.cfg.Checkin(ctx, c.caller, c.device, c.body)
}

func (h *handler) attest(ctx context.Context, c call) ([]byte, error) {
	out, err := h.cfg.Attest(ctx, c.caller, c.device, c.body)
	if err != nil {
		return nil, err
	}
	return wire.EncodeAttestReply(out)
}

func (h *handler) attestKey(ctx context.Context, c call) ([]byte, error) {
	return nil, h.cfg.AttestKey(ctx, c.caller, c.device, c.body)
}

func (h *handler) trust(ctx context.Context, c call) ([]byte, error) {
	return nil, h.cfg.Trust(ctx, c.caller, c.device, c.body)
}

func (h *handler) log(ctx context.Context, c call) ([]byte, error) {
	out, err := h.cfg.Log(ctx, c.caller, c.device, c.body)
	if err != nil {
		return nil, err
	}
	return wire.EncodeLogReply(out)
}

func (h *handler) telemetry(ctx context.Context, c call) ([]byte, error) {
	return nil, h.cfg.Telemetry(ctx, c.caller, c.device, c.body)
}

func (h *handler) receipt(ctx context.Context, c call) ([]byte, error) {
	return nil, h.cfg.Receipt(ctx, c.caller, c.device, c.body)
}

// artifact serves bytes by digest, with ranges and a strong validator: the digest is the ETag.
func (h *handler) artifact(w http.ResponseWriter, r *http.Request) {
	c, ok := h.identify(w, r)
	if !ok {
		return
	}
	digest, ok := parseDigest(r.PathValue("digest"))
	if !ok {
		http.Error(w, "a digest is 64 lower-case hex digits", http.StatusBadRequest)
		return
	}
	f, err := h.cfg.Artifact(r.Context(), c.caller, c.device, digest)
	if err != nil {
		h.fail(w, r, c.device, err)
		return
	}
	defer f.Close()
	w.Header().Set("ETag", `"`+r.PathValue("digest")+`"`)
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := content.Serve(w, r, f, func(ctx context.Context, err error) {
		h.cfg.Logger.ErrorContext(ctx, "device call", "device", c.device, "path", r.URL.Path, "error", err)
	}); err != nil {
		h.fail(w, r, c.device, err)
	}
}

func parseDigest(s string) (d [32]byte, ok bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(d) || s != strings.ToLower(s) { // the digest is the ETag: there is one way to write it
		return d, false
	}
	return [32]byte(b), true
}

// fail maps faults to statuses. Devices retry on 409, 429 and 5xx, and give up on the rest.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, device string, err error) {
	status := http.StatusInternalServerError
	if f, ok := errors.AsType[*fault.Fault](err); ok {
		switch f.Kind {
		case fault.Invalid:
			status = http.StatusBadRequest
		case fault.NotFound:
			status = http.StatusNotFound
		case fault.Conflict:
			status = http.StatusConflict
		case fault.Exhausted:
			status = http.StatusTooManyRequests
			w.Header().Set("Retry-After", "3600")
		case fault.Denied:
			status = http.StatusForbidden
		case fault.Unavailable:
			status = http.StatusServiceUnavailable
			w.Header().Set("Retry-After", "1")
		case fault.Internal:
		}
	}
	if status == http.StatusInternalServerError {
		h.cfg.Logger.ErrorContext(r.Context(), "device call", "device", device, "path", r.URL.Path, "error", err)
		http.Error(w, "internal error", status)
		return
	}
	level := slog.LevelWarn
	if status == http.StatusServiceUnavailable || status == http.StatusConflict {
		level = slog.LevelInfo // it asks again by itself
	}
	h.cfg.Logger.Log(r.Context(), level, "device call refused", "device", device, "path", r.URL.Path, "error", err)
	http.Error(w, err.Error(), status)
}
