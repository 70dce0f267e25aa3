package deviceapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"golang.org/x/time/rate"

	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/wire"
)

// TrustPrefix is where the signed history of trust bundles is served.
const TrustPrefix = "/trust/v1/"

// TrustConfig is where the history comes from. It is public, and says nothing that is not in the public log.
type TrustConfig struct {
	Newest func(ctx context.Context, product string) ([]byte, error)
	Step   func(ctx context.Context, product string, version uint64) (step []byte, final bool, err error)
	// Home says where a device is at home: see wire.HomeHint. Nothing is known: nothing in it.
	Home   func(ctx context.Context, product, device string) (wire.HomeHint, error)
	Logger *slog.Logger
}

// What strangers may ask of this node: a fleet of a million that comes back at once is served within a day, and nobody else waits for it.
const (
	trustRate  = 200 // answers a second
	trustBurst = 1000
)

// Trust serves the signed history of trust bundles to anybody, without a certificate: GET /trust/v1/{product} says where it ends
// (wire.NewestBundle), GET /trust/v1/{product}/{version} gives one bundle of it (wire.BundleStep). Caches may keep the bundles for good.
// GET /trust/v1/{product}/devices/{device} leads home a device that was handed to another instance (wire.HomeHint).
func Trust(cfg TrustConfig) http.Handler {
	limit := rate.NewLimiter(trustRate, trustBurst)
	mux := http.NewServeMux()
	serve := func(pattern string, get func(r *http.Request) (body []byte, cache string, err error)) {
		mux.HandleFunc("GET "+TrustPrefix+pattern, func(w http.ResponseWriter, r *http.Request) {
			if !limit.Allow() {
				w.Header().Set("Retry-After", "5")
				http.Error(w, "too many ask for trust bundles: ask again", http.StatusServiceUnavailable)
				return
			}
			body, cache, err := get(r)
			if err != nil {
				trustFault(w, r, cfg.Logger, err)
				return
			}
			w.Header().Set("Content-Type", "application/cbor")
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			w.Header().Set("Cache-Control", cache)
			_, _ = w.Write(body) // whoever asked has gone: it will ask again
		})
	}
	serve("{product}", func(r *http.Request) ([]byte, string, error) {
		product, err := productOf(r)
		if err != nil {
			return nil, "", err
		}
		b, err := cfg.Newest(r.Context(), product)
		return b, "public, max-age=5", err
	})
	serve("{product}/{version}", func(r *http.Request) ([]byte, string, error) {
		product, err := productOf(r)
		if err != nil {
			return nil, "", err
		}
		version, err := strconv.ParseUint(r.PathValue("version"), 10, 62)
		if err != nil || r.PathValue("version") != strconv.FormatUint(version, 10) {
			return nil, "", fault.New(fault.Invalid, "bundle.version", "a version is a number in digits", "ask for a version as the trust record has it")
		}
		b, final, err := cfg.Step(r.Context(), product, version)
		if final {
			return b, "public, max-age=31536000, immutable", err
		}
		return b, "no-cache", err
	})
	serve("{product}/devices/{device}", func(r *http.Request) ([]byte, string, error) {
		product, err := productOf(r)
		if err != nil {
			return nil, "", err
		}
		id := r.PathValue("device")
		if !wire.ValidDeviceID(id) {
			return nil, "", fault.New(fault.Invalid, "device.id", "that is not a device's ID", "ask under the ID that the certificate names")
		}
		hint, err := cfg.Home(r.Context(), product, id)
		if err != nil {
			return nil, "", err
		}
		if len(hint.Record) == 0 && hint.Server == "" {
			return nil, "", fault.New(fault.NotFound, "device.home", "nothing is known here of another home of that device", "ask the server that the device belonged to before")
		}
		b, err := wire.EncodeHomeHint(hint)
		return b, "no-store", err
	})
	return mux
}

func productOf(r *http.Request) (string, error) {
	if p := r.PathValue("product"); wire.ValidName(p) {
		return p, nil
	}
	return "", fault.New(fault.Invalid, "bundle.product", "that is not a product's name", "ask for the product that the certificate names")
}

func trustFault(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	var f *fault.Fault
	status := http.StatusInternalServerError
	if errors.As(err, &f) {
		switch f.Kind { //nolint:exhaustive // what else there is, a stranger is not told
		case fault.Invalid:
			status = http.StatusBadRequest
		case fault.NotFound:
			status = http.StatusNotFound
		case fault.Unavailable:
			status = http.StatusServiceUnavailable
			w.Header().Set("Retry-After", "5")
		}
	}
	if status == http.StatusInternalServerError {
		log.ErrorContext(r.Context(), "trust bundles", "path", r.URL.Path, "error", err)
		http.Error(w, "internal error", status)
		return
	}
	http.Error(w, f.Error(), status)
}
